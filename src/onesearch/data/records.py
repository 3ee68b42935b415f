"""The records of a shop and its search log: items, users, page views, judgments.

Each comes in two forms with the same names: a frozen dataclass for one record, a polars schema for a table of them.
"""

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal, get_args

import polars as pl
import pyarrow as pa

ATTRIBUTE_TYPES: Final[tuple[str, ...]] = (
    "Entity",
    "Modifier",
    "Brand",
    "Material",
    "Style",
    "Function",
    "Location",
    "Audience",
    "Color",
    "Scene",
    "Specifications",
    "Price",
    "Model",
    "Anchor",
    "Series",
    "Marketing",
    "Season",
    "Pattern",
)
"""The attribute types of the paper. A shop may have types of its own; keywords of these count as :data:`OWN_TYPES`."""
OWN_TYPES: Final = "Specifications"
LEVELS: Final = (0, 1, 2, 3)
"""Of relevance; see :class:`Judgment`."""
PARTS: Final = ("train", "valid", "test")
"""Of a split log, and the words that ``split`` of a :class:`PageView` may be."""
PICTURES_ARCHIVE: Final = "pictures.zip"
"""Beside the tables of a data set that brings pictures of its items, which name them as ``pictures.zip/NAME``."""
ItemKind = Literal["product", "video", "live", "article"]
"""What an item may be: a product, a video, a live room, an article."""
KINDS: Final[tuple[ItemKind, ...]] = get_args(ItemKind)
PRODUCT: Final = "product"
KIND_COLUMNS: Final = ("kind", "transcript", "host", "linked", "start", "end")
"""Columns of the item table that a catalogue of products alone does not need, and which its file then leaves out."""
LONGEST_ID = 200
"""Characters of an item's id at most; it is one line of text, without control characters."""


def servable_ids(ids: pl.Series) -> pl.Series:
    r"""Which ids of items the service can be asked about, Boolean [n]; null where there is none.

    >>> servable_ids(pl.Series(["i1", "i\n2", "i" * 201])).to_list()
    [True, False, False]
    """
    return (ids.str.len_chars() <= LONGEST_ID) & ~ids.str.contains(r"\p{Cc}")


def check_attribute_type(name: str) -> None:
    """Whether a name can be an attribute type: one of the 18, or one of the shop's own that is not nearly one of them.

    Raises:
        ValueError: it is empty, or one of the 18 misspelt.
    """
    if name in ATTRIBUTE_TYPES:
        return
    if not name.strip():
        raise ValueError("an attribute type needs a name")
    near = difflib.get_close_matches(name.strip().capitalize(), ATTRIBUTE_TYPES, 1, cutoff=0.82)
    if near:
        raise ValueError(
            f"unknown attribute type {name[:50]!r}; the nearest valid one is {near[0]!r}, "
            f"of {', '.join(ATTRIBUTE_TYPES)}; types of your own have other names"
        )


def known_type(kind: pl.Expr) -> pl.Expr:
    """Attribute types as keywords have them: one of the 18; a shop's own is :data:`OWN_TYPES`."""
    return pl.when(kind.is_in(list(ATTRIBUTE_TYPES))).then(kind).when(kind.is_not_null()).then(pl.lit(OWN_TYPES))


