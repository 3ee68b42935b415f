"""Speed of the market: page views simulated and written per second; one million must take at most three minutes.

Usage: python -m benchmarks.market_speed [page_views] [items]
Prints one JSON object; ``times_budget`` is the time over that of the budget (180 s per million), so below 1 is good.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from onesearch.market.make_market import make_market
from onesearch.market.market_settings import MarketSettings

_BUDGET_SECONDS_PER_VIEW = 180.0 / 1_000_000


def main() -> None:
    """Make one market in a temporary folder and print how long it took."""
    page_views = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    items = int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    config = MarketSettings(items=items, users=max(10, page_views // 12), page_views=page_views)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        dataset = make_market(config, Path(folder))
        seconds = time.perf_counter() - start
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    print(
        json.dumps(
            {
                "page_views": dataset.counts["page_views"],
                "items": items,
                "seconds": round(seconds, 1),
                "page_views_per_second": round(page_views / seconds),
                "bytes_on_disk": size,
                "times_budget": round(seconds / (page_views * _BUDGET_SECONDS_PER_VIEW), 3),
            }
        )
    )


if __name__ == "__main__":
    main()
