"""Which share of the traffic is about queries whose keywords are known.

`KeywordCoverage` counts it while searches are answered, queues the queries that nobody has thought about, and says of
each search what is known of its query at that moment; the store keeps that, and `coverage_by_span` reads it back.
`measure_coverage` compares the searches that a store recorded with what the cache holds by now.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal, Protocol

from onesearch.serving.store import TYPING_SECONDS, StateCount, ThoughtState, Traffic, types_on
from onesearch.understanding.thought import Thought
from onesearch.understanding.thought_cache import MOST_QUEUED, CacheError, ThoughtCache, cache_key

if TYPE_CHECKING:  # looking back over a store needs no HTTP service
    from onesearch.serving.service_metrics import Metrics

log = logging.getLogger("onesearch.serving")
State = Literal["keywords", "no_keywords", "none", "unknown"]
MOST_NOTED: Final = 10_000
"""Distinct queries that are remembered while the cache cannot be asked, and searches that wait for an answer of it;
what comes beyond is counted as unknown."""
_LONGEST_PAUSE: Final = 30.0
_CLOSING_SECONDS: Final = 5.0


class Queries(Protocol):
    """A set of normalised queries."""

    def __contains__(self, query: str, /) -> bool:
        """Whether a query is one of them."""


@dataclass(frozen=True)
class ThoughtSource:
    """Where thoughts are kept, and whose thoughts count. ``open`` is called off the request's thread, as is
    ``distilled``, which gives the queries whose thoughts the served model was taught.
    """

    open: Callable[[], ThoughtCache]
    producer: str
    version: str
    distilled: Callable[[], Queries] = frozenset


@dataclass
class Asked:
    """A search whose query is looked up while the engine is at work; ``state`` becomes known or stays as it is."""

    query: str
    state: ThoughtState = field(default="unknown")


class KeywordCoverage:
    """Notes the searched queries; once in a while a thread of its own looks them up and queues the unseen ones.

    A search only writes its query down: it never waits for the cache and never fails because of it. While the cache
    is down the notes are kept, up to a limit, and looked up later. What is known of a query at the moment of its search
    the same thread looks up at once, while the engine is at work; where that comes too late it is unknown.

    Args:
        source: the cache and the producer's key.
        metrics: where the searches are counted, by state.
        interval: seconds between looks into the cache.
    """

    def __init__(self, source: ThoughtSource, metrics: "Metrics", interval: float) -> None:
        self._source, self._metrics, self._interval = source, metrics, interval
        self._cache: ThoughtCache | None = None
        self._noted: Counter[str] = Counter()
        self._typing: dict[str, tuple[str, str, float]] = {}  # by shopper: query, what was typed, when
        self._asked: list[Asked] = []
        self._lock = threading.Lock()
        self._closing, self._wake = threading.Event(), threading.Event()
        self._failures = 0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="thoughts", daemon=True)

    def start(self) -> None:
        """Begin to look queries up."""
        self._thread.start()

    def note(self, query: str, user: str | None = None, typed: str | None = None) -> None:
        """A query was searched; one that its shopper ``typed`` counts once they did not go on typing for a while."""
        if not (key := cache_key(query)):
            return
        if typed is None or user is None:
            self._add(Counter({key: 1}))
            return
        now = time.monotonic()
        with self._lock:
            before = self._typing.pop(user, None)
            if len(self._typing) < MOST_NOTED:
                self._typing[user] = (key, typed, now)
                key = ""
        # What was typed on from was no search; and where there is no room this one counts now.
        if before is not None and not (types_on(before[1], typed) and now - before[2] <= TYPING_SECONDS):
            self._add(Counter({before[0]: 1}))
        if key:
            self._add(Counter({key: 1}))

    def ask(self, query: str) -> Asked | None:
        """A search begins: its query's state is looked up from now on; None where there is no query."""
        if not (key := cache_key(query)):
            return None
        asked = Asked(key)
        # A cache that is down is not asked; one that hangs has a bounded list.
        with self._lock:
            if not self._failures and len(self._asked) < MOST_NOTED:
                self._asked.append(asked)
                self._wake.set()
        return asked

    def problem(self) -> str | None:
        """Why thoughts are not looked up now; None if they are."""
        if not self._thread.is_alive():
            return "thoughts: their thread has died; restart the service"
        return f"thoughts: {self._problem}" if self._problem else None

    def close(self) -> None:
        """Look up what was noted, unless the cache is down, and end the thread."""
        self._closing.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSING_SECONDS)

    def _run(self) -> None:
        # Searches are answered as they come, notes looked up in turns.
        turn = time.monotonic() + self._pause()
        while not self._closing.is_set():
            self._wake.wait(max(turn - time.monotonic(), 0))
            self._wake.clear()
            self._answer()
            if time.monotonic() >= turn and not self._closing.is_set():
                self._turn()
                turn = time.monotonic() + self._pause()
        # At the end once more, so that what was searched last is queued; but a cache that is down is not waited for.
        self._settle(0.0)
        if not self._failures:
            self._turn()
        self._forget_cache()

    def _pause(self) -> float:
        """Seconds to the next look: longer from failure to failure."""
        return min(self._interval * 2.0 ** min(self._failures, 20), max(self._interval, _LONGEST_PAUSE))

    def _answer(self) -> None:
        """What is known of the queries of searches that are under way."""
        with self._lock:
            asked, self._asked = self._asked, []
        if not asked or self._failures:
            return
        try:
            cache = self._cache = self._cache or self._source.open()
            states = thought_states([one.query for one in asked], cache, self._source)
        except Exception as error:  # noqa: BLE001 - as in a turn
            self._failed(error)
            return
        for one in asked:
            one.state = states[one.query]

    def _settle(self, seconds: float) -> None:
        """Note what shoppers typed and did not go on with for some seconds."""
        end = time.monotonic() - seconds
        with self._lock:
            done = [user for user, (_, _, at) in self._typing.items() if at <= end]
            noted = Counter(self._typing.pop(user)[0] for user in done)
        self._add(noted)

    def _turn(self) -> None:
        self._settle(TYPING_SECONDS)
        # Take the notes; searches go on and write new ones.
        with self._lock:
            noted, self._noted = self._noted, Counter()
        try:
            states = self._looked_up(list(noted))
        except Exception as error:  # noqa: BLE001 - whatever it is must not end this thread
            # Back with the notes: they are looked up when the cache answers again.
            self._failed(error)
            self._add(noted)
            return
        if self._failures:
            log.warning("thoughts: the cache answers again")
        self._failures, self._problem = 0, ""
        for query, searches in noted.items():
            self._metrics.thought_searches.labels(states[query]).inc(searches)

    def _looked_up(self, queries: list[str]) -> dict[str, State]:
        """The state of each query; those without a thought are in the queue afterwards, if there is room."""
        # Opened here, in this thread, and again after each failure.
        cache = self._cache = self._cache or self._source.open()
        found = cache.get_many(queries, self._source.producer, self._source.version)
        states = {query: coverage_state(found.get(query)) for query in queries}
        # Asked before, since a full queue would refuse thousands of queries one by one.
        queue = cache.queue_state()
        if queue.waiting + queue.in_work < MOST_QUEUED:
            for query, state in states.items():
                if state == "none" and cache.enqueue(query):
                    self._metrics.thoughts_queued.inc()
            queue = cache.queue_state()
        for name, count in queue._asdict().items():
            self._metrics.thought_queue.labels(name).set(count)
        return states

    def _failed(self, error: Exception) -> None:
        self._problem = f"{type(error).__name__}, see the log"  # whose own words may hold a path
        if not self._failures:
            log.warning("thoughts: %s", error, exc_info=None if isinstance(error, CacheError) else error)
        self._failures += 1
        self._metrics.thought_failures.inc()
        self._forget_cache()  # a file that was replaced is another one

    def _forget_cache(self) -> None:
        cache, self._cache = self._cache, None
        if cache is not None:
            try:
                cache.close()
            except Exception as error:  # noqa: BLE001 - it is given up anyway
                log.debug("thoughts: %s", error)

    def _add(self, noted: Counter[str]) -> None:
        # Memory is bounded: new queries beyond the limit are only counted.
        unknown = 0
        with self._lock:
            for query, searches in noted.items():
                if query in self._noted or len(self._noted) < MOST_NOTED:
                    self._noted[query] += searches
                else:
                    unknown += searches
        if unknown:
            self._metrics.thought_searches.labels("unknown").inc(unknown)


