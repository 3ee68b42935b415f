"""How often each term stands in each text: counted once, BM25 of any saturation and length normalisation follows."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


@dataclass(frozen=True)
class TermCounts:
    """Terms of texts.

    Attributes:
        vocabulary: term to number, in the order in which they came.
        matrix: how often each term stands in each text, float32 [N, V].
        lengths: terms of each text, int64 [N].
    """

    vocabulary: Mapping[str, int]
    matrix: sparse.csr_matrix
    lengths: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        analyze: Callable[[str], list[str]],
        base: Mapping[str, int] = MappingProxyType({}),
        new: Mapping[str, int] = MappingProxyType({}),
    ) -> "TermCounts":
        """Count the terms into which ``analyze`` cuts each text.

        Terms of ``base`` and ``new`` have the numbers that these say; the vocabulary is ``new`` with all others, which
        get the numbers that follow.
        """
        vocabulary = dict(new)
        numbers, bounds = array("i"), array("q", [0])
        for text in texts:
            known = [(term, base.get(term)) for term in analyze(text)]
            numbers.extend(
                [vocabulary.setdefault(term, len(base) + len(vocabulary)) if n is None else n for term, n in known]
            )
            bounds.append(len(numbers))
        # One entry for each term of a text, however often it occurs there.
        ones, width = np.ones(len(numbers), np.float32), len(base) + len(vocabulary)
        matrix = sparse.csr_matrix((ones, np.asarray(numbers), np.asarray(bounds)), (len(bounds) - 1, width))
        matrix.sum_duplicates()
        return cls(vocabulary, matrix, np.diff(bounds))

    @property
    def average_length(self) -> float:
        """Of the texts, in terms."""
        return float(self.lengths.mean())

    def idf(self) -> NDArray[np.float32]:
        """Weight of each term by the number of texts n that hold it: log(1 + (N - n + 1/2) / (n + 1/2)), [V]."""
        held = np.bincount(self.matrix.indices, minlength=self.matrix.shape[1])
        return np.log1p((len(self.lengths) - held + 0.5) / (held + 0.5)).astype(np.float32)

    def weighted(self, idf: NDArray[np.float32], average_length: float, k1: float, b: float) -> sparse.csr_matrix:
        """BM25 of each term in each text: idf tf / (tf + k1 (1 - b + b length / average)), float32 [N, V]."""
        tf = self.matrix.data
        length = np.repeat(self.lengths / average_length, np.diff(self.matrix.indptr))
        scores = idf[self.matrix.indices] * tf / (tf + k1 * (1 - b + b * length))
        return sparse.csr_matrix(
            (scores.astype(np.float32), self.matrix.indices, self.matrix.indptr), self.matrix.shape
        )
