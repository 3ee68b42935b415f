"""KuaiSearch in its published schema (arXiv 2602.11518): five JSON lines files in one folder.

The fields read here, which ``market make --format kuaisearch`` writes too (others are ignored):

``items.jsonl``
    ``item_id``, ``item_title``, ``brand_name``, ``seller_name``, ``category_level1_name`` to ``category_level3_name``
    ("UNKNOWN" ends the path). The brand is taken as an attribute too; the schema has no others.
``users.jsonl``
    ``user_id``, ``gender``, ``age_bucket`` ("UNKNOWN" for none).
``recall.jsonl``
    One page view a row: ``user_id``, ``session_id``, ``time_index``, ``query``, ``impressed_item_ids``,
    ``clicked_item_ids``, ``purchased_item_ids``; optionally ``query_type``.
``rank.jsonl`` (may be missing)
    One shown item a row: ``user_id``, ``session_id``, ``target_item_id``, ``target_item_price``. Gives prices: the last
    one of each item. ``recently_clicked_item_ids`` and ``recently_purchased_item_ids`` are *not* read: histories come
    from the page views themselves.
``relevance.jsonl`` (may be missing)
    ``query``, ``item_title``, ``seller_name``, ``score`` (0 to 3); optionally ``item_id``. Without it the item is found
    by title and seller, else by title alone.

``time_index`` is a count without published origin; it is read as seconds since 2024-01-01 UTC. Order and, if the unit
is a second, distances are right; the calendar date means nothing.

The published tables do not join completely (in the sample hardly at all). Nothing is dropped silently: rows that lead
nowhere go to ``rejected.parquet``, and the summary counts every kind of reference and how many were found.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from onesearch.common.progress import track
from onesearch.data.ingest import table_source as tables
from onesearch.data.ingest.column_mapping import (
    AttributeColumn,
    File,
    ItemColumns,
    Items,
    PageViewColumns,
    PageViews,
    UserColumns,
    Users,
)
from onesearch.data.ingest.file_chunks import read_chunks
from onesearch.data.ingest.id_set import IdSet, hashes
from onesearch.data.ingest.import_summary import ImportSummary
from onesearch.data.ingest.importer import Importer, readable_errors
from onesearch.data.ingest.number_values import number, parse_prices
from onesearch.data.ingest.rejected_rows import Rejects
from onesearch.data.ingest.single_values import refused_values, single_values
from onesearch.data.ingest.text_values import identifier, text
from onesearch.data.ingest.time_values import TimeFormat

# What the schema's columns are to us; tables without columns here are read below, each in its own way.
ORIGIN: Final = datetime(2024, 1, 1, tzinfo=UTC)
UNKNOWN: Final = ("UNKNOWN", "其他/other", "无品牌")
ITEMS: Final = Items(
    file="items.jsonl",
    columns=ItemColumns(
        item_id="item_id",
        title="item_title",
        brand="brand_name",
        seller="seller_name",
        category=("category_level1_name", "category_level2_name", "category_level3_name"),
    ),
    attributes={"Brand": (AttributeColumn(column="brand_name"),)},
    ignore=UNKNOWN,
)
USERS: Final = Users(
    file="users.jsonl", columns=UserColumns(user_id="user_id", gender="gender", age_band="age_bucket"), ignore=UNKNOWN
)
RECALL: Final = PageViews(
    file="recall.jsonl",
    columns=PageViewColumns(
        query="query",
        user_id="user_id",
        session_id="session_id",
        time="time_index",
        shown="impressed_item_ids",
        clicked="clicked_item_ids",
        ordered="purchased_item_ids",
        query_type="query_type",
    ),
    time=TimeFormat(unit="s", origin=ORIGIN),
    empty_query="keep",
)
RANK: Final = File(file="rank.jsonl")
RELEVANCE: Final = File(file="relevance.jsonl")
_PENDING = 2_000_000


class _Prices:
    """The last price of each item of the rank table, and what the table refers to (distinct ids)."""

    def __init__(self) -> None:
        self.items, self.users, self.sessions = IdSet(), IdSet(), IdSet()
        self._known = pl.DataFrame(schema={"key": pl.UInt64, "price": pl.Float64})
        self._new: list[pl.DataFrame] = []
        self._pending = 0

    def read(self, folder: Path, rejects: Rejects) -> None:
        known = {"user_id": self.users, "session_id": self.sessions, "target_item_id": self.items}
        names = [*known, "target_item_price"]
        for chunk in track(read_chunks(folder, RANK, "rank", names, rejects), "rank (prices)", unit="chunks"):
            frame, _ = single_values(chunk.frame, {name: name for name in names})
            ids = frame.select(identifier(frame, name).alias(name) for name in known)
            for name, seen in known.items():
                seen.add(hashes(ids[name].drop_nulls()))
            numbers = chunk.numbers.get("target_item_price")
            price = parse_prices(frame["target_item_price"], numbers=numbers).price
            frame = pl.DataFrame({"key": hashes(ids["target_item_id"]), "price": price})
            self._new.append(frame.drop_nulls("price").unique("key", keep="last"))
            # Merge now and then: memory holds the distinct items and some rows, not the whole table.
            self._pending += len(self._new[-1])
            if self._pending > _PENDING:
                self._merge()
        self._merge()

    def _merge(self) -> None:
        self._known = pl.concat([self._known, *self._new]).unique("key", keep="last", maintain_order=True)
        self._new, self._pending = [], 0

    def joined_to(self, items: pl.DataFrame) -> pl.DataFrame:
        """The items with their prices."""
        # By hash, as ids are known throughout an import.
        keys = items.with_columns(key=pl.Series(hashes(items["item_id"]), dtype=pl.UInt64)).drop("price")
        joined = keys.join(self._known, on="key", how="left", maintain_order="left")
        return joined.select(items.columns)


class _Titles:
    """Item ids by title and seller, and by title, for those that the relevance table asks for."""

    def __init__(self) -> None:
        self._wanted = IdSet()
        self._found: list[pl.DataFrame] = []

    def read(self, folder: Path, rejects: Rejects) -> None:
        for chunk in read_chunks(folder, RELEVANCE, "judgments", ["item_title"], rejects):
            frame, _ = single_values(chunk.frame, {"item_title": "item_title"})
            self._wanted.add(hashes(frame.select(text("item_title")).to_series()))

    def add(self, items: pl.DataFrame) -> None:
        asked = items.filter(pl.Series(self._wanted.contains(hashes(items["title"]))))
        self._found.append(asked.select("item_id", "title", pl.col("seller").fill_null("")))

    def resolved(self, judged: pl.DataFrame) -> pl.DataFrame:
        """Judgments with ``item_id`` filled in, and ``how``: "id", "title and seller", "title", null."""
        empty = pl.DataFrame(schema={"item_id": pl.String, "title": pl.String, "seller": pl.String})
        found = pl.concat([empty, *self._found])
        # Of several items with the same title (and seller) the first one in the file is meant.
        both = found.unique(["title", "seller"], keep="first", maintain_order=True).rename({"item_id": "by_both"})
        title = found.unique("title", keep="first", maintain_order=True).select("title", by_title="item_id")
        joined = judged.join(both, on=["title", "seller"], how="left", maintain_order="left")
        joined = joined.join(title, on="title", how="left", maintain_order="left")
        # An id of the judgment's own goes first, then title and seller, then the title alone.
        return joined.with_columns(
            item_id=pl.coalesce("item_id", "by_both", "by_title"),
            how=pl.when(pl.col("item_id").is_not_null())
            .then(pl.lit("id"))
            .when(pl.col("by_both").is_not_null())
            .then(pl.lit("title and seller"))
            .when(pl.col("by_title").is_not_null())
            .then(pl.lit("title")),
        )


def import_kuaisearch(folder: Path, out: Path) -> ImportSummary:
    """Import a folder in the KuaiSearch schema into the data set folder ``out``.

    Raises:
        FileNotFoundError: items, users or recall are missing.
        ValueError: a file cannot be read.
    """
    prices, titles = _Prices(), _Titles()
    has_rank, has_relevance = ((folder / table.file).is_file() for table in (RANK, RELEVANCE))
    with readable_errors(folder), Importer(out, "kuaisearch") as importer:
        summary, rejects = importer.summary, importer.rejects
        # What the other tables say of items comes first, so that items are written once.
        if has_rank:
            prices.read(folder, rejects)
        if has_relevance:
            titles.read(folder, Rejects(None))  # the second pass sets broken lines aside
        for part in track(tables.items(folder, ITEMS, rejects), "items", unit="chunks"):
            taken = importer.items(replace(part, frame=prices.joined_to(part.frame)))
            titles.add(taken)
            summary.join("items with a price in rank", len(taken), int(taken["price"].is_not_null().sum()))
        for part in track(tables.users(folder, USERS, rejects), "users", unit="chunks"):
            importer.users(part)
        # The user table as it is in the file: page views add their users to the importer's.
        users, asking, sessions, queries = importer.user_ids.copy(), IdSet(), IdSet(), IdSet()
        for part in track(tables.page_views(folder, RECALL, rejects, ("query_type",)), "recall", unit="chunks"):
            for seen, name in ((asking, "user_id"), (sessions, "session_id"), (queries, "query")):
                seen.add(hashes(part.frame[name].drop_nulls()))
            importer.page_views(part, generated_ids=True)
        summary.join("distinct recall.user_id -> users", len(asking), asking.shared(users))
        # How well the tables join, which the published sample hardly does.
        if has_rank:
            for name, referred, known in (
                ("distinct rank.target_item_id -> items", prices.items, importer.item_ids),
                ("distinct rank.user_id -> users", prices.users, users),
                ("distinct rank.session_id -> recall", prices.sessions, sessions),
            ):
                summary.join(name, len(referred), referred.shared(known))
        if has_relevance:
            _judgments(folder, importer, titles, queries)
        summary.notes.append("time_index is read as seconds since 2024-01-01; only order and distances mean something")
        summary.notes.append("the shoppers' recent items in rank are not imported; histories come from the page views")
        return importer.finish()


def _judgments(folder: Path, importer: Importer, titles: _Titles, queries: IdSet) -> None:
    """Add the relevance table, its items found by title, and count how its queries join those of the page views."""
    asked = IdSet()
    names, optional = ["query", "item_title", "score"], ("seller_name", "item_id")
    rows = read_chunks(folder, RELEVANCE, "judgments", names, importer.rejects, optional)
    for chunk in track(rows, "relevance", unit="chunks"):
        raw, wrong = single_values(chunk.frame, {name: name for name in (*names, *optional)})
        judged = titles.resolved(
            raw.select(
                query=text("query"),
                item_id=identifier(raw, "item_id"),
                score=number("score"),
                title=text("item_title"),
                seller=text("seller_name").fill_null(""),
            )
        )
        # Judgments without an id of their own: how many of them an item was found for.
        by_title = (judged["how"] != "id").fill_null(True)
        found = by_title & judged["how"].is_not_null()
        importer.summary.join("relevance.item_title -> items", int(by_title.sum()), int(found.sum()))
        asked.add(hashes(judged["query"].drop_nulls()))
        refused = refused_values(wrong, {name for name, _ in wrong})
        part = tables.graded(chunk, judged.select("query", "item_id", "score"), None, refused)
        reason = part.reason.replace("no item id", "item_title is not in the items")
        importer.judgments(replace(part, reason=reason))
    importer.summary.join("distinct relevance.query -> recall", len(asked), asked.shared(queries))
