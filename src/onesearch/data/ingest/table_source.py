"""Any CSV, JSON lines or Parquet file, by a mapping: rows as they are in the file to rows of our tables.

How a value is read stands in ``text_values``, ``number_values``, ``flag_values`` and ``time_values``.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import polars as pl

from onesearch.data.ingest.category_paths import category_paths
from onesearch.data.ingest.column_mapping import Items, Judgments, PageViews, Users
from onesearch.data.ingest.file_chunks import Chunk, files_of, read_chunks
from onesearch.data.ingest.flag_values import flag, unknown_words
from onesearch.data.ingest.kind_values import kind_values
from onesearch.data.ingest.number_values import number, parse_prices
from onesearch.data.ingest.rejected_rows import Rejects
from onesearch.data.ingest.single_values import emptied_values, refused_values, single_values
from onesearch.data.ingest.text_cleaning import cleaned
from onesearch.data.ingest.text_values import (
    attributes,
    bare_texts,
    cut_texts,
    identifier,
    lost_in_lists,
    text,
    texts,
)
from onesearch.data.ingest.time_values import parse_times
from onesearch.data.records import LONGEST_ID, PARTS, TEXT, TEXTS, servable_ids

UNFIT_ID = f"item id has control characters, or more than {LONGEST_ID}"


@dataclass(frozen=True)
class Part:
    """Rows of one of our tables, beside the rows of the file they came from.

    Attributes:
        chunk: the rows of the file, [n].
        frame: columns of the table, [n].
        reason: why a row cannot be taken, String [n]; null for good rows.
        emptied: values left empty because they could not be right, counted by column and reason.
        repaired: values that were changed, such as texts with HTML.
        suspicious: values taken as they are that may mean something else.
    """

    chunk: Chunk
    frame: pl.DataFrame
    reason: pl.Series
    emptied: Mapping[str, int] = field(default_factory=dict)
    repaired: Mapping[str, int] = field(default_factory=dict)
    suspicious: Mapping[str, int] = field(default_factory=dict)

    def refusing(self, wrong: Mapping[str, pl.Series]) -> "Part":
        """The part with more reasons: each refuses the rows where its Boolean series [n] holds.

        Of several reasons a row keeps the first; those it has already come before.
        """
        # coalesce takes the first that is not null: the old reason, then the new ones in their order.
        more = (pl.when(condition).then(pl.lit(reason)) for reason, condition in wrong.items())
        return replace(self, reason=self.frame.select(pl.coalesce(self.reason, *more).alias("reason"))["reason"])


def _lost_in_lists(
    frame: pl.DataFrame, columns: Mapping[str, Sequence[str]], bare: Mapping[str, pl.Series]
) -> Counter[str]:
    """Cells of list columns with texts that are objects, or lists of objects or lists: nothing can be made of them."""
    counts = {
        ours: sum(lost_in_lists(bare_texts(frame, name, bare)) for name in named) for ours, named in columns.items()
    }
    return +Counter({f"{ours}: objects, or a list of objects or lists": count for ours, count in counts.items()})


def _infinite(frame: pl.DataFrame, columns: Mapping[str, str | None]) -> Counter[str]:
    """Infinite numbers in columns of ids, which are nobody's."""
    floats = {ours: name for ours, name in columns.items() if name is not None and frame.schema[name].is_float()}
    return +Counter(
        {f"{ours}: an infinite number": int(frame[name].is_infinite().sum()) for ours, name in floats.items()}
    )


def _lost(chunk: Chunk, columns: Mapping[str, Sequence[str | None]]) -> Counter[str]:
    """Values that the file's columns have and that could not be read, by our names (each the columns it is from)."""
    counts = Counter[str]()
    for ours, named in columns.items():
        for (column, why), count in chunk.lost.items():
            if column in named:
                counts[f"{ours}: {why}"] += count
    return counts


# Columns of an item with one value, which stays empty where the file has a list.
_OF_KINDS: Final = ("kind", "transcript", "host", "start", "end")
_OPTIONAL: Final = ("brand", "price", "seller", "listed_at", "in_stock", "description", *_OF_KINDS)


