"""Cells of the generator's study: flagship runs of the shipped configurations, and trials of one setting changed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.grid import CELL, METRICS, VALUES, Cell, DataSet, Grid, rounded
from benchmarks.pooled_seeds import joined_figures
from benchmarks.provenance import ROOT
from benchmarks.request_values import Values, save_values
from benchmarks.result_files import ResultFiles
from onesearch import pipeline
from onesearch.common.artefact import MANIFEST, read_json, write_json
from onesearch.evaluation.baselines import BM25, CASCADE, DENSE, FUSED, MOST_CLICKED, POPULAR, TOGETHER
from onesearch.evaluation.evaluate import pool_reports
from onesearch.pipeline import settings_of
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.engine_stage import ONE_MODEL, WITHOUT_GENERATOR, WITHOUT_LEXICAL
from onesearch.pipeline.report_stage import ENGINE_NAME, GENERATOR_ALONE
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stages import SETTINGS
from onesearch.training.training_curves import CurveLog

FILES = ResultFiles("generator")
SIMPLE = (BM25, POPULAR, DENSE, FUSED, MOST_CLICKED, TOGETHER)
"""Baselines without training beyond counts and the text encoder."""
METHODS = (*SIMPLE, CASCADE, GENERATOR_ALONE, ONE_MODEL, WITHOUT_GENERATOR, WITHOUT_LEXICAL, ENGINE_NAME)
TESTED = (
    *(f"click/{metric}" for metric in ("HR@5", "NDCG@5", "HR@10", "MRR@10", "NDCG@10")),
    *("order/HR@10", "order/MRR@10", "ndcg@10"),
)
PAIRS = (
    *((ENGINE_NAME, other) for other in (WITHOUT_GENERATOR, CASCADE, *SIMPLE)),
    *((ONE_MODEL, other) for other in (CASCADE, FUSED, MOST_CLICKED, TOGETHER)),
    (GENERATOR_ALONE, TOGETHER),
)
"""Methods of one run that are tested against each other, where it has both."""
TRIED = (GENERATOR_ALONE, ONE_MODEL, ENGINE_NAME)
"""Methods that a trial is compared by."""

MINUTES = 15
"""What stage 3 of a trial takes at the flagship's speed, at most; twice that where ``times`` is 2."""
TRIAL_REQUESTS = 5000
SHORT, DOUBLE, PAPER = "short", "double", "paper-long"
_KINDS = ("clicked", "lexical", "nearest", "together")
_NO_EVIDENCE = tuple(f"model.prompt.evidence.{kind}=0" for kind in _KINDS)
PAPER_FORM = (
    "model.anchored=false",
    "model.legal_softmax=false",
    "model.item_score=false",
    "model.free_codes=false",
    "model.item_memory=false",
    *_NO_EVIDENCE,
    "model.prompt.item_tokens=sid",
    "model.prompt.query_vector=false",
    "model.prompt.fill=missing",
    "model.prompt.uid=true",
    "model.prompt.long=50",
    "sft3.held_out_vectors=false",
    "sft3.pseudo_share=0",
    "pseudo.searches=0",
    "sft3.frequency_power=1",
)
"""Every deviation of docs/paper_index.md that a setting switches off."""
FLAGSHIP = Cell("flagship", "as shipped")
TRIALS = (
    Cell(SHORT, "as shipped, no longer than a trial"),
    Cell(PAPER, "the paper's form, twice as long", PAPER_FORM, times=2),
    Cell("no-evidence", "no evidence", _NO_EVIDENCE),
    Cell(DOUBLE, "as shipped, twice as long", times=2),
    Cell("paper", "the paper's form", PAPER_FORM),
    Cell("half", "as shipped, half as long", times=0.5),
    *(
        Cell(f"no-{kind}", f"no evidence of the kind {kind}", (one,))
        for kind, one in zip(_KINDS, _NO_EVIDENCE, strict=True)
    ),
    Cell("no-item-score", "no item score", ("model.item_score=false",)),
    Cell("not-anchored", "codebook rows in place of anchored ones", ("model.anchored=false",)),
    Cell("whole-softmax", "softmax over whole codebooks", ("model.legal_softmax=false",)),
    Cell("no-part-dropout", "no dropout of evidence", ("sft3.part_dropout=0",)),
    Cell("no-memory", "no item memory", ("model.item_memory=false",)),
    Cell("memory", "with item memory", ("model.item_memory=true",)),
    Cell("no-free-codes", "no learned logits of codes", ("model.free_codes=false",)),
    Cell("free-codes", "with learned logits of codes", ("model.free_codes=true",)),
    Cell("sid-items", "items of the history as SIDs", ("model.prompt.item_tokens=sid",)),
    Cell("row-items", "items of the history as one token", ("model.prompt.item_tokens=row",)),
)
"""In the order of worth. One whose settings a configuration has already is no cell of its set."""
OF_QUERIES = (
    Cell("no-query-vector", "no query vector", ("model.prompt.query_vector=false",)),
    Cell("not-held-out", "training queries with vectors that have seen them", ("sft3.held_out_vectors=false",)),
    Cell("fill-missing", "clicked items fill missing history alone", ("model.prompt.fill=missing",)),
    Cell("no-pseudo-queries", "no pseudo-queries", ("sft3.pseudo_share=0", "pseudo.searches=0")),
    Cell("no-teacher", "pseudo-queries without a teacher's ranking", ("pseudo.searches=0",)),
    Cell("every-page-view", "every page view drawn alike", ("sft3.frequency_power=1",)),
)
"""Trials that mean something only where shoppers type queries."""
SETS: Mapping[str, DataSet] = {
    "homedepot": DataSet("configs/homedepot.yaml", (FLAGSHIP,), seeds=(11, 12, 13), same_requests=False),
    "market": DataSet("configs/market.yaml", (FLAGSHIP,), seeds=(11, 12, 13), same_requests=False),
    "toys": DataSet("configs/toys.yaml", (FLAGSHIP, *TRIALS), seeds=(0,)),
    "bestbuy": DataSet("configs/bestbuy.yaml", (FLAGSHIP, *TRIALS, *OF_QUERIES), seeds=(1, 2, 3)),
}


