"""What producers of thoughts say on real queries, at what cost, and what their keywords are worth to plain search.

    python -m benchmarks.language_model run RUN OUT PRODUCER [MOST]   # llm, llm-keywords, encoder or log-expert
    python -m benchmarks.language_model save RUN OUT
    python -m benchmarks.language_model render                        # docs/results/language_model.md

RUN is a finished run of a real log; its held-out queries come first, then those of its training part in random order.
OUT lies outside the checkout: a cache of thoughts, and the summary of every portion of queries, so that ``run`` goes on
where it stopped. A language model's server and name come from ONESEARCH_LLM_BASE_URL and ONESEARCH_LLM_MODEL, the path
of a sentence encoder from ONESEARCH_ENCODER. ``save`` reads what there is by then: a producer's figures are of the
queries that it has been asked about.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from benchmarks.provenance import commit, machine, today
from benchmarks.result_files import ResultFiles
from onesearch.cli.producer_options import ProducerName, producer_key
from onesearch.common.artefact import read_json, write_json
from onesearch.data.text import normalise_queries
from onesearch.evaluation.evaluate import MeasureSettings, evaluate
from onesearch.pipeline import settings_of
from onesearch.pipeline.opened_producers import opened_producer
from onesearch.pipeline.run_data import RunData
from onesearch.search.dense_search import DenseSearcher
from onesearch.search.hits import Searcher
from onesearch.understanding.keyword_extraction import holds_phrase, stated_in
from onesearch.understanding.thought import Thought
from onesearch.understanding.thought_cache import SqliteThoughts
from onesearch.understanding.understand_queries import run_understand

FILES = ResultFiles("language_model")
PORTION = 50
"""Queries of one summary."""
PRODUCERS = {
    "llm-keywords": "language model, keywords alone after examples",
    "llm": "language model, both steps by instructions",
    "encoder": "sentence encoder",
    "log-expert": "log expert",
}
LIMITS: Mapping[str, Any] = {"concurrency": 1, "timeout": 900.0, "response_format": "json_object"}
ANSWER_TOKENS = {"llm": 250, "llm-keywords": 120}
EXAMPLES, REFUSED = 14, 8
METRICS = ("click/HR@10", "click/MRR@10")
COMPARED = ("llm-keywords", "encoder", "log-expert")
QUERY, CHOSEN, HALF = "query alone", "share chosen on validation", "half"
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)


def held_out_first(run_data: RunData) -> list[str]:
    """The distinct queries of a run: those of test and validation part first, each group in random order."""
    parts = run_data.split
    found: list[str] = []
    for group in ((parts.test, parts.valid), (parts.train,)):
        texts = sorted({query for part in group for query in normalise_queries(part["query"])} - {""})
        found += [texts[place] for place in np.random.default_rng(7).permutation(len(texts))]
    return list(dict.fromkeys(found))


def run(folder: Path, out: Path, name: str, most: int | None) -> None:
    """Think about queries in portions, each with a summary of its own."""
    producer, cache = ProducerName(name), SqliteThoughts(out / "thoughts.sqlite3")
    limits = {**LIMITS, "answer_tokens": ANSWER_TOKENS.get(name, 1)}
    queries = held_out_first(RunData(folder))[:most]
    with (
        closing(cache),
        opened_producer(producer.value, folder, limits, os.environ.get("ONESEARCH_ENCODER")) as thinker,
    ):
        about = {"producer": thinker.name, "version": thinker.version, "commit": commit(), "machine": machine()}
        for begin in range(0, len(queries), PORTION):
            path = out / name / f"{begin:06}.json"
            if path.is_file():
                continue
            asked = queries[begin : begin + PORTION]
            summary = run_understand(asked, thinker, cache, out / f"{name}.rejects.jsonl", concurrency=1)
            if summary.unfinished:
                sys.exit(summary.text())
            # A portion that was interrupted has cached queries: its figures are of the others.
            write_json(path, {**vars(summary), **about, "date": today(), "queries": asked})
            print(path.name, summary.text().replace("\n", "; "), flush=True)


def fused(run_data: RunData, keywords: Mapping[str, tuple[str, ...]], share: float) -> DenseSearcher:
    """Dense search by query vectors that take over ``share`` of the mean vector of their keywords."""

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = run_data.encoder.encode(texts)
        words = sorted({word for text in texts for word in keywords.get(text, ())})
        of_word = dict(zip(words, run_data.encoder.encode(words), strict=True))
        for row, text in enumerate(texts):
            if keywords.get(text):
                mean = np.mean([of_word[word] for word in keywords[text]], axis=0)
                vectors[row] = (1 - share) * vectors[row] + share * mean
        return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), np.float32)

    return DenseSearcher(run_data.item_vectors, encode)


def portions(out: Path, name: str) -> Iterator[dict[str, Any]]:
    """Summaries of a producer in order."""
    return (read_json(path) for path in sorted((out / name).glob("*.json")))


def save(folder: Path, out: Path) -> None:
    """Cost, answers, what clicked items say of the keywords, and plain search with and without them."""
    run_data, settings = RunData(folder), settings_of(folder)
    figures: dict[str, dict[str, Any]] = {"producers": {}, "worth": {}}
    thoughts: dict[str, dict[str, Thought]] = {}
    asked: dict[str, list[str]] = {}
    with closing(SqliteThoughts(out / "thoughts.sqlite3")) as cache:
        for name, what in PRODUCERS.items():
            found = list(portions(out, name))
            if not found:
                continue
            asked[name] = [query for one in found for query in one["queries"]]
            thoughts[name] = cache.get_many(asked[name], found[0]["producer"], producer_key(ProducerName(name))[1])
            figures["producers"][name] = {"what": what, **cost(found)}
    for name in COMPARED:
        if name in thoughts:
            keywords = {query: one.keywords for query, one in thoughts[name].items()}
            figures["worth"][name] = worth(run_data, keywords, set(asked[name]))
    everywhere = set.intersection(*(set(asked[name]) for name in COMPARED if name in asked))
    held_out = set(held_out_first(run_data)) - set(normalise_queries(run_data.split.train["query"]))
    figures["examples"] = examples(out, thoughts, sorted(everywhere & held_out))
    figures["about"] = {
        "run": {
            "config": settings.name,
            "seed": settings.seed,
            "commit": commit(),
            "machine": machine(),
            "date": today(),
        }
    }
    FILES.write_figures(figures)


def worth(run_data: RunData, keywords: Mapping[str, tuple[str, ...]], queries: Set[str]) -> dict[str, Any]:
    """What the keywords of held-out queries say, and what dense search finds with them."""
    valid, test = (asked_about(part, queries) for part in (run_data.split.valid, run_data.split.test))
    # Titles of the items with a good rating, by query.
    titles = run_data.dataset.items["title"].fill_null("").to_list()
    clicked: dict[str, list[str]] = {}
    for part in (valid, test):
        for query, items in zip(part["query"], run_data.targets(part).clicked, strict=True):
            clicked.setdefault(query, []).extend(titles[item] for item in items)
    chance = said(shifted(keywords, sorted(clicked)), clicked)["new_and_right"]
    # The share of the keywords that finds most on the validation part, and half, against the query alone.
    share = best_share(run_data, keywords, valid)
    methods: dict[str, Searcher] = {
        QUERY: fused(run_data, {}, 0.0),
        CHOSEN: fused(run_data, keywords, share),
        HALF: fused(run_data, keywords, 0.5),
    }
    pairs = [(CHOSEN, QUERY), (HALF, QUERY)]
    requests, targets, config = run_data.requests(test), run_data.targets(test), MeasureSettings(k=(10,))
    report = evaluate(methods, requests, targets, compare=pairs, config=config)
    tests = {name: {metric: report.comparison(name, QUERY, metric) for metric in METRICS} for name, _ in pairs}
    return {
        **said(keywords, clicked),
        "by_chance": chance,
        "queries": len(clicked),
        "page_views": len(test),
        "share": share,
        "means": {name: {metric: report[name, metric].mean for metric in METRICS} for name in methods},
        "tests": {
            name: {m: {k: getattr(one, k) for k in ("difference", "low", "high", "p")} for m, one in row.items()}
            for name, row in tests.items()
        },
    }


def asked_about(page_views: pl.DataFrame, queries: Set[str]) -> pl.DataFrame:
    """Page views with one of the queries, which are normalised."""
    return page_views.with_columns(query=normalise_queries(page_views["query"])).filter(
        pl.col("query").is_in(list(queries))
    )


def best_share(run_data: RunData, keywords: Mapping[str, tuple[str, ...]], valid: pl.DataFrame) -> float:
    """The share of the keywords' vector that finds most on validation page views."""
    requests, targets = run_data.requests(valid), run_data.targets(valid)
    methods = {str(share): fused(run_data, keywords, share) for share in SHARES}
    report = evaluate(methods, requests, targets, config=MeasureSettings(k=(10,), resamples=2, flips=1))
    return max(SHARES, key=lambda share: (report[str(share), METRICS[0]].mean, -share))


