"""One cell of the study of a month: the days after a market's log, served, learnt from and measured one by one.

A day of a cell::

    morning  the engine of what is published, with every item that is listed by now, and with the clicks so far
    turns    shoppers search; pages, clicks, orders and what was known of each query go to a store, as a service records
             them; what nobody has thought about is queued; clicks since are counted; the worker thinks about its share
    night    a round on what was recorded since the last one (`onesearch update`), or a new run of everything

What a day left is written at its end, last of all a file that says so: a cell that was killed goes on with the day that
it was in, from the store and the versions as they were in the morning.
"""

import hashlib
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import polars as pl
import yaml
from numpy.typing import NDArray

from onesearch import pipeline
from onesearch.common.artefact import read_json, read_manifest, write_json
from onesearch.common.run_lock import RunLock
from onesearch.data.dataset import Dataset
from onesearch.data.records import conform, item_from_row
from onesearch.market.later_days import LaterDay, LaterDays
from onesearch.pipeline import settings_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.understanding_stage import stand_in
from onesearch.pipeline.update_round import Method, TooFewError, update
from onesearch.search.distilled_queries import DistilledQueries, distilled_queries
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.engine_file import load_about
from onesearch.search.exploration import Exploration
from onesearch.search.results import SearchRequest
from onesearch.search.run_parts import own_place
from onesearch.search.served_versions import FOLDER as VERSIONS
from onesearch.search.served_versions import PUBLISHED, Served, publish, published
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.keyword_coverage import ThoughtSource, thought_states
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.run_app import examination
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Event, Search
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.llm_producer import LLMProducer, LLMSettings
from onesearch.understanding.thought import Producer
from onesearch.understanding.thought_cache import SqliteThoughts, cache_key
from onesearch.understanding.thought_table import Thoughts
from onesearch.understanding.understand_queries import run_understand

Floats = NDArray[np.float32]
PAGE: Final = 10
WEEK: Final = 7  # days after a round on which the queries that it covered are looked at
STATES: Final = ("none", "queued", "no_keywords", "cached", "distilled")
STORE, THOUGHTS, DONE = "store.sqlite3", "thoughts.sqlite3", "state.json"
_NOBODY: Final = "http://127.0.0.1:9/v1"  # a language model that must have an address and is never asked
_BATCH: Final = 64  # searches answered together; a shopper's clicks are in the history from the next batch on


@dataclass(frozen=True)
class Cell:
    """One way to go through the month.

    Attributes:
        name: of the cell.
        what: for the page.
        clicks: clicks since the log move items up.
        epochs: of each night's round over new page views; None: no round.
        thoughts: the teacher of a round reads the new thoughts.
        steps: of alignment in each round.
        always: every round is published; else those that the round's judge finds better.
        retrain: days after which everything is made anew; 0: never.
        explore: share of the places that are drawn.
    """

    name: str
    what: str
    clicks: bool = True
    epochs: float | None = None
    thoughts: bool = True
    steps: int = 0
    always: bool = False
    retrain: int = 0
    explore: float = 0.0


@dataclass(frozen=True)
class Worker:
    """Who thinks about queries: so many a day at most, in equal shares after each of the day's turns."""

    thoughts: int
    turns: int


@dataclass
class State:
    """What a cell knows in the morning of a day.

    Attributes:
        day: its number.
        run: folder below the cell's of the run that serves.
        since: page views from then on are in no round yet, ISO 8601; None: none is.
        thought: keys of the queries that the worker took since the last round.
        versions: names of the rounds' folders.
        published: content of the file that says what is served; None where there is none.
        first_click: day of the first click on an item since the log, by row; -1: none yet.
    """

    day: int
    run: str
    since: str | None
    thought: list[str]
    versions: list[str]
    published: str | None
    first_click: list[int]


