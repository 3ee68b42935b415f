"""What a filter may say: keys and values checked, and brought to one form that can be looked up in a cache."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from onesearch.data.records import KINDS

FILTER_KEYS = ("category", "brand", "seller", "price", "in_stock", "kind", "attributes")
"""What an item can be filtered by; ``not`` holds filters of these kinds that must not match, ``all`` lists of more."""
NOT, ALL, ATTRIBUTES = "not", "all", "attributes"
PATH_SEPARATOR = " > "

Value = str | bool | float | tuple[str, ...] | tuple[float, float]


class Filter(NamedTuple):
    """One condition: the item has one of the ``values``, or none of them where it is ``negated``.

    ``kind`` is the type of an attribute, "" for other keys.
    """

    key: str
    kind: str
    negated: bool
    values: tuple[Value, ...]


Checked = tuple[Filter, ...]


class FilterError(ValueError):
    """A filter that cannot be understood; the message says which key and what it takes."""


def normalised(filters: Mapping[str, Any]) -> Checked:
    """The filters in one order: all of them must hold.

    Raises:
        FilterError: an unknown key, or a value of the wrong kind.
    """
    out = []
    for key, kind, negated, value in _flat(filters, False):
        name = f"{NOT}." * negated + key + f".{kind}" * bool(kind)
        alternatives = [_value(key, name, one) for one in _alternatives(key, value)]
        if not alternatives:
            raise FilterError(f"filter '{name}' is an empty list, which no item can match; leave the key out instead")
        # sorted and without repeats: equal filters are equal keys of the cache
        out.append(Filter(key, kind, negated, tuple(sorted(set(alternatives), key=repr))))
    return tuple(sorted(out, key=repr))


def conjuncts(filters: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The filters, and those of their list ``all``: each of them must hold."""
    return [] if filters is None else [filters, *filters.get(ALL, ())]


def names_key(filters: Mapping[str, Any], key: str) -> bool:
    """Whether filters say which values of a key are wanted, or which are not."""
    without = filters.get(NOT)
    return not filters.keys().isdisjoint({key, f"{NOT}.{key}"}) or (isinstance(without, Mapping) and key in without)


def _flat(filters: Mapping[str, Any], negated: bool) -> Iterator[tuple[str, str, bool, Any]]:
    """Key, attribute type, negated, value; ``attributes`` and ``not`` hold mappings, or stand before a dot."""
    for name, value in filters.items():
        key, dot, rest = str(name).partition(".")
        if key == NOT and not negated:
            yield from _flat({rest: value} if dot else _mapping(key, value), True)
        elif name == ALL and not negated:
            if not isinstance(value, list | tuple):
                raise FilterError(f"filter '{ALL}' takes a list of filters that must all hold, got {value!r}")
            for one in value:
                yield from _flat(_mapping(ALL, one), False)
        elif key == ATTRIBUTES:
            kinds = {rest: value} if dot else _mapping(key, value)
            yield from ((key, str(kind), negated, one) for kind, one in kinds.items())
        elif name in FILTER_KEYS:
            yield key, "", negated, value
        else:
            # a misspelt key would otherwise filter nothing, silently
            near = difflib.get_close_matches(str(name), FILTER_KEYS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else "."
            valid = f"{', '.join(FILTER_KEYS)}, {NOT} and {ALL}"
            raise FilterError(f"unknown filter '{name}'{hint} Valid filters are {valid}")


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        held = {ATTRIBUTES: "attribute types with their values", NOT: "filters that must not match"}.get(key, "filters")
        raise FilterError(f"filter '{key}' takes a mapping of {held}, got {value!r}")
    return value


def _alternatives(key: str, value: Any) -> Iterable[Any]:
    """The values of a list (OR); a price range is itself a list of two bounds."""
    if key == "price" and not (isinstance(value, list | tuple) and any(isinstance(x, list | tuple) for x in value)):
        return [value]
    return value if isinstance(value, list | set | frozenset) or key == "price" else [value]


def _value(key: str, name: str, value: Any) -> Value:
    match key:
        case "price":
            return _bounds(name, value, "price")
        case "in_stock":
            if not isinstance(value, bool):
                raise FilterError(f"filter '{name}' takes true or false, got {value!r}")
            return value
        case "kind" if value not in KINDS:
            raise FilterError(f"filter '{name}' takes {', '.join(KINDS)}, or a list of these; got {value!r}")
        case "category" if isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
            return value
        case "attributes" if isinstance(value, Mapping):
            if not value or not set(value) <= {"min", "max"}:
                raise FilterError(f"filter '{name}' takes a text, or bounds as {{'min': 40, 'max': 42}}; got {value!r}")
            return _bounds(name, [value.get("min"), value.get("max")], "number")
        case "attributes" if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:.15g}"
    if not isinstance(value, str):
        kind = "a name, or a path such as 'A > B'" if key == "category" else "a text"
        raise FilterError(f"filter '{name}' takes {kind}, or a list of such; got {value!r}")
    return value


def _bounds(name: str, value: Any, what: str) -> tuple[float, float]:
    """Inclusive bounds; an open one is infinite."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise FilterError(f"filter '{name}' takes [low, high], either may be null; got {value!r}")
    for bound in value:
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or math.isnan(bound)):
            raise FilterError(f"filter '{name}' takes numbers or null, got {bound!r}")
    low, high = value
    if low is None and high is None:
        raise FilterError(f"filter '{name}' has no bound; give a low or a high {what}, or leave the key out")
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if bounds[0] > bounds[1]:
        raise FilterError(f"filter '{name}' has its low bound {low} above its high bound {high}")
    return bounds
