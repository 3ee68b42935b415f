"""The items that a search is about, and what a page says of them all: how many, of what values, in another order.

Without a query these are all items that the filter allows. With one they are those of them that are::

    near        likeness to the query within a margin of the best one's (:mod:`onesearch.search.confidence`)
    named       texts with all words of the query, or its text as their brand
    clicked     most, for the query, in the log and since
    first       whatever their score: the item whose id was typed, and what rules pin

That is one product per item of the catalogue, so it is asked for only where a page shows it. A shard has those of its
own items; what is told of them all, numbers and orders, is of all shards.
"""

from collections.abc import Iterable, Mapping, Sequence
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
    snapshot: Snapshot,
    mask: ItemMask | None,
    query: Floats | None = None,
    margin: float = 0.0,
    told: Iterable[NDArray[np.integer]] = (),
    best_allowed: bool = False,
) -> NDArray[np.int64]:
    """Item rows int64 [m], ascending; of a shard's own items.

    Args:
        snapshot: the catalogue.
        mask: a filter, with what rules hide.
        query: a query's head row [R].
        margin: of likeness.
        told: rows of items that belong to it whatever their likeness, if the mask allows them; -1 for none.
        best_allowed: the margin is that of the best item that the mask allows.
    """
    device = snapshot.index.device
    rows = torch.arange(len(snapshot.records), device=device)
    position = snapshot.index.position_of(rows)
    inside = position >= 0 if mask is None else mask.items_allowed(position)
    if query is not None and snapshot.shards.total(int(inside.any())):
        likeness = _likeness(snapshot, torch.from_numpy(query).to(device), position >= 0)
        # The best of all is not the best that the filter allows: a filter changes no item's relevance.
        best = likeness.masked_fill(~(inside if best_allowed else position >= 0), float("-inf")).amax(0, keepdim=True)
        relevant = likeness >= snapshot.shards.gathered(best).max() - margin
        also = np.concatenate([np.zeros(0, np.int64), *(one.ravel() for one in told)])
        relevant[torch.from_numpy(also[also >= 0]).to(device)] = True
        inside &= relevant
    found: NDArray[np.int64] = rows[inside].cpu().numpy()
    return found


def _likeness(snapshot: Snapshot, query: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Of a query [R] and all items [N]; a shard computes that of its items, bool [N], the others have -inf."""
    if snapshot.shards.count == 1:
        return snapshot.item_head_rows.products(query)
    out, own = query.new_full((len(here),), float("-inf")), here.nonzero()[:, 0]
    out[own] = snapshot.item_head_rows[own] @ query
    return out


def named_and_clicked(snapshot: Snapshot, query: str, clicked: int) -> list[NDArray[np.integer]]:
    """Rows of the items that have all words of a query, or its text as their brand; and of those clicked for it.

    Of these the first ``clicked`` ones, in the log and since. Deleted items may be among them, -1 is for none.
    """
    log, live = snapshot.click_features.statistics, snapshot.click_features.live
    found: list[NDArray[np.integer]] = []
    if snapshot.lexical is not None:
        found.append(snapshot.lexical.rows_with_all(query))
    brands = snapshot.filters.columns_of(np.zeros(0, np.int64)).brand
    if brands.numbering.starting_with(query.strip()):
        allowed = snapshot.filters.mask({"brand": query.strip()})
        every = torch.arange(len(snapshot.records), device=snapshot.index.device)
        found.append(every[allowed.rows_allowed(every)].cpu().numpy())
    for counts in (log, live):
        if counts is not None:
            found.append(counts.most_clicked(counts.query_numbers([query]), clicked))
    return found


def facet_counts(
    snapshot: Snapshot, rows: NDArray[np.int64], keys: Sequence[str], text: str = ""
) -> dict[str, list[tuple[Any, int]]]:
    """Values of each filter's key among the items ``rows`` [m] with their numbers: what a page offers to filter by.

    A shard gives its own items, and gets the numbers of all. Names that hold ``text`` alone, the most frequent ones.

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
        out[key] = columns.counts(name, kind, text=text, of_all=snapshot.shards.arrays)
    return out


def in_order(snapshot: Snapshot, rows: NDArray[np.int64], sort: str, most: int) -> NDArray[np.int64]:
    """The first ``most`` of the items ``rows`` [m], those of all shards, in an order of :data:`Sort`.

    Ties by popularity, then by row. A shard gives its own items, and gets the first of all.

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
    first = np.lexsort((rows, -popularity, keys[sort]))[:most]
    rows, popularity, key = (
        np.concatenate(snapshot.shards.arrays(one[first])) for one in (rows, popularity, keys[sort])
    )
    return rows[np.lexsort((rows, -popularity, key))[:most]]
