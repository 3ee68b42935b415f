"""Boosts: groups of items that a shop wants to be shown more, in rewards and on pages (docs/method.md, 8.6a).

A group is named by a column of the item table and values of it, so that it holds items that come later, too.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from onesearch.common.settings import Settings

Floats = NDArray[np.float32]


class Boost(Settings):
    """A group of items that counts more, such as those of emerging sellers."""

    name: str = Field(description="for logs")
    column: Literal["seller", "brand", "category", "item_id"] = Field(description="of the item table")
    values: tuple[str, ...] = Field(description="values of the column; of a category any level of its path")
    term: Literal["behaviour", "click_rate", "relevance", "all"] = "relevance"
    times: float = Field(
        gt=0, description="what the term of these items is multiplied with, and their odds on a page (``search.boost``)"
    )

    def holds(self, items: pl.DataFrame) -> NDArray[np.bool_]:
        """Which items of a table belong to the group, bool [N]."""
        column, wanted = items[self.column], list(self.values)
        # A category belongs to a group by any level of its path.
        if self.column == "category":
            inside = column.list.eval(pl.element().is_in(wanted)).list.any()
        else:
            inside = column.is_in(wanted)
        return inside.fill_null(False).to_numpy()

    def members(self, items: pl.DataFrame) -> NDArray[np.bool_]:
        """As :meth:`holds`, of a whole catalogue.

        Raises:
            ValueError: it has no item of the group, so that the values are most likely misspelt.
        """
        inside = self.holds(items)
        if not inside.any():
            raise ValueError(f"boost '{self.name}': no item has one of these values of '{self.column}'")
        return inside


def log_times(boosts: Sequence[Boost], items: pl.DataFrame) -> Floats:
    """Log of what the boosts of each item multiply to, whatever their term, float32 [N]; 0 for an item without."""
    out = np.zeros(len(items), np.float32)
    for boost in boosts:
        out[boost.holds(items)] += math.log(boost.times)
    return out
