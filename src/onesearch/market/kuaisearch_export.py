"""Export a market in the published schema of KuaiSearch: ``items``, ``users``, ``recall``, ``rank`` and ``relevance``
as JSONL.

Ids are integers: item 12 is ``i12`` of the dataset, user 3 is ``u3``, session 7 is ``s7``. ``recall`` holds every page
view in order of time; ``rank`` holds one row per shown item of a sample of page views (it repeats histories in every
row). ``time_index`` counts seconds since the first day. Unlike the published sample, the tables join completely.
"""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.dataset import Dataset
from onesearch.market.market_vocabulary import names_of

RANK_ROWS: Final = 100_000
_RECENT: Final = 20
_MONTH: Final = 30 * 86_400
_SPLITS: Final = (0.8, 0.8 + 1 / 15)  # shares of page views before the validation and before the test part


def _number(column: str) -> pl.Expr:
    return pl.col(column).str.extract(r"(\d+)$").cast(pl.Int64)


def _identity(column: str) -> pl.Expr:
    """Dense numbers from 1, by name."""
    return pl.col(column).rank("dense").cast(pl.Int64)


def _id_lists(column: str) -> pl.Expr:
    return pl.col(column).list.eval(pl.element().str.strip_prefix("i").cast(pl.Int64))


def export_kuaisearch(dataset_folder: Path, out: Path) -> None:
    """Write the five files of a market's dataset to ``out``."""
    dataset = Dataset.load(dataset_folder)
    out.mkdir(parents=True, exist_ok=True)
    # Items and users: a category path becomes three levels.
    levels = [
        pl.col("category").list.get(i, null_on_oob=True).fill_null("UNKNOWN").alias(f"level{i + 1}") for i in range(3)
    ]
    items = dataset.items.with_columns(levels)
    items.select(
        item_id=_number("item_id"),
        item_title="title",
        brand_id=_identity("brand"),
        brand_name="brand",
        seller_id=_identity("seller"),
        seller_name="seller",
        category_level1_id=_identity("level1"),
        category_level1_name="level1",
        category_level2_id=_identity("level2"),
        category_level2_name="level2",
        category_level3_id=_identity("level3"),
        category_level3_name="level3",
    ).write_ndjson(out / "items.jsonl")
    dataset.users.select(
        user_id=_number("user_id"),
        gender=pl.col("gender").fill_null("UNKNOWN"),
        age_bucket=pl.col("age_band").fill_null("UNKNOWN"),
        fre_country=pl.lit("UNKNOWN"),
        fre_province=pl.lit("UNKNOWN"),
        fre_city=pl.lit("UNKNOWN"),
    ).write_ndjson(out / "users.jsonl")

    # Page views, split by time.
    midnight = pl.col("time").min().dt.truncate("1d")
    part = np.digitize(np.arange(len(dataset.page_views)), np.array(_SPLITS) * len(dataset.page_views))
    views = dataset.page_views.with_columns(
        time_index=(pl.col("time") - midnight).dt.total_seconds(),
        split=names_of(("train", "valid", "test"), part),
        user=_number("user_id"),
        session=_number("session_id"),
    )
    views.select(
        user_id="user",
        session_id="session",
        impressed_item_ids=_id_lists("shown"),
        clicked_item_ids=_id_lists("clicked"),
        purchased_item_ids=_id_lists("ordered"),
        time_index="time_index",
        query="query",
        split="split",
    ).write_ndjson(out / "recall.jsonl")
    _rank(dataset, views).write_ndjson(out / "rank.jsonl")

    # Judgments, with the texts that a rater would see.
    texts = items.select(
        "item_id",
        "title",
        "brand",
        "seller",
        attr_value=pl.col("attributes").list.eval(pl.element().struct.field("value")).list.join(","),
    )
    dataset.judgments.join(texts, on="item_id", how="left", maintain_order="left").select(
        query="query", item_title="title", brand="brand", seller_name="seller", attr_value="attr_value", score="level"
    ).write_ndjson(out / "relevance.jsonl")


