"""Does a data set folder hold what the rest of the package relies on?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl

from onesearch.data.dataset import Dataset, table_path
from onesearch.data.ingest.importer import readable_errors
from onesearch.data.records import LEVELS, SCHEMAS, written_schema

Grade = Literal["ok", "note", "warning", "error"]
# Of a column's values; from this share on what an import emptied or found doubtful is more than single mistakes.
WORTH_A_LOOK: Final = 0.01
_Tables = dict[str, pl.LazyFrame]
_LISTS = ("shown", "clicked", "ordered")


@dataclass(frozen=True)
class Finding:
    """One thing checked.

    ``error``: later steps would fail or be wrong; ``warning``: they run, and what they learn may be wrong; ``note``:
    worth knowing, nothing more.
    """

    grade: Grade
    what: str
    detail: str


def check(folder: Path) -> list[Finding]:
    """Check schema, counts, ids, references, levels, times and how well the tables join.

    Raises:
        FileNotFoundError: no data set there.
        ValueError: a table is damaged.
    """
    dataset = Dataset.load(folder)
    findings = [*_schema(dataset), *_imported(dataset)]
    # Tables of another form cannot be asked anything else.
    if any(finding.grade == "error" and finding.what.endswith((": schema", ": rows")) for finding in findings):
        return findings
    # Scanned, not read: a log need not fit in memory.
    tables = {name: pl.scan_parquet(table_path(dataset.folder, name)) for name in SCHEMAS}
    with readable_errors(folder):
        for part in (_ids, _references, _values, _times):
            findings.extend(part(tables))
    return findings


def _schema(dataset: Dataset) -> Iterator[Finding]:
    """The files are there, with the columns, types and number of rows that they must have."""
    for name in SCHEMAS:
        path = table_path(dataset.folder, name)
        if not path.is_file():
            yield Finding("error", f"{name}: schema", f"{path.name} is missing; import the data again")
            continue
        try:
            found = pl.scan_parquet(path).collect_schema()
            rows = _number(pl.scan_parquet(path), pl.len())
        except (pl.exceptions.PolarsError, OSError) as error:
            yield Finding("error", f"{name}: schema", f"{path.name} cannot be read ({error}); import the data again")
            continue
        wrong = [
            f"{column} is {found.get(column)} instead of {kind}"
            for column, kind in written_schema(name, found.names()).items()
            if found.get(column) != kind
        ]
        said = dataset.counts.get(name)
        if wrong:
            yield Finding("error", f"{name}: schema", "; ".join(wrong))
        elif rows != said:
            yield Finding("error", f"{name}: rows", f"{rows:,}, but dataset.json says {said}; the file was changed")
        else:
            yield Finding("ok", f"{name}: schema", f"{rows:,} rows")


@dataclass(frozen=True)
class ColumnValues:
    """What the values of a column are: how many rows have none, and what the import did to those that have.

    Attributes:
        column: as table and name.
        rows: all of them.
        empty: rows without a value.
        emptied: values that could not be right and were left empty, among them those of rows set aside.
        repaired: values that were changed.
        suspicious: values that were taken and may mean something else.
    """

    column: str
    rows: int
    empty: int
    emptied: int
    repaired: int
    suspicious: int


def column_values(folder: Path) -> list[ColumnValues]:
    """Every column of the tables that have rows.

    Raises:
        FileNotFoundError: no data set there.
    """
    dataset = Dataset.load(folder)
    imported = dataset.description.get("import", {})
    out = []
    for table in SCHEMAS:
        if not dataset.counts[table]:
            continue
        with readable_errors(folder):
            file = pl.scan_parquet(table_path(dataset.folder, table))
            schema = written_schema(table, file.collect_schema().names())
        # An empty list is no value either.
        nothing = [
            (pl.col(name).list.len().fill_null(0) == 0 if isinstance(kind, pl.List) else pl.col(name).is_null())
            .sum()
            .alias(name)
            for name, kind in schema.items()
        ]
        with readable_errors(folder):
            empty = file.select(nothing).collect().row(0, named=True)
        for name in schema:
            counts = [_of_column(imported.get(kind, {}).get(table, {}), name) for kind in _KINDS]
            out.append(ColumnValues(f"{table}.{name}", dataset.counts[table], empty[name], *counts))
    return out


_KINDS: Final = ("emptied", "repaired", "suspicious")


def _of_column(counts: Mapping[str, int], name: str) -> int:
    return sum(count for what, count in counts.items() if what.partition(": ")[0] == name)


def verdict(findings: Sequence[Finding]) -> str:
    """One sentence that says whether to go on, and where to look first."""
    errors = [finding for finding in findings if finding.grade == "error"]
    warnings = [finding for finding in findings if finding.grade == "warning"]
    # The first of each, since one mistake of a mapping often makes several findings.
    worst = (errors or warnings)[:3]
    named = "; ".join(f"{finding.what} ({finding.detail})" for finding in worst)
    if errors:
        return f"not usable: {named}. Mend the mapping or the files and import again."
    if warnings:
        return f"usable, but look first at: {named}."
    return "ready to train: nothing was lost or doubtful beyond single values."


def _imported(dataset: Dataset) -> Iterator[Finding]:
    """What the import set aside, emptied and doubted, where it is more than single mistakes."""
    imported: Mapping[str, Any] = dataset.description.get("import", {})
    for table, reasons in imported.get("rejected", {}).items():
        aside, rows = sum(reasons.values()), dataset.counts[table] - imported.get("created", {}).get(table, 0)
        detail = f"{aside:,} of {aside + rows:,} rows set aside, most of them for: {max(reasons, key=reasons.get)}"
        # Without judgments a run goes on; without the log that somebody gave it learns nothing.
        if not rows and table == "page_views":
            yield Finding("error", f"{table}: rows were taken", detail)
        elif aside > (aside + rows) * WORTH_A_LOOK:
            yield Finding("warning", f"{table}: rows were taken", detail)
    for kind, said in (("emptied", "left empty"), ("suspicious", "doubtful")):
        for table, counts in imported.get(kind, {}).items():
            for what, count in counts.items():
                grade: Grade = "warning" if count > dataset.counts[table] * WORTH_A_LOOK else "note"
                yield Finding(grade, f"{table}.{what}", f"{count:,} values {said}")
    for name, join in imported.get("joins", {}).items():
        lost = join["total"] - join["found"]
        if lost > join["total"] / 2 and name.endswith("-> items") and imported.get("dropped", {}):
            detail = f"{lost:,} of {join['total']:,} item ids are not; see separators, and unknown_items"
            yield Finding("warning", f"{name.replace(' ->', ' in')}", detail)
    if not dataset.counts["page_views"] and "page_views" not in imported.get("rejected", {}):
        yield Finding("warning", "there is a log", "no page views: a model learns from them; import a search log")


def _ids(tables: _Tables) -> Iterator[Finding]:
    """Ids are there, and none is there twice."""
    for table, name in (("items", "item_id"), ("users", "user_id"), ("page_views", "page_view_id")):
        ids = pl.col(name)
        row = tables[table].select(nulls=ids.is_null().sum(), repeated=ids.count() - ids.drop_nulls().n_unique())
        nulls, repeated = row.collect().row(0)
        bad = [f"{count:,} {word}" for count, word in ((nulls, "missing"), (repeated, "repeated")) if count]
        yield _verdict(f"{table}: {name} is unique", ", ".join(bad))
    repeated = _number(tables["judgments"], pl.len() - pl.struct("query", "item_id").n_unique())
    yield _verdict("judgments: query and item_id are unique", f"{repeated:,} repeated" if repeated else "")


def _references(tables: _Tables) -> Iterator[Finding]:
    """What a table refers to is there (an error if not), and how much of one table another one uses (a note)."""
    items, users, views, judgments = (tables[name] for name in ("items", "users", "page_views", "judgments"))
    for name in _LISTS:
        ids = views.select(item_id=name).filter(pl.col("item_id").list.len() > 0).explode("item_id")
        yield _reference(ids, items, f"page_views.{name} in items")
    yield _reference(judgments.select("item_id"), items, "judgments.item_id in items")
    yield _reference(views.select("user_id").drop_nulls(), users, "page_views.user_id in users")
    yield _share(judgments.select("query").unique(), views, "judged queries that were asked")
    touched = views.select(item_id="clicked").explode("item_id").drop_nulls()
    yield _share(items.select("item_id"), touched, "items with a click")
    yield _share(users.select("user_id"), views, "users with a page view")
    empty = _number(views, (pl.sum_horizontal(pl.col(name).list.len() for name in _LISTS) == 0).sum())
    yield _verdict("page views have an item", f"{empty:,} have none" if empty else "", "note")


def _reference(ids: pl.LazyFrame, known: pl.LazyFrame, what: str) -> Finding:
    """Whether all values of a single column are in the column of that name of another table."""
    (name,) = ids.collect_schema().names()
    # Distinct ids and how often each occurs; those that the other table does not have, the most frequent first.
    counts = ids.group_by(name).agg(n=pl.len())
    total = _number(counts, pl.col("n").sum())
    missing = counts.join(known, on=name, how="anti").sort("n", descending=True).collect()
    if not len(missing):
        return Finding("ok", what, f"all {total:,}")
    lost = int(missing["n"].sum())
    return Finding("error", what, f"{lost:,} of {total:,} are not, such as {missing[name][0]!r}; import the data again")


def _share(values: pl.LazyFrame, known: pl.LazyFrame, what: str) -> Finding:
    """How many values of a single column are in the column of that name of another table."""
    (name,) = values.collect_schema().names()
    total = _number(values, pl.len())
    found = _number(values.join(known.select(name).unique(), on=name, how="semi"), pl.len())
    return Finding("note", what, f"{found:,} of {total:,} ({found / total:.1%})" if total else "none to look for")


def _values(tables: _Tables) -> Iterator[Finding]:
    """Values are within bounds; clicked items were shown."""
    untitled = _number(tables["items"], (pl.col("title").fill_null("").str.strip_chars() == "").sum())
    yield _verdict("items have a title", f"{untitled:,} have none" if untitled else "")
    wrong = _number(tables["judgments"], (~pl.col("level").is_in(LEVELS)).fill_null(True).sum())
    yield _verdict("levels are 0 to 3", f"{wrong:,} are not" if wrong else "")
    views = tables["page_views"].filter(pl.col("shown").list.len() > 0)
    clicks = _number(views, pl.col("clicked").list.len().sum())
    beside = _number(views, pl.col("clicked").list.set_difference("shown").list.len().sum())
    yield Finding("note", "clicked items that were shown", f"{clicks - beside:,} of {clicks:,}")


def _times(tables: _Tables) -> Iterator[Finding]:
    """Times are there, can be right and rise; items are shown after they were listed."""
    time, views = pl.col("time"), tables["page_views"]
    # Steps back in time from one row to the next.
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
    if row["first"] == row["last"] and row["n"] > 1:
        detail = "one and the same for all; nothing lies before anything: set data.split to 'query' in the run"
        yield Finding("warning", "page views have different times", detail)
    inside = row["first"].year >= 1995 and row["last"].year < 2100
    yield _verdict("times are plausible", "" if inside else "not within 1995 to 2100")
    order = f"{row['back']:,} rows are earlier than the one above" if row["back"] else "yes"
    yield Finding("note", "rows are in time order", order)
    # Each time an item was shown or clicked, beside the time it was listed.
    listed = tables["items"].select("item_id", "listed_at").drop_nulls()
    seen = views.select("time", item_id=pl.concat_list("shown", "clicked")).explode("item_id").drop_nulls()
    early = seen.join(listed, on="item_id").select(n=pl.len(), early=(time < pl.col("listed_at")).sum())
    n, before = early.collect().row(0)
    if n:
        yield Finding("note", "items shown after they were listed", f"{n - before:,} of {n:,}")


def _verdict(what: str, fault: str, grade: Grade = "error") -> Finding:
    """``fault`` with its grade, or "yes" when there is none."""
    return Finding(grade if fault else "ok", what, fault or "yes")


def _number(table: pl.LazyFrame, expression: pl.Expr) -> int:
    """One number of a table that need not fit in memory."""
    return int(table.select(expression).collect().item() or 0)
