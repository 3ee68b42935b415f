"""What the rules in force for a search do to the items of one snapshot: what their scores get, and who is not there.

A boost's group is told by the numbers that its names have in the columns of the filters, so that it holds items that
come later, and costs one look-up for each candidate, however many rules there are::

    added[c] = Σ log times  over the boosts that name c,     for each brand, seller, category path and item
    boost    = added[brand] + added[seller] + added[path] + added[item]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_

import numpy as np
from numpy.typing import NDArray

from onesearch.index.item_filters import ItemMask
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.rules import BoostRule, Hide, Touching

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class RuleEffects:
    """What boosts and hiding rules do to a snapshot's items.

    Attributes:
        boost: what the scores get, in the place of the boosts that the engine was made with.
        shown: the items that no rule hides; None where all are shown.
    """

    boost: "RuleBoost"
    shown: ItemMask | None

    @classmethod
    def from_rules(cls, touching: Touching, snapshot: Snapshot) -> "RuleEffects":
        """Of the rules that touch a search."""
        return cls(RuleBoost(touching.boosts, snapshot), _shown(touching.hides, snapshot))

    def within(self, mask: ItemMask | None) -> ItemMask | None:
        """The items of a filter that are shown."""
        return mask if self.shown is None else self.shown if mask is None else mask & self.shown


class RuleBoost:
    """``Σ log times`` of an item, over the boosts whose group it belongs to."""

    def __init__(self, boosts: Sequence[BoostRule], snapshot: Snapshot) -> None:
        self._filters = snapshot.filters
        # Columns of no item: their numberings are those of all items.
        names = self._filters.columns_of(np.zeros(0, np.int64))
        self._added: dict[str, Floats] = {}
        items: dict[int, float] = {}
        for boost in boosts:
            # The numbers of the group's names; of a category those of all paths that it is a level of.
            value = math.log(boost.times)
            match boost.column:
                case "item_id":
                    for row in {snapshot.number[i] for i in boost.values if i in snapshot.number}:
                        items[row] = items.get(row, 0.0) + value
                    continue
                case "category":
                    numbering, codes = names.paths.numbering, names.paths.below(boost.values)
                case "brand":
                    numbering, codes = names.brand.numbering, names.brand.numbers(boost.values)
                case "seller":
                    numbering, codes = names.seller.numbering, names.seller.numbers(boost.values)
            # The last entry is for items without a name, whose code is -1.
            added = self._added.setdefault(boost.column, np.zeros(len(numbering) + 1, np.float32))
            added[[code for code in codes if code < len(added) - 1]] += value  # names may come while this is made
        # Of boosted items the rows, ascending, and what each gets.
        self._rows = np.array(sorted(items), np.int64)
        self._of_rows = np.array([items[row] for row in self._rows.tolist()], np.float32)

    def take(self, rows: NDArray[np.integer]) -> Floats:
        """Of the items of some rows, float32 of the same shape."""
        out = np.zeros(rows.shape, np.float32)
        if self._added:
            columns = self._filters.columns_of(rows.ravel())
            codes = {"brand": columns.brand.code, "seller": columns.seller.code, "category": columns.paths.code}
            for column, added in self._added.items():
                out += added[codes[column]].reshape(rows.shape)
        if len(self._rows):
            at = np.searchsorted(self._rows, rows).clip(max=len(self._rows) - 1)
            out += np.where(self._rows[at] == rows, self._of_rows[at], 0)
        return out


def _shown(hides: Sequence[Hide], snapshot: Snapshot) -> ItemMask | None:
    """All items but those that are hidden; None where nothing is."""
    masks = []
    # Groups as filters that must not match, which keep their sets from one snapshot to the next.
    groups = {hide.column: [v for one in hides if one.column == hide.column for v in one.values] for hide in hides}
    items = groups.pop("item_id", [])
    if groups:
        masks.append(snapshot.filters.mask({"not": groups}))
    rows = np.array([snapshot.number[i] for i in items if i in snapshot.number], np.int64)
    if len(rows):
        masks.append(snapshot.filters.all_but(rows))
    return reduce(and_, masks) if masks else None


def pinned_rows(touching: Touching, snapshot: Snapshot, mask: ItemMask | None) -> list[int]:
    """Rows of the items that come first, in their order: those that are in the catalogue and that the mask allows."""
    ids = dict.fromkeys(i for pin in touching.pins for i in pin.items)
    rows = [snapshot.number[i] for i in ids if i in snapshot.number]
    if mask is None or not rows:
        return rows
    return [row for row, is_allowed in zip(rows, snapshot.there(rows, mask), strict=True) if is_allowed]
