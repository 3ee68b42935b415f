"""What the HTTP service reads as JSON, with its limits and examples; what it answers is in `http_answers`."""

import difflib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

from onesearch.data.records import KINDS, LONGEST_ID, Item, ItemKind, check_attribute_type, in_utc
from onesearch.index.filter_values import ALL, NOT
from onesearch.search.results import Sort
from onesearch.search.rules import MAX_TEXT

# Limits of single requests: what a search costs is bounded whatever is sent.
MAX_QUERY = 200
MAX_K = 100
MAX_SUGGESTIONS = 20
MAX_WIDTH = 512
MAX_OFFSET = 100_000
MAX_ITEMS_PER_CALL = 1000
MAX_FILTER_VALUES = 50
MAX_TYPE_LENGTH = 100
MAX_PATH = 20
MAX_GROUPS = 20
MAX_CLOCK_GAP = timedelta(days=1)


_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d")
_FACET = r"^(category|brand|seller|price|in_stock|kind|attributes\..+)$"
_ONE_LINE = r"^[^\u0000-\u001f\u007f-\u009f]*$"
_PLAIN = r"^[^\u001c-\u001f]*$"
# As well, with a letter or sign that is no blank.
_ONE_WRITTEN_LINE = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$"
_PLAIN_WRITTEN = r"^[^\u001c-\u001f]*[^\s\u001c-\u001f][^\u001c-\u001f]*$"
_WRITTEN = r"[^\s\u001c-\u001f]"


def _no_control(text: Any) -> Any:
    """Ids and queries are one line of text: control characters would break logs and prompts."""
    if isinstance(text, str) and any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text):
        raise ValueError("must not contain control characters or lone surrogates")
    return text


def _no_separator(text: Any) -> Any:
    """Names are kept joined by separators of ASCII: one with such a letter would be read as several."""
    if isinstance(text, str) and any("\x1c" <= letter <= "\x1f" for letter in text):
        raise ValueError("must not contain the control characters U+001C to U+001F")
    return text


def _not_blank(text: Any) -> Any:
    """Blanks name nothing; the import takes them for an empty cell."""
    if isinstance(text, str) and text and not text.strip():
        raise ValueError("must not be blank")
    return text


def no_guess(value: Any) -> Any:
    """A number is sent as one: what "1.050" means is not guessed."""
    if isinstance(value, str | bool):
        raise ValueError("must be a number")
    return value


def _spelt_out(time: Any) -> Any:
    """A time is sent as a text of RFC 3339: from when and in what unit a number counts is not guessed."""
    if isinstance(time, datetime) or (isinstance(time, str) and _TIME.match(time)):
        return time
    raise ValueError("must be a time with its zone, such as 2024-05-01T12:00:00Z")


def nearest(word: str, valid: Iterable[str]) -> str:
    """The valid word most like a misspelt one; only its beginning is compared, since anyone may send it."""
    return difflib.get_close_matches(word[:50], list(valid), n=1, cutoff=0.0)[0]


# The pattern is for the API's description: the words of an error are those of `_no_control`, which looks first.
Query = Annotated[str, StringConstraints(max_length=MAX_QUERY, pattern=_ONE_LINE), BeforeValidator(_no_control)]
Identifier = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_ID, pattern=_ONE_LINE), BeforeValidator(_no_control)
]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(no_guess)]
Flag = Annotated[bool, Strict()]
Time = Annotated[AwareDatetime, BeforeValidator(_spelt_out)]
Label = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=_PLAIN), BeforeValidator(_no_separator)]
# Of an item that is to be found: as in the import, which takes blanks for nothing.
ItemId = Annotated[
    str,
    StringConstraints(min_length=1, max_length=LONGEST_ID, pattern=_ONE_WRITTEN_LINE),
    BeforeValidator(_not_blank),
    BeforeValidator(_no_control),
]
Title = Annotated[str, StringConstraints(min_length=1, max_length=1000, pattern=_WRITTEN), BeforeValidator(_not_blank)]
Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=_PLAIN_WRITTEN),
    BeforeValidator(_not_blank),
    BeforeValidator(_no_separator),
]
Labels = Label | Annotated[list[Label], Field(min_length=1, max_length=MAX_FILTER_VALUES)]
Bound = Number | None


