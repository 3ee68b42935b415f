"""What the service does, without HTTP: search with a shopper's history, remember events, say how it is."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

from onesearch.common.extras import from_extra
from onesearch.search.results import SearchRequest, SearchResults
from onesearch.search.rules import Rules
from onesearch.search.shopper_history import ShopperHistory
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_answers import (
    EventAnswer,
    FacetValue,
    HealthAnswer,
    HistoryAnswer,
    HistoryEntry,
    PreviewAnswer,
    ResultBody,
    SearchAnswer,
    UserDeletedAnswer,
)
from onesearch.serving.http_bodies import EventBody, PreviewBody, SearchBody, now
from onesearch.serving.keyword_coverage import KeywordCoverage, ThoughtSource
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.live_rules import LOOK_SECONDS, LiveRules
from onesearch.serving.request_log import note
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Event, Search, Store, StoreError
from onesearch.serving.turns import Turns
from onesearch.serving.worker_threads import Answer, SaturatedError, Workers

with from_extra("serve"):
    from fastapi.concurrency import run_in_threadpool

log = logging.getLogger("onesearch.serving")
_T = TypeVar("_T")
_FORGET_SECONDS = 3600.0


class UnknownItemError(LookupError):
    """An event or a call names an item that is not in the catalogue."""


class RequestRefusedError(ValueError):
    """The engine does not accept a request, such as a filter it does not know; the message is for the caller."""


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
        self._turns = Turns()
        self.catalogue = LiveCatalogue(engine, store, self.metrics, self._turns)
        self.rules = LiveRules(engine, store)
        self.learner = ClickLearner(engine, store, self.config)
        self.coverage = (
            None if thoughts is None else KeywordCoverage(thoughts, self.metrics, self.config.thoughts_seconds)
        )
        self._workers: dict[str, Workers[SearchRequest, SearchResults]] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._pace = math.inf  # searches that are answered in a second while the engine is at work

    async def start(self) -> None:
        """Apply stored item changes and clicks, start the threads, and follow what this and other servers store."""
        c = self.config
        # BM25 has a thread of its own, so that the plain ranking on the page never waits for the model.
        self._workers = {
            "onesearch": Workers(
                self.engine.search_batch, c.threads, c.max_batch, c.max_queue, "search", self._turns.search
            ),
            "bm25": Workers(self._lexical, 1, c.max_batch, c.max_queue, "bm25", self._turns.search),
        }
        if self.coverage is not None:
            self.coverage.start()
        await run_in_threadpool(self._follow)
        await run_in_threadpool(self.engine.suggest, "")  # gathers its texts, so that no shopper waits for that
        await run_in_threadpool(self._follow_rules)
        self._followers = [asyncio.create_task(task) for task in (self._keep_following(), self._keep_following_rules())]
        if c.learn_seconds:
            await run_in_threadpool(self._learn)
            self._followers.append(asyncio.create_task(self._keep_learning()))

    async def stop(self) -> None:
        """End threads and tasks and close the store."""
        # First what brings new work, then what does it, the store last.
        for follower in self._followers:
            follower.cancel()
        for workers in self._workers.values():
            await run_in_threadpool(workers.close)
        if self.coverage is not None:
            await run_in_threadpool(self.coverage.close)
        await run_in_threadpool(self.store.close)

    def most_at_work(self, kind: str) -> int | None:
        """How many requests of a kind may be at work; None for what is always answered.

        Searches fill the queue and the batches before it, but no more are taken on than the engine answers in half of
        the time that a search may take: later ones would be given up while they wait, and some be searched for nobody.
        """
        c = self.config
        if kind == "search":
            in_time = max(2.0 * c.threads, self._pace * c.timeout_seconds / 2)
            return int(min(c.max_queue + c.threads * c.max_batch, in_time))
        return {"change": c.max_changes, "other": c.max_others}.get(kind)

    async def search(self, body: SearchBody, rules: Rules | None = None) -> SearchAnswer:
        """Answer a search; a failing store makes it anonymous and unrecorded, and the answer says so.

        With ``rules`` under these instead of those in force.

        Raises:
            SaturatedError: too many searches wait, or this one waited too long.
            RequestRefusedError: the engine does not accept the request.
        """
        arrived = time.perf_counter()
        note(body.query, body.user)
        degraded: list[str] = []
        # The shopper's history, which only the engine reads; without a store the search is anonymous.
        user, history = None, ShopperHistory()
        if body.user is not None and body.method == "onesearch":
            try:
                history = await run_in_threadpool(self._history, body.user)
                user = body.user
            except StoreError:
                degraded.append("history")
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
            sort=body.sort,
            explain=body.explain,
            highlight=body.highlight,
            correct=body.correct,
            groups=tuple(body.groups),
            rules=rules,
        )
        answer = await self._engine_answer(body.method, request)
        # Recorded as a page view to train on, and as one of the shopper's recent queries: a mistyped one as it was
        # meant, else the next engine would know the word from its log.
        searched = answer.value.corrected_query or body.query
        found = Search(uuid.uuid4().hex, body.user, searched, now(), tuple(hit.item_id for hit in answer.value))
        if body.record and body.method == "onesearch":
            if self.coverage is not None:
                self.coverage.note(searched)
            try:
                await run_in_threadpool(self._stored, "record_search", lambda: self.store.record_search(found))
            except StoreError:
                degraded.append("log")
        # Measurements and the answer.
        for part in degraded:
            self.metrics.degraded.labels(part).inc()
        if not answer.value:
            self.metrics.empty.labels(body.method).inc()
        return SearchAnswer(
            search_id=found.search_id,
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

    async def preview(self, body: PreviewBody) -> PreviewAnswer:
        """A search under the rules in force, and under others; neither is recorded.

        Raises:
            RulesRefusedError: the others cannot work here; as well what :meth:`search` raises.
        """
        rules = await run_in_threadpool(self.rules.read, body.rules)
        asked = body.search.model_copy(update={"record": False})
        return PreviewAnswer(before=await self.search(asked), after=await self.search(asked, rules))

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
        recorded = self._stored("record", lambda: self.store.record(event))
        if recorded:
            self.metrics.events.labels(body.kind).inc()
        else:
            self.metrics.repeated.inc()
        return EventAnswer(event_id=event.event_id, recorded=recorded)

    def history(self, user: str) -> HistoryAnswer:
        """A shopper's history as the next search sees it: empty when the store fails."""
        # Of log and store as one, since a history without its newest part would mislead: none if the store fails.
        logged, live, degraded = self.engine.logged_history(user), ShopperHistory(), []
        try:
            live = self._stored("history", lambda: self.store.history(user))
        except StoreError:
            logged, degraded = ShopperHistory(), ["history"]
        both = logged.followed_by(live)
        return HistoryAnswer(
            user=user,
            profile=both.profile,
            degraded=degraded,
            recent_queries=list(dict.fromkeys(both.recent_queries[::-1])),
            clicked=self._entries(both.clicked, both.clicked_queries, len(live.clicked)),
            ordered=self._entries(both.ordered, ("",) * len(both.ordered), len(live.ordered)),
        )

    def shoppers(self, limit: int) -> list[str]:
        """Shoppers to pick from: those seen here first, then those of the log."""
        try:
            seen = self._stored("shoppers", lambda: self.store.shoppers(limit))
        except StoreError:
            seen = []
        return list(dict.fromkeys([*seen, *self.engine.shoppers(limit)]))[:limit]

    def delete_user(self, user: str) -> UserDeletedAnswer:
        """Delete what the store has of a shopper.

        Raises:
            StoreError: not all is deleted; sending it again is safe.
        """
        gone = self._stored("delete_user", lambda: self.store.delete_user(user))
        self.metrics.users_deleted.inc()
        return UserDeletedAnswer(user=user, events=gone.events, searches=gone.searches)

    @property
    def working(self) -> bool:
        """Whether searches are answered."""
        return bool(self._workers) and all(workers.alive for workers in self._workers.values())

    def health(self) -> HealthAnswer:
        """Ready, degraded (searches are answered, something else is not right), or down."""
        # Everything that may be wrong while searches are answered.
        reasons = self.catalogue.problems() + self.rules.problems()
        if self.learner.problem is not None:
            reasons.append(self.learner.problem)
        try:
            self._stored("check", self.store.check)
        except StoreError:
            reasons.append("history, events and item changes: the store failed, see the log")
        if self.coverage is not None and (problem := self.coverage.problem()) is not None:
            reasons.append(problem)
        reasons += [problem for check in self.checks if (problem := check()) is not None]
        # Without workers nothing is answered.
        dead = [
            f"search: a {name} worker has died; restart the service"
            for name, workers in self._workers.items()
            if not workers.alive
        ]
        status = "down" if not self.working else "degraded" if reasons else "ready"
        return HealthAnswer.model_validate(
            {"status": status, "reasons": dead + reasons, "items": len(self.engine), "version": self.engine.version}
        )

    def measurements(self) -> bytes:
        """For Prometheus."""
        self.metrics.items.set(len(self.engine))
        self.metrics.waiting.set(sum(workers.waiting for workers in self._workers.values()))
        return self.metrics.text()

    def _history(self, user: str) -> ShopperHistory:
        # What this service saw comes after the log, cut to what the model reads.
        live = self._stored("history", lambda: self.store.history(user))
        return self.engine.logged_history(user).followed_by(live)

    def _stored(self, call: str, action: Callable[[], _T]) -> _T:
        """A call of the store; a failure is counted and logged, with no more than the error's own words."""
        try:
            return action()
        except StoreError as error:
            self.metrics.store_failures.labels(call).inc()
            log.warning("%s", error)
            raise

    def _entries(self, ids: Sequence[str], queries: Sequence[str], live: int) -> list[HistoryEntry]:
        entries = []
        # The last ``live`` ones are this service's own; the answer has the newest first.
        for at, (item_id, query) in enumerate(zip(ids, queries, strict=True)):
            item = self.engine.item(item_id)
            title = item.title if item else None
            entries.append(HistoryEntry(item_id=item_id, title=title, query=query, live=at >= len(ids) - live))
        return entries[::-1]

    async def _engine_answer(self, method: str, request: SearchRequest) -> Answer[SearchResults]:
        try:
            future = asyncio.wrap_future(self._workers[method].submit(request))
            answer = await asyncio.wait_for(future, self.config.timeout_seconds)
        except TimeoutError as error:  # the job is cancelled with its future, if no worker has it yet
            self.metrics.refused.inc()
            raise SaturatedError(f"no answer within {self.config.timeout_seconds:g} seconds") from error
        except SaturatedError:
            self.metrics.refused.inc()
            raise
        except ValueError as error:  # the engine's word for "the request is wrong"
            raise RequestRefusedError(str(error)) from error
        if method == "onesearch":
            # A mean of about the last ten answers; it begins with the first.
            pace = self.config.threads * answer.batch / max(answer.seconds, 1e-6)
            self._pace = pace if math.isinf(self._pace) else 0.9 * self._pace + 0.1 * pace
        self.metrics.search_seconds.labels(method).observe(answer.seconds)
        self.metrics.batch.observe(answer.batch)
        return answer

    def _lexical(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        ranked = [self.engine.search_lexical(one.query, one.offset + one.k, one.filters) for one in requests]
        return [SearchResults(hits[one.offset :]) for one, hits in zip(requests, ranked, strict=True)]

    def _follow(self) -> None:
        try:
            self._stored("item_changes", self.catalogue.follow)
        except StoreError:
            pass  # counted; the next look catches up
        except Exception:  # a change that cannot be read, say: `/healthz` tells, and what comes later is still followed
            log.exception("item changes could not be applied")

    def _follow_rules(self) -> None:
        try:
            self._stored("rules", self.rules.follow)
        except StoreError:
            pass  # counted; the next look catches up
        except Exception:  # `/healthz` tells, and looking goes on
            log.exception("rules could not be followed")

    async def _keep_following_rules(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self.config.follow_seconds))
            await run_in_threadpool(self._follow_rules)

    def _learn(self) -> None:
        try:
            self._stored("clicks", self.learner.learn)
        except StoreError:
            pass  # counted; the next look catches up
        except Exception:  # `/healthz` tells, and looking goes on
            log.exception("clicks could not be counted")

    async def _keep_learning(self) -> None:
        while True:
            await asyncio.sleep(self.config.learn_seconds)
            await run_in_threadpool(self._learn)

    def _forget(self) -> None:
        try:
            self._stored("forget", lambda: self.store.forget(now() - timedelta(days=self.config.keep_days)))
        except StoreError:
            pass  # counted; an hour later it is tried again
        except Exception:  # whatever it is, item changes are still followed
            log.exception("what is old could not be forgotten")

    async def _keep_following(self) -> None:
        forgotten = -math.inf
        while True:
            if time.monotonic() - forgotten > _FORGET_SECONDS:
                await run_in_threadpool(self._forget)
                forgotten = time.monotonic()
            await asyncio.sleep(self.config.follow_seconds)
            await run_in_threadpool(self._follow)
