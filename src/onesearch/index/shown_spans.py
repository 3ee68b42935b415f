"""When items are shown: spans of time as names, so that a filter column holds one number for an item, as for a brand.

What is on changes only where a span begins or ends, so a search asks about the last such moment before it: all searches
until the next one share one set of items.
"""

import math
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from onesearch.data.records import in_utc

_TO = " to "


def span_name(start: datetime | None, end: datetime | None) -> str | None:
    """The name of a span [start, end); None for an item that is always shown.

    >>> span_name(datetime.fromisoformat("1970-01-01T00:01:00+00:00"), None)
    '60.0 to inf'
    """
    if start is None and end is None:
        return None
    first = -math.inf if start is None else in_utc(start).timestamp()
    last = math.inf if end is None else in_utc(end).timestamp()
    return f"{first!r}{_TO}{last!r}"


def span_bounds(names: list[str]) -> NDArray[np.float64]:
    """Starts and ends of named spans, [n, 2] in seconds of 1970; infinite where a side is open."""
    return np.array([name.split(_TO) for name in names], np.float64).reshape(-1, 2)


def turns_of(names: list[str]) -> NDArray[np.float64]:
    """The moments at which something begins or ends, ascending and distinct, in seconds of 1970; -inf comes first.

    >>> turns_of(["60.0 to inf", "30.0 to 60.0"]).tolist()
    [-inf, 30.0, 60.0]
    """
    bounds = np.unique(span_bounds(names))
    return np.concatenate([[-math.inf], bounds[np.isfinite(bounds)]])
