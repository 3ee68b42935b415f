"""What a shop's features do, measured: pages, facets, explanations, speed, boosts, learning from clicks.

    python -m benchmarks.shop run [NAME ...]    # into docs/results/shop.json; all of them without a name
    python -m benchmarks.shop render            # docs/results/shop.md

All parts take the run in ``runs/demo`` (``make demo SERVE=0``) but pages-20000 and day-20000, which take one of the
generator study's, below the folder that the variable ``RUNS`` names.
"""

from benchmarks.command_page import Benchmark, main, write_page
from benchmarks.result_files import ResultFiles

FILES = ResultFiles("shop")
_EXACT = {name: "<= 0" for name in ("shown twice", "missing")}
_WHOLE = {**_EXACT, "in another place": "<= 0", "wrong facet counts": "<= 0"}
_PAGES = {f"department: {name}": "<= 0" for name in (*_EXACT, "of other departments")}
_SUM = "largest difference between a score and its parts"

ALL = {
    "pages": Benchmark(
        "python -m benchmarks.shop_pages runs/demo",
        "Pages of ten, one after the other: all of the largest department, and the first ones of the whole shop, of "
        "the run's own size and after items like its own (other ids, titles in another order of their words) were put "
        "into the same engine. Without a query and for queries of the log, every other one by a shopper whom the log "
        "knows. `shown twice`, `missing`, `in another place` are places and items of all these searches together: "
        "what two pages show, what no page shows, what stands elsewhere than in one long page. Facets of all kinds, "
        "attributes included, against counts of the items by hand; scores against the sums of their explanations.",
        _PAGES
        | {f"{shop}: {name}": goal for shop in ("own", "grown") for name, goal in _WHOLE.items()}
        | {f"{shop}: {_SUM}": "<= 0.0001" for shop in ("own", "grown")},
    ),
    "pages-20000": Benchmark(
        "python -m benchmarks.shop_pages $RUNS/market-12/flagship",
        "The same on a market of 20,000 items that was trained as it is (`python -m benchmarks.generator run $RUNS "
        "market-12/flagship`).",
        _PAGES | {f"own: {name}": goal for name, goal in _WHOLE.items()} | {f"own: {_SUM}": "<= 0.0001"},
    ),
    "speed": Benchmark(
        "python -m benchmarks.shop_speed runs/demo",
        "Single searches of test page views in one process with one thread, each kind beside a plain search of the "
        "same request. *Mistyped*: two letters of the longest word have changed places; *100 rules* of all kinds, of "
        "which sixty ask for a query. Completions after every letter of queries, of the log and of as many made-up "
        "queries as a large shop has. On a machine that does other things as well CPU time and ratios are what to "
        "look at.",
        {"completions: 1000000 made-up queries: p95 ms, CPU": "<= 5"},
    ),
    "boosts": Benchmark(
        "python -m benchmarks.shop_boosts runs/demo",
        "One rule that multiplies the odds of the items of all emerging sellers, before the market's shoppers after "
        "the log's end: the whole engine serves the same page views under each boost, and every shopper has the same "
        "fate. Lifts with intervals from a bootstrap over shoppers.",
        {
            "times 2: their places over times 1: lift": ">= 0",
            "times 4: their places over times 2: lift": ">= 0",
            "times 4: their places over times 1: lift": ">= 0.2",
            "times 4: their orders: lift": ">= 0",
            "times 4: all orders: lift": ">= -0.01",
        },
    ),
    "day": Benchmark(
        "python -m benchmarks.shop_day runs/demo",
        "A day of the market's shoppers served by the engine and recorded by a service's store, from which a second "
        "engine learns as the service does (`ClickLearner`, its default settings); then both serve the next day. HR "
        "and MRR over what the same shoppers click and order on pages of the market's own engine; *expected HR* is "
        "the share of the true click mass on the page; clicks, orders and items shown are per page view on the pages "
        "of either engine. Shoppers who search for the same on both days are left out of the second, since the market "
        "would let them click the same again. Of both days only page views whose query two shoppers search for on the "
        "first: from the second shopper on clicks count for a query. Cold items have no click in the log's training "
        "part. Two-sided paired sign-flip tests over page views.",
        {
            f"queries of two shoppers: {name}: {key}": goal
            for name in ("click HR@10", "orders")
            for key, goal in (("difference", ">= 0"), ("p", "<= 0.05"))
        },
    ),
    "day-20000": Benchmark(
        "python -m benchmarks.shop_day $RUNS/market-12/flagship 20000",
        "The same on a market of 20,000 items with a day of 20,000 page views, for the engine of the generator study's "
        "run of seed 12 (`python -m benchmarks.generator run $RUNS market-12/flagship`).",
        {
            f"queries of two shoppers: {name}: {key}": goal
            for name in ("click HR@10", "click MRR@10", "orders")
            for key, goal in (("difference", ">= 0"), ("p", "<= 0.05"))
        },
    ),
}


def render() -> None:
    """Write the page from the saved figures."""
    write_page(FILES, ALL, FILES.head(), {})


if __name__ == "__main__":
    main(FILES, ALL, render, __doc__ or "")