def in_utc(time: datetime) -> datetime:
    """A time as it is; one without a zone is UTC."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Item:
    """A product, or something else that a shop shows: a video, a live room, an article.

    Attributes:
        item_id: unique in the catalogue.
        title: as listed.
        category: path from the root, such as ``("Clothing", "Shoes")``.
        price: in the shop's currency; None when unknown.
        attributes: values by type: one of :data:`~onesearch.data.records.ATTRIBUTE_TYPES`, or one of the shop's own.
        images: paths or URLs.
        listed_at: when the item came into the catalogue, with time zone.
        in_stock: None when unknown; a filter for items in stock leaves these out.
        description: a longer text; part of an item's text where ``fields`` of the settings names it.
        kind: one of :data:`KINDS`.
        transcript: what is said in it; part of an item's text as ``description`` is.
        host: who speaks; likewise.
        linked: ids of the items that it shows; its vector is drawn towards theirs (``khqe.linked`` of the settings).
        start, end: it is shown from ``start`` until before ``end`` alone; None leaves a side open.
    """

    item_id: str
    title: str
    category: tuple[str, ...] = ()
    brand: str | None = None
    price: float | None = None
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seller: str | None = None
    images: tuple[str, ...] = ()
    listed_at: datetime | None = None
    in_stock: bool | None = True
    description: str | None = None
    kind: ItemKind = PRODUCT
    transcript: str | None = None
    host: str | None = None
    linked: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"item {self.item_id!r}: kind {self.kind[:50]!r} is not one of {', '.join(KINDS)}")
        if self.start is not None and self.end is not None and in_utc(self.end) <= in_utc(self.start):
            raise ValueError(f"item {self.item_id!r}: it ends at {self.end}, before it starts at {self.start}")
        for name in self.attributes:
            try:
                check_attribute_type(name)
            except ValueError as error:
                raise ValueError(f"item {self.item_id!r}: {error}") from None


@dataclass(frozen=True)
class User:
    """A shopper with an account."""

    user_id: str
    gender: str | None = None
    age_band: str | None = None


@dataclass(frozen=True)
class PageView:
    """One page of results as a shopper saw it; item ids in the order shown, clicked, ordered.

    ``split`` is the part that a published split puts it in ("train", "valid", "test"), if there is one.
    """

    page_view_id: str
    query: str
    user_id: str | None = None
    session_id: str | None = None
    time: datetime | None = None
    shown: tuple[str, ...] = ()
    clicked: tuple[str, ...] = ()
    ordered: tuple[str, ...] = ()
    query_type: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Judgment:
    """How relevant an item is to a query: 0 not at all, 1 weakly, 2 relevant, 3 exactly what was meant."""

    query: str
    item_id: str
    level: int

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ValueError(f"judgment of {self.item_id!r} for {self.query!r}: level {self.level} is not 0, 1, 2 or 3")


# The tables: polars types of each column.
TIME: Final = pl.Datetime("us", "UTC")
TEXT: Final = pl.String()
TEXTS: Final = pl.List(pl.String)
ATTRIBUTES: Final = pl.List(pl.Struct({"type": pl.String, "value": pl.String}))

ITEMS: Final = pl.Schema(
    {
        "item_id": TEXT,
        "title": TEXT,
        "category": TEXTS,
        "brand": TEXT,
        "price": pl.Float64(),
        "attributes": ATTRIBUTES,
        "seller": TEXT,
        "images": TEXTS,
        "listed_at": TIME,
        "in_stock": pl.Boolean(),
        "description": TEXT,
        "kind": TEXT,
        "transcript": TEXT,
        "host": TEXT,
        "linked": TEXTS,
        "start": TIME,
        "end": TIME,
    }
)
USERS: Final = pl.Schema({"user_id": TEXT, "gender": TEXT, "age_band": TEXT})
PAGE_VIEWS: Final = pl.Schema(
    {
        "page_view_id": TEXT,
        "user_id": TEXT,
        "session_id": TEXT,
        "time": TIME,
        "query": TEXT,
        "shown": TEXTS,
        "clicked": TEXTS,
        "ordered": TEXTS,
        "query_type": TEXT,
        "split": TEXT,
    }
)
JUDGMENTS: Final = pl.Schema({"query": TEXT, "item_id": TEXT, "level": pl.Int8()})
SCHEMAS: Final[Mapping[str, pl.Schema]] = {
    "items": ITEMS,
    "users": USERS,
    "page_views": PAGE_VIEWS,
    "judgments": JUDGMENTS,
}


def item_from_row(row: Mapping[str, Any]) -> Item:
    """The record of one row (``frame.row(i, named=True)``) of an :data:`ITEMS` table, or of one without kinds."""
    # A table keeps attributes as a list of pairs, a record by type.
    attributes: dict[str, list[str]] = {}
    for pair in row["attributes"] or ():
        attributes.setdefault(pair["type"], []).append(pair["value"])
    return Item(
        row["item_id"],
        row["title"],
        tuple(row["category"] or ()),
        row["brand"],
        row["price"],
        {name: tuple(values) for name, values in attributes.items()},
        row["seller"],
        tuple(row["images"] or ()),
        row["listed_at"],
        row["in_stock"],
        row["description"],
        row.get("kind", PRODUCT),
        row.get("transcript"),
        row.get("host"),
        tuple(row.get("linked") or ()),
        row.get("start"),
        row.get("end"),
    )


def items_frame(items: Iterable[Item]) -> pl.DataFrame:
    """Item records as an :data:`ITEMS` table."""
    items, columns = list(items), []
    # By Arrow, in a third of polars' time: a service makes tables of items while it searches.
    schema = _arrow_items()
    for column in schema:
        values = [getattr(item, column.name) for item in items]
        if column.name == "attributes":
            values = [[(kind, value) for kind, some in one.items() for value in some] for one in values]
        columns.append(pa.array(values, column.type))
    return pl.DataFrame(pa.Table.from_arrays(columns, schema=schema))


@functools.cache
def _arrow_items() -> pa.Schema:
    """:data:`ITEMS` for Arrow; not made at import, as it starts polars' threads, which no forked process has."""
    return pl.DataFrame(schema=ITEMS).to_arrow(compat_level=pl.CompatLevel.oldest()).schema


