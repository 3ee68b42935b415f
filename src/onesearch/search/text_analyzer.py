"""Texts to index terms: stemmed words of spaced scripts, characters and their bigrams of unspaced ones."""

from collections.abc import Callable
from itertools import pairwise
from typing import Final

import Stemmer

from onesearch.data.text import is_unspaced, split_words

STEMMER: Final = "english"
LONGEST_WORD: Final = 40
"""Letters of a word that is kept, or taken apart: all ways to do so are its length squared."""


class Analyzer:
    """Texts to index terms."""

    def __init__(self, stemmer: str | None) -> None:
        if stemmer is not None and stemmer not in Stemmer.algorithms():
            raise ValueError(f"unknown stemmer {stemmer!r}; choose from {', '.join(Stemmer.algorithms())} or null")
        self._stem: Callable[[str], str] = Stemmer.Stemmer(stemmer).stemWord if stemmer else str
        self._stems: dict[str, str] = {}

    def __call__(self, text: str) -> list[str]:
        """Terms of a text, in order, repetitions kept."""
        stems, terms = self._stems, []
        for word in split_words(text):
            term = stems.get(word)
            if term is None:
                if len(stems) > 500_000:  # a server sees endless misspellings; start over rather than grow
                    stems.clear()
                term = self._stem(word)
                if len(word) <= LONGEST_WORD:
                    stems[word] = term
            terms.append(term)
        if is_unspaced(text):
            terms += [first + second for first, second in pairwise(terms) if is_unspaced(first) and is_unspaced(second)]
        return terms