def thought_states(queries: Sequence[str], cache: ThoughtCache, source: ThoughtSource) -> dict[str, ThoughtState]:
    """What is known of normalised queries now.

    Raises:
        CacheError: the cache cannot be read.
    """
    found, distilled = cache.get_many(queries, source.producer, source.version), source.distilled()
    unseen = [query for query in queries if query not in found]
    queued = cache.queued(unseen) if unseen else set()
    states: dict[str, ThoughtState] = {}
    for query in queries:
        thought = found.get(query)
        if query in distilled:
            states[query] = "distilled"
        elif thought is not None:
            states[query] = "cached" if thought.keywords else "no_keywords"
        else:
            states[query] = "queued" if query in queued else "none"
    return states


@dataclass(frozen=True)
class SpanCoverage:
    """The searches of a span of time, of which ``states`` says what was known of their queries when they were searched.

    Searches whose state nobody asked for, or got too late, are ``unknown``.
    """

    start: datetime
    states: Counter[ThoughtState]

    @property
    def searches(self) -> int:
        """All of them."""
        return self.states.total()

    def share(self, *states: ThoughtState) -> float | None:
        """The share of the searches with a known state that had one of these; None where none is known."""
        known = self.searches - self.states["unknown"]
        return sum(self.states[state] for state in states) / known if known else None


