"""The filterable properties of items as number columns: a filter value becomes one comparison over an array."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.ragged import Ragged
from onesearch.data.records import PRODUCT, TIME, Item, in_utc
from onesearch.data.text import fold
from onesearch.index.filter_values import PATH_SEPARATOR
from onesearch.index.name_columns import JOINT, Names, Numbering, OfAll, added_up, alone
from onesearch.index.price_ranges import price_ranges
from onesearch.index.shown_spans import span_bounds, span_name, turns_of

_COLUMNS = ("category", "brand", "seller", "price", "in_stock", "attributes", "listed_at")
NAMES: Final = ("paths", "brand", "seller", "kind", "span")  # columns of names
_NUMBER = re.compile(r"\s*([+-]?\d+(?:\.\d+|,\d{1,2})?)(?![.,]?\d)")


@dataclass(frozen=True)
class Tags:
    """Attributes as numbers of (type, value), several for an item; tags made from each other share the numberings."""

    codes: Ragged
    numbering: Numbering
    types: Numbering

    @classmethod
    def from_lists(cls, attributes: pl.Series) -> "Tags":
        """From lists of structs of ``type`` and ``value``."""
        table = pl.DataFrame({"row": np.arange(len(attributes)), "attribute": attributes})
        table = table.explode("attribute").drop_nulls("attribute").unnest("attribute").drop_nulls()
        names = Names.from_texts(table["type"] + JOINT + table["value"])
        types = Numbering()
        for kind in table["type"].unique().sort():
            types.of(kind)
        lengths = np.bincount(table["row"].to_numpy(), minlength=len(attributes))
        return cls(Ragged.from_lengths(names.code, lengths), names.numbering, types)

    def of(self, items: Sequence[Item]) -> "Tags":
        """Other items' attributes, in the same numbers."""
        rows = []
        for item in items:
            for kind in item.attributes:
                self.types.of(kind)
            pairs = [(kind, value) for kind, values in item.attributes.items() for value in values]
            rows.append([self.numbering.of(kind + JOINT + value) for kind, value in pairs])
        return self.with_codes(Ragged.from_lists(rows))

    def with_codes(self, codes: Ragged) -> "Tags":
        """Other items' codes, in the same numbers."""
        return Tags(codes, self.numbering, self.types)

    def having(self, kind: str, value: str | tuple[float, float]) -> NDArray[np.bool_]:
        """Which items have an attribute of the type with the value, or with a number within bounds; bool [n]."""
        if isinstance(value, str):
            return self.among(self.numbering.starting_with(kind, value))
        low, high = value
        return self.among([number for number, text in self.values_of(kind).items() if low <= number_in(text) <= high])

    def values_of(self, kind: str) -> dict[int, str]:
        """The values of a type by their numbers, whatever its case and accents."""
        return {
            number: self.numbering.name(number).partition(JOINT)[2] for number in self.numbering.starting_with(kind)
        }

    def counts(self, kind: str, most: int, text: str = "", of_all: OfAll = alone) -> list[tuple[str, int]]:
        """How many items have each value of a type, as :meth:`FilterColumns.counts`."""
        names = self.values_of(kind)
        spelt = added_up(of_all(np.bincount(self.codes.values, minlength=len(self.numbering))))
        # Values that are alike count as the commonest of them; an item once for each, however often it has it.
        leader, leaders = np.full(len(spelt), -1, np.int64), dict[str, int]()
        for number in sorted(names, key=lambda one: -spelt[one]):
            leader[number] = leaders.setdefault(fold(names[number]), number)
        led = leader[self.codes.values]
        pairs = np.unique(np.stack([self.codes.owners[led >= 0], led[led >= 0]]), axis=1)
        counts = added_up(of_all(np.bincount(pairs[1], minlength=len(spelt))))
        return _merged(((names[one], int(counts[one])) for one in leaders.values() if counts[one]), text)[:most]

    def counted_types(self, most: int, of_all: OfAll = alone) -> list[tuple[str, int]]:
        """Types with how many values of theirs items have; the ``most`` frequent ones, in order."""
        spelt, totals = added_up(of_all(np.bincount(self.codes.values))), dict[str, int]()
        for name, number in self.numbering.items():
            kind, count = name.partition(JOINT)[0], int(spelt[number]) if number < len(spelt) else 0
            totals[kind] = totals.get(kind, 0) + count
        return sorted(((kind, n) for kind, n in totals.items() if n), key=lambda one: (-one[1], one[0]))[:most]

    def among(self, numbers: list[int]) -> NDArray[np.bool_]:
        """Which items have one of these tags, bool [n]."""
        holders, out = self.holders, np.zeros(len(self.codes), bool)
        # A number that came later is no tag of these items.
        out[holders.select(np.array([one for one in numbers if one < len(holders)], np.int64)).values] = True
        return out

    @cached_property
    def holders(self) -> Ragged:
        """The items that have each tag, by its number."""
        codes, shape = self.codes, (len(self.codes), len(self.numbering))
        by_tag = sparse.csr_matrix((np.ones(len(codes.values), bool), codes.values, codes.offsets), shape).tocsc()
        return Ragged.from_lengths(by_tag.indices, np.diff(by_tag.indptr))


