"""An honest little engine for the HTTP layer, stores that break on demand, and a real server with a real browser."""

import shutil
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import uvicorn

from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.search.results import Explanation, FilterChoices, Part, SearchRequest, SearchResult, SearchResults
from onesearch.search.rules import Rules
from onesearch.search.shopper_history import ShopperHistory
from onesearch.search.suggestions import Suggestion
from onesearch.search.word_matches import WordMatch
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import StoreError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
COLORS = ("red", "blue", "green", "black")
KINDS = (("shoe", "Sports"), ("lamp", "Home"), ("jacket", "Clothing"), ("drill", "Tools"), ("mug", "Home"))
BRANDS = ("Swift", "Acme", "Lumen")


def catalogue(n: int = 60) -> list[Item]:
    items = []
    for i in range(n):
        kind, group = KINDS[i % 5]
        color, brand = COLORS[i % 4], BRANDS[i % 3]
        items.append(
            Item(
                item_id=f"i{i}",
                title=f"{color} {kind} {brand} no. {i}",
                category=(group, kind),
                brand=brand,
                price=5.0 + i,
                attributes={"Color": (color,)},
                in_stock=i % 7 != 0,
            )
        )
    return items


def _facet_values(key: str, item: Item) -> list[Any]:
    if key == "category":
        return [" > ".join(item.category[: end + 1]) for end in range(len(item.category))]
    if key == "brand":
        return [] if item.brand is None else [item.brand]
    if key == "kind":
        return [item.kind]
    if key == "attributes.Color":
        return list(item.attributes.get("Color", ()))
    return [True if key == "in_stock" else (1.0, 99.0) if key == "price" else "red"]


