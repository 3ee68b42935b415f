"""The YAML mapping that tells ``onesearch data import`` which file and column holds what; see docs/your-own-data.md."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from onesearch.common.settings import Settings, validated
from onesearch.common.strict_yaml import StrictLoader
from onesearch.common.text_file import read_text_file
from onesearch.data.ingest.number_values import Decimal
from onesearch.data.ingest.time_values import TimeFormat
from onesearch.data.records import KIND_COLUMNS, ItemKind, check_attribute_type

DATA_ROOT: Final = "ONESEARCH_DATA"


def _not_empty(value: str) -> str:
    if not value:
        raise ValueError("an empty separator would cut texts into letters; leave it out where a text is one value")
    return value


# Between the parts of a text that holds a list.
Separator = Annotated[str, AfterValidator(_not_empty)]


class File(Settings):
    """Where a table is and how it is written.

    Attributes:
        file: name in the mapping's folder; ``*`` and ``?`` take all matching files in order of their names.
        format: by the file's ending when "auto"; ``.gz``, ``.zst``, ``.zip``, ``.bz2`` or ``.xz`` may follow.
        separator: of CSV columns.
        encoding: any of Python's; a file with the mark of UTF-16 or UTF-32 is read as that.
        newlines_in_values: quoted CSV values may hold line breaks.
    """

    file: str
    format: Literal["auto", "csv", "jsonl", "parquet"] = "auto"
    separator: str = ","
    encoding: str = "utf-8"
    newlines_in_values: bool = False

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str) -> str:
        try:
            "\n".encode(value)
        except (LookupError, UnicodeError) as error:
            raise ValueError(f"unknown encoding {value!r}; say for example utf-8, latin-1 or gb18030") from error
        return value

    @field_validator("separator")
    @classmethod
    def _one_character(cls, value: str) -> str:
        if len(value) != 1 or not value.isascii():
            raise ValueError(f'separator must be one character, such as "," or "\\t", got {value!r}')
        return value


class ItemColumns(Settings):
    """Our name: their column. ``category`` may name several columns, from the root down, or one with a separator."""

    item_id: str
    title: str
    category: str | tuple[str, ...] | None = None
    brand: str | None = None
    price: str | None = None
    seller: str | None = None
    images: str | None = None
    listed_at: str | None = None
    in_stock: str | None = None
    description: str | None = None
    kind: str | None = None
    transcript: str | None = None
    host: str | None = None
    linked: str | None = None
    start: str | None = None
    end: str | None = None


class ItemSeparators(Settings):
    """Between the parts of a text that holds a list; without one a category is cut at ">", images and links are one."""

    category: Separator | None = None
    images: Separator | None = None
    linked: Separator | None = None


class ItemConstants(Settings):
    """Values that all items share."""

    category: tuple[str, ...] | None = None
    brand: str | None = None
    seller: str | None = None
    in_stock: bool | None = None
    kind: ItemKind | None = None


class AttributeColumn(Settings):
    """A column that holds values of one attribute type."""

    column: str
    separator: Separator | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"column": value} if isinstance(value, str) else value


class Items(File):
    """The item table.

    Attributes:
        columns: where the fields are.
        attributes: attribute type (one of the 18 or of your own) -> column, ``{column, separator}``, or a list of them.
        ignore: texts that stand for "unknown" in brand, category, seller and attributes.
        time: of ``listed_at``, ``start`` and ``end``.
        decimal: what "1.050" means in a price: the sign before the cents, "." or ","; without it a point is that sign,
            a comma parts thousands, and the summary counts such prices.
        kind_words: words of ``kind`` beside product, video, live and article, and which of these they mean.
        stock_words: words of ``in_stock`` beside the known ones, and whether they mean that an item is there.
    """

    columns: ItemColumns
    attributes: dict[str, tuple[AttributeColumn, ...]] = Field(default_factory=dict)
    separators: ItemSeparators = ItemSeparators()
    constants: ItemConstants = ItemConstants()
    ignore: tuple[str, ...] = ()
    time: TimeFormat = TimeFormat()
    decimal: Decimal | None = None
    kind_words: dict[str, ItemKind] = Field(default_factory=dict)
    stock_words: dict[str, bool] = Field(default_factory=dict)

    @property
    def has_kinds(self) -> bool:
        """Whether it says of its items what no catalogue of products alone does."""
        return self.constants.kind is not None or any(getattr(self.columns, name) for name in KIND_COLUMNS)

    @field_validator("attributes", mode="before")
    @classmethod
    def _as_lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        # Said here rather than by the first item.
        for name in value:
            check_attribute_type(str(name))
        return {name: given if isinstance(given, list | tuple) else [given] for name, given in value.items()}


class UserColumns(Settings):
    """Our name: their column."""

    user_id: str
    gender: str | None = None
    age_band: str | None = None


class Users(File):
    """The user table; users that appear in page views only are added by themselves.

    Attributes:
        columns: where the fields are.
        ignore: texts that stand for "unknown" in gender and age band.
    """

    columns: UserColumns
    ignore: tuple[str, ...] = ()


class PageViewColumns(Settings):
    """Our name: their column. One of ``shown``, ``clicked``, ``ordered`` at least, or ``item_id``; see ``rows``.

    ``split`` says train, valid or test, for ``data.split: given``.
    """

    query: str
    page_view_id: str | None = None
    user_id: str | None = None
    session_id: str | None = None
    time: str | None = None
    shown: str | None = None
    clicked: str | None = None
    ordered: str | None = None
    item_id: str | None = None
    query_type: str | None = None
    split: str | None = None


class ListSeparators(Settings):
    """Between the item ids of a text that holds several; JSON and Parquet lists need none."""

    shown: Separator | None = None
    clicked: Separator | None = None
    ordered: Separator | None = None


class PageViews(File):
    """The page view table.

    Attributes:
        rows: what a row of the file is. "page_views": a page view with lists of item ids. "clicks": one click, on
            ``item_id``. "items": one item shown, ``item_id``, with flags ``clicked`` and ``ordered``.
        group_by: columns of the file; rows that agree in all of them are one page view (for "clicks" and "items").
            The page view takes its other fields from the first of them; its time is the earliest.
        empty_query: whether a page view without query text stays (a recommendation) or is set aside.
    """

    rows: Literal["page_views", "clicks", "items"] = "page_views"
    columns: PageViewColumns
    separators: ListSeparators = ListSeparators()
    group_by: tuple[str, ...] = ()
    time: TimeFormat = TimeFormat()
    empty_query: Literal["reject", "keep"] = "reject"

    @model_validator(mode="after")
    def _fits_rows(self) -> Self:
        columns = self.columns
        # A row that is a page view needs lists; a row that is a click or an item needs the item, and no lists.
        if self.rows == "page_views":
            if columns.item_id is not None or self.group_by:
                raise ValueError("columns.item_id and group_by go with rows: clicks or rows: items")
            if not (columns.shown or columns.clicked or columns.ordered):
                raise ValueError("columns needs at least one of shown, clicked, ordered")
            return self
        # A row is a click or an item: it needs that item's id, and its lists follow from it.
        if columns.item_id is None:
            raise ValueError(f"rows: {self.rows} needs columns.item_id")
        if columns.shown is not None or (self.rows == "clicks" and columns.clicked is not None):
            raise ValueError(
                f"with rows: {self.rows}, columns.item_id says what was {self.rows}; drop the list columns"
            )
        return self


class PageViewsFromJudgments(Settings):
    """Page views made of judgments: one per query, showing all judged items in the file's order.

    Attributes:
        origin: written ``from: judgments``.
        clicked_at: items of at least this score (in the file's own scale) count as clicked.
    """

    origin: Literal["judgments"]
    clicked_at: float

    @model_validator(mode="before")
    @classmethod
    def _from(cls, value: Any) -> Any:
        # `from` is a word of Python's, so the field has another name.
        if isinstance(value, dict) and "from" in value:
            return {("origin" if key == "from" else key): given for key, given in value.items()}
        return value


class JudgmentColumns(Settings):
    """Our name: their column."""

    query: str
    item_id: str
    score: str


class Judgments(File):
    """The judgment table.

    Attributes:
        levels: least score of level 1, 2 and 3; without it the score is the level itself.
    """

    columns: JudgmentColumns
    levels: tuple[float, float, float] | None = None

    @field_validator("levels")
    @classmethod
    def _rising(cls, value: tuple[float, float, float] | None) -> tuple[float, float, float] | None:
        if value is not None and not value[0] < value[1] < value[2]:
            raise ValueError(f"levels must rise, got {value}")
        return value


def _kind(value: Any) -> str:
    """Which of the two forms of ``page_views`` it is, so that mistakes are explained for that form alone."""
    made = isinstance(value, dict) and ("from" in value or "origin" in value)
    return "judgments" if made or isinstance(value, PageViewsFromJudgments) else "file"


class ColumnMapping(Settings):
    """A whole mapping.

    Attributes:
        source: name of the data, kept in ``dataset.json``.
        folder: where the files are; ``${NAME}`` is replaced by the environment variable.
        unknown_items: "drop" item ids that are not in the item table, or "create" an item with the id as title.
    """

    source: str
    folder: str = "."
    unknown_items: Literal["drop", "create"] = "drop"
    items: Items
    users: Users | None = None
    page_views: (
        Annotated[
            Annotated[PageViews, Tag("file")] | Annotated[PageViewsFromJudgments, Tag("judgments")],
            Discriminator(_kind),
        ]
        | None
    ) = None
    judgments: Judgments | None = None

    @model_validator(mode="after")
    def _judgments_for_page_views(self) -> Self:
        if isinstance(self.page_views, PageViewsFromJudgments) and self.judgments is None:
            raise ValueError("page_views: {from: judgments} needs a judgments table")
        return self


def load_mapping(path: Path, data_root: Path | None = None) -> ColumnMapping:
    """Read a mapping.

    Args:
        path: of the YAML file.
        data_root: takes the place of the environment variable ``ONESEARCH_DATA`` in ``folder``.

    Raises:
        ValueError: not a valid mapping, or a variable in ``folder`` that is not set; the message says what to do.
    """
    try:
        values = yaml.load(read_text_file(path), Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a mapping is a YAML object with the keys {', '.join(ColumnMapping.model_fields)}")
    # The folder may name environment variables, and is relative to the mapping, not to where the command runs.
    mapping = validated(ColumnMapping, values, path)
    known = {**os.environ, **({} if data_root is None else {DATA_ROOT: str(data_root)})}
    folder = Path(_expanded(mapping.folder, known, path))
    return mapping.updated(folder=str(folder if folder.is_absolute() else path.parent / folder))


def _expanded(text: str, known: Mapping[str, str], path: Path) -> str:
    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        # An empty variable would mean the root of the file system.
        if not known.get(name):
            option = ", or pass --data-root FOLDER" if name == DATA_ROOT else ""
            raise ValueError(
                f"{path}: folder is {text!r}, but {name} is not set; set it, e.g. export {name}=/path/to/data{option}"
            )
        return known[name]

    return re.sub(r"\$\{(\w+)\}", value, text)