class MonthCell:
    """Goes through the days of a cell.

    Args:
        folder: of the cell.
        base: the run that all cells begin with; it is copied.
        days: of the market.
        later: folder that :meth:`LaterDays.save` wrote.
        cell: what differs.
        worker: who thinks.
        method: of alignment.
        overrides: settings of rounds that differ from the run's.
        retrained: settings that a new run of everything has beside the base's.
    """

    def __init__(
        self,
        folder: Path,
        base: Path,
        days: LaterDays,
        later: Path,
        cell: Cell,
        worker: Worker,
        method: Method,
        overrides: Sequence[str] = (),
        retrained: Sequence[str] = (),
    ) -> None:
        self.folder, self.base, self.days, self.later = folder, base, days, later
        self.cell, self.worker, self.method = cell, worker, method
        self.overrides, self.retrained = tuple(overrides), tuple(retrained)
        # Items without a click in the log that the first engine counts; those listed later are new.
        counts = load_about(base, own_place(base, "v2")).get("counts")
        statistics = RunData(base, counts).statistics
        self.cold = np.ones(len(days.items), bool)
        self.cold[: len(statistics.clicked)] = statistics.clicked == 0
        own = RunData(base).thoughts.table
        self.key = (str(own["producer"][0]), str(own["version"][0]))

    def run(self) -> None:
        """Go through all days that are not done."""
        with RunLock(self.folder / "work"), self._thinker() as producer:
            state = self._resumed()
            while state.day < self.days.later.days:
                state = self._day(state, producer)

    # ---- what is kept from day to day --------------------------------------------------------------------------------

    @property
    def live(self) -> Path:
        """Folder of the store and the cache that are in use."""
        return self.folder / "live"

    def _resumed(self) -> State:
        """The state of the last morning, with store, cache and versions as they were then."""
        kept = sorted(path.parent for path in self.folder.glob(f"morning-*/{DONE}"))
        shutil.rmtree(self.live, ignore_errors=True)
        self.live.mkdir(parents=True)
        if not kept:
            return self._first_morning()
        state = State(**read_json(kept[-1] / DONE))
        for name in (STORE, THOUGHTS):
            copy_sqlite(kept[-1] / name, self.live / name)
        # What a killed night left of its round, or published, is not there.
        versions = self.folder / state.run / VERSIONS
        for path in versions.glob("[0-9]*"):
            if path.is_dir() and path.name not in state.versions:
                shutil.rmtree(path)
        if state.published is None:
            (versions / PUBLISHED).unlink(missing_ok=True)
        else:
            (versions / PUBLISHED).write_text(state.published, encoding="utf-8")
        return state

    def _first_morning(self) -> State:
        """A copy of the run, an empty store, and a cache with the thoughts that the run was made with."""
        run = self.folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.base, run, ignore=shutil.ignore_patterns(VERSIONS, "checkpoint*", "*.sqlite3*"))
        listed = [number for number in range(self.days.later.days) for _ in range(len(self.days.new_items(number)))]
        write_json(self.folder / "listed.json", listed)
        SqliteStore(self.live / STORE).close()
        cache, own = SqliteThoughts(self.live / THOUGHTS), RunData(self.base).thoughts
        cache.put([own.thought(row) for row in range(len(own))])
        cache.close()
        return State(0, "run", None, [], [], None, [-1] * len(self.days.items))

    def _keep(self, state: State) -> None:
        """Write a morning's state; its last file says that it is whole. Earlier ones go."""
        versions = self.folder / state.run / VERSIONS
        state.versions = sorted(path.name for path in versions.glob("[0-9]*") if path.is_dir())
        file = versions / PUBLISHED
        state.published = file.read_text(encoding="utf-8") if file.is_file() else None
        morning = self.folder / f"morning-{state.day:03d}"
        shutil.rmtree(morning, ignore_errors=True)
        morning.mkdir()
        for name in (STORE, THOUGHTS):
            copy_sqlite(self.live / name, morning / name)
        write_json(morning / DONE, asdict(state))
        for path in self.folder.glob("morning-*"):
            if path != morning:
                shutil.rmtree(path)

    # ---- one day -----------------------------------------------------------------------------------------------------

    def _day(self, state: State, producer: Producer) -> State:
        day, run = self.days.day(state.day), self.folder / state.run
        engine = self._with_new_items(load_engine(run), state.day)
        store, cache = SqliteStore(self.live / STORE), SqliteThoughts(self.live / THOUGHTS)
        # What is served was taught these queries' thoughts.
        taught = distilled_queries(run, published(run) or own_place(run, "v2"))
        distilled = DistilledQueries(taught)
        source = ThoughtSource(lambda: cache, *self.key, lambda: distilled)
        learner, thought = self._learner(engine, store), list(state.thought)
        pages = np.full((len(day.visits), PAGE), -1, np.int32)
        explored, states = np.zeros(pages.shape, bool), np.zeros(len(pages), np.int8)
        for part in np.array_split(np.arange(len(pages)), self.worker.turns):
            if self.cell.clicks and len(part):
                learner.learn(_time(day, int(part[0])))
            for rows in np.array_split(part, -(-len(part) // _BATCH)):
                self._serve(engine, store, cache, source, day, rows, (pages, explored, states))
            thought += self._think(cache, producer)
        reactions = day.truth.react(day.visits, pages)
        # What the day was worth, then the night.
        first = np.array(state.first_click)
        clicked = np.unique(pages[reactions.clicked])
        first[clicked[first[clicked] < 0]] = state.day
        values = {**self._values(day, pages, explored), "state": states}
        figures: dict[str, Any] = {"queue": cache.queue_state()._asdict(), "distilled": len(taught)}
        later = replace(state, day=state.day + 1, first_click=first.tolist(), thought=thought)
        later = self._night(later, store, cache, day, figures)
        store.close()
        cache.close()
        self._write(state.day, values, figures)
        self._keep(later)
        return later

    def _with_new_items(self, engine: SearchEngine, day: int) -> SearchEngine:
        """An engine with every item that is listed on a day."""
        listed, known = self._listed(day), engine.snapshot.number
        engine.upsert([item_from_row(row) for row in listed.iter_rows(named=True) if row["item_id"] not in known])
        return engine

    def _listed(self, day: int) -> pl.DataFrame:
        """Items that were listed since the log, until a day's end, as rows of a dataset's table."""
        return conform("items", pl.concat([self.days.new_items(number) for number in range(day + 1)]))

    def _learner(self, engine: SearchEngine, store: SqliteStore) -> ClickLearner:
        """What lets an engine learn from the store's clicks."""
        return ClickLearner(engine, store, ServingSettings(examination=examination(self.base)))

    def _version(self, run: Path, version: str | None, day: int, store: SqliteStore) -> SearchEngine:
        """The engine of a version, None for the run's own, published or not, as it is in the morning of a day."""
        about = load_about(run, version or own_place(run, "v2"))
        parts = RunData(run, about.get("counts"))
        engine = SearchEngine.from_about(parts, about)
        engine.histories = parts.histories_of_log
        until = about.get("counted_until")
        newest = cast(datetime, parts.dataset.page_views["time"].max())
        engine.logged_until = datetime.fromisoformat(until) if until else _utc(newest)
        engine = self._with_new_items(engine, day)
        if self.cell.clicks:
            self._learner(engine, store).learn(_time(self.days.day(day), 0))
        return engine

    def _serve(
        self,
        engine: SearchEngine,
        store: SqliteStore,
        cache: SqliteThoughts,
        source: ThoughtSource,
        day: LaterDay,
        rows: NDArray[np.int64],
        into: tuple[NDArray[np.int32], NDArray[np.bool_], NDArray[np.int8]],
    ) -> None:
        """Answer some searches of a day, and record what a service records, clicks and orders as well."""
        views = day.page_views[rows]
        requests = [
            SearchRequest(
                query,
                user,
                PAGE,
                history=engine.logged_history(user).followed_by(store.history(user)),
                exploration=Exploration(self.cell.explore, seed_of(name)) if self.cell.explore else None,
            )
            for name, query, user in views.select("page_view_id", "query", "user_id").iter_rows()
        ]
        keys = [cache_key(request.query) for request in requests]
        known = thought_states(list(dict.fromkeys(keys)), cache, source)
        answers, (pages, explored, states) = engine.search_batch(requests), into
        for row, key, answer in zip(rows.tolist(), keys, answers, strict=True):
            shown = [int(hit.item_id[1:]) for hit in answer]  # an item's id is its row in the market
            pages[row, : len(shown)] = shown
            explored[row, : len(shown)] = [hit.item_id in answer.explored for hit in answer]
            states[row] = STATES.index(known[key])
        reactions = day.truth.react(day.visits.select(rows), pages[rows])
        for at, (row, answer) in enumerate(zip(rows.tolist(), answers, strict=True)):
            view = views.row(at, named=True)
            time, ids = _time(day, row), tuple(hit.item_id for hit in answer)
            search = Search(
                view["page_view_id"],
                view["user_id"],
                answer.corrected_query or view["query"],
                time,
                ids,
                known[keys[at]],
                answer.explored,
            )
            store.record_search(search)
            for kind, happened in (("click", reactions.clicked[at]), ("order", reactions.ordered[at])):
                for place in np.flatnonzero(happened).tolist():
                    name, moment = f"{search.search_id}:{kind}:{place}", time + timedelta(seconds=1)
                    event = Event(name, search.user, ids[place], kind, search.query, moment, search.search_id)  # type: ignore[arg-type]
                    store.record(event)
        for key, state in known.items():
            if state == "none":
                cache.enqueue(key)

    def _think(self, cache: SqliteThoughts, producer: Producer) -> list[str]:
        """The worker's share of a turn: the queries that wait longest, which it took."""
        taken = cache.take(self.worker.thoughts // self.worker.turns)
        if taken:
            run_understand(taken, producer, cache, self.folder / "set_aside.jsonl")
            cache.done(taken)
        return list(taken)

    @contextmanager
    def _thinker(self) -> Iterator[Producer]:
        """The market's stand-in, over all items; it knows the new words as well."""
        settings, clicked = settings_of(self.base).understanding, np.zeros(len(self.days.items), np.float32)
        known = RunData(self.base).statistics.clicked
        clicked[: len(known)] = known
        words = CatalogueVocabulary.from_items(Dataset.load(self.later).items, clicked)
        with stand_in(self.later, settings.error, seed=0) as address:
            yield LLMProducer(words, LLMSettings(base_url=address, model=settings.model))

    # ---- the night ---------------------------------------------------------------------------------------------------

    def _night(
        self, state: State, store: SqliteStore, cache: SqliteThoughts, day: LaterDay, figures: dict[str, Any]
    ) -> State:
        """What the cell learns at night; the state of the next morning."""
        if self.cell.retrain and state.day % self.cell.retrain == 0 and state.day < self.days.later.days:
            return self._made_anew(state, store)
        if self.cell.epochs is None:
            return state
        run = self.folder / state.run
        since = None if state.since is None else datetime.fromisoformat(state.since)
        newest, before, thoughts = recorded_page_views(store, since), published(run), None
        page_views = newest
        if self.cell.thoughts:
            # The worker is behind: what it thought of since the last round was searched for in earlier days as well.
            every, wanted = recorded_page_views(store), set(state.thought)
            thought_of = [cache_key(query or "") in wanted for query in every["query"]]
            late = every.filter(pl.Series(thought_of, dtype=pl.Boolean))
            page_views = pl.concat([late, newest]).unique("page_view_id", maintain_order=True)
            queries = page_views["query"].drop_nulls().unique().to_list()
            thoughts = Thoughts.from_thoughts(cache.get_many(queries, *self.key).values())
        page_views.write_parquet(self.live / "page_views.parquet")
        try:
            done = update(
                run,
                self.live / "page_views.parquet",
                self.method,
                self.cell.steps,
                self.overrides,
                thoughts,
                self.cell.epochs,
            )
        except TooFewError as error:
            figures["round"] = {"left out": str(error)}
            return state
        if self.cell.always and not done.published:
            publish(run, done.version, instead_of=Served.now(run))
        figures["round"] = vars(done) | {"served": published(run) == done.version}
        trained = (read_manifest(run / done.version) or {})["metrics"]
        figures["round"]["chosen step"] = trained.get("chosen_step")
        figures["round"] |= self._newly_covered(run, before, done.version, state.day, store)
        # The events of the last search came a second after it.
        last = _utc(cast(datetime, newest["time"].max())) + timedelta(seconds=2)
        return replace(state, since=last.isoformat(), thought=[])

    def _newly_covered(
        self, run: Path, before: str | None, after: str, tomorrow: int, store: SqliteStore
    ) -> dict[str, Any]:
        """What pages of the week to come are worth before and after a round: of queries whose thoughts it first taught,
        and, for comparison, of as many others that were taught earlier.

        Shoppers have the history that the log left, on both engines; clicks since count for both, if in the cell.
        """
        own = own_place(run, "v2")
        old, now = (DistilledQueries(distilled_queries(run, one)) for one in (before or own, after))
        week = [self.days.day(number) for number in range(tomorrow, min(tomorrow + WEEK, self.days.later.days))]
        known = [
            np.array([(query in old, query in now) for query in day.page_views["query"]], bool).reshape(-1, 2)
            for day in week
        ]
        rows = {"new": [np.flatnonzero(~one[:, 0] & one[:, 1]) for one in known]}
        rng = np.random.default_rng([WEEK, tomorrow])
        rows["old"] = [
            np.sort(rng.permutation(np.flatnonzero(one[:, 0]))[: len(new)])
            for one, new in zip(known, rows["new"], strict=True)
        ]
        found: dict[str, Any] = {}
        if not any(map(len, rows["new"])):
            return {"covered": found}
        versions = {"before": before, "after": after}
        engines = {name: self._version(run, version, tomorrow, store) for name, version in versions.items()}
        for group, of_days in rows.items():
            users = [day.visits.user[some] for day, some in zip(week, of_days, strict=True)]
            found[group] = {"user": np.concatenate(users).tolist()}
            for name, engine in engines.items():
                found[group][name] = self._worth(engine, week, of_days)
        return {"covered": found}

    @staticmethod
    def _worth(
        engine: SearchEngine, week: Sequence[LaterDay], rows: Sequence[NDArray[np.int64]]
    ) -> dict[str, list[float]]:
        """What an engine's pages for some page views of each day are worth, one value for each."""
        worth: dict[str, list[float]] = {"clicks@10": [], "ndcg@10": []}
        for day, some in zip(week, rows, strict=True):
            asked = day.page_views[some].select("query", "user_id").iter_rows()
            requests = [SearchRequest(query, user, PAGE) for query, user in asked]
            pages = np.full((len(some), PAGE), -1, np.int32)
            for first in range(0, len(requests), _BATCH):
                for row, answer in enumerate(engine.search_batch(requests[first : first + _BATCH]), first):
                    pages[row, : len(answer)] = [int(hit.item_id[1:]) for hit in answer]
            true = day.truth.true_metrics(day.visits.select(some), pages)
            for metric, values in worth.items():
                values += true[metric].astype(float).tolist()
        return worth

    def _made_anew(self, state: State, store: SqliteStore) -> State:
        """A run of everything: all items that are listed, the log and what was recorded, all thoughts there are."""
        data, run = self.folder / f"data-{state.day:03d}", f"run-{state.day:03d}"
        base = RunData(self.base).dataset
        items = pl.concat([base.items, self._listed(state.day - 1)])
        recorded = recorded_page_views(store).select(base.page_views.columns)
        Dataset.write(data, items, base.users, pl.concat([base.page_views, recorded]), base.judgments, "market")
        # The base's settings; thoughts come from the cache as it is, and nobody is asked.
        copy_sqlite(self.live / THOUGHTS, data / THOUGHTS)
        settings = settings_of(self.base).model_dump(mode="json")
        source = {
            "folder": str(data.absolute()),
            **{name: settings["data"][name] for name in ("split", "valid", "test")},
        }
        settings |= {"data": source}
        settings["understanding"] |= {"producer": "llm", "max_calls": 0, "base_url": _NOBODY}
        settings["understanding"] |= {"cache": str((data / THOUGHTS).absolute())}
        config = data / "run.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        until = "final" if settings["final"] is not None else "engine_v2"
        pipeline.run_config(config, self.folder / run, self.retrained, until=until)
        return replace(state, run=run)

    # ---- figures -----------------------------------------------------------------------------------------------------

    def _values(self, day: LaterDay, pages: NDArray[np.int32], explored: NDArray[np.bool_]) -> Mapping[str, Any]:
        """What pages [n, 10] are worth, one value per page view."""
        best = day.truth.best(day.visits, PAGE)
        totals = day.truth.listed_totals(day.visits)
        true, most = (day.truth.true_metrics(day.visits, one, totals) for one in (pages, best))
        reactions, there = day.truth.react(day.visits, pages), pages >= 0
        cold, new = self.cold[np.maximum(pages, 0)] & there, pages >= self.days.logged
        return {
            "user": day.visits.user,
            "pages": pages,
            "complex": (day.page_views["query_type"] != "plain").to_numpy(),
            "new words": day.new_words,
            "regret": (most["clicks@10"] - true["clicks@10"]).astype(np.float32),
            "expected clicks": true["clicks@10"],
            "NDCG@10": true["ndcg@10"],
            "clicks": reactions.clicked.sum(1).astype(np.int8),
            "orders": reactions.ordered.sum(1).astype(np.int8),
            "cold shown": cold.sum(1).astype(np.int8),
            "cold clicks": (cold & reactions.clicked).sum(1).astype(np.int8),
            "new shown": new.sum(1).astype(np.int8),
            "new clicks": (new & reactions.clicked).sum(1).astype(np.int8),
            "explored": explored.sum(1).astype(np.int8),
            "explored clicks": (explored & reactions.clicked).sum(1).astype(np.int8),
        }

    def _write(self, day: int, values: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        folder = self.folder / "days"
        folder.mkdir(exist_ok=True)
        np.savez(folder / f"{day:03d}.npz", **values)
        write_json(folder / f"{day:03d}.json", dict(figures))


def copy_sqlite(source: Path, target: Path) -> None:
    """The content of a SQLite file, as it is in one moment, in a new one."""
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        old.backup(new)
    old.close()
    new.close()


def seed_of(name: str) -> int:
    """64 bits of a page view's id."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _time(day: LaterDay, row: int) -> datetime:
    return _utc(day.page_views["time"][row])


def _utc(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