def number_in(text: str) -> float:
    """The number that an attribute's text begins with ("42 cm", "5,5"), nan without one.

    >>> number_in("5,5 in"), number_in("1,000"), number_in("red")
    (5.5, nan, nan)
    """
    found = _NUMBER.match(text)
    return float(found[1].replace(",", ".")) if found else math.nan


@dataclass(frozen=True)
class FilterColumns:
    """The filterable columns of the item table, in the order of its rows.

    Attributes:
        paths: category paths, their parts joined by a control character.
        price: float64 [n], nan where unknown.
        listed: when items were listed, float64 [n] in seconds of 1970, nan where unknown.
        kind: of :data:`~onesearch.data.records.KINDS`.
        span: when items are shown, as :mod:`onesearch.index.shown_spans` names it; none for those that always are.
    """

    paths: Names
    brand: Names
    seller: Names
    price: NDArray[np.float64]
    in_stock: NDArray[np.bool_]
    listed: NDArray[np.float64]
    tags: Tags
    kind: Names
    span: Names

    @classmethod
    def from_items(cls, items: pl.DataFrame) -> "FilterColumns":
        """Read the filterable columns; an item without a word on stock counts as in stock."""
        paths, brand, seller, price, in_stock, listed = _read(items)
        names = (Names.from_texts(paths), Names.from_texts(brand), Names.from_texts(seller))
        tags = Tags.from_lists(items["attributes"])
        kinds = _kinds(items)
        return cls(*names, price.to_numpy(), in_stock.to_numpy(), listed.to_numpy(), tags, *kinds)

    def __len__(self) -> int:
        return len(self.price)

    def take(self, rows: NDArray[np.integer]) -> "FilterColumns":
        """The columns of some items, in the given order."""
        return self._like([array[rows] for array in self._arrays()], self.tags.codes.select(rows))

    def followed_by(self, other: "FilterColumns") -> "FilterColumns":
        """These items, then others in the same numbers."""
        arrays = [np.concatenate(both) for both in zip(self._arrays(), other._arrays(), strict=True)]
        tags = (self.tags.codes, other.tags.codes)
        values, lengths = np.concatenate([one.values for one in tags]), np.concatenate([one.lengths for one in tags])
        return self._like(arrays, Ragged.from_lengths(values, lengths))

    def _arrays(self) -> tuple[NDArray[Any], ...]:
        return (*(getattr(self, name).code for name in NAMES), self.price, self.in_stock, self.listed)

    def _like(self, arrays: Sequence[NDArray[Any]], tags: Ragged) -> "FilterColumns":
        codes, (price, in_stock, listed) = arrays[: len(NAMES)], arrays[len(NAMES) :]
        of_name = {name: replace(getattr(self, name), code=code) for name, code in zip(NAMES, codes, strict=True)}
        return FilterColumns(**of_name, price=price, in_stock=in_stock, listed=listed, tags=self.tags.with_codes(tags))

    def of(self, items: Sequence[Item]) -> "FilterColumns":
        """Other items' columns, in the same numbers."""
        return FilterColumns(
            self.paths.of(JOINT.join(item.category) for item in items),
            self.brand.of(item.brand for item in items),
            self.seller.of(item.seller for item in items),
            np.array([math.nan if item.price is None else item.price for item in items], np.float64),
            np.array([item.in_stock for item in items], bool),
            np.array([math.nan if item.listed_at is None else _seconds(item.listed_at) for item in items], np.float64),
            self.tags.of(items),
            self.kind.of(item.kind for item in items),
            self.span.of(span_name(item.start, item.end) for item in items),
        )

    def having(self, key: str, kind: str, value: Any) -> NDArray[np.bool_]:
        """Which items have the value (one alternative of a checked filter), bool [n]."""
        chosen: NDArray[np.bool_]
        match key:
            case "brand":
                chosen = self.brand.among(self.brand.numbering.starting_with(value))
            case "seller":
                chosen = self.seller.among(self.seller.numbering.starting_with(value))
            case "kind":
                chosen = self.kind.among(self.kind.numbers([value]))
            case "span":
                chosen = self._on(value)
            case "in_stock":
                chosen = np.equal(self.in_stock, value)
            case "price":
                chosen = np.greater_equal(self.price, value[0]) & np.less_equal(self.price, value[1])  # nan is in none
            case "attributes":
                chosen = self.tags.having(kind, value)
            case _:
                chosen = self._in_category(value)
        return chosen

    def counts(
        self, key: str, kind: str = "", most: int = 100, text: str = "", of_all: OfAll = alone
    ) -> list[tuple[Any, int]]:
        """How many items have each value of a filter's key, most items first; with the key's ``kind`` for attributes.

        Of ``category`` every path and those above it. Of ``price`` ranges (low, high) that hold about as many items
        each, from low to high. Names that differ in case and accents alone count as one, spelt as most items spell it.

        Of the values that hold the ``text``, whatever its case and accents, the ``most`` frequent; of categories the
        most frequent of each level, since those above have more items than those below.

        These are one shard's items, where ``of_all`` brings what the others have.
        """
        match key:
            case "in_stock":
                pairs = enumerate(added_up(of_all(np.bincount(self.in_stock))))
                return sorted(((bool(value), int(n)) for value, n in pairs if n), key=lambda one: -one[1])
            case "price":
                return list(price_ranges(np.concatenate(of_all(self.price))))
            case "attributes":
                return self.tags.counts(kind, most, text, of_all)
            case "category":
                # An item counts for its path and for all above it.
                totals: dict[str, int] = {}
                for path, n in self.paths.counted(len(self.paths.numbering), of_all):
                    parts = path.split(PATH_SEPARATOR)
                    for end in range(1, len(parts) + 1):
                        name = PATH_SEPARATOR.join(parts[:end])
                        totals[name] = totals.get(name, 0) + n
                seen: Counter[int] = Counter()
                found = []
                for name, n in _merged(totals.items(), text):
                    level = name.count(PATH_SEPARATOR)
                    seen[level] += 1
                    if seen[level] <= most:
                        found.append((name, n))
                return found
            case _:
                names: Names = getattr(self, key)  # brand, seller or kind
                return _merged(names.counted(len(names.numbering), of_all), text)[:most]

    def turns(self) -> NDArray[np.float64]:
        """The moments at which another set of items is shown, as :func:`~onesearch.index.shown_spans.turns_of`."""
        return turns_of([name for name, _ in self.span.numbering.items()])

    def _on(self, time: float) -> NDArray[np.bool_]:
        """Which items are shown at a time, in seconds of 1970: from their start until before their end."""
        bounds = span_bounds([name for name, _ in self.span.numbering.items()])
        on = np.flatnonzero((bounds[:, 0] <= time) & (time < bounds[:, 1]))
        return self.span.among(on.tolist()) | np.less(self.span.code, 0)

    def _in_category(self, value: str | tuple[str, ...]) -> NDArray[np.bool_]:
        """A name matches any part of a path; a path matches itself and everything below it."""
        numbering = self.paths.numbering
        if not isinstance(value, str):
            return self.paths.among(numbering.starting_with(*value))
        # A name anywhere, or a path from the root.
        chosen = numbering.with_part(value) + numbering.starting_with(*value.split(PATH_SEPARATOR))
        return self.paths.among(chosen)


