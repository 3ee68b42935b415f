"""Pseudo-queries: searches that nobody made, from what the shop has.

Three sources: pieces of titles, with an occasional typo; what an item is made of (attributes, brand, category); and
queries of the log, of which two that share a word are put together there, or one loses a word.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

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


def trait_queries(items: pl.DataFrame, seed: int) -> list[str]:
    """One pseudo-query per item: its leaf category and one or two of its brand and attribute values, in any order.

    Items without a category give their last title word for it; those with neither give "".
    """
    rng = np.random.default_rng(seed)
    uniform = rng.random((len(items), 2))
    out = []
    columns = ("title", "brand", "category", "attributes")
    for row, (many, order) in zip(items.select(columns).iter_rows(named=True), uniform.tolist(), strict=True):
        values = [row["brand"], *(one["value"] for one in row["attributes"] or ())]
        values = [value for value in dict.fromkeys(values) if value]
        kept = [values[i] for i in rng.permutation(len(values))[: 1 + int(many < 0.5)]]
        words = split_words(row["title"] or "")
        thing = (row["category"] or words or [""])[-1]
        out.append(" ".join([*kept, thing] if order < 0.8 else [thing, *kept]).strip().lower())
    return out


def rewritten_queries(queries: Sequence[str], n: int, seed: int) -> list[str]:
    """``n`` queries nobody typed: the beginning of one and the end of another that share a word, or one without a word.

    None is among the ``queries``. Fewer than ``n`` come back from a log whose queries have too little in common.
    """
    rng = np.random.default_rng(seed)
    words = [query.split() for query in queries]
    known = set(queries)
    places: dict[str, list[tuple[int, int]]] = {}
    for number, query in enumerate(words):
        for place, word in enumerate(query):
            places.setdefault(word, []).append((number, place))
    long = [number for number, query in enumerate(words) if len(query) > 1]
    out: dict[str, None] = {}
    if not long:
        return []
    for _ in range(4 * n):  # most draws are new; where few are, the log has no more to give
        query = words[long[int(rng.integers(len(long)))]]
        at = int(rng.integers(len(query)))
        if rng.random() < 0.7:
            others = places[query[at]]
            number, place = others[int(rng.integers(len(others)))]
            made = [*query[: at + 1], *words[number][place + 1 :]]
        else:
            made = [*query[:at], *query[at + 1 :]]
        text = " ".join(dict.fromkeys(made))
        if text and text not in known:
            out[text] = None
        if len(out) == n:
            break
    return list(out)
