"""Pseudo-queries: random parts of item titles, with an occasional typo, as free (query, item) training pairs."""

from collections.abc import Sequence

import numpy as np

from onesearch.data.text import is_unspaced, split_words

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def pseudo_queries(
    titles: Sequence[str],
    seed: int,
    min_words: int = 1,
    max_words: int = 5,
    contiguous: float = 0.5,
    typos: float = 0.05,
) -> list[str]:
    """One pseudo-query per title: some of its words in their order.

    Args:
        titles: item titles.
        seed: the same seed gives the same pseudo-queries.
        min_words: least number of words kept (fewer if the title is shorter).
        max_words: largest number of words kept; doubled for scripts whose words are characters.
        contiguous: probability of a run of adjacent words instead of a scattered subset.
        typos: probability that one word of four or more letters is misspelt.
    """
    rng = np.random.default_rng(seed)
    # four numbers per title say how many words, which way, where, and whether one is misspelt
    uniform = rng.random((len(titles), 4))
    out = []
    for title, (size, style, place, slip) in zip(titles, uniform.tolist(), strict=True):
        words = split_words(title)
        if not words:
            out.append("")
            continue
        unspaced = is_unspaced(title)
        # in unspaced scripts a word is about two characters
        most = max_words * 2 if unspaced else max_words
        keep = min(len(words), min_words + int(size * (most - min_words + 1)))
        # a run of adjacent words, as in "steel lamp", or a scattered subset, as in "red 60 watt"
        if style < contiguous:
            start = int(place * (len(words) - keep + 1))
            chosen = words[start : start + keep]
        else:
            chosen = [words[i] for i in np.sort(rng.permutation(len(words))[:keep]).tolist()]
        if slip < typos:
            chosen = _misspell(chosen, rng)
        out.append("".join(chosen) if unspaced else " ".join(chosen))
    return out


def _misspell(words: list[str], rng: np.random.Generator) -> list[str]:
    """One slip of the finger (a letter dropped, doubled, swapped or replaced) in one long word."""
    long = [i for i, word in enumerate(words) if len(word) >= 4 and word.isascii() and word.isalpha()]
    if not long:
        return words
    at = long[int(rng.integers(len(long)))]
    word = words[at]
    place, kind = int(rng.integers(1, len(word) - 1)), int(rng.integers(4))
    if kind == 0:
        word = word[:place] + word[place + 1 :]
    elif kind == 1:
        word = word[:place] + word[place] + word[place:]
    elif kind == 2:
        word = word[:place] + word[place + 1] + word[place] + word[place + 2 :]
    else:
        word = word[:place] + _LETTERS[int(rng.integers(26))] + word[place + 1 :]
    return [*words[:at], word, *words[at + 1 :]]
