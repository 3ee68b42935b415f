"""The filterable properties of items as number columns: a filter value becomes one comparison over an array."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.records import Item
from onesearch.data.text import fold
from onesearch.index.filter_values import PATH_SEPARATOR

_COLUMNS = ("category", "brand", "seller", "price", "in_stock")
_JOINT = "\x1f"  # ASCII unit separator: does not occur in names


class Numbering:
    """Numbers of distinct names, from 0; it only grows: one writer at a time, any number of readers."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}
        self._alike: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._number)

    def of(self, name: str) -> int:
        """The number of a name, a new one if need be."""
        number = self._number.get(name)
        if number is None:
            number = self._number[name] = len(self._number)
            self._alike.setdefault(fold(name), []).append(number)
        return number

    def alike(self, name: str) -> list[int]:
        """The numbers of the names that are this one but for case and accents."""
        return list(self._alike.get(fold(name), ()))

    def items(self) -> list[tuple[str, int]]:
        """All names with their numbers, as of now."""
        return list(self._number.items())


@dataclass(frozen=True)
class Names:
    """A text column as numbers: ``code`` int32 [n], -1 for none; columns made from each other share the numbering."""

    code: NDArray[np.int32]
    numbering: Numbering

    @classmethod
    def from_texts(cls, texts: pl.Series) -> "Names":
        """Number the distinct texts of a new column."""
        numbering, names = Numbering(), texts.drop_nulls().unique().sort()
        if not len(names):
            return cls(np.full(len(texts), -1, np.int32), numbering)
        # Distinct names are numbered, then one look-up for all items.
        code = np.array([*(numbering.of(name) for name in names), -1], np.int32)
        return cls(code[texts.cast(pl.Enum(names)).to_physical().cast(pl.Int32).fill_null(-1).to_numpy()], numbering)

    def of(self, texts: Iterable[str | None]) -> "Names":
        """Other items' texts, in the same numbers."""
        code = [-1 if text is None else self.numbering.of(text) for text in texts]
        return Names(np.array(code, np.int32), self.numbering)

    def counted(self, most: int) -> list[tuple[str, int]]:
        """Names that items have, the parts of a path joined, with how many have them; the ``most`` frequent ones."""
        names = [name.replace(_JOINT, PATH_SEPARATOR) for name, _ in self.numbering.items()]
        counts = np.bincount(self.code[self.code >= 0], minlength=len(names))
        best = np.argsort(-counts, kind="stable")[:most].tolist()
        return [(names[i], int(counts[i])) for i in best if counts[i] and names[i]]

    def among(self, numbers: list[int]) -> NDArray[np.bool_]:
        """Which items have one of these names, bool [n]."""
        if len(numbers) == 1:
            return np.equal(self.code, numbers[0])
        # one look-up table over the names instead of a comparison per name
        chosen = np.zeros(len(self.numbering) + 1, bool)  # the last entry serves code -1
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
        paths, brand, seller, price, in_stock = _read(items)
        names = (Names.from_texts(paths), Names.from_texts(brand), Names.from_texts(seller))
        return cls(*names, price.to_numpy(), in_stock.to_numpy())

    def __len__(self) -> int:
        return len(self.price)

    def arrays(self) -> tuple[NDArray[Any], ...]:
        """Codes of paths, brands and sellers, prices, stock; each [n]."""
        return self.paths.code, self.brand.code, self.seller.code, self.price, self.in_stock

    def take(self, rows: NDArray[np.integer]) -> "FilterColumns":
        """The columns of some items, in the given order."""
        return self.like([array[rows] for array in self.arrays()])

    def like(self, arrays: Sequence[NDArray[Any]]) -> "FilterColumns":
        """Other items' :meth:`arrays`, in the same numbers."""
        names = (self.paths, self.brand, self.seller)
        paths, brand, seller = (Names(code, one.numbering) for code, one in zip(arrays[:3], names, strict=True))
        return FilterColumns(paths, brand, seller, arrays[3], arrays[4])

    def of(self, items: Sequence[Item]) -> "FilterColumns":
        """Other items' columns, in the same numbers."""
        return FilterColumns(
            self.paths.of(_JOINT.join(item.category) for item in items),
            self.brand.of(item.brand for item in items),
            self.seller.of(item.seller for item in items),
            np.array([math.nan if item.price is None else item.price for item in items], np.float64),
            np.array([item.in_stock for item in items], bool),
        )

    def having(self, key: str, value: Any) -> NDArray[np.bool_]:
        """Which items have the value (one alternative of a checked filter), bool [n]."""
        chosen: NDArray[np.bool_]
        match key:
            case "brand":
                chosen = self.brand.among(self.brand.numbering.alike(value))
            case "seller":
                chosen = self.seller.among(self.seller.numbering.alike(value))
            case "in_stock":
                chosen = np.equal(self.in_stock, value)
            case "price":
                chosen = np.greater_equal(self.price, value[0]) & np.less_equal(self.price, value[1])  # nan is in none
            case _:
                chosen = self._in_category(value)
        return chosen

    def _in_category(self, value: str | tuple[str, ...]) -> NDArray[np.bool_]:
        """A name matches any part of a path; a path matches itself and everything below it."""
        wanted = tuple(map(fold, value.split(PATH_SEPARATOR) if isinstance(value, str) else value))
        name = fold(value) if isinstance(value, str) else None
        chosen = []
        for path, number in self.paths.numbering.items():  # distinct paths, not items
            parts = tuple(map(fold, path.split(_JOINT)))
            # a path from the root, or one name anywhere
            if parts[: len(wanted)] == wanted or name in parts:
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
