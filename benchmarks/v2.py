"""What preference alignment brings after V2's supervised training: a grid of cells as in ``v2_distillation.py``.

    python -m benchmarks.v2 run RUNS [DATASET-SEED/CELL]     # the same RUNS folder: cells go on from its cell "full"
    python -m benchmarks.v2 list RUNS
    python -m benchmarks.v2 save RUNS
    python -m benchmarks.v2 render                           # docs/results/v2.md

``save`` takes what the page shows into ``docs/results/v2.json``; values of single requests stay in RUNS.

Main metrics, declared before the first run: order and click HR@10 and MRR@10 of the generator alone over all requests.
"""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.grid import CELL, NEW, PLAIN_CE, SAMPLED, THREE, VALUES, Cell, DataSet, Grid, main, until_of
from benchmarks.grid import SETS as STUDIED
from benchmarks.grid import Grid as Distillation
from benchmarks.provenance import ROOT
from benchmarks.result_files import ResultFiles
from benchmarks.v2_distillation_page import Page, above, effects, figures, provenance, slices, verdict
from onesearch import pipeline
from onesearch.common.artefact import read_json, write_json
from onesearch.pipeline import settings_of

FILES = ResultFiles("v2")
STEPS = 200
_GUARD = ("validate_requests=3000", "loop.learning_rate=1e-3", "loop.validate_steps=50")
GRPO = (f"grpo.steps={STEPS}", *(f"grpo.{one}" for one in _GUARD))
TPMA = (*GRPO, "grpo.item_weight=0")
DPO = ("dpo.steps=100", *(f"dpo.{one}" for one in _GUARD))
BEFORE, LONG = "full", "sd-long"
REUSED = {"v1": "v1", "before": BEFORE, "long": LONG}
"""Cells that the distillation study has trained and measured, under its names."""
BOTH = ("student", "engine")
V1 = Cell("v1", "V1", seeds=THREE, stage="sft3", measured=BOTH)
MAIN = (
    Cell("before", "before alignment (full V2)", (), THREE, measured=BOTH),
    Cell("grpo", "+ GRPO", (*GRPO, "grpo.algorithm=grpo"), THREE, "grpo", BOTH),
    Cell("tpma", "+ TPMA", TPMA, THREE, "grpo", BOTH),
    Cell("all", "V2, all: DPO, then TPMA with the item's reward", (*DPO, *GRPO), THREE, "grpo", BOTH),
)
SWEEPS = (
    Cell("clicks", "200 steps on the likelihood of clicks alone", (*TPMA, "grpo.policy=0"), stage="grpo"),
    Cell(
        "clicks-300",
        "300 steps on the likelihood of clicks alone",
        (*TPMA, "grpo.policy=0", "grpo.steps=300"),
        stage="grpo",
    ),
    Cell("dpo", "DPO alone", DPO, stage="dpo"),
    Cell("position", "TPMA, gate position by position", (*TPMA, "grpo.gate=position"), stage="grpo"),
    Cell("hard", "TPMA, hard gate", (*TPMA, "grpo.gate=hard"), stage="grpo"),
    Cell("beam", "TPMA, rollouts from a beam search", (*TPMA, "grpo.decoding=beam"), stage="grpo"),
    *(Cell(f"item-{w}", f"TPMA, w_item {w}", (*GRPO, f"grpo.item_weight={w}"), stage="grpo") for w in (0.1, 0.3, 1)),
)
_SLOW = "grpo.loop.learning_rate=3e-4"
LONGER = (
    Cell("long", "self-distillation of several epochs", PLAIN_CE),
    *(
        Cell(
            f"long-{name}{slow}",
            f"the same + {what}{', learning rate 3e-4' if slow else ''}",
            (*PLAIN_CE, *sets, *([_SLOW] if slow else ())),
            stage="grpo",
        )
        for slow in ("", "-slow")
        for name, what, sets in (
            ("clicks", "200 steps on the likelihood of clicks alone", (*TPMA, "grpo.policy=0")),
            ("grpo", "GRPO", (*GRPO, "grpo.algorithm=grpo")),
            ("tpma", "TPMA", TPMA),
        )
    ),
)
"""Rounds after so long a training that more steps on clicks should bring little."""
_LONGER = [cell.name for cell in LONGER]
ADDED = {
    ("market", "cot"): "+ CoT tasks",
    ("market", "sd"): "+ self-distillation",
    ("market", "r-drop"): "+ R-Drop",
    ("market", "fgm"): "+ FGM",
    ("market", "focal"): "+ focal loss",
    ("market", "v1-time"): "V1 as long as full V2",
}
"""Supervised training that the distillation study has measured."""
EVERY = tuple((metric, None) for metric in SAMPLED)
CLICKS_ONLY = ("rewards.click_rate=0", "rewards.relevance=0")  # bestbuy knows neither impressions nor judgments
FRESH = tuple(replace(cell, seeds=NEW) for cell in (V1, *MAIN, SWEEPS[0]))
"""On the fresh markets, with evidence at the input; the last one is the control of more steps on clicks."""
ONE_SEED = tuple(replace(cell, seeds=(1,)) for cell in (V1, *MAIN[:3]))
SETS: Mapping[str, DataSet] = {
    "market": DataSet("configs/market-v2.yaml", (V1, *MAIN, *SWEEPS, *LONGER), STUDIED["market"].sets),
    "fresh": DataSet("configs/market-v2.yaml", FRESH, seeds=NEW, same_requests=False),
    "bestbuy": DataSet("configs/bestbuy.yaml", ONE_SEED, (*STUDIED["bestbuy"].sets, *CLICKS_ONLY)),
}


