"""Two engines before the shoppers of a simulated market: python examples/ab_test.py runs/demo:v1 runs/demo:v2."""

import sys
import tempfile
from pathlib import Path

from onesearch.pipeline.abtest_runs import compare_engines


def main(a: str, b: str, page_views: int = 2000) -> None:
    """Print the lifts of arm B over arm A, every shopper meeting both engines on the same fate."""
    with tempfile.TemporaryDirectory() as folder:
        found = compare_engines(a, b, Path(folder), page_views, splits=0)
    print(f"{found['shoppers']:,} shoppers, {found['page_views']:,} page views")
    for metric, one in found["paired"].items():
        print(f"{metric:12} {one['lift']:+.2%} [{one['low']:+.2%}, {one['high']:+.2%}], p = {one['p']:.3f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