class Body(BaseModel):
    """Anything sent to the service; an unknown key is an error that names the nearest valid key."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _name_nearest_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            valid = [field.alias or name for name, field in cls.model_fields.items()]
            for key in values:
                if key not in valid and not valid:
                    raise ValueError(f"unknown key {key[:50]!r}; there are none")
                if key not in valid:
                    near = nearest(key, valid)
                    raise ValueError(f"unknown key {key[:50]!r}; the nearest valid key is {near!r}")
        return values


class NumberRange(Body):
    """Bounds of a number that an attribute's text begins with, inclusive."""

    min: Annotated[float, Field(allow_inf_nan=False), BeforeValidator(no_guess)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False), BeforeValidator(no_guess)] | None = None


class CategoryPath(Body):
    """A category by its path from the root, also where that is one name."""

    path: list[Label] = Field(min_length=1, max_length=MAX_PATH)


ItemField = Literal[
    "title",
    "category",
    "brand",
    "price",
    "attributes",
    "seller",
    "images",
    "listed_at",
    "in_stock",
    "description",
    "kind",
    "transcript",
    "host",
    "linked",
    "start",
    "end",
]
AttributeValues = Label | NumberRange | Annotated[list[Label | NumberRange], Field(min_length=1, max_length=50)]


class Conditions(Body):
    """What an item is or has; a list means "one of these"."""

    category: (
        Label
        | CategoryPath
        | Annotated[list[Label | CategoryPath], Field(min_length=1, max_length=MAX_FILTER_VALUES)]
        | None
    ) = Field(
        None,
        description="a name anywhere in the category path, a path such as 'A > B', or one from the root: "
        '{"path": ["A"]} is the category A of the highest level alone',
    )
    brand: Labels | None = None
    seller: Labels | None = None
    price: tuple[Bound, Bound] | None = Field(None, description="[lowest, highest]; null leaves a side open")
    in_stock: Flag | None = None
    kind: ItemKind | Annotated[list[ItemKind], Field(min_length=1, max_length=len(KINDS))] | None = None
    attributes: dict[Label, AttributeValues] | None = Field(
        None,
        max_length=20,
        description='values by type, as {"Color": ["red", "blue"], "Size": {"min": 40}}',
        json_schema_extra={"propertyNames": {"pattern": _PLAIN}},
    )

    @model_validator(mode="after")
    def _ordered_price(self) -> Self:
        if self.price and None not in self.price and self.price[0] > self.price[1]:  # type: ignore[operator]
            raise ValueError(f"price: the lowest ({self.price[0]}) is above the highest ({self.price[1]})")
        return self


class Filters(Conditions):
    """Only items for which all of this holds are found."""

    not_: Conditions | None = Field(None, alias="not", description="nothing of this may hold")
    all_: list[Conditions] | None = Field(
        None,
        alias="all",
        max_length=MAX_FILTER_VALUES,
        description="each of these must hold as well, such as two values that an item has both",
    )

    def given(self) -> dict[str, Any] | None:
        """The filters as the engine takes them; None when there are none."""
        given = self.model_dump(mode="json", exclude_none=True, by_alias=True)
        given[ALL] = [one for one in given.get(ALL, ()) if one]
        for one in (given, given.get(NOT, {}), *given[ALL]):
            if "category" in one:
                one["category"] = _paths(one["category"])
        return {key: value for key, value in given.items() if value not in ({}, [])} or None


def _paths(category: Any) -> Any:
    """Names of categories as they are, paths as tuples."""
    if isinstance(category, list):
        return [_paths(one) for one in category]
    return tuple(category["path"]) if isinstance(category, dict) else category


