"""What the service does, without HTTP: search with a shopper's history, remember events, say how it is."""

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from onesearch.common.extras import from_extra
from onesearch.search.exploration import Exploration
from onesearch.search.results import SearchRequest, SearchResult, SearchResults
from onesearch.search.rules import Rules
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.engine_workers import EngineWorkers
from onesearch.serving.http_answers import (
    EventAnswer,
    FacetValue,
    HealthAnswer,
    PreviewAnswer,
    ResultBody,
    SearchAnswer,
)
from onesearch.serving.http_bodies import EventBody, PreviewBody, SearchBody, now
from onesearch.serving.keyword_coverage import Asked, KeywordCoverage, ThoughtSource
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.live_rules import LiveRules
from onesearch.serving.live_shoppers import LiveShoppers
from onesearch.serving.request_log import note
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Event, Search, Store, StoreError, ThoughtState
from onesearch.serving.store_follower import StoreFollower
from onesearch.serving.turns import Turns
from onesearch.understanding.thought_cache import cache_key

with from_extra("serve"):
    from fastapi.concurrency import run_in_threadpool


class Typed(NamedTuple):
    """What stood in the search box of a shopper who may still type, and when."""

    text: str
    time: datetime


class UnknownItemError(LookupError):
    """An event or a call names an item that is not in the catalogue."""


