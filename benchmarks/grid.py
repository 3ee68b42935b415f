"""Studies of cells: each is a run that takes shared stages over, trains its own last ones, and is measured."""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.direct_cot import write_keywords
from benchmarks.pooled_seeds import joined_tests
from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.request_values import Values, load_values, save_values
from benchmarks.result_files import ResultFiles
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.common.run_lock import RunLock, RunLockedError
from onesearch.data.text import normalise_query
from onesearch.evaluation.evaluate import (
    MeasureSettings,
    build_report,
    pool_reports,
    rank_all,
    sampled_metrics,
    valid_sid_share,
)
from onesearch.evaluation.report import Report
from onesearch.evaluation.slices import band_labels, query_frequency, query_type
from onesearch.market.market import Market
from onesearch.market.world_files import FOLDER as MARKET_FOLDER
from onesearch.pipeline import settings_of
from onesearch.pipeline.engine_stage import WITHOUT_GENERATOR
from onesearch.pipeline.report_stage import engine_methods, engine_of, truth_of
from onesearch.pipeline.run_data import RunData
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import GENERATOR_ALONE
from onesearch.search.run_parts import need
from onesearch.understanding.thought_table import Thoughts

FILES = ResultFiles("v2_distillation")
CELL, VALUES = "cell.json", "request_values.npz"
"""Figures of a cell and values of its single requests, in its run folder; a cell that has the first is finished."""
METRICS = MeasureSettings(k=(10,), resamples=1000, flips=10_000)
SAMPLED = ("click/HR@10", "click/MRR@10", "order/HR@10", "order/MRR@10")
SHARED = ("data", "encoder", "khqe", "index", "lexical", "sft1", "sft2", "sft3", "understanding", "cot")
TESTED = (*SAMPLED, "ehr@10", "ndcg@10")  # metrics whose values are kept by request
COMPLEX = ("complexity", "complex")
RARE = ("complex, by query frequency", "unseen")
HEAD = ("query frequency", "16+")
KEPT_TESTS = (None, COMPLEX, RARE, HEAD)
"""Slices whose paired tests the pages show; None for all requests."""
NEED_WORDS = ((0, "0-7"), (8, "8-63"), (64, "64+"))
PLAIN_CE = ("distill.r_drop=0", "distill.fgm=0", "distill.focal=false")


@dataclass(frozen=True)
class Cell:
    """One training and what it is measured with.

    Attributes:
        name: of the cell.
        what: for the table.
        sets: settings that differ from the configuration file.
        seeds: that the cell is trained with.
        stage: whose generator is measured.
        measured: variants: "student"; "keywords" at the input; "own" keywords, written by the model first; "engine";
            the engine "without" its generator.
        same_time_as: epochs are raised until training takes as long as the stages of that cell.
        epochs_of: epochs are those of that cell, whose V1 is taken over.
        times: epochs of stage 3, as a multiple of the other cells'.
    """

    name: str
    what: str
    sets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    stage: str = "distill"
    measured: tuple[str, ...] = ("student",)
    same_time_as: str = ""
    epochs_of: str = ""
    times: float = 1.0


