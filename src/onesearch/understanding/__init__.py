"""Query understanding: the lexicon of the 18 attribute types and its matching."""