def exploration_of(share: float, body: SearchBody, search_id: str) -> Exploration | None:
    """How a search explores; the same on all pages of a shopper's query on a day, so that they repeat and miss nothing.

    Who is not known meets other draws at each search, on its first page alone.
    """
    if not share or body.sort is not None or (body.user is None and body.offset):
        return None
    text = search_id if body.user is None else json.dumps([body.user, cache_key(body.query), now().date().isoformat()])
    return Exploration(share, int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little"))


class Service:
    """One engine, one store and the threads between them; `start` before use, `stop` after."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        config: ServingSettings | None = None,
        thoughts: ThoughtSource | None = None,
        checks: Sequence[Callable[[], str | None]] = (),
    ) -> None:
        self.engine = engine
        self.store = store
        self.config = config or ServingSettings()
        self.checks = tuple(checks)
        self.metrics = Metrics()
        turns = Turns()
        self.catalogue = LiveCatalogue(engine, store, self.metrics, turns)
        self.rules = LiveRules(engine, store)
        self.learner = ClickLearner(engine, store, self.config)
        self.coverage = (
            None if thoughts is None else KeywordCoverage(thoughts, self.metrics, self.config.thoughts_seconds)
        )
        self.shoppers = LiveShoppers(engine, store, self.metrics)
        self.workers = EngineWorkers(engine, self.config, self.metrics, turns)
        self._follower = StoreFollower(store, self.catalogue, self.rules, self.learner, self.metrics, self.config)

    async def start(self) -> None:
        """Apply stored item changes and clicks, start the threads, and follow what this and other servers store."""
        self.workers.start()
        if self.coverage is not None:
            self.coverage.start()
        await run_in_threadpool(self._follower.follow_items)
        await run_in_threadpool(self.engine.suggest, "")  # gathers its texts, so that no shopper waits for that
        await self._follower.start()

    async def stop(self) -> None:
        """End threads and tasks and close the store."""
        # First what brings new work, then what does it, the store last.
        self._follower.stop()
        await run_in_threadpool(self.workers.close)
        if self.coverage is not None:
            await run_in_threadpool(self.coverage.close)
        await run_in_threadpool(self.engine.close)
        await run_in_threadpool(self.store.close)

    def most_at_work(self, kind: str) -> int | None:
        """How many requests of a kind may be at work; None for what is always answered."""
        if kind == "search":
            return self.workers.most_at_work
        return {"change": self.config.max_changes, "other": self.config.max_others}.get(kind)

    async def search(self, body: SearchBody, rules: Rules | None = None, typed: str | None = None) -> SearchAnswer:
        """Answer a search; a failing store makes it anonymous and unrecorded, and the answer says so.

        With ``rules`` under these instead of those in force. ``typed`` stands in the search box of a shopper who may
        still type: where they go on, the search after this one is recorded in its place.

        Raises:
            SaturatedError: too many searches wait, or this one waited too long.
            RequestRefusedError: the engine does not accept the request.
        """
        arrived, began, search_id = time.perf_counter(), now(), uuid.uuid4().hex
        note(body.query, body.user)
        degraded: list[str] = []
        user, history = await self.shoppers.known(body.user if body.method == "onesearch" else None, degraded)
        if user is not None:
            history = self.shoppers.of_first_page(user, body.query, body.offset, history)
        recorded = body.record and body.method == "onesearch"
        asked = self.asked(body.query) if recorded else None
        # A batch of waiting searches answers this one, too.
        filters = body.filters.given() if body.filters else None
        request = SearchRequest(
            body.query,
            user,
            body.k,
            filters,
            body.width,
            history,
            body.offset,
            count=body.count or bool(body.facets),
            facets=tuple(body.facets),
            facet_query=body.facet_query,
            sort=body.sort,
            explain=body.explain,
            highlight=body.highlight,
            correct=body.correct,
            groups=self._groups(body),
            rules=rules,
            exploration=exploration_of(self.config.explore, body, search_id) if recorded else None,
        )
        answer = await self.workers.answer(body.method, request)
        if recorded:
            # The times of what is typed are those of its letters, whichever is answered first.
            place = None if body.sort else body.offset, None if typed is None else Typed(typed, began)
            await self.keep(search_id, body.query, body.user, answer.value, answer.value, asked, degraded, *place)
        # Measurements and the answer.
        for part in degraded:
            self.metrics.degraded.labels(part).inc()
        if not answer.value:
            self.metrics.empty.labels(body.method).inc()
        return SearchAnswer(
            search_id=search_id,
            query=body.query,
            corrected_query=answer.value.corrected_query,
            did_you_mean=answer.value.did_you_mean,
            method=body.method,
            results=[ResultBody.from_result(hit, body.fields) for hit in answer.value],
            confidence=answer.value.confidence,
            total=answer.value.total,
            facets={
                key: [FacetValue(value=value, count=n) for value, n in values]
                for key, values in answer.value.facets.items()
            },
            personalised=user is not None and bool(history),
            degraded=degraded,
            took_ms=round((time.perf_counter() - arrived) * 1e3, 2),
            engine_ms=round(answer.seconds * 1e3, 2),
            batch=answer.batch,
            version=self.engine.version,
        )

    def _groups(self, body: SearchBody) -> tuple[str, ...]:
        """A shopper's groups for rules. The engine adds those of a profile, but for BM25, which knows no shopper."""
        profile = ""
        if body.method == "bm25" and body.user is not None:
            profile = self.engine.logged_history(body.user).profile
        return (*body.groups, *profile.split())

    def asked(self, query: str) -> Asked | None:
        """A search that will be recorded begins: what is known of its query now is looked up meanwhile."""
        return None if self.coverage is None else self.coverage.ask(query)

    async def keep(
        self,
        search_id: str,
        query: str,
        user: str | None,
        found: SearchResults,
        shown: Sequence[SearchResult],
        asked: Asked | None,
        degraded: list[str],
        first_rank: int | None = 0,
        typed: Typed | None = None,
    ) -> None:
        """Write a search down; what failed is added to ``degraded``.

        It is a page view to train on and one of the shopper's recent queries: a mistyped one as it was meant, else the
        next engine would know the word from its log, and a replaced one as the rule says, since that is what the clicks
        on it are counted for. ``asked`` is what :meth:`asked` gave when it began, ``first_rank`` as in :class:`Search`.
        """
        searched = found.searched or found.corrected_query or query
        thought = self._thought_state(asked, searched)
        ids = tuple(hit.item_id for hit in shown)
        search = Search(search_id, user, searched, now(), ids, thought, found.explored, first_rank)
        # While a shopper types, the next search may take this one's place; nobody thinks about it until then.
        if typed is not None:
            search = replace(search, time=typed.time, typed=typed.text)
        if self.coverage is not None:
            self.coverage.note(searched, user, search.typed)
        # Counted, then written down.
        if thought is not None:
            self.metrics.thought_states.labels(thought).inc()
        if found.explored:
            self.metrics.explored.inc(len(found.explored))
        try:
            await run_in_threadpool(self.metrics.of_store, "record_search", lambda: self.store.record_search(search))
        except StoreError:
            degraded.append("log")

    async def preview(self, body: PreviewBody) -> PreviewAnswer:
        """A search under the rules in force, and under others; neither is recorded.

        Raises:
            RulesRefusedError: the others cannot work here; as well what :meth:`search` raises.
        """
        rules, warnings = await run_in_threadpool(self.rules.read, body.rules)
        # What cannot be explained can still be looked at.
        explain = body.search.explain and self.engine.explains
        asked = body.search.model_copy(update={"record": False, "explain": explain})
        before = await self.search(asked)
        return PreviewAnswer(before=before, after=await self.search(asked, rules), warnings=warnings)

    def record(self, body: EventBody) -> EventAnswer:
        """Remember a click or an order.

        Raises:
            UnknownItemError: no such item.
            EventConflictError: the event id belongs to another event.
            StoreError: it was not remembered; sending it again is safe with the same ``event_id``.
        """
        # A click on an item of another catalogue would stay in the shopper's history for ever.
        if self.engine.item(body.item_id) is None:
            raise UnknownItemError(f"no item {body.item_id!r} in the catalogue")
        event = Event(
            body.event_id or uuid.uuid4().hex,
            body.user,
            body.item_id,
            body.kind,
            body.query,
            body.time or now(),
            body.search_id,
        )
        # An event that was sent twice counts once; the caller learns which it was.
        recorded = self.metrics.of_store("record", lambda: self.store.record(event))
        if recorded:
            self.metrics.events.labels(body.kind).inc()
        else:
            self.metrics.repeated.inc()
        return EventAnswer(event_id=event.event_id, recorded=recorded)

    @property
    def working(self) -> bool:
        """Whether searches are answered."""
        return self.workers.alive

    def health(self) -> HealthAnswer:
        """Ready, degraded (searches are answered, something else is not right), or down."""
        # Everything that may be wrong while searches are answered.
        reasons = self.catalogue.problems() + self.rules.problems()
        if self.learner.problem is not None:
            reasons.append(self.learner.problem)
        try:
            self.metrics.of_store("check", self.store.check)
        except StoreError:
            reasons.append("history, events and item changes: the store failed, see the log")
        if self.coverage is not None and (problem := self.coverage.problem()) is not None:
            reasons.append(problem)
        reasons += [problem for check in self.checks if (problem := check()) is not None]
        status = "down" if not self.working else "degraded" if reasons else "ready"
        return HealthAnswer.model_validate(
            {
                "status": status,
                "reasons": self.workers.problems() + reasons,
                "items": len(self.engine),
                "version": self.engine.version,
            }
        )

    def measured(self) -> Metrics:
        """All measurements, those of this moment among them."""
        self.metrics.items.set(len(self.engine))
        self.metrics.waiting.set(self.workers.waiting)
        return self.metrics

    def measurements(self) -> bytes:
        """For Prometheus."""
        return self.measured().text()

    @staticmethod
    def _thought_state(asked: Asked | None, searched: str) -> ThoughtState | None:
        """What was known of a search's query; None where there is none. Of one that was corrected nobody asked."""
        if asked is None:
            return None
        return asked.state if asked.query == cache_key(searched) else "unknown"
