"""Traits: what an item is described by, and what searched words say of them.

A query that nobody typed before has words that others typed, and the items they clicked have attributes and title words
in common with items that nobody clicked. So a word is joined to traits by the clicks of the training part, and an item
is as good as its traits: the back-off of click counts to new queries *and* new items.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from onesearch.data.ragged import Ragged

Floats = NDArray[np.float32]
_MOST = 24  # traits of an item that count
_FEWEST_ITEMS, _LARGEST_SHARE = 3, 0.2  # rarer traits cannot be learned, commoner ones say nothing
_SMOOTHING = np.float32(5.0)


def attributes(items: pl.DataFrame) -> pl.Series:
    """Attribute values with their types, brand and leaf category of every item, as lists of texts."""
    typed = pl.concat_str(pl.element().struct.field("type"), pl.element().struct.field("value"), separator="=")
    of_item = pl.concat_list(
        pl.col("attributes").list.eval(typed).fill_null([]),
        pl.concat_str(pl.lit("brand="), pl.col("brand")),
        pl.concat_str(pl.lit("category="), pl.col("category").list.last()),
    )
    lower = of_item.list.eval(pl.element().str.to_lowercase()).list.drop_nulls()
    return items.select(lower.list.unique(maintain_order=True).alias("traits")).to_series()


def title_words(items: pl.DataFrame, analyze: Callable[[str], list[str]]) -> pl.Series:
    """The distinct terms of every title, as lists of texts."""
    pieces = items.select(pl.col("title").fill_null("").str.split(" ").alias("piece")).with_row_index("row")
    exploded = pieces.explode("piece")
    distinct = exploded.select(pl.col("piece").unique()).to_series()
    terms = pl.DataFrame(
        {"piece": distinct, "traits": [analyze(piece) for piece in distinct.to_list()]},
        schema={"piece": pl.String, "traits": pl.List(pl.String)},
    )
    joined = exploded.join(terms, on="piece", how="left", maintain_order="left")
    lists = joined.group_by("row", maintain_order=True).agg(pl.col("traits").explode(empty_as_null=False))
    return lists["traits"].list.drop_nulls().list.unique(maintain_order=True)


@dataclass(frozen=True)
class TraitClicks:
    """How much likelier an item with a trait is clicked when a word is searched for.

    Attributes:
        names: trait to number.
        unseen: float32 [W], log lift of any trait never clicked for the word; ``seen`` float32 [W, T], what is to be
            added where it was.
    """

    names: Mapping[str, int]
    unseen: Floats
    seen: sparse.csr_matrix

    @classmethod
    def of(cls, traits: pl.Series, words_of_items: sparse.csr_matrix) -> "TraitClicks":
        """From lists of traits [N] and clicks of words on items, [W, N].

        The lift is ``log(P(trait | word) / P(trait))``, smoothed towards 0.
        """
        counts = (
            traits.explode(empty_as_null=False)
            .value_counts()
            .filter(pl.col("count").is_between(_FEWEST_ITEMS, max(_FEWEST_ITEMS, _LARGEST_SHARE * len(traits))))
        )
        names = {name: i for i, name in enumerate(sorted(counts[counts.columns[0]].to_list()))}
        numbered = _numbered(traits, names)
        ones = np.ones(len(numbered.values), np.float32)
        pairs = words_of_items @ sparse.csr_matrix(
            (ones, numbered.values, numbered.offsets), shape=(len(traits), len(names))
        )
        of_word, of_trait = (np.asarray(pairs.sum(axis), np.float32).ravel() for axis in (1, 0))
        share = (of_trait + 1) / (of_trait.sum() + len(of_trait)) if len(of_trait) else of_trait
        seen = sparse.csr_matrix(pairs, dtype=np.float32, copy=True)
        seen.data = np.log1p(seen.data / (_SMOOTHING * share[seen.indices])).astype(np.float32)
        return cls(names, np.log(_SMOOTHING / (of_word + _SMOOTHING)), seen)

    def numbers(self, traits: pl.Series) -> Ragged:
        """The known ones of each item's traits, by number."""
        return _numbered(traits, self.names)

    def lifts(self, words: NDArray[np.int32], traits: Ragged, items: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Of candidates, float32 [n, C] each: the mean lift over their traits, and the sum of the positive ones.

        A trait's lift is its mean over the query's ``words`` int32 [n, Q], -1 for none. ``traits`` of all item rows,
        ``items`` int64 [n, C] rows, -1 for none.
        """
        n = len(words)
        present = words >= 0
        share = 1.0 / np.maximum(present.sum(1), 1, dtype=np.float32)
        row, _ = present.nonzero()
        mean = sparse.csr_matrix((share[row], (row, words[present])), shape=(n, len(self.unseen)))
        of_trait = np.zeros((n, len(self.names) + 1), np.float32)  # the last column answers for 'none'
        of_trait[:, :-1] = (mean @ self.seen).toarray() + (mean @ self.unseen)[:, None]
        of_item = _rows(traits, items)
        values = of_trait[np.arange(n)[:, None, None], of_item]
        known = np.maximum((of_item >= 0).sum(2), 1)
        return (values.sum(2) / known).astype(np.float32), np.maximum(values, 0).sum(2)


def _rows(traits: Ragged, items: NDArray[np.int64]) -> NDArray[np.int32]:
    """Traits of the candidates [n, C] alone: int32 [n, C, 24], -1 for none."""
    safe = np.maximum(items, 0)
    place = traits.offsets[safe][..., None] + np.arange(_MOST)
    inside = (place < traits.offsets[safe + 1][..., None]) & (items >= 0)[..., None]
    if not len(traits.values):
        return np.full(inside.shape, -1, np.int32)
    return np.where(inside, traits.values[np.minimum(place, len(traits.values) - 1)], np.int32(-1))


def _numbered(traits: pl.Series, names: Mapping[str, int]) -> Ragged:
    """Lists of texts as rows of numbers; unknown ones, and those beyond the first few, left out."""
    known = pl.DataFrame(
        {"trait": list(names), "number": list(names.values())}, schema={"trait": pl.String, "number": pl.Int32}
    )
    given = pl.DataFrame({"trait": traits}).with_row_index("row").explode("trait")
    found = given.join(known, on="trait", how="inner", maintain_order="left")
    row = found["row"].to_numpy().astype(np.int64)
    lengths = np.bincount(row, minlength=len(traits))
    place = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
    kept = place < _MOST
    return Ragged.from_lengths(found["number"].to_numpy()[kept], np.minimum(lengths, _MOST))