@dataclass
class AlignmentGrid(Grid):
    """Cells that go on from the full V2 of the distillation study, made first where it is missing."""

    def _train(self, name: str, seed: int, cell: Cell) -> None:
        study, made_from = self._study(), REUSED.get(cell.name, LONG if cell.name in _LONGER else BEFORE)
        if not study.finished(name, seed, made_from):
            study.run(f"{name}-{seed}/{made_from}")
        if cell.name not in REUSED:
            config, base = ROOT / self.sets[name].config, study.folder(name, seed, made_from)
            sets = (*self._sets(name, seed, cell), f"sft3.epochs={settings_of(base).sft3.epochs}")
            pipeline.run_config(config, self.folder(name, seed, cell.name), sets, reuse=(base,), until=until_of(cell))

    def _measure(self, name: str, seed: int, cell: Cell) -> None:
        if cell.name not in REUSED:
            super()._measure(name, seed, cell)
            return
        measured, folder = self._study().folder(name, seed, REUSED[cell.name]), self.folder(name, seed, cell.name)
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(measured / VALUES, folder / VALUES)
        write_json(folder / CELL, {**read_json(measured / CELL), "cell": cell.name, "what": cell.what})

    def _study(self) -> Distillation:
        return Distillation(self.runs, self.more, replace(self.files, name="v2_distillation"))

    def folder(self, name: str, seed: int, cell: str) -> Path:
        """Cells of this study lie beside those of the other."""
        return super().folder(name, seed, f"aligned/{cell}")

    def pairs(self, data: DataSet) -> list[tuple[str, str]]:
        """Every cell against V1 and against before; TPMA against GRPO; sweeps against TPMA; longer ones."""
        found = []
        for variant in ("student", "engine"):
            names = [cell.name for cell in data.cells if variant in cell.measured]
            for name in names[1:]:
                others = ("v1",) if name == "before" else ("v1", "before", "grpo", "tpma")
                others = ("v1", *_LONGER) if name in _LONGER else others
                found += [(name, other, variant) for other in others if name != other]
        return [(f"{a}/{variant}", f"{b}/{variant}") for a, b, variant in dict.fromkeys(found)]


