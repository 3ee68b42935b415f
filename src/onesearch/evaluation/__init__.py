"""Baselines, slices, significance and reports."""
