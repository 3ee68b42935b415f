"""What a shop's features cost beside a plain search, and how fast words are completed.

Prints one JSON object (``python -m benchmarks.shop_speed runs/demo``). All kinds of search answer the same request
before the next one comes, in turns; ``over plain`` is the median over the rounds of the ratio of their medians, with
the lowest and the highest round. Completions are asked for after every letter of a query.
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.speed.bench_search import sampled
from onesearch.data.click_statistics import ClickStatistics, most_clicked_first
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.results import SearchRequest
from onesearch.search.rules import Rules
from onesearch.search.suggestions import Suggestions

REQUESTS, ROUNDS, QUERIES, MOST = 24, 4, 60, 1_000_000
FACETS = ("category", "brand", "price")
CLOCKS = {"wall": time.perf_counter, "CPU": time.process_time}
PLAIN = "plain"


def measure(
    engine: SearchEngine, asked: Sequence[tuple[str, str | None]], rounds: int, queries: int, most: int
) -> dict[str, Any]:
    """Searches of (query, shopper) by kind, and completions of so many queries at the log's size and at ``most``."""
    log = engine.snapshot.click_features.statistics
    texts = log.queries[:: max(1, len(log.queries) // queries)]
    large = Suggestions(engine.current, made_up(log, most))
    suggest = {
        f"{len(log.queries)} queries of the log": completing(engine.suggestions, texts),
        f"{most} made-up queries": completing(large, texts),
    }
    return {"requests": len(asked), "rounds": rounds, **searching(engine, asked, rounds), "completions": suggest}


def searching(engine: SearchEngine, asked: Sequence[tuple[str, str | None]], rounds: int) -> dict[str, Any]:
    """Milliseconds of each kind of search, by clock, and their ratios to plain searches."""
    plain = [SearchRequest(query, user) for query, user in asked]
    wrong = [replace(one, query=mistyped(one.query)) for one in plain]
    ruled = engine.with_settings(engine.config, engine.weights)
    ruled.follow_rules(hundred_rules(engine))
    kinds: dict[str, tuple[SearchEngine, list[SearchRequest]]] = {
        PLAIN: (engine, plain),
        "with facets and total": (engine, [replace(one, facets=FACETS, count=True) for one in plain]),
        "with explanations": (engine, [replace(one, explain=True) for one in plain]),
        "with 100 rules": (ruled, plain),
        "mistyped": (engine, wrong),
        "with all of them": (ruled, [replace(one, facets=FACETS, count=True, explain=True) for one in wrong]),
    }

    def answer(searcher: SearchEngine, requests: Sequence[SearchRequest]) -> Callable[[int], Any]:
        return lambda row: searcher.search_batch([requests[row]])[0]

    systems = {name: answer(*kind) for name, kind in kinds.items()}
    corrected = sum(systems["mistyped"](row).corrected_query is not None for row in range(len(asked)))
    for system in systems.values():  # what is gathered when first asked for
        system(0)
    found: dict[str, Any] = {"mistyped queries that were corrected": corrected}
    # [clocks, rounds, systems, requests]; all systems answer a request before the next one comes.
    times = np.zeros((len(CLOCKS), rounds, len(systems), len(asked)))
    for turn, row in product(range(rounds), range(len(asked))):
        order = list(enumerate(systems.values()))
        for column, system in order if (turn + row) % 2 == 0 else reversed(order):
            times[:, turn, column, row] = 1e3 * timed(partial(system, row))
    medians = np.median(times, 3)
    for column, name in enumerate(systems):
        part = found[name] = {}
        for clock, of_clock, middle in zip(CLOCKS, times, medians, strict=True):
            part[f"p50 ms, {clock}"] = round(float(np.median(middle[:, column])), 2)
            part[f"p95 ms, {clock}"] = round(float(np.percentile(of_clock[:, column], 95)), 2)
            if name != PLAIN:
                ratios = np.sort(middle[:, column] / middle[:, 0])
                part[f"over plain, {clock}"] = round(float(np.median(ratios)), 3)
                part[f"over plain, {clock}, low and high"] = [round(float(one), 3) for one in ratios[[0, -1]]]
    return found


def timed(call: Callable[[], Any]) -> NDArray[np.float64]:
    """Seconds that a call takes by each clock, [clocks]."""
    begin = [read() for read in CLOCKS.values()]
    call()
    return np.array([read() - start for read, start in zip(CLOCKS.values(), begin, strict=True)])


def mistyped(query: str) -> str:
    """The query with two letters of its longest word changed places, not the first one."""
    word = max(query.split(), key=len, default="")
    return query.replace(word, f"{word[:2]}{word[3]}{word[2]}{word[4:]}", 1) if len(word) > 3 else query


def hundred_rules(engine: SearchEngine) -> Rules:
    """Rules of all kinds about the engine's items; half of the boosts and all hidden items hold for every search."""
    snapshot = engine.snapshot
    rows = list(snapshot.number.values())
    items = [snapshot.item(rows[number * len(rows) // 20]) for number in range(20)]
    queries = (list(engine.known_queries) * 30)[:30]
    boosts = [{"column": "item_id", "values": item.item_id, "times": 2} for item in items]
    boosts += [{**boost, "when": {"query": query}} for boost, query in zip(boosts, queries, strict=False)]
    pins = [{"items": item.item_id, "when": {"query": query}} for item, query in zip(items, queries, strict=False)]
    hides = [{"column": "item_id", "values": item.item_id} for item in items]
    replacements = [{"by": query, "when": {"query": f"old name {n}"}} for n, query in enumerate(queries[20:])]
    synonyms = [{"words": [f"word {n}", query]} for n, query in enumerate(queries[20:])]
    kinds = {"boosts": boosts, "pins": pins, "hides": hides, "replacements": replacements, "synonyms": synonyms}
    named = {kind: [{"name": f"{kind} {n}", **one} for n, one in enumerate(rules)] for kind, rules in kinds.items()}
    return Rules.model_validate(named)


def completing(suggestions: Suggestions, queries: Sequence[str]) -> dict[str, Any]:
    """Milliseconds of completions after every letter of the queries, by clock."""
    begun = [query[:end] for query in queries for end in range(1, len(query) + 1)]
    suggestions.complete(begun[0])  # gathers what there is
    found: dict[str, Any] = {"beginnings": len(begun)}
    times = 1e3 * np.array([timed(partial(suggestions.complete, text)) for text in begun])  # [beginnings, clocks]
    for clock, of_clock in zip(CLOCKS, times.T, strict=True):
        found |= {f"p{share} ms, {clock}": round(float(np.percentile(of_clock, share)), 2) for share in (50, 95)}
    return found


def made_up(log: ClickStatistics, most: int) -> ClickStatistics:
    """So many queries: each of the log with words of other queries behind it; few are clicked often."""
    words = dict.fromkeys(word for query in log.queries for word in query.split())
    queries = [f"{query} {word}" for word, query in islice(product(words, log.queries), most)]
    draws, n = np.random.default_rng(0), len(queries)
    counts = np.minimum(draws.zipf(1.5, n), 1000).astype(np.float32)
    item = draws.integers(0, len(log.clicked), n)
    lists, counts = most_clicked_first(np.arange(n), item, counts, log.clicked, n)
    return ClickStatistics(log.shown, log.clicked, log.ordered, queries, lists, counts, counts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    page_views = sampled(run, "test", REQUESTS)
    searches = list(zip(page_views["query"].fill_null("").to_list(), page_views["user_id"].to_list(), strict=True))
    print(json.dumps(measure(load_engine(run), searches, ROUNDS, QUERIES, MOST)))
