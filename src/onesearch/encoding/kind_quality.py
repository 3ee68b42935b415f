"""Figures of SIDs by kind of item: how unique each kind's are, and how much of a video's SID is its products'."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.encoding.sid_quality import prefix_agreement, prefix_numbers

Codes = NDArray[np.int32]


def kind_figures(codes: Codes, sizes: Sequence[int], items: pl.DataFrame, linked: Ragged, seed: int) -> dict[str, Any]:
    """ICR of each kind, and agreement of prefixes with linked items; nothing for a catalogue of products alone.

    Args:
        codes: SIDs of N items, int32 [N, L].
        sizes: of the codebooks.
        items: the item table, N rows.
        linked: rows of the items that each item links to.
        seed: of the pairs drawn for comparison.

    Returns:
        JSON-able: ``icr``: by kind the share of items whose SID is theirs alone among all items. ``linked``: share of
        pairs of an item and one that it links to whose first l codes agree, l = 1..L. ``same_category``: the same of
        the item and another product of that one's category, drawn at random; pairs whose category has no other are
        left out of both.
    """
    kinds = items["kind"].to_numpy()
    if (kinds == "product").all():
        return {}
    number = prefix_numbers(codes, sizes)[:, -1]
    alone = np.bincount(number)[number] == 1
    found: dict[str, Any] = {"icr": {str(kind): float(alone[kinds == kind].mean()) for kind in np.unique(kinds)}}
    pairs, others = _pairs(items, linked, np.random.default_rng(seed))
    if len(pairs):
        each = Ragged.from_lengths(pairs[:, 1].astype(np.int32), np.ones(len(pairs), np.int64))
        found["linked"] = prefix_agreement(codes[pairs[:, 0]], codes, each)
        found["same_category"] = prefix_agreement(codes[pairs[:, 0]], codes, Ragged(others, each.offsets))
        found["pairs"] = len(pairs)
    return found


def _pairs(
    items: pl.DataFrame, linked: Ragged, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Pairs (item, linked) [m, 2], and for each another product of the linked one's category, int32 [m]."""
    path = items["category"].list.join(" > ").fill_null("")
    category = path.rank("dense").to_numpy().astype(np.int64) - 1
    product = np.flatnonzero(items["kind"].to_numpy() == "product")
    # Products sorted by category, and where each category begins among them.
    order = product[np.argsort(category[product], kind="stable")]
    first = np.searchsorted(category[order], np.arange(category.max(initial=-1) + 2))
    owner, target = linked.owners, linked.values.astype(np.int64)
    size = np.diff(first)[category[target]]
    pick = first[category[target]] + (rng.random(len(target)) * size).astype(np.int64)
    other = order[np.minimum(pick, max(len(order) - 1, 0))] if len(order) else np.zeros(len(target), np.int64)
    # A draw that the item links to as well is no random pair.
    shown = set(zip(owner.tolist(), target.tolist(), strict=True))
    fresh = np.array([(a, b) not in shown for a, b in zip(owner.tolist(), other.tolist(), strict=True)], bool)
    keep = fresh & (size > 0)
    return np.stack([owner, target], 1)[keep], other[keep].astype(np.int32)
