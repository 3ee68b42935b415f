"""What a shop's features do, measured: pages, facets, explanations, speed, boosts, learning from clicks.

    python -m benchmarks.shop run [NAME ...]    # into docs/results/shop.json; all of them without a name
    python -m benchmarks.shop render            # docs/results/shop.md

All parts take the run in ``runs/demo`` (``make demo SERVE=0``).
"""

from benchmarks.command_page import Benchmark, main, write_page
from benchmarks.result_files import ResultFiles

FILES = ResultFiles("shop")
_EXACT = {name: "<= 0" for name in ("shown twice", "missing")}
_WHOLE = {**_EXACT, "in another place": "<= 0", "wrong facet counts": "<= 0"}
_SUM = "largest difference between a score and its parts"

ALL = {
    "pages": Benchmark(
        "python -m benchmarks.shop_pages runs/demo",
        "Pages of ten, one after the other: all of the largest department, and the first ones of the whole shop, of the "
        "run's own size and after items like its own (other ids, titles in another order of their words) were put into "
        "the same engine. Without a query and for queries of the log, every other one by a shopper whom the log knows. "
        "`shown twice`, `missing`, `in another place` are places and items of all these searches together: what two "
        "pages show, what no page shows, what stands elsewhere than in one long page. Facets of all kinds, "
        "attributes included, against counts of the items by hand; scores against the sums of their explanations.",
        {f"department: {name}": "<= 0" for name in (*_EXACT, "of other departments")}
        | {f"{shop}: {name}": goal for shop in ("own", "grown") for name, goal in _WHOLE.items()}
        | {f"{shop}: {_SUM}": "<= 0.0001" for shop in ("own", "grown")},
    ),
}


def render() -> None:
    """Write the page from the saved figures."""
    write_page(FILES, ALL, FILES.head(), {})


if __name__ == "__main__":
    main(FILES, ALL, render, __doc__ or "")