@dataclass
class GeneratorGrid(Grid):
    """Flagships are whole runs that share nothing; trials change settings of the flagship of a set's first seed."""

    files: ResultFiles = FILES
    sets: Mapping[str, DataSet] = field(default_factory=lambda: SETS)
    tested: Sequence[str] = TESTED

    def cells(self, prefix: str = "") -> Iterator[tuple[str, int, Cell]]:
        """In the order of worth: a flagship of each set, those of further seeds, then trial by trial.

        Which trials there are is asked when the flagships have been through.
        """
        places = range(max(len(data.seeds) for data in self.sets.values()))
        for name, data, place in ((name, data, place) for place in places for name, data in self.sets.items()):
            if place < len(data.seeds) and f"{name}-{data.seeds[place]}/{FLAGSHIP.name}".startswith(prefix):
                yield name, data.seeds[place], data.cells[0]
        trials = [(number, name, cell) for name in self.sets for number, cell in self._trials(name)]
        for _, name, cell in sorted(trials, key=lambda one: one[0]):
            seed = self.sets[name].seeds[0]
            if f"{name}-{seed}/{cell.name}".startswith(prefix):
                yield name, seed, cell

    def after(self, name: str, seed: int, cell: Cell) -> str:
        """Trials take stages over from the flagship, and their epochs from its speed.

        Where its run is gone, its record in the repository tells the epochs, and the first trial makes the stages.
        """
        return "" if cell.name == FLAGSHIP.name or self._record(name, seed) else FLAGSHIP.name

    def pairs(self, data: DataSet) -> list[tuple[str, str]]:
        """Methods of the flagship against each other, and each trial against the shipped run that is as long."""
        found = [(f"{FLAGSHIP.name}/{a}", f"{FLAGSHIP.name}/{b}") for a, b in PAIRS]
        for cell in data.cells[1:]:
            if cell.name != SHORT:
                found += [(f"{cell.name}/{method}", f"{compared_with(cell.name)}/{method}") for method in TRIED]
        return found

    def save(self) -> None:
        """As :meth:`Grid.save`; with the figures of flagships pooled over their seeds, and what is still to be run."""
        super().save()
        kept = self.files.figures()
        pooled = dict(kept.get("pooled", {}))
        for name, data in self.sets.items():
            seeds = [seed for seed in data.seeds if self.finished(name, seed, FLAGSHIP.name)]
            cells = [kept["cells"][f"{name}-{seed}/{FLAGSHIP.name}"] for seed in seeds]
            methods = [method for method in METHODS if cells and all(method in cell["methods"] for cell in cells)]
            reports = [self._report(name, seed, [f"{FLAGSHIP.name}/{one}" for one in methods]) for seed in seeds]
            if methods:
                joined = pool_reports([one for one in reports if one], (), data.same_requests, METRICS).to_json()
                figures = {method.partition("/")[2]: rounded(row) for method, row in joined["methods"].items()}
                fresh = {"seeds": seeds, "requests": joined["requests"], "methods": figures}
                pooled[name] = fresh if data.same_requests else joined_figures(pooled.get(name, {}), fresh)
        still = {
            f"{name}-{seed}/{cell.name}": cell.what
            for name, seed, cell in self.cells()
            if f"{name}-{seed}/{cell.name}" not in kept["cells"]
        }
        self.files.write_figures({**kept, "pooled": pooled, "open": still})

    def _trials(self, name: str) -> Iterator[tuple[int, Cell]]:
        """Trials of a set with their places, without those whose settings the flagship or an earlier trial has."""
        base, sets = self._shipped(name, self.sets[name].seeds[0])
        seen = [(1.0, load_settings(RunSettings, base, sets))]
        for number, cell in enumerate(self.sets[name].cells[1:]):
            one = (cell.times, load_settings(RunSettings, base, (*sets, *cell.sets)))
            if not cell.sets or one not in seen:
                seen.append(one)
                yield number, cell

    def _sets(self, name: str, seed: int, cell: Cell | None = None) -> tuple[str, ...]:
        if cell is None or cell.name == FLAGSHIP.name:
            return (*self.sets[name].sets, *self.more, f"seed={seed}")
        base, more = self._shipped(name, seed)
        shipped, flagship = load_settings(RunSettings, base, more), self.folder(name, seed, FLAGSHIP.name)
        if (flagship / SETTINGS).is_file():
            whole, seconds = shipped.sft3.epochs, stage_seconds(flagship / "sft3")
        else:
            record = self._record(name, seed)
            whole, seconds = record["epochs"], record["seconds"]["sft3"]
        epochs = whole * min(1.0, 60 * MINUTES / max(seconds, 1e-9)) * cell.times
        requests = min(TRIAL_REQUESTS, shipped.evaluation.test_requests)
        return (*more, f"seed={seed}", *cell.sets, f"sft3.epochs={epochs:.3g}", f"evaluation.test_requests={requests}")

    def _shipped(self, name: str, seed: int) -> tuple[Path, tuple[str, ...]]:
        """Where the flagship's settings are, as it ran, whatever the configuration says by now; else that one."""
        run = self.folder(name, seed, FLAGSHIP.name) / SETTINGS
        return (run, ()) if run.is_file() else (ROOT / self.sets[name].config, (*self.sets[name].sets, *self.more))

    def _record(self, name: str, seed: int) -> dict[str, Any]:
        """What the repository says of a flagship; empty where it says nothing."""
        record: dict[str, Any] = self.files.figures().get("cells", {}).get(f"{name}-{seed}/{FLAGSHIP.name}", {})
        return record

    def _train(self, name: str, seed: int, cell: Cell) -> None:
        folder, sets = self.folder(name, seed, cell.name), self._sets(name, seed, cell)
        if cell.name == FLAGSHIP.name:
            pipeline.run_config(ROOT / self.sets[name].config, folder, sets, until="report")
        else:
            runs = [self.folder(name, seed, other) for other in (FLAGSHIP.name, SHORT)]
            others = [run for run in runs if run != folder and (run / SETTINGS).is_file()]
            pipeline.run_config(self._shipped(name, seed)[0], folder, sets, reuse=others, until="report")

    def _measure(self, name: str, seed: int, cell: Cell) -> None:
        folder = self.folder(name, seed, cell.name)
        report, config = read_json(folder / "report" / "report.json"), settings_of(folder)
        methods = [one for one in report["methods"] if cell.name == FLAGSHIP.name or one in TRIED]
        # Values of single requests, which the report has in columns "method|metric".
        values: Values = {}
        for column in pl.read_parquet(folder / "report" / "values.parquet"):
            method, _, metric = column.name.partition("|")
            if method in methods and metric in TESTED:
                values.setdefault(method, {})[metric] = column.to_numpy()
        save_values(folder / VALUES, values, {})
        # What made them, stage by stage; a stage taken over costs nothing here.
        found = {path.parent.name: read_json(path) for path in folder.glob(f"*/{MANIFEST}")}
        trained, batch = found["sft3"]["metrics"], config.sft3.batch_size * config.sft3.loop.accumulate
        curve = [one for one in CurveLog(folder / "sft3" / "log.jsonl").records() if "valid/hr10" in one]
        about = {
            **self._provenance(name, seed, cell),
            **{key: report[key] for key in ("requests", "level")},
            **{key: {method: report[key][method] for method in methods} for key in ("methods", "milliseconds")},
            "slices": {},
            "sizes": {key: one for key, one in found["data"]["metrics"].items() if isinstance(one, int | str)},
            "epochs": config.sft3.epochs,
            "samples": trained["steps"] * batch,
            "seconds": {
                stage: 0.0 if "taken_over_from" in manifest else stage_seconds(folder / stage)
                for stage, manifest in found.items()
            },
            "valid_sid_share": report["notes"]["valid_sid_share_without_constraint"],
            "curve": [[one["step"] * batch, rounded(one["valid/hr10"]), rounded(one["valid/mrr10"])] for one in curve],
        }
        write_json(folder / CELL, about)
        rows = {method: report["methods"][method] for method in TRIED}
        said = (
            f"{method} {row['click/HR@10']['mean']:.4f} {row['click/MRR@10']['mean']:.4f}"
            for method, row in rows.items()
        )
        print(f"{name}-{seed}/{cell.name}, click HR@10 and MRR@10: {', '.join(said)}", flush=True)


def compared_with(trial: str) -> str:
    """The shipped run that a trial is compared with: the one that is trained for as many epochs."""
    return DOUBLE if trial == PAPER else SHORT


def stage_seconds(stage: Path) -> float:
    """Seconds that a finished stage took; a training that was killed in between counts from its first start on."""
    trained: list[dict[str, Any]] = CurveLog(stage / "log.jsonl").records()
    logged = max((one["seconds"] for one in trained if "seconds" in one), default=0.0)
    return max(float(read_json(stage / MANIFEST)["seconds"]), float(logged))