def coverage_by_span(counts: Iterable[StateCount]) -> list[SpanCoverage]:
    """What a store recorded, by span of time."""
    rows = []
    for start, part in groupby(counts, lambda one: one.start):
        states: Counter[ThoughtState] = Counter()
        for one in part:
            states[one.state or "unknown"] += one.searches
        rows.append(SpanCoverage(start, states))
    return rows


@dataclass(frozen=True)
class CoverageRow:
    """The searches of a span of time by what is known of their queries."""

    start: datetime
    keywords: int
    no_keywords: int
    none: int

    @property
    def searches(self) -> int:
        """All of them."""
        return self.keywords + self.no_keywords + self.none

    @property
    def share(self) -> float:
        """The share whose query has keywords."""
        return self.keywords / max(self.searches, 1)


def measure_coverage(traffic: Iterable[Traffic], cache: ThoughtCache, producer: str, version: str) -> list[CoverageRow]:
    """Recorded searches by span against what the cache holds now; searches without a query are left out.

    Raises:
        CacheError: the cache cannot be read.
    """
    rows = []
    # One span after the other: searches by normalised query, then what the cache holds of them.
    for start, part in groupby(traffic, lambda one: one.start):
        searches: Counter[str] = Counter()
        for one in part:
            searches[cache_key(one.query)] += one.searches
        del searches[""]
        found = cache.get_many(list(searches), producer, version)
        counts: Counter[State] = Counter()
        for query, number in searches.items():
            counts[coverage_state(found.get(query))] += number
        if searches:
            rows.append(CoverageRow(start, counts["keywords"], counts["no_keywords"], counts["none"]))
    return rows


def coverage_state(thought: Thought | None) -> State:
    """What a cache's answer means for coverage."""
    if thought is None:
        return "none"
    return "keywords" if thought.keywords else "no_keywords"
