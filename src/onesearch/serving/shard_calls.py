"""Shards behind one service: the first process of a job is asked, and has all others do the same with their items.

A call is its name, the time and its arguments as JSON. Every process, the first one too, works with what came of them
through JSON, in the order in which the first one says them, so that all make the same of it::

    first   search_batch([...])  ->  told to all  ->  its own shard's part  ->  the answer of all
    others  answer_calls         ->  heard        ->  their shards' parts   ->  hear the next call

At the end of a call all say how it went: what one refuses, all must refuse. What only reads what every shard has, such
as an item's record, is no call.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import numpy as np
import torch
from pydantic import AfterValidator, BeforeValidator, PlainSerializer, PlainValidator, TypeAdapter

from onesearch import __version__
from onesearch.common.processes import exchanged, from_first, is_first
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.search.engine import SearchEngine
from onesearch.search.results import FilterChoices, SearchRequest, SearchResults
from onesearch.search.rules import Rules
from onesearch.search.shards import ProcessShards
from onesearch.search.suggestions import Suggestion
from onesearch.serving.worker_threads import SaturatedError

log = logging.getLogger("onesearch.serving")


def _told(value: Any) -> Any:
    """Filters as JSON has them: a path of categories, which is a tuple, as in the HTTP interface."""
    match value:
        case tuple():
            return {"path": list(value)}
        case list():
            return [_told(one) for one in value]
        case Mapping():
            return {key: _told(one) for key, one in value.items()}
    return value


def _heard(value: Any) -> Any:
    """The filters that :func:`_told` told."""
    match value:
        case {"path": list(path), **rest} if not rest:
            return tuple(path)
        case list():
            return [_heard(one) for one in value]
        case dict():
            return {key: _heard(one) for key, one in value.items()}
    return value


def _live_told(live: LiveClicks) -> list[Any]:
    """Live clicks as JSON has them, to the last bit."""
    numbers = (one.tolist() for one in (live.query, live.item, live.counts, live.clicked))
    return [list(live.queries), list(live.item_ids), *numbers]


def _live_heard(value: Any) -> LiveClicks:
    """The live clicks that :func:`_live_told` told."""
    queries, items, query, item, counts, clicked = value
    pairs = np.array(query, np.int64), np.array(item, np.int64), np.array(counts, np.float32)
    return LiveClicks(queries, items, *pairs, np.array(clicked, np.float32))


_REQUEST: Final = TypeAdapter(SearchRequest)
_Filters = Annotated[Mapping[str, Any] | None, PlainSerializer(_told), BeforeValidator(_heard)]
_Request = Annotated[
    SearchRequest,
    PlainSerializer(lambda one: _REQUEST.dump_python(replace(one, filters=_told(one.filters)), mode="json")),
    AfterValidator(lambda one: replace(one, filters=_heard(one.filters))),
]
_Live = Annotated[Any, PlainSerializer(_live_told), PlainValidator(_live_heard)]
_CALLS: Final[dict[str, TypeAdapter[Any]]] = {
    "search_batch": TypeAdapter(tuple[list[_Request]]),
    "search_lexical": TypeAdapter(tuple[str, int, _Filters, tuple[str, ...], Rules | None]),
    "similar": TypeAdapter(tuple[str, int, _Filters]),
    "suggest": TypeAdapter(tuple[str, int]),
    "filters_available": TypeAdapter(tuple[()]),
    "upsert": TypeAdapter(tuple[list[Item]]),
    "delete": TypeAdapter(tuple[list[str]]),
    "follow_rules": TypeAdapter(tuple[Rules | None]),
    "count": TypeAdapter(tuple[_Live]),
    "settle": TypeAdapter(tuple[()]),
}
"""What the shards do together, with the types of its arguments."""
_SECONDS_BETWEEN_CALLS: Final = 5.0  # at most, so that one that is gone is noticed, and new bases come into their place
_PATIENCE: Final = timedelta(minutes=2)  # of shards that meet: one that hangs ends them all
_SECONDS_IN_LINE: Final = 5.0  # for what a page asks beside a search; later ones are told to come again


class ShardsDifferError(RuntimeError):
    """A call went otherwise in one shard than in another."""


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
                from_first(None, self.snapshot.shards.group)

    def _keep_together(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_CALLS):
            with suppress(Exception):  # told by then
                self._call("settle")

    def _call(self, name: str, *arguments: Any, in_line: float = -1) -> Any:
        """Have all shards do something, this one among them; what it gives here.

        Raises:
            SaturatedError: it did not come to its turn within ``in_line`` seconds.
            RuntimeError: the shards have lost each other.
            Exception: what all of them raised.
        """
        asked = _CALLS[name].dump_python(arguments, mode="json")
        with self._in_turn(in_line):
            if self._ended.is_set():
                raise RuntimeError("the shards of this service are not together any more")
            try:
                call = from_first([name, self.clock().isoformat(), asked], self.snapshot.shards.group)
                found, error = _together(self, *call)
            except Exception as error:
                self._ended.set()
                log.exception("the shards have lost each other in %s", name)
                self.failed(error)
                raise
        if error is not None:
            raise error
        return found

    @contextmanager
    def _in_turn(self, seconds: float) -> Iterator[None]:
        if not self._turn.acquire(timeout=seconds):
            raise SaturatedError(f"the shards were at work for {seconds:g} seconds")
        try:
            yield
        finally:
            self._turn.release()

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
        found: SearchResults = self._call("similar", item_id, k, filters, in_line=_SECONDS_IN_LINE)
        return found

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """As :meth:`SearchEngine.suggest`, of all shards."""
        found: list[Suggestion] = self._call("suggest", text, k, in_line=_SECONDS_IN_LINE)
        return found

    def filters_available(self) -> FilterChoices:
        """As :meth:`SearchEngine.filters_available`, of all shards."""
        found: FilterChoices = self._call("filters_available", in_line=_SECONDS_IN_LINE)
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
        self._call("count", live)


def joined_shard(engine: SearchEngine) -> SearchEngine:
    """The part that this process has of an engine that every process of the job has loaded; the first one leads.

    Raises:
        ValueError: there are more processes than first codes of SIDs; they serve another engine each; or items' vectors
            are made of pictures, too, which one process may be able to read and another not.
    """
    if engine.featurizer.pictures is not None:
        raise ValueError(f"{engine.name} reads pictures of new items, which shards cannot: serve it as whole engines")
    # Whoever publishes a version meanwhile, or gives each process other options, gets no mixture of them.
    every = exchanged(_description(engine))
    if differ := sorted(key for key in every[0] if any(one[key] != every[0][key] for one in every)):
        raise ValueError(f"the processes of this service differ in {', '.join(differ)}: start all of them alike")
    return engine.shard_as(LeadingEngine if is_first() else SearchEngine, ProcessShards(_PATIENCE))


def _description(engine: SearchEngine) -> dict[str, Any]:
    """What must be the same in all processes."""
    return {
        "version of the software": __version__,
        "version of the run": [engine.name, engine.counts],
        "catalogue": [len(engine), engine.snapshot.index.size(0)],
        "settings of the search": engine.config.model_dump(mode="json"),
        "weights": dict(engine.weights.values),
        "out_of_stock": engine.out_of_stock,
        "precision": str(engine.generator.begin.dtype),
    }


def answer_calls(engine: SearchEngine) -> None:
    """Do what the first process says, until it has no more to say.

    Raises:
        RuntimeError: a process is gone, or hangs.
        ShardsDifferError: a call went otherwise here than elsewhere.
    """
    while (call := from_first(group=engine.snapshot.shards.group)) is not None:
        _together(engine, *call)


def _together(engine: SearchEngine, name: str, time: str, arguments: Sequence[Any]) -> tuple[Any, Exception | None]:
    """One call in this process: what it gives, or why it was refused, as in all others.

    Raises:
        ShardsDifferError: only some of them refused it.
    """
    found, error = None, None
    try:
        found = _perform(engine, name, time, arguments)
    except ShardsDifferError:
        raise
    except Exception as one:  # noqa: BLE001 - what all shards raise is of the request, and theirs who asked
        error = one
    refused = engine.snapshot.shards.total(error is not None)
    if refused not in (0, engine.snapshot.shards.count):
        raise ShardsDifferError(f"{name} failed in {refused} of {engine.snapshot.shards.count} shards") from error
    return found, error


def _perform(engine: SearchEngine, name: str, time: str, arguments: Sequence[Any]) -> Any:
    """The engine's own method, also where the first process's engine has one of that name that calls all."""
    moment, read = datetime.fromisoformat(time), _CALLS[name].validate_python(arguments)
    if name == "settle":
        return engine.current.settle()
    engine.clock = lambda: moment
    try:
        found = getattr(SearchEngine, name)(engine, *read)
    finally:
        engine.clock = lambda: datetime.now(UTC)
    if name == "upsert":
        _check_owners(engine, [item.item_id for item in read[0]])
    return found


def _check_owners(engine: SearchEngine, item_ids: Sequence[str]) -> None:
    """Whether each item is in one shard.

    Raises:
        ShardsDifferError: one is in none, or in two.
    """
    snapshot = engine.snapshot
    rows = torch.tensor([snapshot.number[item_id] for item_id in item_ids], device=snapshot.index.device)
    owners = snapshot.shards.gathered(snapshot.index.position_of(rows) >= 0).sum(0)
    if len(wrong := (owners != 1).nonzero()[:, 0].tolist()):
        raise ShardsDifferError(
            f"item {item_ids[wrong[0]]!r} is in {int(owners[wrong[0]])} shards: their machines make other semantic IDs"
            " of the same text; run shards on machines of one kind"
        )