THREE, NEW = (1, 2, 3), (21, 22)
ENGINES = ("student", "engine", "without")
MARKET = (
    Cell("v1", "V1", seeds=THREE, stage="sft3", measured=("student", "engine")),
    Cell("sd", "+ self-distillation", PLAIN_CE, THREE, measured=("student", "keywords")),
    Cell("full", "full V2 (+ R-Drop, FGM, focal)", (), THREE, measured=("student", "keywords", "engine")),
    Cell("rag", "keywords at the input (RAG)", ("distill.keywords=input",), measured=("student", "keywords", "own")),
    Cell("cot", "+ CoT tasks", ("distill.keywords=none",), THREE),
    Cell("placebo", "full V2, keywords shuffled between queries", ("distill.shuffle=true",)),
    Cell("no-kl", "full V2 with teacher CE, without KL", ("distill.kl=0", "distill.row=0")),
    Cell("v1-time", "V1 trained as long as full V2", stage="sft3", same_time_as="full"),
    Cell("sd-long", "self-distillation for as many epochs", PLAIN_CE, epochs_of="v1-time"),
    Cell("no-teacher-ce", "full V2 without teacher CE", ("distill.teacher_ce=0",)),
    Cell(
        "published",
        "the published setting",
        (
            "distill.teacher_ce=0",
            "distill.kl=0.1",
            "distill.row=0",
            "distill.teach=all",
            "distill.inject=true",
            "distill.personal=true",
        ),
    ),
    Cell("kl-only", "self-distillation by the KL alone, no rows of words", (*PLAIN_CE, "distill.row=0")),
    Cell("row-only", "self-distillation by rows of words alone, no KL", (*PLAIN_CE, "distill.kl=0")),
    Cell("r-drop", "self-distillation + R-Drop", ("distill.fgm=0", "distill.focal=false")),
    Cell("fgm", "self-distillation + FGM", ("distill.r_drop=0", "distill.focal=false")),
    Cell("focal", "self-distillation + focal", ("distill.r_drop=0", "distill.fgm=0")),
    Cell("think", "special reasoning token", (*PLAIN_CE, "distill.think=1")),
    Cell("codi", "CODI: L1 of hidden states for KL", (*PLAIN_CE, "distill.kl=0", "distill.hidden=1")),
    Cell("ema", "EMA teacher", (*PLAIN_CE, "distill.ema=0.99")),
    Cell("joint", "teacher and student trained jointly", (*PLAIN_CE, "distill.detach=false")),
    Cell("error-0", "self-distillation, stand-in without error", (*PLAIN_CE, "understanding.error=0")),
    Cell("error-30", "self-distillation, stand-in with 30 % error", (*PLAIN_CE, "understanding.error=0.3")),
    Cell("log-expert", "self-distillation, log expert", (*PLAIN_CE, "understanding.producer=log-expert")),
    Cell("inject", "self-distillation, clicked item injected", (*PLAIN_CE, "distill.inject=true")),
    Cell("personal", "self-distillation, personalised keywords", (*PLAIN_CE, "distill.personal=true")),
    Cell(
        "personal-llm",
        "self-distillation, keywords personalised by the language model",
        (*PLAIN_CE, "distill.personal=true", "understanding.calibrate=40000"),
    ),
)
FRESH = (
    Cell("v1", "V1", seeds=NEW, stage="sft3", measured=ENGINES),
    Cell("full", "full V2", (), NEW, measured=ENGINES),
    Cell("row-only", "rows of words alone, no KL", (*PLAIN_CE, "distill.kl=0"), NEW, measured=ENGINES),
    Cell("kl-only", "the KL alone, no rows of words", (*PLAIN_CE, "distill.row=0"), NEW, measured=ENGINES),
    Cell("v1-long", "V1, twice as long", ("sft3.epochs=2",), NEW, "sft3", ENGINES),
    Cell(
        "kl-long",
        "the KL alone, twice as long",
        (*PLAIN_CE, "distill.row=0", "sft3.epochs=2"),
        NEW,
        measured=(*ENGINES, "keywords"),
    ),
)
"""What of V2 is expansion of the query by rows of words, and what distillation, in the shipped form."""
REAL = (
    Cell("v1", "V1", seeds=THREE, stage="sft3", measured=("student", "engine")),
    Cell("full", "full V2, log expert", (), THREE, measured=("student", "engine")),
)
PRODUCERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "log-expert": ("log expert", ("understanding.producer=log-expert",)),
    "encoder": (
        "sentence encoder",
        ("understanding.producer=encoder", "understanding.encoder=${ONESEARCH_ENCODER}"),
    ),
    "llm": (
        "language model",
        (
            "understanding.producer=llm-keywords",
            "understanding.model=${ONESEARCH_LLM_MODEL}",
            "understanding.max_calls=0",
            "understanding.cache=${ONESEARCH_THOUGHTS}",
        ),
    ),
}
"""Who thinks in the cells of ``thinkers``: what it is called, and settings, with variables of the environment."""
READING = ("student", "keywords", "engine")
THINKERS = (
    Cell("v1", "V1", seeds=(11,), stage="sft3", measured=("student", "engine")),
    *(
        Cell(f"{form}-{name}", f"{what}, {who}", (*sets, *more), (11,), measured=READING)
        for name, (who, sets) in PRODUCERS.items()
        for form, what, more in (
            ("rag", "keywords at the input (RAG)", ("distill.keywords=input",)),
            ("full", "full V2", ()),
        )
    ),
    Cell(
        "placebo-llm",
        "full V2, keywords of another query, language model",
        (*PRODUCERS["llm"][1], "distill.shuffle=true"),
        (11,),
        measured=("student",),
    ),
)