class SearchBody(Body):
    """A search."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "red shoes", "user": "u17", "k": 10, "filters": {"price": [None, 80], "in_stock": True}},
                {"query": "gift for a gardener", "method": "bm25"},
            ]
        }
    )

    query: Query = Field("", description='"" asks for a recommendation')
    user: Identifier | None = Field(None, description="a shopper; null or an unknown id searches anonymously")
    k: Annotated[int, BeforeValidator(no_guess)] = Field(10, ge=1, le=MAX_K, description="results at most")
    offset: Annotated[int, BeforeValidator(no_guess)] = Field(
        0, ge=0, le=MAX_OFFSET, description="better results that are left out: those of earlier pages"
    )
    sort: Sort | None = Field(None, description="of all relevant items; null is the order of relevance")
    count: Flag = Field(False, description="whether the answer says how many items there are on all pages")
    explain: Flag = Field(
        False, description="whether each result says why it stands where it does; searches once more for it"
    )
    highlight: Flag = Field(False, description="whether each result says where the query's words stand in it")
    fields: list[ItemField] | None = Field(
        None, min_length=1, max_length=20, description="of the items in the answer, beside item_id; null: all"
    )
    facets: list[Annotated[str, StringConstraints(max_length=200, pattern=_FACET)]] = Field(
        default_factory=list,
        max_length=20,
        description="filters whose values are counted among the items of all pages: category, brand, seller, price, "
        "in_stock, kind, attributes.TYPE; the 100 most frequent of each, and of categories those of each level",
    )
    facet_query: Query = Field("", description="only names that hold it are counted: a search among a facet's values")
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH), BeforeValidator(no_guess)] | None = Field(
        None, description="beams; null takes the engine's default"
    )
    filters: Filters | None = None
    correct: Flag = Field(True, description="whether words that neither items nor log know are corrected; not by bm25")
    groups: list[Identifier] = Field(
        default_factory=list, max_length=MAX_GROUPS, description="of shoppers that this one belongs to, for rules"
    )
    method: Literal["onesearch", "bm25"] = Field("onesearch", description="bm25 is the plain ranking to compare with")
    record: Flag = Field(True, description="false keeps this search out of the shopper's history and the log")

    @model_validator(mode="after")
    def _what_bm25_knows(self) -> Self:
        if self.method == "bm25" and (self.sort or self.count or self.facets or self.explain or self.highlight):
            raise ValueError("sort, count, facets, explain and highlight need the method onesearch")
        if self.sort and self.explain:
            raise ValueError(f"results are in the order of {self.sort}, which explains it; leave sort or explain out")
        return self


class EventBody(Body):
    """A shopper clicked or ordered an item; the shopper's next search sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"event_id": "5b0d3f9e", "user": "u17", "item_id": "B0042", "kind": "click", "query": "red shoes"}
            ]
        }
    )

    event_id: Identifier | None = Field(None, description="send the same id when you retry: it counts once")
    user: Identifier | None = Field(None, description="null: counted, but in nobody's history")
    item_id: Identifier
    kind: Literal["click", "order"]
    query: Query = Field("", description="the query the item was found with")
    search_id: Identifier | None = Field(None, description="of the answer the item was in")
    time: Time | None = Field(None, description="with time zone, within a day of now, which null means")

    @field_validator("time")
    @classmethod
    def _near(cls, time: datetime | None) -> datetime | None:
        # What a page view was is told by its time: one of the far future or past would be learnt from for ever.
        if time is not None and abs(time - now()) > MAX_CLOCK_GAP:
            raise ValueError(f"must be within a day of the server's clock, which says {now():%Y-%m-%dT%H:%MZ}")
        return time


