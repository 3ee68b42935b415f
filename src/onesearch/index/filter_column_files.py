"""Filter columns in a file: read once from the catalogue, mapped into memory by every server ever after."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from onesearch.common.array_checks import are_numbers, are_offsets
from onesearch.common.ragged import Ragged
from onesearch.common.text_table import TextTable
from onesearch.data.records import PRODUCT
from onesearch.index.filter_columns import NAMES, FilterColumns, Tags, all_products
from onesearch.index.name_columns import Names, Numbering
from onesearch.index.shown_spans import span_bounds
from onesearch.index.tensor_files import read_arrays, write_arrays

FILE: Final = "filter_columns.safetensors"
_OF_PRODUCTS: Final = ("paths", "brand", "seller")
_VALUES: Final = {"price": np.float64, "in_stock": np.bool_, "listed": np.float64}
Arrays = dict[str, NDArray[Any]]


def save_filter_columns(columns: FilterColumns, folder: Path) -> None:
    """Write the columns of n items, in their order."""
    arrays: Arrays = {name: getattr(columns, name) for name in _VALUES}
    # Of products alone, always shown, there is nothing to say.
    plain = (
        len(columns.kind.numbering) == 1 and columns.kind.numbering.find(PRODUCT) == 0 and (columns.span.code < 0).all()
    )
    for name in _OF_PRODUCTS if plain else NAMES:
        one: Names = getattr(columns, name)
        arrays |= {f"{name}.code": one.code, **_texts(f"{name}.names", one.numbering)}
    tags = columns.tags
    arrays |= {"tags.values": tags.codes.values, "tags.offsets": tags.codes.offsets}
    arrays |= _texts("tags.names", tags.numbering) | _texts("tags.types", tags.types)
    # Items of each tag, which the first search for an attribute would otherwise wait for.
    arrays |= {"holders.values": tags.holders.values, "holders.offsets": tags.holders.offsets}
    write_arrays(folder / FILE, arrays)


def load_filter_columns(folder: Path, items: int) -> FilterColumns:
    """What :func:`save_filter_columns` wrote for so many items.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the arrays do not fit together, or are those of another number of items.
    """
    path = folder / FILE
    arrays = read_arrays(path)
    try:
        paths, brand, seller = (_names(arrays, name, items) for name in _OF_PRODUCTS)
        kind, span = all_products(items)
        if "kind.code" in arrays:
            kind, span = (_names(arrays, name, items) for name in ("kind", "span"))
            span_bounds([name for name, _ in span.numbering.items()])
        values = {name: arrays[name] for name in _VALUES}
        if any(values[name].dtype != dtype or values[name].shape != (items,) for name, dtype in _VALUES.items()):
            raise ValueError(f"price, stock or date are not those of {items} items")
        return FilterColumns(paths, brand, seller, **values, tags=_tags(arrays, items), kind=kind, span=span)
    except KeyError as error:
        raise ValueError(f"{path} has no {error}; make the run's stage index again") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; make the run's stage index again") from None


def _names(arrays: Arrays, name: str, items: int) -> Names:
    code, numbering = arrays[f"{name}.code"], _numbering(arrays, f"{name}.names")
    if len(code) != items or not are_numbers(code, np.int32, len(numbering), least=-1):
        raise ValueError(f"{name} are not those of {items} items")
    return Names(code, numbering)


def _tags(arrays: Arrays, items: int) -> Tags:
    numbering, types = _numbering(arrays, "tags.names"), _numbering(arrays, "tags.types")
    lists = [Ragged(arrays[f"{name}.values"], arrays[f"{name}.offsets"]) for name in ("tags", "holders")]
    for one, rows, limit in zip(lists, (items, len(numbering)), (len(numbering), items), strict=True):
        fit = are_offsets(one.offsets, one.values) and are_numbers(one.values, np.int32, limit)
        if not fit or len(one) != rows:
            raise ValueError(f"attributes are not those of {items} items")
    tags = Tags(lists[0], numbering, types)
    tags.__dict__["holders"] = lists[1]  # where the cached property keeps it
    return tags


def _texts(name: str, numbering: Numbering) -> Arrays:
    table = TextTable.from_texts(text for text, _ in numbering.items())
    return {f"{name}.letters": table.letters, f"{name}.offsets": table.offsets}


def _numbering(arrays: Arrays, name: str) -> Numbering:
    letters, offsets = arrays[f"{name}.letters"], arrays[f"{name}.offsets"]
    if letters.dtype != np.uint8 or not are_offsets(offsets, letters):
        raise ValueError(f"{name} are no texts")
    numbering = Numbering()
    for text in TextTable(letters, offsets):
        numbering.of(text)
    if len(numbering) != len(offsets) - 1:
        raise ValueError(f"{name} hold a text twice")
    return numbering