@dataclass(frozen=True)
class DataSet:
    """A configuration file with the settings that every cell on it shares.

    ``same_requests``: all seeds have one test part, so that they are pooled request by request; else each seed's
    requests are a sample of their own.
    """

    config: str
    cells: tuple[Cell, ...]
    sets: tuple[str, ...] = ()
    seeds: tuple[int, ...] = THREE
    same_requests: bool = True


_LOG_EXPERT = (
    "understanding.producer=log-expert",
    "distill.teach=all",
    "evaluation.baselines=false",
    "cot.steps=60",
    "cot.batch_size=128",
    "distill.cot=0.1",
    "model.word_rows=true",
    "sft3.loop.learning_rates={generator.word_: 5}",
)
PLAIN_PROMPT = (
    *(f"model.prompt.evidence.{kind}=0" for kind in ("clicked", "lexical", "nearest", "together")),
    "model.prompt.item_tokens=sid",
    "model.prompt.short=3",
    "model.prompt.clicked_for_query=3",
    "model.prompt.fill=always",
    "model.free_codes=false",
    "model.item_memory=false",
)
"""The form in which the cells of ``market`` were trained: no evidence at the input."""
SETS: Mapping[str, DataSet] = {
    "fresh": DataSet("configs/market-v2.yaml", FRESH, seeds=NEW, same_requests=False),
    "market": DataSet("configs/market-v2.yaml", MARKET, PLAIN_PROMPT),
    # One epoch of three, for V1 as well: a cell has at most twenty minutes.
    "bestbuy": DataSet("configs/bestbuy.yaml", REAL, (*_LOG_EXPERT, "sft3.epochs=1")),
    "homedepot": DataSet("configs/homedepot.yaml", REAL, _LOG_EXPERT, (1,)),
    "thinkers": DataSet("configs/homedepot.yaml", THINKERS, _LOG_EXPERT, (11,), same_requests=False),
}
SMOKE = (
    "data.market.items=300",
    "data.market.users=60",
    "data.market.page_views=900",
    "data.test=0.2",
    "encoder.align.epochs=1",
    "khqe.layers=[16,8,8]",
    "khqe.opq_size=16",
    "model.backbone.d_model=16",
    "model.backbone.ffn=32",
    "sft1.steps=2",
    "sft2.steps=2",
    "sft1.batch_size=8",
    "sft2.batch_size=8",
    "sft3.epochs=0.05",
    "cot.steps=2",
    "sft3.batch_size=16",
    "cot.batch_size=8",
    "search.width=4",
    "model.text_vocabulary=400",
)
"""Settings of a smoke test, whose figures mean nothing."""


