"""Result pages, facets and explanations of a whole shop, against counts by hand.

Prints one JSON object (``python -m benchmarks.shop_pages runs/demo``). The larger shop is the run's own with items of
other ids and reordered titles on top, put into the same engine. ``shown twice`` and ``missing`` are items, over all
searches: of a department those that its filter allows and no page shows; of the larger shop those of one long page.
"""

import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.varied_items import varied_items
from onesearch.data.dataset import Dataset
from onesearch.data.records import Item
from onesearch.index.filter_values import PATH_SEPARATOR
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.results import SearchRequest

PAGE, ITEMS, PAGES, SEARCHES = 10, 20_000, 100, 3


def measure(engine: SearchEngine, dataset: Dataset, items: int, pages: int, searches: int) -> dict[str, Any]:
    """Both shops: the engine's own, then as large as ``items``, where its own is smaller."""
    own = {"department": department(engine, searches), "own": whole(engine, pages, searches)}
    if len(engine) >= items:
        return own
    grow(engine, dataset, items)
    return {**own, "grown": whole(engine, pages, searches)}


def grow(engine: SearchEngine, dataset: Dataset, items: int) -> None:
    """Put items like the dataset's own into the engine, until it has so many."""
    more = itertools.islice(varied_items(dataset, "more"), max(items - len(engine), 0))
    while some := list(itertools.islice(more, 1000)):
        engine.upsert(some)


def department(engine: SearchEngine, searches: int) -> dict[str, Any]:
    """All pages of the largest department: without a query, and for queries of the log."""
    items = everything(engine)
    name, size = Counter(item.category[0] for item in items if item.category).most_common(1)[0]
    inside = {item.item_id for item in items if item.category[:1] == (name,)}
    filters, found = {"category": (name,)}, Counter[str]()
    for query, user in asked(engine, searches):
        shown = walk(engine, SearchRequest(query, user, PAGE, filters), size)
        found.update({"shown twice": twice(shown), "missing": len(inside - set(shown))})
        found["of other departments"] += len(set(shown) - inside)
    return {"items": size, "searches": searches, "pages of each": -(-size // PAGE), **found}


def whole(engine: SearchEngine, pages: int, searches: int) -> dict[str, Any]:
    """The first pages of all items, their facets and their explanations."""
    found, most = Counter[str](), pages * PAGE
    for query, user in asked(engine, searches):
        shown = walk(engine, SearchRequest(query, user, PAGE), most)
        together = [hit.item_id for hit in engine.search(query, user, most)]
        found.update({"shown twice": twice(shown), "missing": len(set(together) - set(shown))})
        found["in another place"] += sum(one != other for one, other in zip(shown, together, strict=False))
        counted, wrong = wrong_facets(engine, query)
        found.update({"facet counts": counted, "wrong facet counts": wrong})
    explained, off = explanations(engine, asked(engine, 10 * searches))
    return {
        "items": len(engine),
        "searches": searches,
        "pages of each": pages,
        **found,
        "explained results": explained,
        "largest difference between a score and its parts": float(f"{off:.1g}"),
    }


def asked(engine: SearchEngine, searches: int) -> Iterator[tuple[str, str | None]]:
    """No query, then queries of the log; every other one by a shopper whom the log knows."""
    queries, shoppers = ["", *engine.known_queries], engine.known_shoppers
    for number in range(searches):
        yield queries[number % len(queries)], shoppers[number % len(shoppers)] if number % 2 else None


def walk(engine: SearchEngine, request: SearchRequest, most: int) -> list[str]:
    """Ids on all pages of a search until one is empty or ``most`` were asked for, page after page."""
    shown: list[str] = []
    for offset in range(0, most, request.k):
        page = engine.search(request.query, request.user, request.k, request.filters, offset)
        shown += [hit.item_id for hit in page]
    return shown


def twice(shown: Sequence[str]) -> int:
    """How many places show an item that an earlier place shows."""
    return len(shown) - len(set(shown))


def wrong_facets(engine: SearchEngine, query: str) -> tuple[int, int]:
    """How many values the facets of a result set count, and how many of them another number than a count by hand."""
    items = everything(engine)
    kinds = sorted({kind for item in items for kind in item.attributes})
    keys = ["category", "brand", "seller", "in_stock", "price", *(f"attributes.{kind}" for kind in kinds)]
    request = SearchRequest(query, None, len(items), facets=keys, sort="popularity")
    answer = engine.search_batch([request])[0]
    found = [hit.item for hit in answer]
    counted = wrong = abs((answer.total or 0) - len(found))
    for key, values in answer.facets.items():
        by_hand = Counter(itertools.chain.from_iterable(_values(item, key) for item in found))
        for value, number in values:
            if key == "price":
                low, high = value
                right = sum(item.price is not None and low <= item.price <= high for item in found)
            else:
                right = by_hand[str(value).casefold()]
            counted, wrong = counted + 1, wrong + (number != right)
    return counted, wrong


def _values(item: Item, key: str) -> set[str]:
    """What an item counts for under a facet, lower case."""
    name, _, kind = key.partition(".")
    match name:
        case "category":
            found = [PATH_SEPARATOR.join(item.category[:end]) for end in range(1, len(item.category) + 1)]
        case "attributes":
            found = list(item.attributes.get(kind, ()))
        case _:
            value = getattr(item, name)
            found = [] if value is None else [str(value)]
    return {value.casefold() for value in found}


def explanations(engine: SearchEngine, searches: Iterator[tuple[str, str | None]]) -> tuple[int, float]:
    """How many results were explained by parts, and the largest difference of their sum from the score."""
    number, off = 0, 0.0
    for query, user in searches:
        for hit in engine.search_batch([SearchRequest(query, user, PAGE, explain=True)])[0]:
            if hit.why is not None and hit.why.parts:
                number, off = number + 1, max(off, abs(hit.why.score - hit.score))
    return number, off


def everything(engine: SearchEngine) -> list[Item]:
    """All items that are there."""
    snapshot = engine.snapshot
    return [snapshot.item(row) for row in snapshot.number.values()]


if __name__ == "__main__":
    run = Path(sys.argv[1])
    print(json.dumps(measure(load_engine(run), Dataset.load(run / "data"), ITEMS, PAGES, SEARCHES)))
