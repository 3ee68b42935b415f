"""Prices as ranges that a page can offer as filters."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def price_ranges(prices: NDArray[np.float64], parts: int = 5) -> Iterator[tuple[tuple[float, float], int]]:
    """Ranges (low, high) of prices, ends included, that hold about as many items each, from low to high; with counts.

    They end at round prices and begin at the next price that an item has. Unknown prices (nan) are in none.

    >>> list(price_ranges(np.array([1.0, 2.0, 12.4, 13.0, 150.0, np.nan]), 2))
    [((1.0, 12.0), 2), ((12.4, 150.0), 3)]
    """
    known, begin = np.sort(prices[~np.isnan(prices)]), 0
    for part in range(1, parts + 1):
        if begin < len(known):
            # Round to two digits: 1234 to 1200; the last range ends where prices do.
            end = float(known[-1]) if part == parts else float(f"{np.quantile(known, part / parts):.2g}")
            stop = int(np.searchsorted(known, end, side="right"))
            if stop > begin:
                yield (float(known[begin]), end), stop - begin
                begin = stop
