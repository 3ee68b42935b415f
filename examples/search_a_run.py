"""Search a finished run: python examples/search_a_run.py runs/demo "waterproof hiking boots"."""

import sys
from pathlib import Path

from onesearch import SearchRequest, load_engine


def main(run: Path, query: str) -> None:
    """Print results without and with a filter, for a shopper of the log, and for several requests at once."""
    engine = load_engine(run)
    print(f"{len(engine):,} items, {engine.version}")
    for result in engine.search(query, k=5):
        print(f"{result.score:7.3f}  {result.item.title}  {result.sid}")

    dearest = max(result.item.price or 0 for result in engine.search(query))
    print(
        f"below {dearest:.2f}:", [result.item_id for result in engine.search(query, filters={"price": [None, dearest]})]
    )

    (shopper,) = engine.shoppers(1)
    requests = [SearchRequest(query, shopper, k=3), SearchRequest("", shopper, k=3)]  # "" asks for a recommendation
    for request, results in zip(requests, engine.search_batch(requests), strict=True):
        print(f"{request.user}, '{request.query}':", [result.item.title for result in results])


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python examples/search_a_run.py RUN QUERY")
    main(Path(sys.argv[1]), sys.argv[2])
