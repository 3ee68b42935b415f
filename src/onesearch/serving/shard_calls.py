"""Shards behind one service: the first process of a job is asked, and has all others do the same with their items.

A call is its name, the time and its arguments as JSON. Every process, the first one too, works with what came of them
through JSON, in the order in which the first one says them, so that all make the same of it::

    first   search_batch([...])  ->  told to all  ->  its own shard's part  ->  the answer of all
    others  answer_calls         ->  heard        ->  their shards' parts   ->  hear the next call

What only reads what every shard has, such as an item's record, is no call.
"""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter

from onesearch.common.processes import from_first, is_first
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.search.engine import SearchEngine
from onesearch.search.results import FilterChoices, SearchRequest, SearchResults
from onesearch.search.rules import Rules
from onesearch.search.shards import ProcessShards
from onesearch.search.suggestions import Suggestion

log = logging.getLogger("onesearch.serving")
_Filters = Mapping[str, Any] | None
_CALLS: Final[dict[str, TypeAdapter[Any]]] = {
    "search_batch": TypeAdapter(tuple[list[SearchRequest]]),
    "search_lexical": TypeAdapter(tuple[str, int, _Filters, tuple[str, ...], Rules | None]),
    "similar": TypeAdapter(tuple[str, int, _Filters]),
    "suggest": TypeAdapter(tuple[str, int]),
    "filters_available": TypeAdapter(tuple[()]),
    "upsert": TypeAdapter(tuple[list[Item]]),
    "delete": TypeAdapter(tuple[list[str]]),
    "follow_rules": TypeAdapter(tuple[Rules | None]),
    "count": TypeAdapter(tuple[list[str], list[str], list[int], list[int], list[float], list[float]]),
    "settle": TypeAdapter(tuple[()]),
}
"""What the shards do together, with the types of its arguments."""
_SECONDS_BETWEEN_CALLS: Final = 5.0  # at most, so that one that is gone is noticed, and new bases come into their place


class ShardsDifferError(RuntimeError):
    """Some item is in no shard or in two: their machines make other semantic IDs of the same text."""


class LeadingEngine(SearchEngine):
    """The shard of the first process, with the answers of all of them; a service asks it as any other engine.

    Calls wait for each other. After one that not all shards came to there can be none: ``failed`` is told why.

    Attributes:
        failed: called once, with the reason, when the shards have lost each other.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failed: Callable[[Exception], None] = lambda _: None
        self._turn, self._ended = threading.Lock(), threading.Event()
        self._keeper = threading.Thread(target=self._keep_together, name="shards", daemon=True)
        self._keeper.start()

    def close(self) -> None:
        """The last call: the other processes have nothing to do any more."""
        with self._turn:
            if not self._ended.is_set():
                self._ended.set()
                from_first(None)

    def _keep_together(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_CALLS):
            with suppress(Exception):  # told by then
                self._call("settle")

    def _call(self, name: str, *arguments: Any) -> Any:
        """Have all shards do something, this one among them; what it gives here."""
        told = [name, self.clock().isoformat(), _CALLS[name].dump_python(arguments, mode="json")]
        with self._turn:
            if self._ended.is_set():
                raise RuntimeError("the shards of this service are not together any more")
            try:
                return _perform(self, *from_first(told))
            except (ValueError, KeyError):  # of the request, and so in every shard
                raise
            except Exception as error:
                self._ended.set()
                log.exception("the shards have lost each other in %s", name)
                self.failed(error)
                raise

    # -- what a service asks of the catalogue's parts ------------------------------------------------------------------

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        """As :meth:`SearchEngine.search_batch`, of all shards."""
        found: list[SearchResults] = self._call("search_batch", list(requests))
        return found

    def search_lexical(
        self,
        query: str,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        groups: Sequence[str] = (),
        rules: Rules | None = None,
    ) -> SearchResults:
        """As :meth:`SearchEngine.search_lexical`, of all shards."""
        found: SearchResults = self._call("search_lexical", query, k, filters, tuple(groups), rules)
        return found

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """As :meth:`SearchEngine.similar`, of all shards."""
        found: SearchResults = self._call("similar", item_id, k, filters)
        return found

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """As :meth:`SearchEngine.suggest`, of all shards."""
        found: list[Suggestion] = self._call("suggest", text, k)
        return found

    def filters_available(self) -> FilterChoices:
        """As :meth:`SearchEngine.filters_available`, of all shards."""
        found: FilterChoices = self._call("filters_available")
        return found

    # -- changes -------------------------------------------------------------------------------------------------------

    def upsert(self, items: Sequence[Item]) -> None:
        """As :meth:`SearchEngine.upsert`, in all shards."""
        self._call("upsert", list(items))

    def delete(self, item_ids: Sequence[str]) -> int:
        """As :meth:`SearchEngine.delete`, in all shards."""
        known: int = self._call("delete", list(item_ids))
        return known

    def follow_rules(self, rules: Rules | None) -> None:
        """As :meth:`SearchEngine.follow_rules`, in all shards."""
        self._call("follow_rules", rules)

    def count(self, live: LiveClicks) -> None:
        """As :meth:`SearchEngine.count`, in all shards."""
        numbers = (one.tolist() for one in (live.query, live.item, live.counts, live.clicked))
        self._call("count", list(live.queries), list(live.item_ids), *numbers)


def joined_shard(engine: SearchEngine) -> SearchEngine:
    """The part that this process has of an engine that every process of the job has loaded; the first one leads.

    Raises:
        ValueError: there are more processes than first codes of SIDs; or items' vectors are made of pictures, too,
            which one process may be able to read and another not.
    """
    if engine.featurizer.pictures is not None:
        raise ValueError(f"{engine.name} reads pictures of new items, which shards cannot: serve it as whole engines")
    return engine.shard_as(LeadingEngine if is_first() else SearchEngine, ProcessShards())


def answer_calls(engine: SearchEngine) -> None:
    """Do what the first process says, until it has no more to say.

    Raises:
        RuntimeError: a process is gone.
        ShardsDifferError: as it says.
    """
    while (call := from_first()) is not None:
        with suppress(ValueError, KeyError):  # of the request; the first process tells who asked
            _perform(engine, *call)


def _perform(engine: SearchEngine, name: str, time: str, arguments: Sequence[Any]) -> Any:
    """One call in this process."""
    moment, read = datetime.fromisoformat(time), _CALLS[name].validate_python(arguments)
    if name == "settle":
        engine.current.settle()
        return None
    if name == "count":
        queries, items, query, item, counts, clicked = read
        pairs = np.array(query, np.int64), np.array(item, np.int64), np.array(counts, np.float32)
        read = (LiveClicks(queries, items, *pairs, np.array(clicked, np.float32)),)
    # The engine's own method, also where the first process's engine has one of that name that calls all.
    engine.clock = lambda: moment
    try:
        found = getattr(SearchEngine, name)(engine, *read)
    finally:
        engine.clock = lambda: datetime.now(UTC)
    if name in ("upsert", "delete"):
        snapshot = engine.snapshot
        if (there := snapshot.shards.total(len(snapshot.index))) != len(engine):
            raise ShardsDifferError(
                f"{len(engine)} items, but {there} in the shards: their machines make other semantic IDs of the same"
                " text; run shards on machines of one kind"
            )
    return found
