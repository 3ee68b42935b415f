"""A query that asks for live rooms: those that are on come first, then what else fits."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.data.text import normalise_query
from onesearch.index.filter_values import conjuncts, names_key
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.understanding.query_types import merchandise

LIVE: Final = "live"
"""The kind of an item, and the intent of a thought."""
MOST_ROOMS: Final = 100
"""Live rooms that come before everything else, at most."""


def asks_for_live(
    query: str, filters: Mapping[str, Any] | None, snapshot: Snapshot, thoughts: Collection[str] = frozenset()
) -> bool:
    """Whether a search asks for live rooms: by the rules that thoughts begin with, or by a thought of the log's.

    Not where its filters say which kind it wants, nor in a catalogue that never had a live room.

    Args:
        query: as it was typed, or corrected.
        filters: of the search.
        snapshot: the catalogue.
        thoughts: normalised queries whose thought has the intent ``live``.
    """
    if not snapshot.filters.knows_kind(LIVE) or any(names_key(one, "kind") for one in conjuncts(filters)):
        return False
    return merchandise(query) == LIVE or normalise_query(query) in thoughts


def relevant_rooms(
    snapshot: Snapshot, rows: NDArray[np.int32], query: NDArray[np.float32], margin: float
) -> NDArray[np.int32]:
    """Those of some item rows [m], in their order, that are as like a query's head row [R] as the best of them is, less
    a margin: another shop's room for pans is no answer to "shoes live room".
    """
    if not len(rows):
        return rows
    table = snapshot.item_head_rows
    vectors = table[torch.from_numpy(rows.astype(np.int64)).to(table.device)].float()
    likeness = vectors @ torch.from_numpy(query).to(vectors)
    relevant: NDArray[np.bool_] = (likeness >= likeness.max() - margin).cpu().numpy()
    return rows[relevant]