def users_frame(users: Iterable[User]) -> pl.DataFrame:
    """User records as a :data:`USERS` table."""
    return pl.DataFrame([vars(user) for user in users], schema=USERS)


def page_views_frame(page_views: Iterable[PageView]) -> pl.DataFrame:
    """Page view records as a :data:`PAGE_VIEWS` table."""
    return pl.DataFrame([_plain(page_view) for page_view in page_views], schema=PAGE_VIEWS)


def judgments_frame(judgments: Iterable[Judgment]) -> pl.DataFrame:
    """Judgment records as a :data:`JUDGMENTS` table."""
    return pl.DataFrame([vars(judgment) for judgment in judgments], schema=JUDGMENTS)


def _plain(record: object) -> dict[str, Any]:
    """The fields of a record, tuples as lists."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(record).items()}


def without_kinds(items: pl.DataFrame) -> pl.DataFrame:
    """An item table as it is written: a catalogue of products alone has no :data:`KIND_COLUMNS`."""
    used = pl.any_horizontal(
        pl.col("kind") != PRODUCT,
        pl.col("linked").list.len() > 0,
        *(pl.col(name).is_not_null() for name in ("transcript", "host", "start", "end")),
    )
    return items if items.select(used.any()).item() else items.drop(KIND_COLUMNS)


def written_schema(table: str, columns: Collection[str]) -> pl.Schema:
    """What a file of a table that has some ``columns`` must have: of a catalogue of products alone no kinds."""
    optional = () if any(name in columns for name in KIND_COLUMNS) else KIND_COLUMNS
    return pl.Schema({name: kind for name, kind in SCHEMAS[table].items() if name not in optional})


def conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with exactly the columns and types of a table of :data:`SCHEMAS`.

    Missing columns become null, missing lists empty, a missing column ``in_stock`` true; without a word on its kind an
    item is a product.

    Raises:
        ValueError: a column that the table does not have, or one that cannot be cast.
    """
    # A misspelt column must not vanish.
    schema = SCHEMAS[table]
    unknown = [name for name in frame.columns if name not in schema]
    if unknown:
        raise ValueError(f"table '{table}' has no column {', '.join(map(repr, unknown))}; it has {', '.join(schema)}")
    # Every column of the schema, in its order; what is missing becomes null, or the value that means "none".
    columns = []
    for name, kind in schema.items():
        column = pl.col(name) if name in frame.columns else pl.lit(None).alias(name)
        column = column.cast(kind)
        if isinstance(kind, pl.List):
            column = column.fill_null([])
        elif name == "in_stock" and name not in frame.columns:
            column = column.fill_null(True)
        elif name == "kind":
            column = column.fill_null(PRODUCT)
        columns.append(column)
    # Polars casts here, and says which value it could not.
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"table '{table}': a column does not have the expected type: {error}") from error