class FakeEngine:
    """Ranks by words in common with the query; items sharing words with the shopper's clicks get a bonus.

    The whole catalogue is one dict that is replaced, never changed, so a search sees one state.
    """

    def __init__(self, items: Sequence[Item] = ()) -> None:
        self.items: dict[str, Item] = {item.item_id: item for item in items}
        self.logged: dict[str, ShopperHistory] = {
            "ann": ShopperHistory(("i1",), ("lamp",), ("i3",), ("lamp",), "F 24-30"),
            "bob": ShopperHistory(("i2",), ("jacket",)),
        }
        self.batches: list[int] = []
        self.requests: list[SearchRequest] = []
        self.gate: threading.Event | None = None
        self.at_work = threading.Event()
        self.refuse_titles: set[str] = set()
        self.changes = 0
        self.prepared: list[str] = []
        self.own_rules, self.live_rules = Rules(), None
        self.logged_until: datetime | None = None
        self.later: set[str] = set()  # items that its log does not count
        self.counted: list[LiveClicks] = []
        self.precision = "float32"
        self.lexical_groups: list[tuple[str, ...]] = []

    explains = True

    def close(self) -> None:
        """Nothing."""

    def use_precision(self, precision: str) -> None:
        """Remember what was asked for."""
        self.precision = precision

    def trust_picture_hosts(self, hosts: Sequence[str]) -> None:
        """Remember them."""
        self.trusted = list(hosts)

    @property
    def version(self) -> str:
        return f"fake@{self.changes}"

    def __len__(self) -> int:
        return len(self.items)

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        self.at_work.set()
        if self.gate:
            self.gate.wait(60)
        self.batches.append(len(requests))
        self.requests.extend(requests)
        for request in requests:
            if "explode" in request.query:
                raise RuntimeError("secret internals")
        return [self._page(request) for request in requests]

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        titles = [Suggestion(item.title, "item", name) for name, item in self.items.items()]
        every = [
            *(Suggestion(f"{color} shoe", "query") for color in COLORS),
            Suggestion("Clothing", "category"),
            *titles,
        ]
        return [one for one in every if one.text.lower().startswith(text.lower())][:k]

    def _page(self, request: SearchRequest) -> SearchResults:
        if "lmap" in request.query and request.correct:
            found = self._page(replace(request, query=request.query.replace("lmap", "lamp")))
            found.corrected_query = request.query.replace("lmap", "lamp")
            return found
        end, history = request.offset + request.k, request.history or ShopperHistory()
        whole = self._search(request.query, len(self.items), request.filters, history)
        pinned = [one for pin in (request.rules or self.rules).pins for one in pin.items]
        whole = SearchResults(sorted(whole, key=lambda hit: hit.item_id not in pinned), whole.confidence)
        found = SearchResults(whole[:end], whole.confidence)
        facets = {
            key: Counter(
                value
                for hit in whole
                for value in _facet_values(key, hit.item)
                if request.facet_query.lower() in str(value).lower()
            ).most_common(100)
            for key in request.facets
        }
        total = len(whole) if request.count else None
        if request.sort in ("price", "-price"):
            whole.sort(key=lambda hit: hit.item.price or 0, reverse=request.sort == "-price")
            found = SearchResults(whole[:end], whole.confidence)
        page = found[request.offset :]
        if request.highlight:
            page = [hit._replace(highlights={"title": ((0, 3),)}) for hit in page]
        if request.explain:
            pins = (request.rules or self.rules).pins
            touching = {hit.item_id: tuple(pin.name for pin in pins if hit.item_id in pin.items) for hit in page}
            page = [
                hit._replace(why=Explanation((Part("words", hit.score, 1.0),), ("BM25",), (), touching[hit.item_id]))
                for hit in page
            ]
        answer = SearchResults(page, found.confidence, total, facets)
        answer.did_you_mean = request.query.replace("lmap", "lamp") if "lmap" in request.query else None
        return answer

    @property
    def rules(self) -> Rules:
        return self.own_rules if self.live_rules is None else self.live_rules

    def follow_rules(self, rules: Rules | None) -> None:
        self.live_rules = rules

    def rule_problems(self, rules: Rules) -> dict[str, str]:
        named = {pin.name: [one for one in pin.items if one not in self.items] for pin in rules.pins}
        return {name: f"pins, {name}: no item {gone[0]!r} in the catalogue" for name, gone in named.items() if gone}

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        found = self._search(self.items[item_id].title, k + 1, filters, ShopperHistory())
        return SearchResults([hit for hit in found if hit.item_id != item_id][:k])

    def word_matches(self, query: str, items: Sequence[Item]) -> list[tuple[WordMatch, ...]]:
        said = [
            (set(item.title.lower().split()), {value for one in item.attributes.values() for value in one})
            for item in items
        ]
        return [
            tuple(
                WordMatch(
                    word, tuple(name for name, has in (("title", word in title), ("attributes", word in values)) if has)
                )
                for word in query.lower().split()
            )
            for title, values in said
        ]

    def search_lexical(
        self,
        query: str,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        groups: Sequence[str] = (),
        rules: Rules | None = None,
    ) -> SearchResults:
        self.lexical_groups.append(tuple(groups))
        return self._search(query, k, filters, ShopperHistory()) if query.strip() else SearchResults()

    def _search(self, query: str, k: int, filters: Mapping[str, Any] | None, history: ShopperHistory) -> SearchResults:
        items = self.items
        words = set(query.lower().split())
        liked = {word for i in history.clicked + history.ordered if i in items for word in items[i].title.split()}
        scored = []
        for item in items.values():
            title = set(item.title.lower().split())
            score = len(words & title) + 0.1 * len(liked & title)
            if (score or not words) and self._allowed(item, filters or {}):
                scored.append(SearchResult(item.item_id, score, self.sid(item.item_id), item))
        found = sorted(scored, key=lambda hit: (-hit.score, hit.item_id))[:k]
        # As the engine: none for a recommendation, low where no word is known.
        known = {word for item in items.values() for word in item.title.lower().split()}
        return SearchResults(found, len(words & known) / len(words) if words else None)

    def _allowed(self, item: Item, filters: Mapping[str, Any]) -> bool:
        for key, value in filters.items():
            wanted = value if isinstance(value, list) else [value]
            if key == "price":
                low, high = value
                ok = item.price is not None and (low or 0) <= item.price <= (float("inf") if high is None else high)
            elif key == "all":
                ok = all(self._allowed(item, one) for one in value)
            elif key == "not":
                ok = not any(self._allowed(item, {one: which}) for one, which in value.items())
            elif key == "attributes":
                ok = all(
                    set(which if isinstance(which, list) else [which]) & set(item.attributes.get(kind, ()))
                    for kind, which in value.items()
                    if isinstance(which, str)
                )
            elif key == "category":
                paths = {item.category[:end] for end in range(1, len(item.category) + 1)}
                ok = bool(set(wanted) & {*item.category, *_facet_values(key, item), *paths})
            elif key == "seller":
                raise ValueError("no item has a seller, so there is nothing to filter by; leave 'seller' out")
            else:
                ok = getattr(item, key) in wanted
            if not ok:
                return False
        return True

    def logged_history(self, user: str) -> ShopperHistory:
        return self.logged.get(user, ShopperHistory())

    def item(self, item_id: str) -> Item | None:
        return self.items.get(item_id)

    def sid(self, item_id: str) -> tuple[int, ...]:
        if item_id not in self.items:
            return ()
        number = sum(map(ord, self.items[item_id].title))
        return (len(self.items[item_id].category), number % 5, number % 7, number % 256, number % 251)

    def prepare(self, items: Sequence[Item]) -> dict[str, int]:
        self.prepared += [item.item_id for item in items]
        if any("fails" in item.images for item in items):
            raise RuntimeError("no picture can be read")
        images = [image for item in items for image in item.images]
        return {"read": len(images), "items_without": 1} if images else {}

    def upsert(self, items: Sequence[Item]) -> None:
        for item in items:
            if item.title in self.refuse_titles:
                raise RuntimeError(f"cannot encode {item.title!r}")
        self.items = {**self.items, **{item.item_id: item for item in items}}
        self.changes += 1

    def delete(self, item_ids: Sequence[str]) -> int:
        kept = {name: item for name, item in self.items.items() if name not in set(item_ids)}
        gone, self.items = len(self.items) - len(kept), kept
        self.changes += 1
        return gone

    def in_log_counts(self, item_id: str) -> bool:
        """All but those of ``later``."""
        return item_id not in self.later

    def count(self, live: LiveClicks) -> None:
        self.counted.append(live)

    def filters_available(self) -> FilterChoices:
        brands = tuple((brand, 20) for brand in BRANDS)
        return FilterChoices((("Home", 24), ("shoe", 12)), brands, (5.0, 64.0), (("Color", 60),))

    def shoppers(self, limit: int) -> list[str]:
        return list(self.logged)[:limit]

    def example_queries(self, limit: int) -> list[str]:
        return ["red shoe", "lamp"][:limit]


class FlakyStore(SqliteStore):
    """A SQLite store whose named calls fail while listed in ``broken``."""

    broken: frozenset[str] = frozenset()

    def __getattribute__(self, name: str) -> Any:
        if name in object.__getattribute__(self, "broken"):

            def fail(*_: Any, **__: Any) -> Any:
                raise StoreError(f"store: could not {name}: disk on fire")

            return fail
        return object.__getattribute__(self, name)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The address of an application behind a real HTTP server on this machine."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/"
    server.should_exit = True
    thread.join(10)