@dataclass
class Grid:
    """The cells below a folder; ``more`` settings hold for all of them.

    A cell's figures and the values of its requests lie in its run folder; :meth:`save` takes what the page shows into
    the repository.
    """

    runs: Path
    more: tuple[str, ...] = ()
    files: ResultFiles = FILES
    sets: Mapping[str, DataSet] = field(default_factory=lambda: SETS)
    tested: Sequence[str] = TESTED

    def cells(self, prefix: str = "") -> Iterator[tuple[str, int, Cell]]:
        """Data set, seed and cell in the order of work: what the main table needs comes first."""
        for name, data in self.sets.items():
            for seed in data.seeds:
                for cell in data.cells:
                    if seed in cell.seeds and f"{name}-{seed}/{cell.name}".startswith(prefix):
                        yield name, seed, cell

    def folder(self, name: str, seed: int, cell: str) -> Path:
        """Run folder of a cell, or of what a data set's cells share ("base")."""
        return self.runs / f"{name}-{seed}" / cell

    def finished(self, name: str, seed: int, cell: str) -> bool:
        """Whether a cell has been measured."""
        return (self.folder(name, seed, cell) / CELL).is_file()

    def run(self, prefix: str = "") -> None:
        """Train and measure every unfinished cell; one that another process works on is left to it.

        Raises:
            SystemExit: a cell failed. It does not keep the others from being made first.
        """
        failed = []
        for name, seed, cell in self.cells(prefix):
            if self.finished(name, seed, cell.name):
                continue
            first = self.after(name, seed, cell)
            if first and not self.finished(name, seed, first):
                print(f"{name}-{seed}/{cell.name} waits for {first}", flush=True)
                continue
            try:
                with RunLock(self.folder(name, seed, f"{cell.name}.work")):
                    self._train(name, seed, cell)
                    self._measure(name, seed, cell)
            except RunLockedError as error:
                print(f"{name}-{seed}/{cell.name}: {error}", flush=True)
            except Exception:  # noqa: BLE001 - whatever it died of, the cells after it are independent of it
                traceback.print_exc()
                failed.append(f"{name}-{seed}/{cell.name}")
        if failed:
            raise SystemExit(f"failed: {', '.join(failed)}")

    def after(self, name: str, seed: int, cell: Cell) -> str:
        """The cell that must be finished before; "" for none."""
        return cell.same_time_as or cell.epochs_of

    def _sets(self, name: str, seed: int, cell: Cell | None = None) -> tuple[str, ...]:
        data = self.sets[name]
        # Seeds are those of training alone where data, encoder and SIDs are made once.
        seeds = ("seed=1", f"training_seed={seed}") if data.same_requests else (f"seed={seed}",)
        sets = (*data.sets, *self.more, *seeds, *(cell.sets if cell else ()))
        if not self._is_market(name):
            return sets
        # Thoughts are made once for all trainings on a market: a query's error belongs to its thought.
        error = next((one.partition("=")[2] for one in sets if one.startswith("understanding.error")), "default")
        market = "" if data.same_requests else f"{name}-{seed}-"
        return (*sets, f"understanding.cache={self.runs.absolute() / f'thoughts-{market}{error}.sqlite3'}")

    def _is_market(self, name: str) -> bool:
        return "market" in self.sets[name].config

    def _train(self, name: str, seed: int, cell: Cell) -> None:
        config, base = ROOT / self.sets[name].config, self.folder(name, seed, "base")
        # What a cell's record shows has variables of the environment, and no paths of this machine.
        every, sets = (tuple(map(os.path.expandvars, self._sets(name, seed, one))) for one in (None, cell))
        shared, reuse = pipeline.status_of(config, base, every), [base]
        if any(shared[stage] != "finished" for stage in SHARED):
            first = (self.folder(name, 1, "base"),) if self.sets[name].same_requests and seed != 1 else ()
            pipeline.run_config(config, base, every, reuse=first, until="cot")
        if cell.epochs_of:
            reuse.append(self.folder(name, seed, cell.epochs_of))
            sets = (*sets, f"sft3.epochs={settings_of(reuse[-1]).sft3.epochs}")
        if cell.same_time_as:
            other, v1 = self.folder(name, seed, cell.same_time_as), base / "sft3"
            spent = sum(read_json(other / stage / "manifest.json")["seconds"] for stage in ("cot", "distill"))
            epochs = settings_of(base).sft3.epochs * spent / read_json(v1 / "manifest.json")["seconds"]
            sets = (*sets, f"sft3.epochs={epochs:.2f}")
        pipeline.run_config(config, self.folder(name, seed, cell.name), sets, reuse=reuse, until=until_of(cell))

    def _measure(self, name: str, seed: int, cell: Cell) -> None:
        folder = self.folder(name, seed, cell.name)
        run_data, config = RunData(folder), settings_of(folder)
        page_views = run_data.split.test
        if len(page_views) > config.evaluation.test_requests:
            some = np.random.default_rng(0).choice(len(page_views), config.evaluation.test_requests, replace=False)
            page_views = page_views[np.sort(some)]
        requests, targets = run_data.requests(page_views), run_data.targets(page_views)
        truth = truth_of(run_data, page_views)
        values: Values = {}
        milliseconds: dict[str, float] = {}
        share = float("nan")
        for variant, engine in engines(run_data, cell):
            searcher = engine if variant in ("engine", "without") else engine.alone()
            ranked, milliseconds[variant] = rank_all(searcher, requests, 10)
            sampled = sampled_metrics(ranked, targets, METRICS.k)
            row = {key: one for key, one in sampled.items() if key in SAMPLED}
            row |= {key: np.asarray(one, np.float32) for key, one in (truth(ranked) if truth else {}).items()}
            values[variant] = row
            if variant == "student":
                share = valid_sid_share(engine, requests, 1000)
        labels = labels_of(run_data, page_views)
        kept = {variant: {m: one for m, one in row.items() if m in TESTED} for variant, row in values.items()}
        save_values(folder / VALUES, kept, labels)
        report = build_report(values, labels, (), METRICS, milliseconds)
        stages = ("sft3",) if cell.stage == "sft3" else ("cot", "distill", "dpo", "grpo")
        made = [stage for stage in stages if (folder / stage / "manifest.json").is_file()]
        manifests = {stage: read_json(folder / stage / "manifest.json") for stage in made}
        seconds = {stage: found["seconds"] for stage, found in manifests.items()}
        chosen = {stage: found["metrics"].get("chosen_step") for stage, found in manifests.items()}
        about = {
            **self._provenance(name, seed, cell),
            "requests": len(page_views),
            "training_seconds": seconds,
            "epochs": config.sft3.epochs,
            "valid_sid_share": share,
            "chosen_step": {stage: step for stage, step in chosen.items() if step is not None},
            "log": last_terms(folder / cell.stage / "log.jsonl"),
        }
        figures = report.to_json()
        write_json(folder / CELL, {**about, **{key: figures[key] for key in ("methods", "milliseconds", "slices")}})
        print(f"{name}-{seed}/{cell.name}: {headline(report)}", flush=True)

    def _provenance(self, name: str, seed: int, cell: Cell) -> dict[str, Any]:
        """What cell it is, and what made it."""
        return {
            "cell": cell.name,
            "what": cell.what,
            "data": name,
            "seed": seed,
            "command": f"python -m benchmarks.{self.files.name} run RUNS {name}-{seed}/{cell.name}",
            "config": self.sets[name].config,
            "sets": [one.replace(str(self.runs.absolute()), "RUNS") for one in self._sets(name, seed, cell)],
            "commit": commit(),
            "date": today(),
            "machine": machine(),
        }

    def pairs(self, data: DataSet) -> list[tuple[str, str]]:
        """Which methods are tested against which."""
        return pairs(data)

    def save(self) -> None:
        """Take finished cells into the repository, with paired tests per pair, pooled over the seeds that both have.

        What the repository has of cells and pairs that these runs lack stays as it is, and what it has of other seeds
        joins theirs (:mod:`benchmarks.pooled_seeds`).
        """
        kept = self.files.figures()
        cells = {
            f"{name}-{seed}/{cell.name}": shown(read_json(self.folder(name, seed, cell.name) / CELL), self.tested)
            for name, seed, cell in self.cells()
            if self.finished(name, seed, cell.name)
        }
        tests = {}
        for name, data in self.sets.items():
            for pair in self.pairs(data):
                reports = {seed: self._report(name, seed, pair) for seed in data.seeds}
                found = {seed: report for seed, report in reports.items() if report is not None}
                if found:
                    joined = pool_reports(list(found.values()), (pair,), data.same_requests, METRICS)
                    tested = [one for one in joined.to_json()["comparisons"] if is_shown(one)]
                    key, fresh = f"{name}: {pair[0]} - {pair[1]}", {"seeds": list(found), "tests": tested}
                    same = data.same_requests  # one test part: seeds are no samples of their own
                    tests[key] = fresh if same else joined_tests(kept.get("tests", {}).get(key, {}), fresh)
        self.files.write_figures(
            {**kept, "cells": {**kept.get("cells", {}), **cells}, "tests": {**kept.get("tests", {}), **tests}}
        )

    def _report(self, name: str, seed: int, methods: Sequence[str]) -> Report | None:
        """Methods ("cell/variant") on the same requests, to be pooled; None where one has not been measured."""
        values: Values = {}
        labels: dict[str, NDArray[Any]] = {}
        for method in methods:
            cell, variant = method.split("/")
            path = self.folder(name, seed, cell) / VALUES
            if not path.is_file():
                return None
            found, labels = load_values(path)
            if variant not in found:
                return None
            values[method] = found[variant]
        return build_report(values, labels, (), METRICS.updated(resamples=1))  # nobody reads these intervals