def render() -> None:
    """Write docs/results/v2.md."""
    page = Page(FILES)
    page.lines = FILES.head()
    targets(page)
    cumulative(page)
    for data, found in SETS.items():
        if not page.seeds(data, "v1"):
            continue
        columns = EVERY[:2] if data == "bestbuy" else EVERY
        page.lines += ["", f"## {data}: the steps"]
        for variant, what in (("student", "Generator alone"), ("engine", "Engine")):
            steps = [(f"{cell.name}/{variant}", cell.what) for cell in found.cells if cell.measured == BOTH]
            page.lines += ["", f"{what}; the differences are from V1."]
            effects(page, data, f"v1/{variant}", steps, columns)
            page.lines += ["", f"{what}; the differences are from before alignment."]
            effects(page, data, f"before/{variant}", steps[1:], columns)
            figures(page, data, steps)
        if any(page.seeds(data, cell.name) for cell in SWEEPS):
            page.lines += ["", f"## {data}: gates, draws, w_item, and as many steps without a policy", ""]
            page.lines += ["Generator alone; the differences are from TPMA of the same seed."]
            swept = [(f"{cell.name}/student", cell.what) for cell in (MAIN[2], *SWEEPS)]
            effects(page, data, "tpma/student", swept, columns)
        if any(page.seeds(data, cell.name) for cell in LONGER[1:]):
            page.lines += ["", f"## {data}: after a long training", ""]
            page.lines += ["Generator alone; the differences are from as many steps on clicks alone."]
            longer = [("v1-time/student", ADDED["market", "v1-time"])] if data == "market" else []
            longer += [(f"{cell.name}/student", cell.what) for cell in LONGER]
            effects(page, data, "long-clicks/student", longer, columns)
        for dimension in ("query type", "query frequency"):
            slices(page, data, [(f"{cell.name}/student", cell.what) for cell in (V1, *MAIN)], dimension, "click/HR@10")
    chosen(page)
    provenance(page, SETS)
    FILES.write_page(page.lines)


def chosen(page: Page) -> None:
    """The step whose weights each stage left."""
    rows = [
        [f"{data}-{seed}/{cell}", *(str(report["chosen_step"].get(stage, "–")) for stage in ("dpo", "grpo"))]
        for (data, seed, cell), report in sorted(page.reports.items())
        if report.get("chosen_step")
    ]
    page.lines += [
        "",
        "## Weights that the guard chose",
        "",
        (
            "Step of each stage whose weights had the best validation HR@10; 0 means those that it was given, so that "
            "the stage left nothing."
        ),
    ]
    page.table(["cell", "DPO", "policy"], rows)


def cumulative(page: Page) -> None:
    """The article's table: step on step, those of supervised training from the distillation study."""
    study = Page(replace(FILES, name="v2_distillation"))
    page.reports |= {key: report for key, report in study.reports.items() if (key[0], key[2]) in ADDED}
    page.tests = {**study.tests, **page.tests}
    steps = [("v1/student", "V1"), *((f"{name}/student", what) for (_, name), what in ADDED.items())]
    steps += [(f"{cell.name}/student", cell.what) for cell in MAIN]
    page.lines += ["", "## Market: step on step", ""]
    page.lines += [
        "Generator alone; the differences are from V1. R-Drop, FGM and focal loss are each on top of "
        "self-distillation, and all together in the row before alignment."
    ]
    effects(page, "market", "v1/student", steps, [("order/HR@10", None), ("order/MRR@10", None), ("click/HR@10", None)])


def targets(page: Page) -> None:
    """The targets that were set before the runs, and whether each holds."""
    wanted = [("V2, all, above V1", ("all/student", "v1/student"), metric) for metric in SAMPLED]
    wanted.append(("TPMA above plain GRPO", ("tpma/student", "grpo/student"), "click/MRR@10"))
    rows = []
    for what, pair, metric in wanted:
        test = page.test("market", pair, metric)
        row = verdict(f"{what}, {metric.replace('/', ' ')}", *above(test))
        rows.append([*row, ", ".join(map(str, test["seeds"])) if test else "–"])
    page.lines += ["", "## Targets set before the runs", "", "Market, generator alone; they were set for three seeds."]
    page.table(["target", "holds", "measured", "seeds"], rows)


if __name__ == "__main__":
    main(sys.argv[1:], AlignmentGrid(Path(), files=FILES, sets=SETS), render, __doc__ or "")