class ItemBody(Body):
    """An item of the catalogue."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "item_id": "B0042",
                    "title": "Swift trail running shoe, red",
                    "category": ["Sports", "Shoes"],
                    "brand": "Swift",
                    "price": 69.9,
                    "attributes": {"Color": ["red"]},
                    "in_stock": True,
                }
            ]
        }
    )

    item_id: ItemId
    title: Title
    category: list[Name] = Field(default_factory=list, max_length=20, description="path, widest first")
    brand: Name | None = None
    price: Number | None = None
    attributes: dict[Annotated[str, BeforeValidator(_no_control)], list[Name]] = Field(
        default_factory=dict,
        description="by attribute type: the 18 or your own",
        json_schema_extra={"propertyNames": {"pattern": _ONE_LINE}},
    )
    seller: Name | None = None
    images: list[Annotated[str, StringConstraints(max_length=2000)]] = Field(default_factory=list, max_length=20)
    listed_at: Time | None = None
    in_stock: Flag | None = Field(True, description="null: unknown, and so not in stock to a filter")
    description: str | None = Field(None, max_length=50_000)
    kind: ItemKind = Field("product", description="what it is")
    transcript: str | None = Field(None, max_length=50_000, description="what is said in a video or live room")
    host: Name | None = Field(None, description="who speaks")
    linked: list[ItemId] = Field(default_factory=list, max_length=100, description="ids of the items that it shows")
    start: Time | None = Field(None, description="it is shown from then on; null: always was")
    end: Time | None = Field(None, description="and until before then; null: for good")

    @field_validator("listed_at", "start", "end")
    @classmethod
    def _in_utc(cls, time: datetime | None) -> datetime | None:
        try:
            return None if time is None else time.astimezone(UTC)
        except OverflowError:
            raise ValueError("lies outside of the years 1 to 9999 in UTC") from None

    @model_validator(mode="after")
    def _ends_after_start(self) -> Self:
        if self.start is not None and self.end is not None and self.end <= self.start:
            raise ValueError(f"end ({self.end}) must be after start ({self.start})")
        return self

    @field_validator("attributes")
    @classmethod
    def _known_types(cls, attributes: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, values in attributes.items():
            check_attribute_type(name)
            if len(name) > MAX_TYPE_LENGTH:
                raise ValueError(f"an attribute type has {len(name)} characters; at most {MAX_TYPE_LENGTH} are allowed")
            if len(values) > MAX_FILTER_VALUES:
                raise ValueError(f"{name} has {len(values)} values; at most {MAX_FILTER_VALUES} are allowed")
        return attributes

    @classmethod
    def from_item(cls, item: Item) -> "ItemBody":
        """The JSON form of a record, which is trusted and so not checked again."""
        # JSON needs a zone; times of a catalogue without one are UTC.
        given = ((name, getattr(item, name)) for name in ("listed_at", "start", "end"))
        times = {name: in_utc(time) for name, time in given if time is not None}
        lists = {name: list(getattr(item, name)) for name in ("category", "images", "linked")}
        attributes = {name: list(values) for name, values in item.attributes.items()}
        return cls.model_construct(**{**vars(item), **lists, **times, "attributes": attributes})

    def item(self) -> Item:
        """The record."""
        tuples = {name: tuple(getattr(self, name)) for name in ("category", "images", "linked")}
        attributes = {name: tuple(values) for name, values in self.attributes.items()}
        return Item(**{**dict(self), **tuples, "attributes": attributes})


class ItemPatch(ItemBody):
    """Some fields of an item of the catalogue; those that are left out stay as they are."""

    title: Title = ""

    def applied_to(self, item: Item) -> Item:
        """The item with the fields that were given."""
        given = self.model_fields_set - {"item_id"}
        changed = self.item()
        return replace(item, **{name: getattr(changed, name) for name in given})


def _refuse_twice(item_ids: list[str]) -> None:
    if len(set(item_ids)) < len(item_ids):
        twice = next(name for at, name in enumerate(item_ids) if name in item_ids[:at])
        raise ValueError(f"item {twice!r} appears more than once in this call; send one change per item")


class PatchBody(Body):
    """Changes of single fields of items: all of them are searchable when the answer arrives."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"items": [{"item_id": "B0042", "price": 59.9, "in_stock": False}]}]}
    )

    items: list[ItemPatch] = Field(min_length=1, max_length=MAX_ITEMS_PER_CALL)

    @model_validator(mode="after")
    def _each_item_once(self) -> Self:
        _refuse_twice([item.item_id for item in self.items])
        return self


class ItemsBody(Body):
    """Changes of the catalogue: all of them are searchable, or gone, when the answer arrives."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"upsert": [{"item_id": "B0042", "title": "Swift shoe, red", "price": 69.9}], "delete": ["B7"]}
            ],
            "anyOf": [{"properties": {name: {"minItems": 1}}, "required": [name]} for name in ("upsert", "delete")],
        }
    )

    upsert: list[ItemBody] = Field(default_factory=list, max_length=MAX_ITEMS_PER_CALL)
    delete: list[Label] = Field(
        default_factory=list, max_length=MAX_ITEMS_PER_CALL, json_schema_extra={"uniqueItems": True}
    )

    @model_validator(mode="after")
    def _each_item_once(self) -> Self:
        ids = [item.item_id for item in self.upsert] + self.delete
        if not ids:
            raise ValueError("give at least one item in 'upsert' or one id in 'delete'")
        _refuse_twice(ids)
        return self


class RulesBody(Body):
    """New rules, in the place of all there were."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"who": "ann", "rules": "pins:\n- {name: tent of the week, items: [B0042], when: {query: tent}}\n"}
            ]
        }
    )

    rules: str = Field(max_length=MAX_TEXT, description="YAML, or JSON, which is YAML as well")
    who: Identifier = Field(description="writes them, for the list of versions")
    base: Annotated[int, Field(ge=0), BeforeValidator(no_guess)] | None = Field(
        None, description="the version they were made from; refused if there is a newer one"
    )


class PreviewBody(Body):
    """A search under rules that are not in force."""

    rules: str = Field(max_length=MAX_TEXT, description="as in PUT /rules")
    search: SearchBody


def now() -> datetime:
    """The time of a new event."""
    return datetime.now(UTC)