def shown(cell: dict[str, Any], tested: Sequence[str]) -> dict[str, Any]:
    """A cell's figures without intervals of slices and what else no page shows."""
    methods = {
        variant: {metric: rounded(figure) for metric, figure in row.items() if metric in tested}
        for variant, row in cell["methods"].items()
    }
    slices = {
        dimension: {
            group: {
                "requests": part["requests"],
                "methods": {
                    variant: {metric: {"mean": rounded(row[metric]["mean"])} for metric in tested if metric in row}
                    for variant, row in part["methods"].items()
                },
            }
            for group, part in groups.items()
        }
        for dimension, groups in cell["slices"].items()
    }
    return {**cell, "methods": methods, "slices": slices}


def is_shown(test: dict[str, Any]) -> bool:
    """Whether a page shows the paired test of a slice."""
    return (tuple(test["slice"]) if test["slice"] else None) in KEPT_TESTS


def rounded(value: Any) -> Any:
    """The numbers of a figure with eight significant digits."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    return float(f"{value:.8g}") if isinstance(value, float) else value


def engine_stage(cell: Cell) -> str:
    """The stage of a cell's engine."""
    return "engine" if cell.stage == "sft3" else "engine_v2"


def until_of(cell: Cell) -> str:
    """The last stage that a cell needs."""
    return engine_stage(cell) if "engine" in cell.measured else cell.stage


