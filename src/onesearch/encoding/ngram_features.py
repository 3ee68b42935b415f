"""Texts to bags of feature numbers: words, adjacent word pairs and hashed character n-grams."""

import zlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.text import split_words

_UNKNOWN: Final = -1
_TEXTS_AT_ONCE: Final = 16_384


def character_ngrams(word: str, sizes: Sequence[int], buckets: int) -> list[int]:
    """Bucket numbers (0..buckets-1) of the n-grams of ``<word>``; none for one-character words and numbers.

    Misspelt words share most n-grams with the right spelling, so a typo moves a vector only a little.
    """
    if len(word) < 3 or not word.isalpha():
        return []
    marked = f"<{word}>"
    return [
        zlib.crc32(marked[start : start + size].encode()) % buckets
        for size in sizes
        for start in range(len(marked) - size + 1)
    ]


class NgramFeatures:
    """The feature numbers of a text, as a pure function of the text.

    Numbering: words first, then word pairs, then ``buckets`` character n-gram buckets. Words and pairs come from a
    vocabulary; a word outside it still has its character n-grams.

    Attributes:
        words: the vocabulary, [V].
        pairs: sorted keys ``first * V + second`` of the known word pairs, int64 [P].
        idf: inverse document frequency of words and pairs in the texts they were built from, float32 [V + P].
    """

    def __init__(
        self,
        words: Sequence[str],
        pairs: NDArray[np.int64],
        idf: NDArray[np.float32],
        sizes: Sequence[int],
        buckets: int,
    ) -> None:
        self.words, self.pairs, self.idf = list(words), pairs, idf
        self.sizes, self.buckets = tuple(sizes), buckets
        self._number = {word: i for i, word in enumerate(self.words)}
        self._ngrams = Ragged.from_lists([character_ngrams(word, self.sizes, buckets) for word in self.words])

    @classmethod
    def build(
        cls,
        texts: Iterable[str],
        min_word: int = 2,
        min_pair: int = 2,
        max_pairs: int = 400_000,
        sizes: Sequence[int] = (3, 4),
        buckets: int = 20_000,
    ) -> "NgramFeatures":
        """Vocabulary of a corpus: words in at least ``min_word`` texts, pairs in at least ``min_pair`` texts."""
        # every word by its first place, a number each: words as texts would take ten times as much
        number: dict[str, int] = {}
        flat, lengths = array("i"), array("i")
        for text in texts:
            split = split_words(text)
            flat.extend(number.setdefault(word, len(number)) for word in split)
            lengths.append(len(split))
        every = Ragged.from_lengths(np.array(flat, np.int32), np.array(lengths, np.int64))
        # words that enough texts hold, in alphabetical order
        word_counts = np.bincount(_distinct(every.values.astype(np.int64), every.owners), minlength=len(number))
        counts = dict(zip(number, word_counts.tolist(), strict=True))
        words = sorted(word for word, count in counts.items() if count >= min_word)
        # adjacent pairs of known words, counted once per text
        table = cls(words, np.zeros(0, np.int64), np.zeros(len(words), np.float32), sizes, 1)
        renumbered = np.fromiter((table._number.get(word, _UNKNOWN) for word in number), np.int32, len(number))
        keys, owners = table._pair_keys(Ragged(renumbered[every.values], every.offsets))
        pairs, pair_counts = np.unique(_distinct(keys, owners), return_counts=True)
        # too many pairs: a higher threshold keeps the frequent ones
        if len(pairs) > max_pairs:
            min_pair = max(min_pair, int(np.sort(pair_counts)[-max_pairs]))
        kept = pair_counts >= min_pair
        # idf of words and pairs; n-gram buckets have none, as each stands for many n-grams
        document_counts = np.concatenate([np.array([counts[word] for word in words], np.float64), pair_counts[kept]])
        idf = np.log1p(len(every) / np.maximum(document_counts, 1.0)).astype(np.float32)
        return cls(words, pairs[kept], idf, sizes, buckets)

    def __len__(self) -> int:
        return len(self.words) + len(self.pairs) + self.buckets

    @property
    def kinds(self) -> tuple[slice, slice, slice]:
        """Ranges of feature numbers of words, pairs and n-gram buckets."""
        words, pairs = len(self.words), len(self.pairs)
        return slice(0, words), slice(words, words + pairs), slice(words + pairs, len(self))

    def bags(self, texts: Sequence[str]) -> Ragged:
        """Feature numbers of each text; the order within a text has no meaning."""
        # some texts at a time: on the way to its numbers a text takes a hundred times their room
        parts = [self._bags(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE)]
        if len(parts) == 1:
            return parts[0]
        values = [np.zeros(0, np.int32), *(part.values for part in parts)]
        lengths = [np.zeros(0, np.int64), *(part.lengths for part in parts)]
        return Ragged.from_lengths(np.concatenate(values), np.concatenate(lengths))

    def _bags(self, texts: Sequence[str]) -> Ragged:
        tokens, unknown = self._tokens([split_words(text) for text in texts])
        word_at, owner_at = tokens.values, tokens.owners
        known = word_at != _UNKNOWN
        keys, pair_owners = self._pair_keys(tokens)
        # pairs are looked up by binary search among the sorted keys
        place = np.searchsorted(self.pairs, keys)
        found = (
            self.pairs[np.minimum(place, len(self.pairs) - 1)] == keys if len(self.pairs) else np.zeros(len(keys), bool)
        )
        grams = self._ngrams.select(word_at[known])
        base = len(self.words) + len(self.pairs)
        # words outside the vocabulary have n-grams only; those of known words are kept ready
        new_grams = [character_ngrams(word, self.sizes, self.buckets) for word in unknown]
        new_owners = np.repeat(owner_at[~known], np.fromiter(map(len, new_grams), np.int64, len(new_grams)))
        values = np.concatenate(
            [
                word_at[known],
                place[found] + len(self.words),
                grams.values + base,
                np.fromiter(chain.from_iterable(new_grams), np.int64, len(new_owners)) + base,
            ]
        )
        owners = np.concatenate(
            [owner_at[known], pair_owners[found], np.repeat(owner_at[known], grams.lengths), new_owners]
        )
        order = np.argsort(owners, kind="stable")
        return Ragged.from_lengths(values[order].astype(np.int32), np.bincount(owners, minlength=len(texts)))

    def _tokens(self, documents: Sequence[Sequence[str]]) -> tuple[Ragged, list[str]]:
        number = self._number
        lengths = np.fromiter(map(len, documents), np.int64, len(documents))
        flat = list(chain.from_iterable(documents))
        values = np.fromiter((number.get(word, _UNKNOWN) for word in flat), np.int32, len(flat))
        return Ragged.from_lengths(values, lengths), [flat[i] for i in np.flatnonzero(values == _UNKNOWN).tolist()]

    def _pair_keys(self, tokens: Ragged) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        first, second, owners = tokens.values[:-1], tokens.values[1:], tokens.owners
        adjacent = (owners[:-1] == owners[1:]) & (first != _UNKNOWN) & (second != _UNKNOWN)
        return first[adjacent].astype(np.int64) * len(self.words) + second[adjacent], owners[:-1][adjacent]

    def arrays(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Arrays and JSON-able values that :meth:`restore` takes."""
        return {"pairs": self.pairs, "idf": self.idf}, {
            "words": self.words,
            "sizes": list(self.sizes),
            "buckets": self.buckets,
        }

    @classmethod
    def restore(cls, arrays: dict[str, NDArray[Any]], values: dict[str, Any]) -> "NgramFeatures":
        """The inverse of :meth:`arrays`."""
        return cls(values["words"], arrays["pairs"], arrays["idf"], values["sizes"], int(values["buckets"]))


def _distinct(values: NDArray[np.int64], owners: NDArray[np.int64]) -> NDArray[np.int64]:
    """The values [m] without those that the same owner has already, in ascending order."""
    order = np.lexsort((owners, values))
    values, owners = values[order], owners[order]
    first = np.ones(len(values), bool)
    first[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
    return values[first]
