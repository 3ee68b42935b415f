"""Groups of test requests: a method that wins on average may lose on rare queries or new items.

A slice dimension is an array of labels, one per request; "" puts a request in no group of that dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.data.text import normalise_query

Labels = NDArray[Any]
"""Label texts [n]."""
Slices = Mapping[str, Labels]

COUNTS = ((0, "unseen"), (1, "1-3"), (4, "4-15"), (16, "16+"))
CLICKS = ((0, "0 clicks"), (1, "1-3 clicks"), (4, "4-15 clicks"), (16, "16-63 clicks"), (64, "64+ clicks"))
ACTIVITY = ((0, "no history"), (1, "1-4 clicks"), (5, "5-19 clicks"), (20, "20+ clicks"))


def band_labels(values: NDArray[np.number], bands: Sequence[tuple[int, str]]) -> Labels:
    """The label of the last band whose lower bound is <= the value; "" for nan or values below all bands."""
    bounds = np.array([bound for bound, _ in bands], np.float64)
    names = np.array(["", *(name for _, name in bands)], dtype=object)
    numbers = np.asarray(values, np.float64)
    return names[np.where(np.isnan(numbers), 0, np.searchsorted(bounds, numbers, side="right"))]


def query_frequency(queries: Sequence[str], training_queries: Sequence[str]) -> Labels:
    """By the number of training page views with the same normalised query: unseen, 1-3, 4-15, 16+."""
    # Both sides are normalised as at serving time.
    seen = pl.DataFrame({"query": [normalise_query(query) for query in training_queries]}, {"query": pl.String})
    counts = seen.group_by("query").len()
    asked = pl.DataFrame({"query": [normalise_query(query) for query in queries]}, {"query": pl.String})
    found = asked.join(counts, on="query", how="left", maintain_order="left")["len"].fill_null(0)
    return band_labels(found.to_numpy(), COUNTS)


def user_activity(requests: Requests) -> Labels:
    """By the number of past clicks known for the shopper."""
    return band_labels((requests.clicked >= 0).sum(1), ACTIVITY)


def query_type(page_views: pl.DataFrame) -> Labels:
    """By the page view's query type; "" where it has none."""
    return np.array(page_views["query_type"].fill_null("").to_list(), dtype=object)


def extreme_of_targets(values: NDArray[np.number], targets: Ragged, largest: bool) -> NDArray[np.float64]:
    """Largest or smallest value [items] among each request's target items, nan without targets; float64 [n]."""
    out = np.full(len(targets), -np.inf if largest else np.inf)
    (np.maximum if largest else np.minimum).at(out, targets.owners, values[targets.values].astype(np.float64))
    return np.where(np.isfinite(out), out, np.nan)


def item_popularity(targets: Ragged, training_clicks: NDArray[np.floating]) -> Labels:
    """By the training clicks of the *least* clicked target item: finding it is what is hard."""
    return band_labels(extreme_of_targets(training_clicks, targets, largest=False), CLICKS)


def item_kind(targets: Ragged, kinds: NDArray[Any]) -> Labels:
    """By the kind of the target items, of ``kinds`` [items]; "" without targets, or with such of several kinds."""
    names, number = np.unique(kinds, return_inverse=True)
    least, most = (extreme_of_targets(number, targets, largest) for largest in (False, True))
    one = least == most  # never of nan
    return np.where(one, names.astype(object)[np.where(one, least, 0).astype(np.int64)], "")


def item_age(
    targets: Ragged, training_shown: NDArray[np.floating], ages: NDArray[np.floating] | None = None, days: float = 7.0
) -> Labels:
    """By the newest target item.

    Args:
        targets: clicked items of each request.
        training_shown: how often each item was shown in training, [items].
        ages: days since each item was listed at the start of the test period, [items]; nan unknown; None: no dates.
        days: an item listed in the last ``days`` before the test period, or after its start, is new.

    Returns:
        "cold" (some target was never shown in training), else "new" or "old" ("seen" without dates).
    """
    # One cold target makes the request a cold one; without targets it is in no group.
    cold = extreme_of_targets((training_shown <= 0).astype(np.float64), targets, largest=True)
    if ages is None:
        warm = np.full(len(targets), "seen", dtype=object)
    else:
        youngest = extreme_of_targets(np.nan_to_num(ages, nan=np.inf, posinf=1e9), targets, largest=False)
        warm = np.where(youngest < days, "new", "old").astype(object)
    return np.where(np.isnan(cold), "", np.where(cold > 0, "cold", warm)).astype(object)


def item_ages(items: pl.DataFrame, now: Any) -> NDArray[np.float64] | None:
    """Days from each item's ``listed_at`` to ``now`` (a datetime), [items]; None when no item has a date."""
    listed = items["listed_at"]
    if now is None or listed.null_count() == len(listed):
        return None
    return (
        (pl.lit(now) - pl.col("listed_at"))
        .pipe(lambda age: items.select(age.dt.total_seconds() / 86_400))
        .to_series()
        .to_numpy()
        .astype(np.float64)
    )


def standard_slices(
    requests: Requests,
    page_views: pl.DataFrame,
    clicked: Ragged,
    training: pl.DataFrame,
    training_shown: NDArray[np.floating],
    training_clicks: NDArray[np.floating],
    items: pl.DataFrame,
) -> dict[str, Labels]:
    """All dimensions of a test part; those with a single group (no times, no users, no kinds) are left out."""
    # Ages are counted to the first test page view.
    start = page_views["time"].min() if page_views["time"].null_count() < len(page_views) else None
    found = {
        "query frequency": query_frequency(requests.query, training["query"].to_list()),
        "item age": item_age(clicked, training_shown, item_ages(items, start)),
        "item popularity": item_popularity(clicked, training_clicks),
        "item kind": item_kind(clicked, items["kind"].to_numpy()),
        "user activity": user_activity(requests),
        "query type": query_type(page_views),
    }
    return {name: labels for name, labels in found.items() if len(set(labels.tolist()) - {""}) > 1}
