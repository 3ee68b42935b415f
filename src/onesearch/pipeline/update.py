"""``onesearch update``: a short round of alignment on new page views, and a new version of V2 if it is better.

Encoder, semantic IDs, index and evidence stay; what is learnt again is the generator, from the version that is served.
The newest part of the new page views is the judge: a version is published only if it finds more there than the one
before.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from onesearch.config import apply_overrides
from onesearch.data.artefact import write_json, write_manifest
from onesearch.data.dataset import ragged_rows, read_parquet
from onesearch.data.histories import Histories
from onesearch.data.lock import RunLock
from onesearch.data.records import conform
from onesearch.data.split import Split
from onesearch.pipeline.alignment import run_dpo, run_grpo
from onesearch.pipeline.settings import RunConfig
from onesearch.pipeline.stages import settings_of
from onesearch.pipeline.workbench import Workbench
from onesearch.run import StageContext
from onesearch.search.storage import ENGINE, load_about, need
from onesearch.search.versions import ENGINE_STAGE, FOLDER, next_name, origin, publish, published
from onesearch.understanding.thoughts import Thoughts

Method = Literal["tpma", "grpo", "dpo"]
EVENTS = "page_views.parquet"
SHARE_OF_JUDGE = 0.2
LEAST = 50  # page views with a click, to learn from and to judge by


@dataclass(frozen=True)
class Update:
    """What a round came to.

    Attributes:
        version: its folder below the run.
        published: whether it is served now.
        page_views: that it learned from.
        judged: newer ones that decided.
        set_aside: page views without an item of the catalogue.
        thoughts: those beside the run's own.
        before: validation figures of the version it started from.
        after: of the new one.
    """

    version: str
    published: bool
    page_views: int
    judged: int
    set_aside: int
    thoughts: int
    before: Mapping[str, float]
    after: Mapping[str, float]


class UpdateBench(Workbench):
    """A run's artefacts with new page views as its training and validation part.

    Args:
        run: a finished run with V2.
        page_views: all new page views, of earlier rounds as well; they are part of everybody's history.
        split: what this round learns from and is judged by.
        thoughts: of the run's queries and of the new ones.
        start: folder below the run whose generator the round starts from.
    """

    counted = False

    def __init__(self, run: Path, page_views: pl.DataFrame, split: Split, thoughts: Thoughts, start: str) -> None:
        super().__init__(run)
        self._page_views, self._split, self._thoughts, self.start = page_views, split, thoughts, start

    @cached_property
    def split(self) -> Split:
        """The new page views."""
        return self._split

    @cached_property
    def thoughts(self) -> Thoughts:
        """What the queries of the run and of the new page views are about."""
        return self._thoughts

    @cached_property
    def training_judgments(self) -> pl.DataFrame:
        """Those of the run's own training part."""
        return Workbench(self.run).training_judgments

    @cached_property
    def histories(self) -> Histories:
        """Events of the log and of the new page views; time decides what a page view may know."""
        every = pl.concat([self.dataset.page_views, self._page_views])
        return Histories.build(every, self.dataset.items, self.dataset.users)