def pairs(data: DataSet) -> list[tuple[str, str]]:
    """Which methods are tested against which."""
    names = [f"{cell.name}/student" for cell in data.cells]
    found = [(name, "v1/student") for name in names if name != "v1/student"]
    if data.cells is FRESH:
        found += [(f"{cell.name}/{kind}", f"v1/{kind}") for cell in data.cells[1:] for kind in ENGINES[1:]]
        found += [(f"{cell.name}/engine", f"{cell.name}/without") for cell in data.cells]
        found += [(f"kl-long/{kind}", f"v1-long/{kind}") for kind in ENGINES]
        return [*found, ("kl-long/keywords", "v1-long/student"), ("full/engine", "row-only/engine")]
    if data.cells is THINKERS:
        read = [f"{cell.name}/keywords" for cell in data.cells if "keywords" in cell.measured]
        found += [(name, "v1/student") for name in read]
        found += [("full-llm/student", "placebo-llm/student")]
        return [*found, *((f"{name.split('/')[0]}/engine", "v1/engine") for name in read)]
    found += [("full/engine", "v1/engine")]
    if data.cells is MARKET:
        found += [("full/student", name) for name in names if name not in ("v1/student", "full/student")]
        found += [(name, "sd/student") for name in names if name not in ("v1/student", "sd/student", "full/student")]
        found += [
            ("rag/keywords", "v1/student"),
            ("rag/own", "rag/keywords"),
            ("full/student", "rag/keywords"),
            ("full/keywords", "full/student"),
            ("sd/keywords", "sd/student"),
            ("sd/student", "rag/keywords"),
            ("rag/own", "v1/student"),
            ("rag/keywords", "cot/student"),
            ("sd-long/student", "v1-time/student"),
            ("sd/student", "cot/student"),
            ("sd/keywords", "cot/student"),
            ("full/keywords", "cot/student"),
            ("rag/own", "cot/student"),
        ]
    return found


def engines(run_data: RunData, cell: Cell) -> Iterator[tuple[str, SearchEngine]]:
    """The engines that a cell is measured with, by variant."""
    config = settings_of(run_data.run)
    keywords: Callable[[Sequence[str]], Sequence[Sequence[str]]] | None = None
    for variant in cell.measured:
        if variant in ("engine", "without"):
            folder = need(run_data.run, engine_stage(cell))
            engine = engine_of(run_data, folder)
            yield variant, engine if variant == "engine" else engine_methods(engine, folder)[WITHOUT_GENERATOR]
            continue
        engine = SearchEngine.from_parts(run_data, cell.stage, config.search, GENERATOR_ALONE)
        if variant == "keywords":
            thoughts = Thoughts.load(need(run_data.run, "understanding"))
            keywords = lambda queries, known=thoughts: known.taught_keywords(queries, config.distill.teach)  # noqa: E731
        elif variant == "own":
            keywords = own_keywords(run_data, engine)
        else:
            keywords = None
        engine.keywords = keywords
        yield variant, engine


