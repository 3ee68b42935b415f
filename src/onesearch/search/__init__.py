"""Constrained beam search, the plain searchers beside it, and the SearchEngine."""
