"""The items that a search is about, and what a page says of them all: how many, of what values, in another order.

Without a query these are all items that the filter allows. With one they are those of them whose likeness to the query
is within a margin of the best (:mod:`onesearch.search.confidence`): one product per item of the catalogue, so it is
asked for only where a page shows it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.index.filter_values import ATTRIBUTES, FILTER_KEYS, FilterError
from onesearch.index.item_filters import ItemMask
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.results import Sort

Floats = NDArray[np.float32]


def result_set(
    snapshot: Snapshot, mask: ItemMask | None, query: Floats | None = None, margin: float = 0.0
) -> NDArray[np.int64]:
    """Item rows int64 [m], ascending; ``query`` is a query's head row [R]."""
    device = snapshot.index.device
    rows = torch.arange(len(snapshot.records), device=device)
    position = snapshot.index.position_of(rows)
    inside = position >= 0 if mask is None else mask.items_allowed(position)
    if query is not None and bool(inside.any()):
        likeness = snapshot.item_head_rows.products(torch.from_numpy(query).to(device))
        # The best of all is not the best that the filter allows: a filter changes no item's relevance.
        inside &= likeness >= likeness[position >= 0].max() - margin
    found: NDArray[np.int64] = rows[inside].cpu().numpy()
    return found


def facet_counts(snapshot: Snapshot, rows: NDArray[np.int64], keys: Sequence[str]) -> dict[str, list[tuple[Any, int]]]:
    """Values of each filter's key among the items ``rows`` [m] with their numbers: what a page offers to filter by.

    Raises:
        FilterError: a key that is no filter's.
    """
    columns = snapshot.filters.columns_of(rows)
    out = {}
    for key in keys:
        name, _, kind = key.partition(".")
        if name not in FILTER_KEYS or (name == ATTRIBUTES) != bool(kind):
            valid = [f"{one}.TYPE" if one == ATTRIBUTES else one for one in FILTER_KEYS]
            raise FilterError(f"unknown facet {key!r}; valid facets are {', '.join(valid)}")
        out[key] = columns.counts(name, kind)
    return out


def in_order(snapshot: Snapshot, rows: NDArray[np.int64], sort: str) -> NDArray[np.int64]:
    """The items ``rows`` [m] in an order of :data:`Sort`; ties by popularity, then by row.

    Raises:
        ValueError: there is no such order.
    """
    if sort not in get_args(Sort):
        raise ValueError(f"unknown order {sort!r}; valid ones are {', '.join(get_args(Sort))}")
    columns, popularity = snapshot.filters.columns_of(rows), snapshot.popularity.take(rows)
    keys: Mapping[str, NDArray[np.floating]] = {
        "price": columns.price,
        "-price": -columns.price,
        "newest": -columns.listed,
        "popularity": -popularity,
    }
    # numpy's last key is the first to sort by; nan comes last.
    return rows[np.lexsort((rows, -popularity, keys[sort]))]
