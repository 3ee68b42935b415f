"""Any CSV, JSON lines or Parquet file, by a mapping: rows as they are in the file to rows of our tables."""

import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import polars as pl

from onesearch.data.ingest.column_mapping import File, Items, Judgments, PageViews, Users
from onesearch.data.ingest.file_chunks import Chunk, TextFormat, read_parquet, read_text
from onesearch.data.ingest.rejected_rows import Rejects
from onesearch.data.ingest.time_formats import parse_times
from onesearch.data.records import ATTRIBUTES, TEXT, TEXTS, TIME

_ENDINGS: Final[dict[str, Literal["csv", "jsonl", "parquet"]]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Part:
    """Rows of one of our tables, beside the rows of the file they came from.

    Attributes:
        chunk: the rows of the file, [n].
        frame: columns of the table, [n].
        reason: why a row cannot be taken, String [n]; null for good rows.
        emptied: values left empty because they could not be right, counted by reason.
    """

    chunk: Chunk
    frame: pl.DataFrame
    reason: pl.Series
    emptied: dict[str, int]


def files_of(folder: Path, given: File) -> list[Path]:
    """The files that a table names.

    Raises:
        FileNotFoundError: no such file; the message lists what the folder has.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder (from `folder` of the mapping)")
    if any(sign in given.file for sign in "*?["):
        found = sorted(path for path in folder.rglob("*") if fnmatch.fnmatch(str(path.relative_to(folder)), given.file))
    else:
        found = [path for path in [folder / given.file] if path.is_file()]
    if not found:
        there = ", ".join(sorted(path.name for path in folder.iterdir())[:20]) or "nothing"
        raise FileNotFoundError(f"{folder / given.file}: no such file; the folder has {there}")
    return found


def read(
    folder: Path, given: File, table: str, columns: Sequence[str], rejects: Rejects, optional: Sequence[str] = ()
) -> Iterator[Chunk]:
    """The wanted columns of a table's files, chunk by chunk; ``optional`` ones may be missing from JSON lines.

    Raises:
        ValueError: a wanted column that a file does not have.
    """
    wanted = list(dict.fromkeys(columns))
    for path in files_of(folder, given):
        kind = _format(path, given)
        if kind == "parquet":
            yield from read_parquet(path, wanted)
            continue
        separator = "\t" if kind == "csv" and ".tsv" in path.suffixes and given.separator == "," else given.separator
        style = TextFormat(kind, separator, given.encoding, given.newlines_in_values)
        for number, chunk in enumerate(read_text(path, style, table, [*wanted, *optional], rejects)):
            if number == 0 and kind == "jsonl":
                _check_keys(path, chunk.frame, wanted)
            yield chunk


def _format(path: Path, given: File) -> Literal["csv", "jsonl", "parquet"]:
    if given.format != "auto":
        return given.format
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending.lower() not in _ENDINGS:
        raise ValueError(f"{path}: cannot tell the format by the ending {ending!r}; say format: csv, jsonl or parquet")
    return _ENDINGS[ending.lower()]


def _check_keys(path: Path, frame: pl.DataFrame, wanted: Sequence[str]) -> None:
    empty = [name for name in wanted if frame[name].null_count() == len(frame)]
    if len(empty) == len(wanted) or (empty and len(frame) >= 1000):
        raise ValueError(f"{path}: none of the first {len(frame):,} lines has the key {', '.join(map(repr, empty))}")


def text(name: str | None) -> pl.Expr:
    """A column as trimmed text, null when empty; whole numbers that a file writes as 7.0 become "7"."""
    if name is None:
        return pl.lit(None, pl.String)
    stripped = pl.col(name).cast(pl.String).str.strip_chars()
    return pl.when(stripped != "").then(stripped)


def identifier(frame: pl.DataFrame, name: str | None) -> pl.Expr:
    """As :func:`text`; float columns hold whole numbers, as pandas writes integers beside missing values."""
    if name is not None and frame.schema[name].is_float():
        return pl.col(name).cast(pl.Int64, strict=False).cast(pl.String)
    return text(name)


def texts(frame: pl.DataFrame, name: str | None, separator: str | None) -> pl.Expr:
    """A column as a list of trimmed, non-empty texts: a list as it is, a text cut at the separator."""
    if name is None:
        return pl.lit(None, TEXTS).fill_null([])
    kind = frame.schema[name]
    if isinstance(kind, pl.List):
        inner = pl.element()
        inner = inner.cast(pl.Int64, strict=False) if isinstance(kind.inner, pl.Float64) else inner
        parts = pl.col(name).list.eval(inner.cast(pl.String).str.strip_chars())
    elif separator is None:
        parts = pl.concat_list(pl.col(name).cast(pl.String).str.strip_chars())
    else:
        parts = pl.col(name).cast(pl.String).str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != "")).fill_null([])


def reasons(**wrong: pl.Expr) -> pl.Expr:
    """For each row the first reason whose condition holds, null when none does; ``_`` in names stands for a blank."""
    return pl.coalesce(
        *(pl.when(condition).then(pl.lit(name.replace("_", " "))) for name, condition in wrong.items()),
        pl.lit(None, pl.String),
    )


def items(folder: Path, given: Items, rejects: Rejects) -> Iterator[Part]:
    """The item table."""
    columns = given.columns
    path = (columns.category,) if isinstance(columns.category, str) else columns.category or ()
    attributes = [(kind, a.column, a.separator) for kind, listed in given.attributes.items() for a in listed]
    names = [
        columns.item_id,
        columns.title,
        *path,
        columns.brand,
        columns.price,
        columns.seller,
        columns.images,
        columns.listed_at,
        columns.in_stock,
        *(name for _, name, _ in attributes),
    ]
    constants = given.constants
    for chunk in read(folder, given, "items", [name for name in names if name is not None], rejects):
        raw = chunk.frame

        def known(value: pl.Expr) -> pl.Expr:
            return pl.when(~value.is_in(given.ignore)).then(value) if given.ignore else value

        def known_texts(values: pl.Expr) -> pl.Expr:
            return values.list.eval(pl.element().filter(~pl.element().is_in(given.ignore))) if given.ignore else values

        if len(path) == 1:
            category = known_texts(texts(raw, path[0], given.separators.category))
        else:
            levels = [known(text(name)) for name in path]
            category = pl.concat_list(levels).list.drop_nulls() if levels else texts(raw, None, None)
        price = pl.lit(None, pl.Float64) if columns.price is None else _number(columns.price)
        time, problem = (
            (pl.Series([None], dtype=TIME).new_from_index(0, len(raw)),) * 2
            if columns.listed_at is None
            else parse_times(raw[columns.listed_at], given.time)
        )
        stock = pl.lit(True if constants.in_stock is None else constants.in_stock)
        stocked = stock if columns.in_stock is None else _flag(raw, columns.in_stock).fill_null(stock)
        frame = raw.select(
            item_id=identifier(raw, columns.item_id),
            title=text(columns.title),
            category=category if path else pl.lit(list(constants.category or ()), TEXTS),
            brand=pl.coalesce(known(text(columns.brand)), pl.lit(constants.brand, pl.String)),
            price=pl.when(price.is_finite() & (price >= 0)).then(price),
            attributes=_attributes(raw, attributes, known_texts),
            seller=pl.coalesce(known(text(columns.seller)), pl.lit(constants.seller, pl.String)),
            images=texts(raw, columns.images, given.separators.images),
            listed_at=time,
            in_stock=stocked,
        )
        emptied = {} if columns.listed_at is None else _counted("listed_at", problem)
        if columns.price is not None:
            wrong = (frame["price"].is_null() & raw.select(text(columns.price)).to_series().is_not_null()).sum()
            emptied |= {"price: not a number, or negative": int(wrong)} if wrong else {}
        missing = frame.select(
            reasons(no_item_id=pl.col("item_id").is_null(), no_title=pl.col("title").is_null()).alias("reason")
        )
        yield Part(chunk, frame, missing["reason"], emptied)


def users(folder: Path, given: Users, rejects: Rejects) -> Iterator[Part]:
    """The user table."""
    columns = given.columns
    names = [name for name in (columns.user_id, columns.gender, columns.age_band) if name is not None]
    for chunk in read(folder, given, "users", names, rejects):
        gender, age = (text(name) for name in (columns.gender, columns.age_band))
        frame = chunk.frame.select(
            user_id=identifier(chunk.frame, columns.user_id),
            gender=pl.when(~gender.is_in(given.ignore)).then(gender) if given.ignore else gender,
            age_band=pl.when(~age.is_in(given.ignore)).then(age) if given.ignore else age,
        )
        missing = frame.select(reasons(no_user_id=pl.col("user_id").is_null()).alias("reason"))
        yield Part(chunk, frame, missing["reason"], {})


def page_views(folder: Path, given: PageViews, rejects: Rejects, optional: Sequence[str] = ()) -> Iterator[Part]:
    """The page view table, lists of item ids in ``shown``, ``clicked``, ``ordered``: one row per row of the file."""
    columns, cut = given.columns, given.separators
    named = [*columns.model_dump().values(), *given.group_by]
    names = [name for name in named if name is not None and name not in optional]
    several = len(files_of(folder, given)) > 1
    for chunk in read(folder, given, "page_views", names, rejects, optional):
        raw = chunk.frame
        time, problem = (
            (
                pl.Series([None], dtype=TIME).new_from_index(0, len(raw)),
                pl.Series([None], dtype=TEXT).new_from_index(0, len(raw)),
            )
            if columns.time is None
            else parse_times(raw[columns.time], given.time)
        )
        single = texts(raw, None, None)
        if columns.item_id is not None:
            one = identifier(raw, columns.item_id)
            single = pl.when(one.is_not_null()).then(pl.concat_list(one)).otherwise(pl.lit([], TEXTS))
        if given.rows == "page_views":
            lists = {
                "shown": texts(raw, columns.shown, cut.shown),
                "clicked": texts(raw, columns.clicked, cut.clicked),
                "ordered": texts(raw, columns.ordered, cut.ordered),
            }
        else:
            clicked = pl.lit(given.rows == "clicks") if columns.clicked is None else _flag(raw, columns.clicked)
            ordered = pl.lit(False) if columns.ordered is None else _flag(raw, columns.ordered)
            none = pl.lit([], TEXTS)
            lists = {
                "shown": single if given.rows == "items" else none,
                "clicked": pl.when(clicked).then(single).otherwise(none),
                "ordered": pl.when(ordered).then(single).otherwise(none),
            }
        numbers = pl.Series(chunk.rows).cast(pl.String)
        numbers = f"{chunk.file}:" + numbers if several else numbers
        frame = raw.select(
            page_view_id=pl.lit(numbers) if columns.page_view_id is None else identifier(raw, columns.page_view_id),
            user_id=identifier(raw, columns.user_id),
            session_id=identifier(raw, columns.session_id),
            time=time,
            query=text(columns.query),
            **lists,
            query_type=text(columns.query_type),
        )
        frame = frame.with_columns(problem=problem)
        found = frame.select(
            pl.coalesce(
                "problem",
                reasons(
                    no_time=pl.col("time").is_null() & pl.lit(columns.time is not None),
                    no_page_view_id=pl.col("page_view_id").is_null(),
                    no_query=pl.col("query").is_null() & pl.lit(given.empty_query == "reject"),
                ),
            ).alias("reason")
        )
        frame = frame.drop("problem").with_columns(pl.col("query").fill_null(""))
        if given.group_by:
            keys = raw.select(text(name).alias(str(i)) for i, name in enumerate(given.group_by))
            frame = frame.with_columns(group=keys.hash_rows(seed=17))
        yield Part(chunk, frame, found["reason"], {})


def judgments(folder: Path, given: Judgments, rejects: Rejects) -> Iterator[Part]:
    """The judgment table, with the file's own ``score`` as one more column."""
    columns = given.columns
    for chunk in read(folder, given, "judgments", [columns.query, columns.item_id, columns.score], rejects):
        raw = chunk.frame
        frame = raw.select(
            query=text(columns.query), item_id=identifier(raw, columns.item_id), score=_number(columns.score)
        )
        yield graded(chunk, frame, given.levels)


def graded(chunk: Chunk, frame: pl.DataFrame, levels: tuple[float, float, float] | None) -> Part:
    """Judgments with ``query``, ``item_id`` and ``score``: their level, and what is wrong with them."""
    score = pl.col("score")
    if levels is None:
        level = pl.when(score.is_in([0.0, 1.0, 2.0, 3.0])).then(score)
    else:
        level = pl.when(score.is_finite()).then(sum((score >= least).cast(pl.Int8) for least in levels))
    frame = frame.with_columns(level=level.cast(pl.Int8))
    wrong = {
        "no query": pl.col("query").is_null(),
        "no item id": pl.col("item_id").is_null(),
        "score is not a number": score.is_null() | score.is_nan(),
        "score is not 0, 1, 2 or 3, and the mapping has no levels": pl.col("level").is_null(),
    }
    return Part(chunk, frame, frame.select(reasons(**wrong).alias("reason"))["reason"], {})


def _number(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)


def _flag(frame: pl.DataFrame, name: str) -> pl.Expr:
    if frame.schema[name] == pl.Boolean:
        return pl.col(name)
    word = pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()
    yes = word.is_in(["1", "1.0", "true", "t", "yes", "y"])
    return pl.when(yes | word.is_in(["0", "0.0", "false", "f", "no", "n"])).then(yes)


def _counted(name: str, problems: pl.Series) -> dict[str, int]:
    short = problems.drop_nulls().str.replace(r": .*$", "")
    return {f"{name}: {reason}": count for reason, count in short.value_counts().iter_rows()}


def _attributes(
    frame: pl.DataFrame,
    wanted: Sequence[tuple[str, str, str | None]],
    known: Callable[[pl.Expr], pl.Expr],
) -> pl.Expr:
    if not wanted:
        return pl.lit([], ATTRIBUTES)
    pairs = [
        known(texts(frame, name, separator)).list.eval(
            pl.struct(pl.lit(kind).alias("type"), pl.element().alias("value"))
        )
        for kind, name, separator in wanted
    ]
    return pl.concat_list(pairs)