def items(folder: Path, table: Items, rejects: Rejects) -> Iterator[Part]:
    """The item table."""
    columns, constants, ignore = table.columns, table.constants, table.ignore
    path = (columns.category,) if isinstance(columns.category, str) else columns.category or ()
    typed = [(kind, a.column, a.separator) for kind, listed in table.attributes.items() for a in listed]
    # Every column that is read, by our name, in the order of the mapping.
    named: dict[str, tuple[str, ...]] = {
        name: (value,) if isinstance(value, str) else value or () for name, value in columns
    }
    named["attributes"] = tuple(name for _, name, _ in typed)
    names = list(itertools.chain(*named.values()))
    # Texts that HTML may be in, columns of lists, and those of one value (the levels of a category among them).
    texts_of = ("title", "category", "brand", "seller", "description", "attributes", "transcript", "host")
    written = {name: named[name] for name in texts_of}
    listed = {name: named[name] for name in ("category", "images", "attributes", "linked")}
    single = {name: getattr(columns, name) for name in ("item_id", "title", *_OPTIONAL)}
    single |= {f"category {number}": name for number, name in enumerate(path, 1) if len(path) > 1}
    separators = {name: separator for _, name, separator in typed}
    separators |= {columns.images: table.separators.images} if columns.images else {}
    separators |= {columns.linked: table.separators.linked} if columns.linked else {}
    # Of a category what its texts are cut at is told with its paths.
    separators |= {path[0]: None} if len(path) == 1 else {}
    for chunk in read_chunks(folder, table, "items", names, rejects):
        clean, repaired, suspicious = cleaned(chunk.frame, written)
        lists = cut_texts(clean, chunk.bare, separators)
        raw, wrong = single_values(clean, single)
        # As it stands in the file: the log names it so, even where a title in the same column is cleaned.
        ids, _ = single_values(chunk.frame, {"item_id": columns.item_id})
        time, wrong_time = parse_times(_column(raw, columns.listed_at), table.time)
        numbers = None if columns.price is None else chunk.numbers.get(columns.price)
        prices = parse_prices(_column(raw, columns.price), table.decimal, numbers)
        # The category's path from the root: one column, cut at ">" or a separator, or one column per level.
        category: pl.Expr | pl.Series
        if len(path) == 1:
            category, doubtful = category_paths(lists, path[0], ignore, table.separators.category)
            suspicious.update(doubtful)
        elif path:
            category = pl.concat_list([text(name, ignore) for name in path]).list.drop_nulls()
        else:
            category = pl.lit(list(constants.category or ()), TEXTS)
        # Nothing said of an item's stock: as the mapping says. Without a column every item is there, since a shop lists
        # what it sells; with one, an empty cell is unknown.
        stock = pl.lit(constants.in_stock is not False if columns.in_stock is None else constants.in_stock, pl.Boolean)
        said = flag(raw, columns.in_stock, table.stock_words) if columns.in_stock else pl.lit(None, pl.Boolean)
        unknown = unknown_words(raw, columns.in_stock, said)
        kinds = kind_values(raw, lists, table)
        frame = raw.select(
            item_id=ids.select(id=identifier(ids, columns.item_id))["id"],
            title=text(columns.title),
            category=category,
            brand=pl.coalesce(text(columns.brand, ignore), pl.lit(constants.brand, pl.String)),
            price=prices.price,
            attributes=lists.select(x=attributes(lists, typed, ignore))["x"] if typed else attributes(lists, typed),
            seller=pl.coalesce(text(columns.seller, ignore), pl.lit(constants.seller, pl.String)),
            images=lists.select(x=texts(lists, columns.images, table.separators.images))["x"]
            if columns.images
            else pl.lit([], TEXTS),
            listed_at=time,
            in_stock=pl.when(unknown).then(None).otherwise(pl.coalesce(said, stock)),
            description=text(columns.description, ignore),
            **kinds.columns,
        )
        # A wrong value empties its cell; an item without id or title is none.
        emptied = _counted("listed_at", wrong_time) + _counted("price", prices.problem)
        emptied += Counter({"in_stock: not a known word, see stock_words": int(unknown.sum())})
        emptied += kinds.emptied + _lost(chunk, named) + _lost_in_lists(clean, listed, chunk.bare)
        emptied += emptied_values(wrong, ("item_id", "title"))
        suspicious["price: could mean two amounts, set decimal"] += int(prices.ambiguous.sum())
        yield Part(chunk, frame, _no_reason(frame), +emptied, repaired, +suspicious).refusing(
            {
                **refused_values(wrong, ("item_id", "title")),
                "no item id": frame["item_id"].is_null(),
                UNFIT_ID: ~servable_ids(frame["item_id"]),
                "no title": frame["title"].is_null(),
                **kinds.refused,
            }
        )