def cost(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Shares and costs over portions; queries that were in the cache before a portion began are left out."""
    names = ("answered", "set_aside", "repaired", "dropped", "calls", "tokens_in", "tokens_out", "seconds")
    total = {name: sum(one[name] for one in found) for name in names}
    reasons = Counter[str]()
    for one in found:
        reasons.update(one["reasons"])
    days = sorted({one["date"] for one in found})
    made = {"commit": sorted({one["commit"] for one in found}), "date": days, "machine": found[0]["machine"]}
    return {**total, "reasons": dict(reasons), "by": found[0]["producer"], **made}


def shifted(keywords: Mapping[str, tuple[str, ...]], queries: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Every query with keywords gets those of another one."""
    some = [query for query in queries if keywords.get(query)]
    order = np.random.default_rng(8).permutation(len(some)).tolist()
    return {some[a]: keywords[some[b]] for a, b in zip(order, [*order[1:], *order[:1]], strict=True)}


def said(keywords: Mapping[str, tuple[str, ...]], clicked: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """How much keywords add to held-out queries, and how much of that stands in a title that was clicked."""
    rows = [(query, word) for query in clicked for word in keywords.get(query, ())]
    new = [(query, word) for query, word in rows if not stated_in(word, query)]
    right = [any(holds_phrase(title, word) for title in clicked[query]) for query, word in new]
    return {
        "with_keywords": sum(bool(keywords.get(query)) for query in clicked) / len(clicked),
        "keywords": len(rows) / max(sum(bool(keywords.get(query)) for query in clicked), 1),
        "new": len(new) / max(len(rows), 1),
        "new_and_right": float(np.mean(right)) if right else 0.0,
    }


def examples(
    out: Path, thoughts: Mapping[str, Mapping[str, Thought]], queries: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """Keywords of queries drawn by chance, and queries that got no usable answer."""
    order = np.random.default_rng(9).permutation(len(queries)).tolist()
    drawn = [queries[place] for place in order[:EXAMPLES]]
    shown = {
        query: {name: list(found[query].keywords) if query in found else None for name, found in thoughts.items()}
        for query in drawn
    }
    rejects = out / "llm-keywords.rejects.jsonl"
    lines = rejects.read_text(encoding="utf-8").splitlines() if rejects.is_file() else []
    return {"drawn": shown, "refused": {"lines": lines[:REFUSED]}}


def render() -> None:
    """Write docs/results/language_model.md."""
    found = FILES.figures()
    lines = [*FILES.head(), "", "## What it costs", ""]
    lines += table(
        [
            "producer",
            "by",
            "queries",
            "accepted",
            "of them repaired",
            "refused",
            "s a query",
            "tokens/s out",
            "parts dropped",
        ],
        [cost_row(found["producers"][name]) for name in PRODUCERS if name in found["producers"]],
    )
    reasons = found["producers"].get("llm-keywords", {}).get("reasons", {})
    lines += ["", "Why the language model's answers were refused: " + listed(reasons) + "."] if reasons else []
    about = found["about"]["run"]
    lines += ["", "## What the keywords say", ""]
    lines += [
        "Held-out queries. *New*: keywords that the query does not say itself. *Right*: new ones that the title of an "
        "item with a good rating says; *by chance*: the same with keywords of another query.",
        "",
    ]
    worths = [(PRODUCERS[name], found["worth"][name]) for name in COMPARED if name in found["worth"]]
    said_rows = [
        [
            what,
            f"{one['queries']:,}",
            f"{one['with_keywords']:.1%}",
            f"{one['keywords']:.2f}",
            f"{one['new']:.1%}",
            f"{one['new_and_right']:.1%}",
            f"{one['by_chance']:.1%}",
        ]
        for what, one in worths
    ]
    head = ["keywords by", "queries", "with keywords", "keywords of those", "new", "right among new", "by chance"]
    lines += table(head, said_rows)
    lines += ["", "## Dense search with and without them", ""]
    lines += [
        "Page views of the test part. The query's vector takes over a share of the mean vector of its keywords: the "
        f"one of {', '.join(f'{share:g}' for share in SHARES)} that finds most on validation page views, or half, as a "
        "teacher's query row is fused ([2.7](../method.md#keywords-and-their-fusion)). Differences are from the query "
        "alone on the same page views, with paired sign-flip tests.",
        "",
    ]
    names = [metric.replace("/", " ") for metric in METRICS]
    head = ["keywords by", "page views", "share", *(cell for name in names for cell in (name, "difference"))]
    lines += table(head, [row for what, one in worths for row in search_rows(what, one)])
    lines += ["", "## Examples", "", "Drawn by chance."]
    columns = [name for name in PRODUCERS if name in found["producers"]]
    lines += [
        "",
        *table(
            ["query", *(PRODUCERS[name] for name in columns)],
            [
                [f"`{query}`", *(", ".join(row.get(name) or ["–"]) for name in columns)]
                for query, row in found["examples"]["drawn"].items()
            ],
        ),
    ]
    lines += ["", "## What made the figures", "", f"Machine: {about['machine']}. Run: `{about['config']}`, seed "]
    lines[-1] += f"{about['seed']}. Search measured at commit {about['commit']}, {about['date']}."
    lines += [
        "",
        *table(
            ["producer", "commit", "date"],
            [
                [PRODUCERS[name], ", ".join(one["commit"]), ", ".join(one["date"])]
                for name in PRODUCERS
                if (one := found["producers"].get(name))
            ],
        ),
    ]
    FILES.write_page(lines)


def cost_row(one: Mapping[str, Any]) -> list[str]:
    """A row of the table of costs."""
    asked = one["answered"] + one["set_aside"]
    return [
        one["what"],
        f"`{one['by']}`",
        f"{asked:,}",
        f"{one['answered'] / asked:.1%}",
        f"{one['repaired'] / max(one['answered'], 1):.1%}",
        f"{one['set_aside'] / asked:.1%}",
        f"{one['seconds'] / asked:.3g}",
        f"{one['tokens_out'] / one['seconds']:.1f}" if one["tokens_out"] else "–",
        f"{one['dropped']:,}",
    ]


def search_rows(what: str, one: Mapping[str, Any]) -> list[list[str]]:
    """Rows of the table of searches: query alone, chosen share, half."""
    shares = {QUERY: "query alone", CHOSEN: f"{one['share']:g} (chosen)", HALF: "0.5"}
    rows = []
    for name, share in shares.items():
        row = [what, f"{one['page_views']:,}", share]
        for metric in METRICS:
            row += [f"{one['means'][name][metric]:.4f}", ""]
            if name in one["tests"]:
                row[-1] = difference(one["tests"][name][metric])
        rows.append(row)
    return rows


def difference(test: Mapping[str, float]) -> str:
    """Difference with interval and p."""
    p = "p < 0.0002" if test["p"] < 2e-4 else f"p = {test['p']:.4f}"
    return f"{test['difference']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}], {p}"


def listed(counts: Mapping[str, int]) -> str:
    """Names with counts, most first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda pair: -pair[1]))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", folder, out, name, *most]:
            run(Path(folder), Path(out), name, int(most[0]) if most else None)
        case ["save", folder, out]:
            save(Path(folder), Path(out))
        case ["render"]:
            render()
        case _:
            sys.exit((__doc__ or "").split("\n\n")[1])
