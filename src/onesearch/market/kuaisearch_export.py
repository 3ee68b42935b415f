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

RANK_ROWS: Final = 100_000
_RECENT: Final = 20
_MONTH: Final = 30 * 86_400
_SPLITS: Final = ((0.8, "train"), (0.8 + 1 / 15, "valid"), (1.0, "test"))


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
    levels = [
        pl.col("category").list.get(i, null_on_oob=True).fill_null("UNKNOWN").alias(f"level{i + 1}") for i in range(3)
    ]
    items = dataset.items.with_columns(levels)
    items.select(
        item_id=_number("item_id"),
        item_title=pl.col("title"),
        brand_id=_identity("brand"),
        brand_name=pl.col("brand"),
        seller_id=_identity("seller"),
        seller_name=pl.col("seller"),
        category_level1_id=_identity("level1"),
        category_level1_name=pl.col("level1"),
        category_level2_id=_identity("level2"),
        category_level2_name=pl.col("level2"),
        category_level3_id=_identity("level3"),
        category_level3_name=pl.col("level3"),
    ).write_ndjson(out / "items.jsonl")
    dataset.users.select(
        user_id=_number("user_id"),
        gender=pl.col("gender").fill_null("UNKNOWN"),
        age_bucket=pl.col("age_band").fill_null("UNKNOWN"),
        fre_country=pl.lit("UNKNOWN"),
        fre_province=pl.lit("UNKNOWN"),
        fre_city=pl.lit("UNKNOWN"),
    ).write_ndjson(out / "users.jsonl")

    day = dataset.page_views["time"].min()
    views = dataset.page_views.with_row_index("row").with_columns(
        time_index=(pl.col("time") - pl.lit(day).dt.truncate("1d")).dt.total_seconds(),
        split=pl.when(pl.col("row") < _SPLITS[0][0] * pl.len())
        .then(pl.lit(_SPLITS[0][1]))
        .when(pl.col("row") < _SPLITS[1][0] * pl.len())
        .then(pl.lit(_SPLITS[1][1]))
        .otherwise(pl.lit(_SPLITS[2][1])),
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
    _rank(dataset, views, items["price"].to_numpy()).write_ndjson(out / "rank.jsonl")

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
        self, keys: NDArray[np.int64], times: NDArray[np.int64], weights: NDArray[np.float64] | None = None
    ) -> None:
        self._span = int(times.max(initial=0)) + 1
        events = keys * self._span + times
        order = np.argsort(events, kind="stable")
        self._events = events[order]
        ones = np.ones(len(events)) if weights is None else weights[order]
        self._sums = np.concatenate([[0.0], np.cumsum(ones)])

    def before(self, keys: NDArray[np.int64], times: NDArray[np.int64]) -> NDArray[np.float64]:
        base = keys * self._span
        last = np.searchsorted(self._events, base + np.minimum(times, self._span))
        first = np.searchsorted(self._events, base + np.clip(times - _MONTH, 0, self._span))
        return np.asarray(self._sums[last] - self._sums[first], np.float64)


def _recent(users: NDArray[np.int64], times: NDArray[np.int64], events: Ragged, wanted: NDArray[np.int64]) -> pl.Series:
    """The last items of the user before each wanted page view, newest last, List(Int64)."""
    owner = events.owners
    span = int(times.max(initial=0)) + 1
    order = np.argsort(users[owner] * span + times[owner], kind="stable")
    keys = (users[owner] * span + times[owner])[order]
    values = events.values[order]
    end = np.searchsorted(keys, users[wanted] * span + times[wanted])
    start = np.maximum(np.searchsorted(keys, users[wanted] * span), end - _RECENT)
    length = end - start
    at = np.repeat(start, length) + np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
    flat = pl.DataFrame({"row": np.repeat(np.arange(len(wanted)), length), "item": values[at].astype(np.int64)})
    lists = flat.group_by("row", maintain_order=True).agg("item")
    every = pl.DataFrame({"row": np.arange(len(wanted))})
    return every.join(lists, on="row", how="left", maintain_order="left")["item"].fill_null(
        pl.lit([], pl.List(pl.Int64))
    )


def _rank(dataset: Dataset, views: pl.DataFrame, price: NDArray[np.float64]) -> pl.DataFrame:
    """One row per shown item of evenly spread page views."""
    shown, clicked, ordered = (dataset.ragged(views[name]) for name in ("shown", "clicked", "ordered"))
    users, times = views["user"].to_numpy().astype(np.int64), views["time_index"].to_numpy().astype(np.int64)
    step = max(1, -(-len(shown.values) // RANK_ROWS))
    wanted = np.arange(0, len(views), step)
    part = shown.select(wanted)
    owner, item = wanted[part.owners], part.values.astype(np.int64)

    def happened(events: Ragged) -> NDArray[np.int64]:
        pairs = events.owners * len(price) + events.values
        return np.isin(owner * len(price) + item, pairs).astype(np.int64)

    features: dict[str, NDArray[np.float64]] = {}
    for name, events in (("show", shown), ("click", clicked), ("order", ordered)):
        who = users[events.owners]
        features[f"user_{name}"] = _Counts(who, times[events.owners]).before(users[owner], times[owner])
        features[f"item_{name}"] = _Counts(events.values.astype(np.int64), times[events.owners]).before(
            item, times[owner]
        )
    spent = _Counts(users[ordered.owners], times[ordered.owners], price[ordered.values])
    features["user_spent"] = spent.before(users[owner], times[owner])
    history = pl.DataFrame(
        {
            "view": wanted,
            "recently_clicked_item_ids": _recent(users, times, clicked, wanted),
            "recently_purchased_item_ids": _recent(users, times, ordered, wanted),
        }
    )
    rows = pl.DataFrame(
        {
            "view": owner,
            "target_item_id": item,
            "target_item_price": price[item],
            "is_clicked": happened(clicked),
            "is_purchased": happened(ordered),
            **features,
        }
    )
    rows = rows.join(history, on="view", how="left", maintain_order="left")
    context = views.select(
        view=pl.col("row").cast(pl.Int64),
        user_id="user",
        session_id="session",
        time_index="time_index",
        query="query",
        split="split",
    )
    rows = rows.join(context, on="view", how="left", maintain_order="left")
    return rows.select(
        "user_id",
        "session_id",
        pl.lit(0).alias("user_fan_number"),
        pl.lit(0).alias("user_follow_number"),
        "time_index",
        pl.lit("mall").alias("search_entrance"),
        "recently_clicked_item_ids",
        "recently_purchased_item_ids",
        "query",
        "target_item_id",
        "target_item_price",
        "is_clicked",
        "is_purchased",
        pl.struct(
            pl.col("user_show").alias("user_show_cnt_30d_hist"),
            pl.col("user_click").alias("user_click_cnt_30d_hist"),
            pl.col("user_order").alias("user_order_cnt_30d_hist"),
            pl.col("user_spent").round(2).alias("user_gmv_30d_hist"),
        ).alias("user_statistical_features"),
        pl.struct(
            pl.col("item_show").alias("item_show_cnt_30d_hist"),
            pl.col("item_click").alias("item_click_cnt_30d_hist"),
            pl.col("item_order").alias("item_order_cnt_30d_hist"),
        ).alias("target_item_statistical_features"),
        "split",
    )