def _seconds(time: datetime) -> float:
    """Seconds since 1970; a time without a zone is UTC."""
    return in_utc(time).timestamp()


def _kinds(items: pl.DataFrame) -> tuple[Names, Names]:
    """Kinds and spans; without such columns all are products that are always shown."""
    n = len(items)
    if "kind" not in items.columns:
        return all_products(n)
    spans = pl.Series([None] * n, dtype=pl.String)
    some = items.select(timed=pl.col("start").is_not_null() | pl.col("end").is_not_null())["timed"]
    if some.any():
        times = items.select("start", "end").filter(some).iter_rows()
        spans = spans.scatter(some.arg_true(), [span_name(*one) for one in times])
    return Names.from_texts(items["kind"].fill_null(PRODUCT)), Names.from_texts(spans)


def all_products(n: int) -> tuple[Names, Names]:
    """The columns ``kind`` and ``span`` of n products that are always shown."""
    # Both columns are one number in memory.
    kinds, spans = Numbering(), Numbering()
    kind, span = (np.broadcast_to(np.int32(number), n) for number in (kinds.of(PRODUCT), -1))
    return Names(kind, kinds), Names(span, spans)


def _read(items: pl.DataFrame) -> tuple[pl.Series, ...]:
    """The filterable columns, checked: paths, brand, seller, price (nan for unknown), in stock, listed (likewise)."""
    missing = [name for name in _COLUMNS if name not in items.columns]
    if missing:
        raise ValueError(f"the item table has no column {', '.join(missing)}; its columns are {items.columns}")
    return (
        items["category"].cast(pl.List(pl.String)).list.join(JOINT),
        items["brand"].cast(pl.String),
        items["seller"].cast(pl.String),
        items["price"].cast(pl.Float64).fill_null(float("nan")),
        # Whoever asks for items in stock shall not get one of which nobody knows.
        items["in_stock"].cast(pl.Boolean).fill_null(False),
        (items["listed_at"].cast(TIME).dt.epoch("us") / 1e6).fill_null(float("nan")),
    )


def _merged(counted: Iterable[tuple[str, int]], text: str) -> list[tuple[str, int]]:
    """Names that hold a text, those that differ in case and accents alone as one; by count, ties by name."""
    groups: dict[str, list[tuple[str, int]]] = {}
    wanted = fold(text)
    for name, n in counted:
        if wanted in (folded := fold(name)):
            groups.setdefault(folded, []).append((name, n))
    merged = [(max(group, key=lambda one: one[1])[0], sum(n for _, n in group)) for group in groups.values()]
    return sorted(merged, key=lambda one: (-one[1], one[0]))
