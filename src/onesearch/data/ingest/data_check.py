"""Does a data set folder hold what the rest of the package relies on?"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from onesearch.data.dataset import Dataset, table_path
from onesearch.data.records import LEVELS, SCHEMAS

Grade = Literal["ok", "note", "error"]


@dataclass(frozen=True)
class Finding:
    """One thing checked. ``error``: later steps would fail or be wrong; ``note``: worth knowing, nothing more."""

    grade: Grade
    what: str
    detail: str


def check(folder: Path) -> list[Finding]:
    """Check schema, counts, ids, references, levels, times and how well the tables join.

    Raises:
        FileNotFoundError: no data set there.
    """
    dataset = Dataset.load(folder)
    findings = list(_schema(dataset))
    if any(finding.grade == "error" for finding in findings):
        return findings
    tables = {name: pl.scan_parquet(table_path(dataset.folder, name)) for name in SCHEMAS}
    for part in (_ids, _references, _values, _times):
        findings.extend(part(tables))
    return findings


def _schema(dataset: Dataset) -> Iterator[Finding]:
    for name, schema in SCHEMAS.items():
        path = table_path(dataset.folder, name)
        if not path.is_file():
            yield Finding("error", f"{name}: schema", f"{path.name} is missing; import the data again")
            continue
        try:
            found = pl.scan_parquet(path).collect_schema()
            rows = int(pl.scan_parquet(path).select(pl.len()).collect().item())
        except (pl.exceptions.PolarsError, OSError) as error:
            yield Finding("error", f"{name}: schema", f"{path.name} cannot be read ({error}); import the data again")
            continue
        wrong = [
            f"{column} is {found.get(column)} instead of {kind}"
            for column, kind in schema.items()
            if found.get(column) != kind
        ]
        said = dataset.counts.get(name)
        if wrong:
            yield Finding("error", f"{name}: schema", "; ".join(wrong))
        elif rows != said:
            yield Finding("error", f"{name}: rows", f"{rows:,}, but dataset.json says {said}; the file was changed")
        else:
            yield Finding("ok", f"{name}: schema", f"{rows:,} rows")


def _ids(tables: dict[str, pl.LazyFrame]) -> Iterator[Finding]:
    for table, name in (("items", "item_id"), ("users", "user_id"), ("page_views", "page_view_id")):
        ids = tables[table].select(
            n=pl.len(), nulls=pl.col(name).is_null().sum(), distinct=pl.col(name).drop_nulls().n_unique()
        )
        row = ids.collect().row(0, named=True)
        twice = row["n"] - row["nulls"] - row["distinct"]
        bad = [f"{count:,} {word}" for count, word in ((row["nulls"], "missing"), (twice, "repeated")) if count]
        yield Finding("error" if bad else "ok", f"{table}: {name} is unique", ", ".join(bad) or "yes")
    pairs = tables["judgments"].select(n=pl.len(), distinct=pl.struct("query", "item_id").n_unique())
    n, distinct = pairs.collect().row(0)
    grade: Grade = "ok" if n == distinct else "error"
    yield Finding(
        grade, "judgments: query and item_id are unique", "yes" if n == distinct else f"{n - distinct:,} repeated"
    )


def _references(tables: dict[str, pl.LazyFrame]) -> Iterator[Finding]:
    items = tables["items"].select(id="item_id")
    views = tables["page_views"]
    for name in ("shown", "clicked", "ordered"):
        ids = views.select(id=pl.col(name)).filter(pl.col("id").list.len() > 0).explode("id")
        yield _reference(ids, items, f"page_views.{name} in items")
    yield _reference(tables["judgments"].select(id="item_id"), items, "judgments.item_id in items")
    users = tables["users"].select(id="user_id")
    yield _reference(views.select(id="user_id").drop_nulls(), users, "page_views.user_id in users")
    asked = views.select("query").unique()
    judged = tables["judgments"].select("query").unique()
    yield _share(judged, asked, "query", "judged queries that were asked")
    touched = views.select(item_id="clicked").explode("item_id").drop_nulls().unique()
    yield _share(tables["items"].select("item_id"), touched, "item_id", "items with a click")
    yield _share(
        tables["users"].select("user_id"), views.select("user_id").unique(), "user_id", "users with a page view"
    )
    empty = views.select((pl.sum_horizontal(pl.col(n).list.len() for n in ("shown", "clicked", "ordered")) == 0).sum())
    count = int(empty.collect().item() or 0)
    yield Finding("note" if count else "ok", "page views have an item", f"{count:,} have none" if count else "yes")


def _reference(ids: pl.LazyFrame, known: pl.LazyFrame, what: str) -> Finding:
    counts = ids.group_by("id").agg(n=pl.len())
    lost = counts.join(known, on="id", how="anti")
    total = int(counts.select(pl.col("n").sum()).collect().item() or 0)
    missing = lost.sort("n", descending=True).collect()
    if not len(missing):
        return Finding("ok", what, f"all {total:,}")
    n = int(missing["n"].sum())
    return Finding("error", what, f"{n:,} of {total:,} are not, such as {missing['id'][0]!r}; import the data again")


def _share(of: pl.LazyFrame, known: pl.LazyFrame, key: str, what: str) -> Finding:
    total = int(of.select(pl.len()).collect().item())
    found = int(of.join(known, on=key, how="semi").select(pl.len()).collect().item())
    return Finding("note", what, f"{found:,} of {total:,} ({found / total:.1%})" if total else "none to look for")


def _values(tables: dict[str, pl.LazyFrame]) -> Iterator[Finding]:
    untitled = int(
        tables["items"].select((pl.col("title").fill_null("").str.strip_chars() == "").sum()).collect().item()
    )
    yield Finding("error" if untitled else "ok", "items have a title", f"{untitled:,} have none" if untitled else "yes")
    level = pl.col("level")
    wrong = int(tables["judgments"].select((~level.is_in(LEVELS)).fill_null(True).sum()).collect().item())
    yield Finding("error" if wrong else "ok", "levels are 0 to 3", f"{wrong:,} are not" if wrong else "yes")
    views = tables["page_views"].filter(pl.col("shown").list.len() > 0)
    outside = pl.col("clicked").list.set_difference("shown").list.len().sum()
    clicks, beside = views.select(pl.col("clicked").list.len().sum(), outside.alias("o")).collect().row(0)
    yield Finding("note", "clicked items that were shown", f"{clicks - beside:,} of {clicks:,}")


def _times(tables: dict[str, pl.LazyFrame]) -> Iterator[Finding]:
    time = pl.col("time")
    views = tables["page_views"]
    back = (time.diff().dt.total_microseconds() < 0).sum()
    counts = views.select(n=pl.len(), timed=time.count(), first=time.min(), last=time.max(), back=back)
    row = counts.collect().row(0, named=True)
    if row["timed"] == 0:
        yield Finding("note", "page views have a time", "none: they are split by query, and shoppers have no history")
        return
    if row["timed"] < row["n"]:
        detail = f"{row['timed']:,} of {row['n']:,}; with some missing the data is split by query"
        yield Finding("note", "page views have a time", detail)
    else:
        yield Finding("ok", "page views have a time", f"{row['first']:%Y-%m-%d} to {row['last']:%Y-%m-%d}")
    inside = row["first"].year >= 1995 and row["last"].year < 2100
    yield Finding("ok" if inside else "error", "times are plausible", "yes" if inside else "not within 1995 to 2100")
    early_rows = row["back"] or 0
    order = f"{early_rows:,} rows are earlier than the one above" if early_rows else "yes"
    yield Finding("note", "rows are in time order", order)
    listed = tables["items"].select("item_id", "listed_at").drop_nulls()
    seen = views.select("time", item_id=pl.concat_list("shown", "clicked")).explode("item_id").drop_nulls()
    early = seen.join(listed, on="item_id").select(n=pl.len(), early=(time < pl.col("listed_at")).sum())
    n, before = early.collect().row(0)
    if n:
        yield Finding("note", "items shown after they were listed", f"{n - before:,} of {n:,}")
