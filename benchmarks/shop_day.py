"""A day's clicks and the day after: an engine that learns from what its service recorded, beside one that does not.

Prints one JSON object (``python -m benchmarks.shop_day RUN [PAGE_VIEWS]``, about so many page views a day)::

    day 1: the engine serves the market's shoppers; searches, clicks and orders go to a store, as a service records them
           ClickLearner reads the store and gives a second engine its counts; nobody's history changes
    day 2: both engines serve the same page views; a shopper who searches for the same as on day 1 is left out, since
           the market would let them click the same again

Of both days only the page views are served whose query at least two shoppers search for on day 1: clicks on an item for
a query count from the second shopper on, so that the others teach nothing of what belongs to a query. On pages of other
queries the engines differ by no more than what clicks add to an item's popularity, which is not measured here.

HR and MRR are over targets that know neither engine: what the same shoppers click and order on day 2 on pages of the
market's own engine, which made the log. ``expected HR`` is the share of the true click mass that lies on the page;
``clicks`` and ``orders`` are what the shoppers do on the pages of either engine, with the same fate, per page view.
Cold items have no click in the log's training part.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from benchmarks.market_pages import served
from onesearch.common.ragged import Ragged
from onesearch.data import metrics
from onesearch.data.dataset import Dataset
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.evaluation.significance import permutation_test
from onesearch.market.click_truth import Reactions, Truth, Visits
from onesearch.market.logging_engine import LoggingEngine
from onesearch.market.market_catalogue import US_PER_DAY
from onesearch.market.market_queries import Queries
from onesearch.market.world_files import FOLDER, load_config
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.run_app import examination
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.serving.store import Event, Search

Floats = NDArray[np.float32]
PAGE_VIEWS, FIRST_DAY, STREAM = 4_000, 2, 2


@dataclass(frozen=True)
class Day:
    """Page views of one day: what the market knows of them, and the table that an engine sees."""

    truth: Truth
    visits: Visits
    page_views: pl.DataFrame

    def select(self, rows: NDArray[np.integer]) -> "Day":
        """Those with these numbers."""
        return Day(self.truth, self.visits.select(rows), self.page_views[rows])

    def reactions(self, pages: NDArray[np.int32]) -> Reactions:
        """What the shoppers do on pages [n, 10]."""
        return self.truth.react(self.visits, pages)


def measure(run: Path, engine: SearchEngine, page_views: int, first_day: int) -> dict[str, Any]:
    """Serve a day, learn, serve the next; about so many page views a day."""
    today, tomorrow, shares = two_days(run / "data", page_views, first_day)
    pages = served(engine, today.page_views)
    learning = engine.with_settings(engine.config, engine.weights)
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "store")
        recorded = record(store, today, pages)
        ClickLearner(learning, store, ServingSettings(examination=examination(run))).learn()
        store.close()
    statistics = engine.snapshot.click_features.statistics
    live = learning.snapshot.click_features.live
    touched = np.zeros(len(tomorrow.visits), bool)
    if live is not None:
        touched = live.query_numbers(tomorrow.page_views["query"].fill_null("").to_list()) >= 0
    # What day 2 is worth under both engines.
    cold, targets = statistics.clicked == 0, logged(run / "data", tomorrow)
    by_engine = {
        name: values(tomorrow, served(one, tomorrow.page_views), *targets, cold)
        for name, one in (("still", engine), ("learning", learning))
    }
    return {
        "page views a day": page_views,
        "share of day 1 with a query of two shoppers": round(shares[0], 3),
        "share of day 2 with such a query": round(shares[1], 3),
        "page views of day 1": len(today.visits),
        **recorded,
        "queries that have counts": 0 if live is None else len(live.queries),
        "pairs of query and item that have counts": 0 if live is None else len(live.counts),
        "page views of day 2": len(tomorrow.visits),
        "share of them whose query has counts": round(float(touched.mean()), 4),
        "cold items": int(cold.sum()),
        "queries of two shoppers": compared(by_engine, np.ones(len(touched), bool)),
        "queries with counts": compared(by_engine, touched),
    }


def two_days(data: Path, page_views: int, first_day: int) -> tuple[Day, Day, tuple[float, float]]:
    """Page views of a day after the market's log, and of the next by who has not searched for the same.

    Of both those whose query two shoppers search for on the first day; what share of each day they are.
    """
    config = load_config(data / FOLDER)
    laboratory = Laboratory(data, page_views * config.days, stream=STREAM)
    start = int(np.datetime64(config.start, "us").astype(np.int64))
    day = (laboratory.visits.time - start) // US_PER_DAY - config.days
    rows = np.flatnonzero((day == first_day) | (day == first_day + 1))
    # The queries of these days alone.
    queries, number = np.unique(laboratory.visits.query[rows], return_inverse=True)
    truth = replace(laboratory.truth, queries=_select(laboratory.truth.queries, queries))
    visits = replace(laboratory.visits.select(rows), query=number.astype(np.int32))
    both, day = Day(truth, visits, laboratory.page_views[rows]), day[rows]
    # The same shopper with the same query has the same luck with an item again.
    meets = visits.user.astype(np.int64) * len(queries) + number
    known = np.isin(meets, meets[day == first_day])
    shoppers = np.bincount(np.unique(meets[day == first_day]) % len(queries), minlength=len(queries))
    repeated, parts = shoppers[number] >= 2, (day == first_day, (day > first_day) & ~known)
    first, second = (both.select(np.flatnonzero(part & repeated)) for part in parts)
    return first, second, (float(repeated[parts[0]].mean()), float(repeated[parts[1]].mean()))


def _select(queries: Queries, rows: NDArray[np.integer]) -> Queries:
    columns = (getattr(queries, field.name) for field in fields(Queries))
    return Queries(*([c[row] for row in rows] if isinstance(c, list) else c[rows] for c in columns))


def record(store: SqliteStore, day: Day, pages: NDArray[np.int32]) -> dict[str, int]:
    """Searches, clicks and orders of a day as a service records them; the day ends now."""
    reactions, clicks, orders = day.reactions(pages), 0, 0
    times = day.page_views["time"]
    later = datetime.now(UTC) - times.max()  # type: ignore[operator]
    for row, (search, query, user, time) in enumerate(
        day.page_views.select("page_view_id", "query", "user_id", "time").iter_rows()
    ):
        now, shown = time.replace(tzinfo=UTC) + later, [f"i{item}" for item in pages[row] if item >= 0]
        store.record_search(Search(search, user, query, now, tuple(shown)))
        for kind, happened in (("click", reactions.clicked[row]), ("order", reactions.ordered[row])):
            for place in np.flatnonzero(happened):
                event = f"{search} {kind} {place}"
                moment = now + timedelta(seconds=1)
                store.record(Event(event, user, shown[place], kind, query, moment, search))  # type: ignore[arg-type]
        clicks, orders = clicks + int(reactions.clicked[row].sum()), orders + int(reactions.ordered[row].sum())
    return {"clicks of day 1": clicks, "orders of day 1": orders}


def values(
    day: Day, pages: NDArray[np.int32], clicked: Ragged, ordered: Ragged, cold: NDArray[np.bool_]
) -> dict[str, Floats]:
    """What pages [n, 10] are worth, one value per page view; nan where there is no target. ``cold`` is of item rows."""
    true = day.truth.true_metrics(day.visits, pages)
    reactions, is_cold = day.reactions(pages), cold[np.maximum(pages, 0)] & (pages >= 0)
    cold_clicked = Ragged.from_lengths(
        clicked.values[cold[clicked.values]],
        np.bincount(clicked.owners[cold[clicked.values]], minlength=len(clicked)),
    )
    return {
        "click HR@10": metrics.hit_rate(pages, clicked),
        "click MRR@10": metrics.mrr(pages, clicked, 10),
        "order HR@10": metrics.hit_rate(pages, ordered),
        "expected HR@10": true["ehr@10"],
        "clicks": reactions.clicked.sum(1).astype(np.float32),
        "orders": reactions.ordered.sum(1).astype(np.float32),
        "cold items: click HR@10": metrics.hit_rate(pages, cold_clicked),
        "cold items: shown": is_cold.sum(1).astype(np.float32),
        "cold items: clicks": (reactions.clicked & is_cold).sum(1).astype(np.float32),
        "cold items: orders": (reactions.ordered & is_cold).sum(1).astype(np.float32),
    }


def logged(data: Path, day: Day) -> tuple[Ragged, Ragged]:
    """Items clicked and ordered on pages of the engine that made the market's log."""
    config, titles = load_config(data / FOLDER), Dataset.load(data).items["title"].to_list()
    engine = LoggingEngine(titles, day.truth, config.engine, config.seed)
    pages = engine.pages(engine.candidates(), day.visits, np.random.default_rng([config.seed, 11, STREAM]))
    reactions = day.reactions(pages)
    masks = (reactions.clicked & (pages >= 0), reactions.ordered & (pages >= 0))
    clicked, ordered = (Ragged.from_lengths(pages[mask].astype(np.int32), mask.sum(1)) for mask in masks)
    return clicked, ordered


def compared(by_engine: Mapping[str, Mapping[str, Floats]], rows: NDArray[np.bool_]) -> dict[str, Any]:
    """Means of both engines over some page views, their difference, its interval and its p-value."""
    still, learning = (np.stack([one[rows] for one in by_engine[name].values()], 1) for name in ("still", "learning"))
    test = permutation_test(learning, still)
    with np.errstate(invalid="ignore"):  # of what is defined, [2, metrics]; nan where nothing is
        means = np.stack([np.nansum(one, 0) / np.isfinite(one).sum(0) for one in (still, learning)])
    return {
        name: {
            "without, with": [round(float(one), 4) for one in means[:, column]],
            "difference": round(float(test.difference[column]), 5),
            "95 % interval": [round(float(end[column]), 5) for end in (test.low, test.high)],
            "p": float(f"{test.p[column]:.2g}"),
        }
        for column, name in enumerate(by_engine["still"])
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    asked = int(sys.argv[2]) if len(sys.argv) > 2 else PAGE_VIEWS
    print(json.dumps(measure(run, load_engine(run), asked, FIRST_DAY)))
