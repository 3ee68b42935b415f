"""What the service does, without HTTP: search with a shopper's history, remember events, say how it is."""

import asyncio
import hashlib
import json
import logging
import math
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar

from onesearch.common.extras import from_extra
from onesearch.search.exploration import Exploration
from onesearch.search.results import SearchRequest, SearchResult, SearchResults
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
from onesearch.serving.keyword_coverage import Asked, KeywordCoverage, ThoughtSource
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.live_rules import LOOK_SECONDS, LiveRules
from onesearch.serving.request_log import note
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Event, Search, Store, StoreError, ThoughtState
from onesearch.serving.turns import Turns
from onesearch.serving.worker_threads import Answer, SaturatedError, Workers
from onesearch.understanding.thought_cache import cache_key

with from_extra("serve"):
    from fastapi.concurrency import run_in_threadpool

log = logging.getLogger("onesearch.serving")
_T = TypeVar("_T")
_FORGET_SECONDS = 3600.0
_FIRST_PAGES = 10_000  # whose shoppers' histories are remembered for the pages behind them


class Typed(NamedTuple):
    """What stood in the search box of a shopper who may still type, and when."""

    text: str
    time: datetime


class UnknownItemError(LookupError):
    """An event or a call names an item that is not in the catalogue."""


class RequestRefusedError(ValueError):
    """The engine does not accept a request, such as a filter it does not know; the message is for the caller."""


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
        self._turns = Turns()
        self.catalogue = LiveCatalogue(engine, store, self.metrics, self._turns)
        self.rules = LiveRules(engine, store)
        self.learner = ClickLearner(engine, store, self.config)
        self.coverage = (
            None if thoughts is None else KeywordCoverage(thoughts, self.metrics, self.config.thoughts_seconds)
        )
        self._workers: dict[str, Workers[SearchRequest, SearchResults]] = {}
        self._followers: list[asyncio.Task[None]] = []
        self._first_pages: OrderedDict[tuple[str, str], ShopperHistory] = OrderedDict()  # by shopper and query
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
        await run_in_threadpool(self.engine.close)
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
        user, history = await self.shopper(body.user if body.method == "onesearch" else None, degraded)
        if user is not None:
            history = self._of_first_page(user, body, history)
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
        answer = await self.engine_answer(body.method, request)
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

    async def shopper(self, user: str | None, degraded: list[str]) -> tuple[str | None, ShopperHistory]:
        """A shopper with their history, which only the engine reads; without a store the search is anonymous.

        What failed is added to ``degraded``.
        """
        if user is None:
            return None, ShopperHistory()
        try:
            return user, await run_in_threadpool(self._history, user)
        except StoreError:
            degraded.append("history")
            return None, ShopperHistory()

    def _of_first_page(self, user: str, body: SearchBody, history: ShopperHistory) -> ShopperHistory:
        """The history that the first page of a search was made with, on its later pages.

        The first page is part of the history by then, and so may be clicks on it: other results would be repeated, or
        left out. Where the first page was another server's, at least its query is left out.
        """
        key = user, body.query
        if not body.offset:
            self._first_pages[key] = history
            self._first_pages.move_to_end(key)
            while len(self._first_pages) > _FIRST_PAGES:
                self._first_pages.popitem(last=False)
            return history
        if (first := self._first_pages.get(key)) is not None:
            return first
        return replace(history, recent_queries=tuple(one for one in history.recent_queries if one != body.query))

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
            await run_in_threadpool(self._stored, "record_search", lambda: self.store.record_search(search))
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
        for key in [key for key in list(self._first_pages) if key[0] == user]:
            self._first_pages.pop(key, None)
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

    def measured(self) -> Metrics:
        """All measurements, those of this moment among them."""
        self.metrics.items.set(len(self.engine))
        self.metrics.waiting.set(sum(workers.waiting for workers in self._workers.values()))
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

    async def engine_answer(self, method: str, request: SearchRequest) -> Answer[SearchResults]:
        """What a worker answers, together with other searches that wait.

        Raises:
            SaturatedError: too many searches wait, or this one waited too long.
            RequestRefusedError: the engine does not accept the request.
        """
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
        ranked = [
            self.engine.search_lexical(one.query, one.offset + one.k, one.filters, one.groups, one.rules)
            for one in requests
        ]
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