def update(
    run: Path,
    events: Path,
    method: Method = "tpma",
    steps: int = 50,
    overrides: Iterable[str] = (),
    more_thoughts: Thoughts | None = None,
) -> Update:
    """One round.

    Args:
        run: a finished run with V2; for ``tpma`` and ``grpo`` with the stage ``rewards``.
        events: Parquet file of new page views in the schema of a dataset's.
        method: listwise DPO, or one of the two policy gradients.
        steps: of training.
        overrides: settings that differ from the run's, such as ``grpo.loop.learning_rate=1e-4``.
        more_thoughts: of queries that nobody had thought about when the run was made.

    Raises:
        FileNotFoundError: the run has no V2 or no rewards, or there is no such file.
        ValueError: too few page views with a click, or a setting is wrong.
    """
    need(run, ENGINE_STAGE)
    if method != "dpo" and not (run / "rewards" / "manifest.json").is_file():
        raise FileNotFoundError(
            f"{run} has no stage 'rewards', which method {method} needs: run it with grpo.steps above 0, or take dpo"
        )
    config = _config(run, method, steps, overrides)
    with RunLock(run / FOLDER):
        place = published(run)
        start = load_about(run, place or ENGINE_STAGE)["model"]
        items = Workbench(run).dataset.items["item_id"]
        page_views, aside = _read(events, items)
        split = _split(page_views, items)
        own = Workbench(run).thoughts
        thoughts = own if more_thoughts is None else own.plus(more_thoughts)
        earlier = [pl.read_parquet(path) for path in sorted((run / FOLDER).glob(f"*/{EVENTS}"))]
        bench = UpdateBench(run, pl.concat([*earlier, page_views]).unique("page_view_id"), split, thoughts, start)
        name = next_name(run)
        folder = run / name
        folder.mkdir(parents=True)
        page_views.write_parquet(folder / EVENTS)
        context = StageContext(f"update {Path(name).name}", folder, {}, config.seed + int(Path(name).name))
        figures = (run_dpo if method == "dpo" else run_grpo)(bench, config, context, start)
        before, after = _figures(folder)
        better = figures["chosen_step"] > 0
        write_json(folder / ENGINE, {**load_about(run, place or ENGINE_STAGE), "model": name})
        done = Update(
            name, better, len(split.train), len(split.valid), aside, len(thoughts) - len(own), before, after
        )
        write_manifest(folder, {"metrics": dict(figures), "update": vars(done), "method": method,
                                "started_from": start, "engine": origin(run)})  # fmt: skip
        if better:
            publish(run, name)
    return done


def _config(run: Path, method: Method, steps: int, overrides: Iterable[str]) -> RunConfig:
    own = settings_of(run)
    stage = "dpo" if method == "dpo" else "grpo"
    sets = [f"{stage}.steps={steps}", *([] if method == "dpo" else [f"grpo.algorithm={method}"])]
    values = apply_overrides(own.model_dump(mode="json"), [*sets, *overrides], RunConfig)
    config = RunConfig.model_validate(values)
    settings = config.dpo if method == "dpo" else config.grpo
    # A short round is looked at often enough to be stopped.
    every = min(settings.loop.validate_steps or steps, max(1, settings.steps // 4))
    return RunConfig.model_validate(apply_overrides(values, [f"{stage}.loop.validate_steps={every}"], RunConfig))


def _read(path: Path, items: pl.Series) -> tuple[pl.DataFrame, int]:
    """The page views that show, or had clicked, an item of the catalogue, and how many did not."""
    given = conform("page_views", read_parquet(path)).sort("time", maintain_order=True)
    if without := given["page_view_id"].null_count():
        raise ValueError(f"{path}: {without} of {len(given)} page views have no page_view_id; give each one of its own")
    seen = np.zeros(len(given), bool)
    for name in ("shown", "clicked", "ordered"):
        seen |= ragged_rows(given[name], items).lengths > 0
    return given.filter(pl.Series(seen)), int((~seen).sum())


def _split(page_views: pl.DataFrame, items: pl.Series) -> Split:
    """The older page views to learn from, the newest to judge by."""
    clicked = ragged_rows(page_views["clicked"], items).lengths > 0
    have = np.flatnonzero(clicked)
    judged = max(LEAST, round(SHARE_OF_JUDGE * len(have)))
    if len(have) < 2 * LEAST:
        raise ValueError(
            f"{len(have)} of {len(page_views)} new page views have a click on a known item; a round needs {2 * LEAST}"
        )
    cut = int(have[-judged])
    return Split(page_views[:cut], page_views[cut:], page_views[:0], "time")


def _figures(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Validation figures before the first step, and of the weights that were chosen."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    found = [{k.removeprefix("valid/"): v for k, v in line.items() if k.startswith("valid/")} for line in lines]
    found = [one for one in found if one]
    return found[0], max(found, key=lambda one: one["hr10"])