class _Counts:
    """How many events of a key (or how much of a weight) lie in the 30 days before a time, its own second excluded."""

    def __init__(
        self, keys: NDArray[np.integer], times: NDArray[np.int64], weights: NDArray[np.float64] | None = None
    ) -> None:
        # Events sorted by (key, time): a window is the difference of two running sums.
        self._span = int(times.max(initial=0)) + 1
        events = keys.astype(np.int64) * self._span + times
        order = np.argsort(events, kind="stable")
        self._events = events[order]
        ones = np.ones(len(events)) if weights is None else weights[order]
        self._sums = np.concatenate([[0.0], np.cumsum(ones)])

    def before(self, keys: NDArray[np.integer], times: NDArray[np.int64]) -> NDArray[np.float64]:
        base = keys.astype(np.int64) * self._span
        last = np.searchsorted(self._events, base + np.minimum(times, self._span))
        first = np.searchsorted(self._events, base + np.clip(times - _MONTH, 0, self._span))
        return np.asarray(self._sums[last] - self._sums[first], np.float64)


def _recent(users: NDArray[np.int64], times: NDArray[np.int64], events: Ragged, wanted: NDArray[np.int64]) -> pl.Series:
    """The last items of the user before each wanted page view, newest last, List(Int64)."""
    # Events by (user, time): those before a page view are a range, of which the last few are taken.
    span = int(times.max(initial=0)) + 1
    key = users * span + times
    order = np.argsort(key[events.owners], kind="stable")
    sorted_keys, values = key[events.owners][order], events.values[order]
    end = np.searchsorted(sorted_keys, key[wanted])
    start = np.maximum(np.searchsorted(sorted_keys, users[wanted] * span), end - _RECENT)
    lists = [values[first:last].tolist() for first, last in zip(start.tolist(), end.tolist(), strict=True)]
    return pl.Series(lists, dtype=pl.List(pl.Int64))


def _rank(dataset: Dataset, views: pl.DataFrame) -> pl.DataFrame:
    """One row per shown item of evenly spread page views."""
    shown, clicked, ordered = (dataset.ragged(views[name]) for name in ("shown", "clicked", "ordered"))
    users, times = views["user"].to_numpy().astype(np.int64), views["time_index"].to_numpy().astype(np.int64)
    price = dataset.items["price"].to_numpy()
    # So many page views that about RANK_ROWS rows come out.
    step = max(1, -(-len(shown.values) // RANK_ROWS))
    wanted = np.arange(0, len(views), step)
    part = shown.select(wanted)
    owner, item = wanted[part.owners], part.values.astype(np.int64)  # page view and item of each row, [R]

    def happened(events: Ragged) -> pl.Series:
        pairs = events.owners * len(price) + events.values
        return pl.Series(np.isin(owner * len(price) + item, pairs).astype(np.int64))

    # What the shopper did and what happened to the item in the month before, as the platform's counters say.
    of_user, of_item = {}, {}
    for name, events in (("show", shown), ("click", clicked), ("order", ordered)):
        when = times[events.owners]
        of_user[f"user_{name}_cnt_30d_hist"] = _Counts(users[events.owners], when).before(users[owner], times[owner])
        of_item[f"item_{name}_cnt_30d_hist"] = _Counts(events.values, when).before(item, times[owner])
    spent = _Counts(users[ordered.owners], times[ordered.owners], price[ordered.values])
    of_user["user_gmv_30d_hist"] = spent.before(users[owner], times[owner])
    return views[owner].select(
        user_id="user",
        session_id="session",
        user_fan_number=pl.lit(0),
        user_follow_number=pl.lit(0),
        time_index="time_index",
        search_entrance=pl.lit("mall"),
        recently_clicked_item_ids=_recent(users, times, clicked, wanted).gather(part.owners),
        recently_purchased_item_ids=_recent(users, times, ordered, wanted).gather(part.owners),
        query="query",
        target_item_id=pl.Series(item),
        target_item_price=pl.Series(price[item]),
        is_clicked=happened(clicked),
        is_purchased=happened(ordered),
        user_statistical_features=pl.DataFrame(of_user).with_columns(pl.col("user_gmv_30d_hist").round(2)).to_struct(),
        target_item_statistical_features=pl.DataFrame(of_item).to_struct(),
        split="split",
    )