def users(folder: Path, table: Users, rejects: Rejects) -> Iterator[Part]:
    """The user table."""
    columns = table.columns
    single = {name: value for name, value in columns if value is not None}
    for chunk in read_chunks(folder, table, "users", list(single.values()), rejects):
        raw, wrong = single_values(chunk.frame, single)
        frame = raw.select(
            user_id=identifier(raw, columns.user_id),
            gender=text(columns.gender, table.ignore),
            age_band=text(columns.age_band, table.ignore),
        )
        emptied = _lost(chunk, {name: (value,) for name, value in single.items()})
        emptied += emptied_values(wrong, ("user_id",))
        yield Part(chunk, frame, _no_reason(frame), emptied).refusing(
            {**refused_values(wrong, ("user_id",)), "no user id": frame["user_id"].is_null()}
        )


def page_views(folder: Path, table: PageViews, rejects: Rejects, optional: Sequence[str] = ()) -> Iterator[Part]:
    """The page view table, lists of item ids in ``shown``, ``clicked``, ``ordered``: one row per row of the file.

    With ``group_by`` the rows have one more column, ``group``, the same for rows of the same page view.
    """
    columns = table.columns
    mapped: dict[str, str] = {name: value for name, value in columns if value is not None}
    names = [name for name in (*mapped.values(), *table.group_by) if name not in optional]
    # Columns of lists, and those of one value; of a row that is an item the flags are such, too.
    listed: dict[str, tuple[str]] = {
        name: (mapped[name],) for name in _LISTS if name in mapped and columns.item_id is None
    }
    single = {name: value for name, value in mapped.items() if name not in listed}
    single |= {f"group_by {name}": name for name in table.group_by}
    needed = [name for name in single if name != "query_type"]
    separators = {mapped[name]: getattr(table.separators, name) for name in listed}
    # Line numbers are unique within a file only.
    several = len(files_of(folder, table)) > 1
    for chunk in read_chunks(folder, table, "page_views", names, rejects, optional):
        raw, wrong = single_values(cut_texts(chunk.frame, chunk.bare, separators), single)
        time, wrong_time = parse_times(_column(raw, columns.time), table.time)
        if columns.page_view_id is not None:
            page_view_id = identifier(raw, columns.page_view_id)
        else:
            # Without ids of their own page views are numbered by their lines.
            page_view_id = pl.lit(f"{chunk.file}:" if several else "") + pl.lit(pl.Series(chunk.rows).cast(TEXT))
        frame = raw.select(
            page_view_id=page_view_id,
            user_id=identifier(raw, columns.user_id),
            session_id=identifier(raw, columns.session_id),
            time=time,
            query=text(columns.query),
            **_item_lists(raw, table),
            query_type=text(columns.query_type),
            split=text(columns.split).str.to_lowercase(),
        )
        # A word that is neither yes nor no is not taken for either.
        flags = {name: getattr(columns, name) for name in ("clicked", "ordered") if columns.item_id is not None}
        emptied = Counter(
            {
                f"{name}: not a known word": int(unknown_words(raw, column, flag(raw, column)).sum())
                for name, column in flags.items()
                if column is not None
            }
        )
        emptied += _lost(chunk, {name: (value,) for name, value in mapped.items()})
        emptied += _lost_in_lists(chunk.frame, listed, chunk.bare) + emptied_values(wrong, needed)
        emptied += _infinite(raw, {name: getattr(columns, name) for name in ("user_id", "session_id")})
        # A wrong time refuses the page view: where it lies in time decides what was known before it.
        part = Part(chunk, frame.with_columns(pl.col("query").fill_null("")), wrong_time, emptied).refusing(
            {
                **refused_values(wrong, needed),
                "no time": frame["time"].is_null() & (columns.time is not None),
                "no page view id": frame["page_view_id"].is_null(),
                "no query": frame["query"].is_null() & (table.empty_query == "reject"),
                # Guessing a part could put test page views into training.
                "split is not train, valid or test": ~frame["split"].is_in(PARTS).fill_null(columns.split is None),
            }
        )
        yield _with_groups(part, raw, table) if table.group_by else part


