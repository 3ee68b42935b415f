"""What a filter may say: keys and values checked, and brought to one form that can be looked up in a cache."""

import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

FILTER_KEYS = ("category", "brand", "seller", "price", "in_stock")
PATH_SEPARATOR = " > "

Value = str | bool | tuple[str, ...] | tuple[float, float]
Checked = tuple[tuple[str, tuple[Value, ...]], ...]


class FilterError(ValueError):
    """A filter that cannot be understood; the message says which key and what it takes."""


def normalised(filters: Mapping[str, Any]) -> Checked:
    """The filters as sorted (key, alternatives): one of the alternatives of every key must hold.

    Raises:
        FilterError: an unknown key, or a value of the wrong kind.
    """
    out = []
    for key, value in filters.items():
        if key not in FILTER_KEYS:
            # a misspelt key would otherwise filter nothing, silently
            near = difflib.get_close_matches(str(key), FILTER_KEYS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise FilterError(f"unknown filter '{key}'{hint or '.'} Valid filters are {', '.join(FILTER_KEYS)}")
        alternatives = [_value(key, one) for one in _alternatives(key, value)]
        if not alternatives:
            raise FilterError(f"filter '{key}' is an empty list, which no item can match; leave the key out instead")
        # sorted and without repeats: equal filters are equal keys of the cache
        out.append((key, tuple(sorted(set(alternatives), key=repr))))
    return tuple(sorted(out))


def _alternatives(key: str, value: Any) -> Iterable[Any]:
    """The values of a list (OR); a price range is itself a list of two bounds."""
    if key == "price" and not (isinstance(value, list | tuple) and any(isinstance(x, list | tuple) for x in value)):
        return [value]
    return value if isinstance(value, list | set | frozenset) or key == "price" else [value]


def _value(key: str, value: Any) -> Value:
    match key:
        case "price":
            return _price(value)
        case "in_stock":
            if not isinstance(value, bool):
                raise FilterError(f"filter 'in_stock' takes true or false, got {value!r}")
            return value
        case "category" if isinstance(value, tuple) and value and all(isinstance(part, str) for part in value):
            return value
    if not isinstance(value, str):
        kind = "a name, or a path such as 'A > B'" if key == "category" else "a text"
        raise FilterError(f"filter '{key}' takes {kind}, or a list of such; got {value!r}")
    return value


def _price(value: Any) -> tuple[float, float]:
    """Inclusive bounds; an open one is infinite."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise FilterError(f"filter 'price' takes [low, high], either may be null; got {value!r}")
    for bound in value:
        if bound is not None and (isinstance(bound, bool) or not isinstance(bound, int | float) or math.isnan(bound)):
            raise FilterError(f"filter 'price' takes numbers or null, got {bound!r}")
    low, high = value
    if low is None and high is None:
        raise FilterError("filter 'price' has no bound; give a low or a high price, or leave the key out")
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if bounds[0] > bounds[1]:
        raise FilterError(f"filter 'price' has its low bound {low} above its high bound {high}")
    return bounds
