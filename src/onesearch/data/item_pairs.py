"""Which items the same shoppers took: bought (or clicked) together, and one right after the other.

Give it the training page views only. For a shopper of the training part their own pairs are left out (``own``), or the
counts would hold the answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.common.sparse_files import load_csr
from onesearch.common.sparse_rows import product_of_few, top_k_of_few
from onesearch.common.text_numbers import TextNumbers
from onesearch.data.dataset import ragged_rows
from onesearch.data.histories import shopper_keys

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_LONGEST = 200  # items of a shopper that count, the newest; a crawler's list would be squared
_KEPT = 200  # neighbours kept of an item, the likest
_ROWS = 1024  # histories at a time
_AGE_POWER = 0.5  # a history item n places back weighs (n + 1) ** -0.5
NEXT_SHARE = 0.3  # weight of the next item's share beside the cosine, in the order of candidates


@dataclass(frozen=True)
class ItemNeighbours:
    """Scores of items beside a history, n requests: ``together`` and ``following``, sparse float32 [n, N] both."""

    together: sparse.csr_matrix
    following: sparse.csr_matrix


@dataclass(frozen=True)
class ItemPairs:
    """Counts of item pairs over shoppers.

    ::

        together(i, j)  = shoppers who took both / sqrt(shoppers of i · shoppers of j)              # cosine
        following(i, j) = shoppers who took j right after i / shoppers of i
        score of j beside a history = Σ over its items i of age(i)^-½ · (together(i, j) + 0.3 · following(i, j))

    Attributes:
        shoppers: who took each item, float32 [N].
        together: cosine of item pairs, CSR float32 [N, N], at most 200 a row; no item beside itself.
        following: share of the pairs in a row, CSR float32 [N, N].
        own: the items of each training shopper in time order, one list a shopper; names: shopper key to list number.
    """

    shoppers: Floats
    together: sparse.csr_matrix
    following: sparse.csr_matrix
    own: Ragged
    names: Mapping[str, int]

    @classmethod
    def from_page_views(cls, page_views: pl.DataFrame, items: pl.DataFrame) -> "ItemPairs":
        """Count the clicked and ordered items of every shopper (a user, else a session) of the *training* part."""
        n = len(items)
        # Each shopper's items in the order of time, an item once: at its first time.
        log = page_views.with_columns(shopper_keys(page_views).alias("shopper")).filter(pl.col("shopper").is_not_null())
        log = log.sort("time", maintain_order=True)
        both = log.select(
            pl.concat_list(pl.col("clicked").fill_null([]), pl.col("ordered").fill_null([])).alias("both")
        )
        rows = ragged_rows(both["both"], items["item_id"])
        names = log["shopper"].unique(maintain_order=True)
        number = dict(zip(names.to_list(), range(len(names)), strict=True))
        shopper = np.fromiter((number[key] for key in log["shopper"].to_list()), np.int64, len(log))[rows.owners]
        order = np.argsort(shopper, kind="stable")
        shopper, item = shopper[order], rows.values[order].astype(np.int64)
        _, first = np.unique(shopper * max(n, 1) + item, return_index=True)
        first.sort()
        shopper, item = shopper[first], item[first]
        own = Ragged.from_lengths(item.astype(np.int32), np.bincount(shopper, minlength=len(names)))
        own = own.last(_LONGEST)
        # Shoppers by items, bool [S, N]; pairs are its product with itself.
        owner, item = own.owners, own.values.astype(np.int64)
        taken = sparse.csr_matrix((np.ones(len(item), np.float32), (owner, item)), shape=(len(names), n))
        shoppers = np.asarray(taken.sum(0), np.float32).ravel()
        root = sparse.diags(1 / np.sqrt(np.maximum(shoppers, 1)))
        together = sparse.csr_matrix(root @ (taken.T @ taken) @ root, dtype=np.float32)
        together.setdiag(0)
        together.eliminate_zeros()
        # Pairs in a row are neighbours in the flat list that have the same owner.
        beside = np.flatnonzero(owner[1:] == owner[:-1])
        share = (1 / np.maximum(shoppers[item[beside]], 1)).astype(np.float32)
        following = sparse.csr_matrix((share, (item[beside], item[beside + 1])), shape=(n, n))
        return cls(shoppers, _likest(together), _likest(following), own, number)

    def own_items(self, page_views: pl.DataFrame) -> Ragged:
        """What the shopper of each page view took in the training part, to be left out; n lists."""
        keys = shopper_keys(page_views).to_list()
        rows = np.fromiter((self.names.get(key, -1) if key else -1 for key in keys), np.int64, len(keys))
        known = np.flatnonzero(rows >= 0)
        lengths = np.zeros(len(rows), np.int64)
        picked = self.own.select(rows[known])
        lengths[known] = picked.lengths
        return Ragged.from_lengths(picked.values, lengths)

    def beside(self, history: Ints, own: Ragged | None = None) -> ItemNeighbours:
        """Scores of all items beside each history.

        Args:
            history: item rows int32 [n, H], newest last, -1 for none.
            own: for training rows, what each shopper took in the training part: their own pairs are not counted.
        """
        n, n_items = len(history), len(self.shoppers)
        # History weights [n, N]: the newest item 1, older ones less; an item taken twice counts once, at its newest.
        known = history >= 0
        age = np.cumsum(known[:, ::-1], 1)[:, ::-1]  # 1 for the newest
        row, column = np.nonzero(known)
        item = history[row, column].astype(np.int64)
        inside = item < n_items  # items newer than the counts have none
        weight = (age[row, column].astype(np.float32) ** -_AGE_POWER)[inside]
        row, item = row[inside], item[inside]
        order = np.lexsort((-weight, item, row))
        row, item, weight = row[order], item[order], weight[order]
        new = np.ones(len(row), bool)
        new[1:] = (row[1:] != row[:-1]) | (item[1:] != item[:-1])
        given = sparse.csr_matrix((weight[new], (row[new], item[new])), shape=(n, n_items))
        together, following = product_of_few(given, self.together), product_of_few(given, self.following)
        if own is not None:
            together = together - self._own_together(given, own)
            following = following - self._own_following(given, own)
        return ItemNeighbours(_positive(together), _positive(following))

    def _own_together(self, given: sparse.csr_matrix, own: Ragged) -> sparse.csr_matrix:
        """What a shopper's own pairs add to the cosines: Σ_i w_i / sqrt(s_i s_j) over own items i and j, i ≠ j."""
        root = (1 / np.sqrt(np.maximum(self.shoppers, 1))).astype(np.float32)
        taken = sparse.csr_matrix((np.ones(len(own.values), np.float32), own.values, own.offsets), shape=given.shape)
        counted = given.multiply(taken).tocsr()  # history items that are in the shopper's own list
        row = np.repeat(np.arange(len(own)), np.diff(counted.indptr))
        mass = np.bincount(row, counted.data * root[counted.indices], len(own)).astype(np.float32)
        # Only what is there is touched: a diagonal of all items would cost more than all else.
        taken.data = mass[own.owners] * root[own.values]
        counted.data = counted.data * root[counted.indices] ** 2
        return sparse.csr_matrix(taken - counted)

    def _own_following(self, given: sparse.csr_matrix, own: Ragged) -> sparse.csr_matrix:
        """What a shopper's own pairs in a row add: w_i / s_i at j for each own pair (i, j)."""
        owner = own.owners
        at = np.flatnonzero(owner[1:] == owner[:-1])
        row, first, second = owner[at], own.values[at], own.values[at + 1]
        weight = np.asarray(given[row, first]).ravel() / np.maximum(self.shoppers[first], 1)
        return sparse.csr_matrix((weight.astype(np.float32), (row, second)), shape=given.shape)

    def top(
        self, history: Ints, k: int, own: Ragged | None = None, without: Ints | None = None
    ) -> tuple[Ints, Floats, Floats]:
        """The ``k`` items that go best with each history: rows int32 [n, k] (-1 padded), both scores float32 [n, k].

        ``own`` as in :meth:`beside`; ``without`` int32 [n, H] are items left out of the answer, such as those bought.
        """
        n, n_items = len(history), len(self.shoppers)
        items = np.full((n, k), -1, np.int32)
        scores = np.zeros((2, n, k), np.float32)
        for begin in range(0, n, _ROWS):
            part = slice(begin, begin + _ROWS)
            found = self.beside(history[part], None if own is None else own.select(np.arange(n)[part]))
            both = sparse.csr_matrix(found.together + np.float32(NEXT_SHARE) * found.following)
            if without is not None:
                row, column = np.nonzero((without[part] >= 0) & (without[part] < n_items))
                left_out = (np.ones(len(row), np.float32), (row, without[part][row, column]))
                both = sparse.csr_matrix(both - both.multiply(sparse.csr_matrix(left_out, shape=both.shape) > 0))
            best, score = top_k_of_few(both, k)
            some, width = score > 0, best.shape[1]
            items[part, :width] = np.where(some, best, -1)
            at = np.arange(len(best)).repeat(width), best.ravel()
            for place, one in enumerate((found.together, found.following)):
                scores[place, part, :width] = np.asarray(one[at]).reshape(best.shape) * some
        return items, scores[0], scores[1]

    def save(self, folder: Path) -> None:
        """Write arrays without objects and one JSON."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "shoppers.npy", self.shoppers, allow_pickle=False)
        for name, matrix in (("together", self.together), ("following", self.following)):
            for part in ("data", "indices", "indptr"):
                np.save(folder / f"{name}_{part}.npy", getattr(matrix, part), allow_pickle=False)
        np.save(folder / "own_values.npy", self.own.values, allow_pickle=False)
        np.save(folder / "own_offsets.npy", self.own.offsets, allow_pickle=False)
        write_json(folder / "shoppers.json", list(self.names))

    @classmethod
    def load(cls, folder: Path) -> "ItemPairs":
        """Read what :meth:`save` wrote."""

        def array(name: str) -> NDArray[np.generic]:
            return map_array(folder / f"{name}.npy")

        shoppers = np.asarray(array("shoppers"), np.float32)
        n = len(shoppers)
        together, following = (load_csr(folder, f"{name}_", n, n) for name in ("together", "following"))
        own = Ragged(np.asarray(array("own_values"), np.int32), np.asarray(array("own_offsets"), np.int64))
        try:
            names = TextNumbers(read_json(folder / "shoppers.json"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'shoppers.json'}: {error}; make the run's stage data again") from None
        return cls(shoppers, together, following, own, names)


def _likest(pairs: sparse.csr_matrix) -> sparse.csr_matrix:
    """The ``_KEPT`` largest entries of each row."""
    lengths = np.diff(pairs.indptr)
    if lengths.max(initial=0) <= _KEPT:
        return pairs
    row = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((pairs.indices, -pairs.data, row))
    within = np.arange(len(order)) - np.repeat(pairs.indptr[:-1], lengths)
    kept = order[within < _KEPT]
    return sparse.csr_matrix((pairs.data[kept], (row[kept], pairs.indices[kept])), shape=pairs.shape)


def _positive(scores: sparse.spmatrix) -> sparse.csr_matrix:
    """Without what leaving out has made zero, or less by rounding."""
    found = sparse.csr_matrix(scores, dtype=np.float32)
    found.data[found.data < 1e-6] = 0
    found.eliminate_zeros()
    return found