def _with_groups(part: Part, raw: pl.DataFrame, table: PageViews) -> Part:
    """The part with a column ``group``: 64-bit hashes of the columns that tell page views apart.

    An empty cell says nothing of whose page view a row is: such rows would all be one. They are page views of their
    own, counted as doubtful. An empty query is one, though, and a shopper without account has other columns.
    """
    columns = table.columns
    keys = raw.select(text(name).alias(name) for name in dict.fromkeys(table.group_by))
    others = [name for name in keys.columns if name not in (columns.query, columns.user_id)]
    alone = keys.select(alone=pl.any_horizontal(pl.lit(False), *(pl.col(name).is_null() for name in others)))["alone"]
    if columns.user_id in keys.columns and all(name == columns.time for name in others):
        alone |= keys[columns.user_id].is_null()
    group = keys.hash_rows(seed=17)
    if alone.any():
        # By file and line, under another seed.
        lines = pl.DataFrame({"file": [part.chunk.file] * len(keys), "row": part.chunk.rows})
        group = group.zip_with(~alone, lines.hash_rows(seed=18))
    counts = Counter({f"group_by: {_EMPTY_GROUP}": int((alone & part.reason.is_null()).sum())})
    return replace(part, frame=part.frame.with_columns(group=group), suspicious=+counts)


_EMPTY_GROUP: Final = "an empty cell, the row is a page view of its own"
_LISTS: Final = ("shown", "clicked", "ordered")


def _item_lists(raw: pl.DataFrame, table: PageViews) -> dict[str, pl.Expr]:
    """The items shown, clicked and ordered in each row, lists of ids."""
    columns, cut = table.columns, table.separators
    if columns.item_id is None:
        return {
            "shown": texts(raw, columns.shown, cut.shown),
            "clicked": texts(raw, columns.clicked, cut.clicked),
            "ordered": texts(raw, columns.ordered, cut.ordered),
        }
    # A row is one item: shown, clicked or ordered as its flags say.
    item = identifier(raw, columns.item_id)

    def where(flagged: pl.Expr) -> pl.Expr:
        return pl.when(flagged & item.is_not_null()).then(pl.concat_list(item)).otherwise(pl.lit([], TEXTS))

    return {
        "shown": where(pl.lit(table.rows == "items")),
        "clicked": where(pl.lit(table.rows == "clicks") if columns.clicked is None else flag(raw, columns.clicked)),
        "ordered": where(pl.lit(False) if columns.ordered is None else flag(raw, columns.ordered)),
    }


def judgments(folder: Path, table: Judgments, rejects: Rejects) -> Iterator[Part]:
    """The judgment table, with the file's own ``score`` as one more column."""
    columns = table.columns
    single = dict(columns)
    for chunk in read_chunks(folder, table, "judgments", [columns.query, columns.item_id, columns.score], rejects):
        raw, wrong = single_values(chunk.frame, single)
        frame = raw.select(
            query=text(columns.query), item_id=identifier(raw, columns.item_id), score=number(columns.score)
        )
        part = graded(chunk, frame, table.levels, refused_values(wrong, single))
        yield replace(part, emptied=_lost(chunk, {name: (value,) for name, value in single.items()}))


def graded(
    chunk: Chunk,
    frame: pl.DataFrame,
    levels: tuple[float, float, float] | None,
    refused: Mapping[str, pl.Series] | None = None,
) -> Part:
    """Judgments with ``query``, ``item_id`` and ``score``: their level, and what is wrong with them.

    Args:
        chunk: the rows of the file.
        frame: the judgments, [n].
        levels: least score of level 1, 2 and 3; without it the score is the level.
        refused: reasons that come before those of the values -> rows, Boolean [n].
    """
    score = pl.col("score")
    level: pl.Expr
    if levels is None:
        level = pl.when(score.is_in([0.0, 1.0, 2.0, 3.0])).then(score)
    else:
        # As many levels as bounds that the score has reached, 0 to 3.
        level = pl.sum_horizontal((score >= least).cast(pl.Int8) for least in levels)
    frame = frame.with_columns(level=level.cast(pl.Int8))
    return Part(chunk, frame, _no_reason(frame)).refusing(
        {
            **(refused or {}),
            "no query": frame["query"].is_null(),
            "no item id": frame["item_id"].is_null(),
            "score is not a number": frame["score"].is_null() | ~frame["score"].is_finite(),
            "score is not 0, 1, 2 or 3, and the mapping has no levels": frame["level"].is_null(),
        }
    )


def _column(raw: pl.DataFrame, name: str | None) -> pl.Series:
    """A column as it is in the file; one without a name is all null."""
    return pl.repeat(None, len(raw), dtype=pl.String, eager=True) if name is None else raw[name]


def _no_reason(frame: pl.DataFrame) -> pl.Series:
    return pl.repeat(None, len(frame), dtype=pl.String, eager=True)


def _counted(name: str, problems: pl.Series) -> Counter[str]:
    """Problems of a column by their kind; the values themselves come after ": "."""
    short = problems.drop_nulls().str.replace(r": .*$", "")
    return Counter({f"{name}: {reason}": count for reason, count in short.value_counts().iter_rows()})
