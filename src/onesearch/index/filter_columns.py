"""The filterable properties of items as number columns: a filter value becomes one comparison over an array."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.index.filter_values import PATH_SEPARATOR

_COLUMNS = ("category", "brand", "seller", "price", "in_stock")
_JOINT = "\x1f"  # ASCII unit separator: does not occur in names


@dataclass(frozen=True)
class Names:
    """A text column as numbers: ``code`` int32 [n] is what ``number`` says of the text; -1 for none."""

    code: NDArray[np.int32]
    number: dict[str, int]

    @classmethod
    def from_texts(cls, texts: pl.Series) -> "Names":
        """Number the distinct texts."""
        return cls(np.zeros(0, np.int32), {}).extended(texts)

    def extended(self, texts: pl.Series) -> "Names":
        """With more items, and the names they bring."""
        # known names keep their numbers, new ones are numbered on; then one look-up for all items
        names = texts.drop_nulls().unique().sort()
        if not len(names):
            return Names(np.append(self.code, np.full(len(texts), -1, np.int32)).astype(np.int32), self.number)
        number = dict(self.number)
        numbers = [number.setdefault(name, len(number)) for name in names]  # distinct names, not items
        code = np.array([*numbers, -1], np.int32)[
            texts.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()
        ]
        return Names(np.concatenate([self.code, code]), number)

    def head(self, n: int) -> "Names":
        """The first ``n`` items."""
        return Names(self.code[:n], self.number)

    def equal_to(self, text: str) -> NDArray[np.bool_]:
        """Which items have exactly this text, bool [n]."""
        return self.among([self.number[text]] if text in self.number else [])

    def among(self, numbers: list[int]) -> NDArray[np.bool_]:
        """Which items have one of these names, bool [n]."""
        if len(numbers) == 1:
            return np.equal(self.code, numbers[0])
        # one look-up table over the names instead of a comparison per name
        chosen = np.zeros(len(self.number) + 1, bool)  # the last entry serves code -1
        chosen[numbers] = True
        return np.take(chosen, self.code, mode="wrap")


@dataclass(frozen=True)
class FilterColumns:
    """The filterable columns of the item table, in the order of its rows.

    Attributes:
        paths: category paths, their parts joined by a control character.
        price: float64 [n], nan where unknown.
    """

    paths: Names
    brand: Names
    seller: Names
    price: NDArray[np.float64]
    in_stock: NDArray[np.bool_]

    @classmethod
    def from_items(cls, items: pl.DataFrame) -> "FilterColumns":
        """Read the filterable columns; an item without a word on stock counts as in stock."""
        none = Names(np.zeros(0, np.int32), {})
        return cls(none, none, none, np.zeros(0), np.zeros(0, bool)).extended(items)

    def __len__(self) -> int:
        return len(self.price)

    def head(self, n: int) -> "FilterColumns":
        """The first ``n`` items."""
        if n == len(self):
            return self
        paths, brand, seller = self.paths.head(n), self.brand.head(n), self.seller.head(n)
        return FilterColumns(paths, brand, seller, self.price[:n], self.in_stock[:n])

    def extended(self, items: pl.DataFrame) -> "FilterColumns":
        """With the items of another table after these."""
        if not len(items):
            return self
        new = _read(items)
        return FilterColumns(
            self.paths.extended(new[0]),
            self.brand.extended(new[1]),
            self.seller.extended(new[2]),
            np.concatenate([self.price, new[3].to_numpy()]),
            np.concatenate([self.in_stock, new[4].to_numpy()]),
        )

    def having(self, key: str, value: Any) -> NDArray[np.bool_]:
        """Which items have the value (one alternative of a checked filter), bool [n]."""
        chosen: NDArray[np.bool_]
        match key:
            case "brand":
                chosen = self.brand.equal_to(value)
            case "seller":
                chosen = self.seller.equal_to(value)
            case "in_stock":
                chosen = np.equal(self.in_stock, value)
            case "price":
                chosen = np.greater_equal(self.price, value[0]) & np.less_equal(self.price, value[1])  # nan is in none
            case _:
                chosen = self._in_category(value)
        return chosen

    def _in_category(self, value: str | tuple[str, ...]) -> NDArray[np.bool_]:
        """A name matches any part of a path; a path matches itself and everything below it."""
        wanted = tuple(value.split(PATH_SEPARATOR)) if isinstance(value, str) else value
        chosen = []
        for path, number in self.paths.number.items():  # distinct paths, not items
            parts = tuple(path.split(_JOINT))
            # a path from the root, or one name anywhere
            if parts[: len(wanted)] == wanted or value in parts:
                chosen.append(number)
        return self.paths.among(chosen)


def _read(items: pl.DataFrame) -> tuple[pl.Series, pl.Series, pl.Series, pl.Series, pl.Series]:
    """The filterable columns, checked: paths, brand, seller, price (nan for unknown), in stock."""
    missing = [name for name in _COLUMNS if name not in items.columns]
    if missing:
        raise ValueError(f"the item table has no column {', '.join(missing)}; its columns are {items.columns}")
    return (
        items["category"].cast(pl.List(pl.String)).list.join(_JOINT),
        items["brand"].cast(pl.String),
        items["seller"].cast(pl.String),
        items["price"].cast(pl.Float64).fill_null(float("nan")),
        # Whoever asks for items in stock shall not get one of which nobody knows.
        items["in_stock"].cast(pl.Boolean).fill_null(False),
    )