def own_keywords(run_data: RunData, engine: SearchEngine) -> Callable[[Sequence[str]], Sequence[Sequence[str]]]:
    """What the model itself writes before it searches, for queries that its training would have given keywords."""
    thoughts = Thoughts.load(need(run_data.run, "understanding"))
    builder, kept = engine.snapshot.builder, {}

    def of(queries: Sequence[str]) -> list[tuple[str, ...]]:
        has = [len(row) > 0 for row in thoughts.taught_keywords(queries, settings_of(run_data.run).distill.teach)]
        new = sorted({query for query, known in zip(queries, has, strict=True) if known and query not in kept})
        if new:
            kept.update(zip(new, write_keywords(engine.generator, engine.featurizer, builder, new), strict=True))
        return [kept[query][:8] if known else () for query, known in zip(queries, has, strict=True)]

    return of


def labels_of(run_data: RunData, page_views: Any) -> dict[str, NDArray[Any]]:
    """Slices: complex or plain, query type, query frequency, and how often the rarest word of need was seen."""
    queries = page_views["query"].fill_null("").to_list()
    labels: dict[str, NDArray[Any]] = {
        "query frequency": query_frequency(queries, run_data.split.train["query"].fill_null("").to_list()),
    }
    data = need(run_data.run, "data")
    if not (data / MARKET_FOLDER).is_dir():
        return labels
    market = Market.load(data)
    kinds = query_type(page_views)
    labels["query type"] = kinds
    is_complex = kinds != "plain"
    labels["complexity"] = np.where(is_complex, "complex", "plain").astype(object)
    labels["complex, by query frequency"] = np.where(is_complex, labels["query frequency"], "").astype(object)
    known = market.truth.queries
    topics, traits = known.topic, known.predicates - len(market.truth.catalogue.value_names)
    trained = market.query_rows([normalise_query(q) for q in run_data.split.train["query"].fill_null("").to_list()])
    rows = market.query_rows([normalise_query(q) for q in queries])
    uses = np.full(len(queries), np.inf)
    for column in (topics[:, None], np.where(known.kind[:, None] > 0, traits, -1)):
        for words in column.T:
            seen = words[trained]
            counts = np.bincount(seen[seen >= 0], minlength=int(words.max(initial=0)) + 1)
            asked = words[rows]
            uses = np.where(asked >= 0, np.minimum(uses, counts[np.maximum(asked, 0)]), uses)
    found = band_labels(np.where(np.isfinite(uses), uses, np.nan), NEED_WORDS)
    labels["rarest need word, uses in training"] = np.where(is_complex, found, "").astype(object)
    return labels


def last_terms(path: Path) -> dict[str, float]:
    """The loss terms of the last line of a training log."""
    terms: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        found = {k: v for k, v in json.loads(line).items() if "/" in k and not k.startswith("valid")}
        terms = found or terms
    return terms


def headline(report: Report) -> str:
    """The main figures of a cell in one line."""
    parts = {"all": report.methods, **{k: v.methods for k, v in report.slices.get("complexity", {}).items()}}
    shown = ("click/HR@10", "click/MRR@10", "ehr@10", "ndcg@10")
    out = []
    for part, rows in parts.items():
        for method, row in rows.items():
            out.append(f"{method} {part}: " + " ".join(f"{m} {row[m].mean:.4f}" for m in shown if m in row))
    return "; ".join(out)


def main(arguments: list[str], grid: Grid, render: Callable[[], None], usage: str) -> None:
    """The commands ``run``, ``list``, ``save`` and ``render`` of a study."""
    if arguments[:1] == ["render"]:
        render()
        return
    if len(arguments) < 2 or arguments[0] not in ("run", "list", "save"):
        sys.exit(usage.split("\n\n")[1])
    grid.runs = Path(arguments[1])
    if arguments[0] == "save":
        grid.save()
    elif arguments[0] == "run":
        start = time.time()
        grid.run(*arguments[2:3])
        print(f"done after {(time.time() - start) / 60:.0f} minutes", flush=True)
    else:
        for name, seed, cell in grid.cells(*arguments[2:3]):
            print("done" if grid.finished(name, seed, cell.name) else "open", f"{name}-{seed}/{cell.name}", cell.what)
