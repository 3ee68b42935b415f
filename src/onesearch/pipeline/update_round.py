"""``onesearch update``: what new page views teach, and a new version of V2 if it is better::

    renew  counts of the log, of earlier rounds and of the new page views, and with them head rows, index and evidence;
           stage 3 goes on from the version that is served, with a teacher that reads the thoughts cached since then
    align  steps of a policy gradient or of listwise DPO from there
    judge  the newest page views, which nothing of it has seen: the version is published only if the engine finds more
           there with it than before (version_judge.py)

Encoder, semantic IDs, BM25 and the weights of the order stay. The page views that judge are others than those that
chose among the weights of a training, since the best of several looks is better by chance alone. A version also carries
the boosts of the rewards as they are now. Both engines are judged under these: what a boost costs in clicks is the
shop's wish, and no fault of the generator.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import polars as pl

from onesearch.common.artefact import read_manifest, refuse_links, write_json, write_manifest
from onesearch.common.run_lock import RunLock
from onesearch.data.dataset import Dataset, ragged_rows, read_parquet
from onesearch.data.histories import Histories
from onesearch.data.records import conform
from onesearch.data.split import Split
from onesearch.model.generator import Generator
from onesearch.pipeline.config_files import apply_overrides
from onesearch.pipeline.final_stage import renew, with_old_ones
from onesearch.pipeline.preference_stages import run_dpo, run_grpo
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.stages import pseudo_query_stages, settings_of, stage_3_settings
from onesearch.pipeline.version_judge import Judgement, judge
from onesearch.search.distilled_queries import FILE as DISTILLED
from onesearch.search.distilled_queries import distilled_queries, taught_queries
from onesearch.search.engine import SearchEngine
from onesearch.search.engine_file import ENGINE, load_about
from onesearch.search.run_parts import GENERATOR, STAGE_OF, choose_model, need, own_place
from onesearch.search.served_versions import FOLDER, Served, next_name, publish
from onesearch.training.sft_settings import FinalSettings
from onesearch.understanding.thought_table import Thoughts

log = logging.getLogger("onesearch")
Method = Literal["tpma", "grpo", "dpo"]
EVENTS, RENEWED = "page_views.parquet", "renewed"
SHARE_OF_CHOICE, SHARE_OF_JUDGE = 0.1, 0.2
LEAST = 50  # page views with a click, to learn from, to choose weights by and to judge by


class TooFewError(ValueError):
    """Too few page views with a click for a round."""


@dataclass(frozen=True)
class Update:
    """What a round came to.

    Attributes:
        version: its folder below the run.
        published: whether it is served now.
        page_views: that it learned from.
        judged: the newest ones, which decided.
        set_aside: page views without an item of the catalogue, or which the run has already.
        thoughts: those beside the run's own.
        before: what the served engine finds in the page views that judge, with the version it started from.
        after: with the new one.
        p: of the difference in gain, paired; 1 where the round changed nothing.
        same: share of the served first pages that the new version shows as well.
        distilled: queries whose thoughts the model was taught for the first time.
    """

    version: str
    published: bool
    page_views: int
    judged: int
    set_aside: int
    thoughts: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    p: float
    same: float
    distilled: int


class UpdateData(RunData):
    """A run's artefacts with new page views as its training and validation part.

    Args:
        run: a finished run with V2.
        page_views: all new page views, of earlier rounds as well; they are part of everybody's history.
        split: what this round learns from and is judged by.
        thoughts: of the run's queries and of the new ones.
        counts: as in :class:`RunData`; of the engine that the round starts from, or of the round.
        counted: whether these counts hold the page views that are learnt.
    """

    def __init__(
        self,
        run: Path,
        page_views: pl.DataFrame,
        split: Split,
        thoughts: Thoughts,
        counts: str | None = None,
        counted: bool = False,
    ) -> None:
        super().__init__(run, counts)
        self._page_views, self._split, self._thoughts, self.counted = page_views, split, thoughts, counted

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
        return RunData(self.run).training_judgments

    @cached_property
    def histories(self) -> Histories:
        """Events of the log and of the new page views; time decides what a page view may know."""
        every = pl.concat([self.dataset.page_views, self._page_views])
        return Histories(every, self.dataset.items, self.dataset.users)


def update(
    run: Path,
    events: Path,
    method: Method = "tpma",
    steps: int = 50,
    overrides: Iterable[str] = (),
    more_thoughts: Thoughts | None = None,
    epochs: float | None = 1.0,
) -> Update:
    """One round.

    Args:
        run: a finished run with V2; for ``tpma`` and ``grpo`` with the stage ``rewards``.
        events: Parquet file of new page views in the schema of a dataset's.
        method: listwise DPO, or one of the two policy gradients.
        steps: of alignment; 0 leaves it out.
        overrides: settings that differ from the run's, such as ``grpo.loop.learning_rate=1e-4``.
        more_thoughts: of queries that nobody had thought about when the run was made.
        epochs: of stage 3 over the new page views and as many old ones; 0 renews the counts alone, None not even them.

    Raises:
        FileNotFoundError: the run has no V2 or no rewards, or there is no such file.
        TooFewError: too few page views with a click.
        ValueError: there is nothing to do, a setting is wrong, a boost's group has no item, or
            the run is half rebuilt.
    """
    # A run that can be updated: with V2, up to date, and with rewards where they are learnt from.
    refuse_links(run)
    need(run, STAGE_OF["v2"])
    if choose_model(run) != "v2":
        raise ValueError(f"{run} is half rebuilt; run `onesearch run` until it is through, then update it")
    if not steps and epochs is None:
        raise ValueError("a round without steps and with the counts as they are does nothing")
    if steps and method != "dpo" and not (run / "rewards" / "manifest.json").is_file():
        raise FileNotFoundError(
            f"{run} has no stage 'rewards', which method {method} needs: run it with grpo.steps above 0, or take dpo"
        )
    config = _config(run, method, steps, overrides)
    with RunLock(run / FOLDER):
        # From what is served now; the new page views are split into those to learn from, to choose by, to judge by.
        served = Served.now(run)
        before = load_about(run, served.version or own_place(run, "v2"))
        boosts = config.boosts_now()
        dataset = RunData(run).dataset
        boosted = {boost.name: int(boost.members(dataset.items).sum()) for boost in boosts}
        before["boosts"] = [boost.model_dump(mode="json") for boost in boosts]
        page_views, aside = _read(events, dataset)
        split = _split(page_views, dataset.items["item_id"])
        own = RunData(run).thoughts
        thoughts = own if more_thoughts is None else own.plus(more_thoughts)
        # Page views of earlier rounds are history as well. A round that was killed left a folder without its mark.
        rounds = [path.parent for path in sorted((run / FOLDER).glob(f"*/{EVENTS}"))]
        earlier = [pl.read_parquet(folder / EVENTS) for folder in rounds if read_manifest(folder) is not None]
        every = pl.concat([*earlier, page_views]).unique("page_view_id", keep="last", maintain_order=True)
        run_data = UpdateData(run, every, split, thoughts, before.get("counts"))
        # The round is a stage in a folder of its own, and what it renews another one in that.
        name = next_name(run)
        folder, after, figures = run / name, dict(before), {}
        taught = taught_before = distilled_queries(run, served.version or own_place(run, "v2"))
        folder.mkdir(parents=True)
        page_views.write_parquet(folder / EVENTS)
        context = StageContext(f"update {Path(name).name}", folder, {}, config.seed + int(Path(name).name))
        if epochs is not None:
            renewed, figures["renewed"], more_taught = _renew(run_data, context, every, before["model"], config, epochs)
            taught = pl.concat([taught_before, more_taught]).unique(maintain_order=True)
            place, until = f"{name}/{RENEWED}", cast(datetime, split.train["time"].max())
            after |= {"model": place, "counts": place, "counted_until": until.isoformat()}
            run_data = renewed
        if steps:
            figures |= _align(run_data, context, after["model"], method, config)
            after["model"] = name
        # Judge, write the version down, and serve it if more is found with it.
        judged = _judged(run_data, before, after, folder)
        write_json(folder / ENGINE, after)
        pl.DataFrame({"query": taught}).write_parquet(folder / DISTILLED)
        more = len(thoughts) - len(own)
        counts = (len(split.train), len(split.test), aside, more)
        made = Update(name, judged.better, *counts, **vars(judged), distilled=len(taught) - len(taught_before))
        # What is served stands in one place only, published.json.
        found = {key: value for key, value in vars(made).items() if key != "published"}
        write_manifest(
            folder,
            {
                "metrics": figures,
                "update": found,
                "method": method,
                "started_from": before["model"],
                "boosted_items": boosted,
                "engine": served.origin,
            },
        )
        if judged.better and not publish(run, name, instead_of=served):
            log.warning("%s changed during the round, so that %s is kept and not served", run, name)
            return replace(made, published=False)
    return made


def _renew(
    run_data: UpdateData, context: StageContext, every: pl.DataFrame, before: str, config: RunSettings, epochs: float
) -> tuple[UpdateData, Mapping[str, Any], pl.Series]:
    """Counts that hold the page views to learn, and stage 3 on them; the data with these counts, its figures, and the
    queries that had a teacher.
    """
    folder, split, log_data = context.folder / RENEWED, run_data.split, RunData(run_data.run)
    folder.mkdir()
    place = folder.relative_to(run_data.run).as_posix()
    # All that is known but what chooses and judges, also where an earlier round had it.
    later = pl.concat([split.valid, split.test])["page_view_id"]
    counted = pl.concat([log_data.dataset.page_views, every.filter(~every["page_view_id"].is_in(later.implode()))])
    old = with_old_ones(split.train, log_data.split.train, context.seed)
    to_learn = UpdateData(run_data.run, every, replace(split, train=old), run_data.thoughts, place, counted=True)
    final = (config.final or FinalSettings()).updated(epochs=epochs)
    pseudo, _ = pseudo_query_stages(config)
    figures = renew(
        run_data,
        to_learn,
        counted,
        replace(context, folder=folder),
        before,
        final,
        config.sft3,
        config.seed,
        config.distill,
        config.cot,
        **pseudo,
    )
    found = {"page_views": len(counted), "learnt": len(old), **figures}
    write_manifest(folder, {"metrics": found})
    learnt = old if epochs and config.distill.keywords != "none" else old.clear()
    taught = taught_queries(run_data.thoughts, learnt, config.distill.teach)
    return UpdateData(run_data.run, every, split, run_data.thoughts, place, counted=True), found, taught


def _align(
    run_data: UpdateData, context: StageContext, before: str, method: Method, config: RunSettings
) -> Mapping[str, Any]:
    """Steps of alignment from the weights in the folder ``before``."""
    settings = {"before": before, **stage_3_settings(config)}
    if method == "dpo":
        return run_dpo(run_data, context, dpo=config.dpo, **settings)
    return run_grpo(run_data, context, grpo=config.grpo, rewards=config.rewards_now(), **settings)


def _judged(run_data: UpdateData, before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> Judgement:
    """The engines before and after the round, on the page views that judge."""
    parts_of = {counts: RunData(run_data.run, counts) for counts in {one.get("counts") for one in (before, after)}}
    engines = []
    for about in (before, after):
        parts = parts_of[about.get("counts")]
        # The version's own folder has no mark yet, so that its model is read by itself.
        aligned = about["model"] == folder.relative_to(run_data.run).as_posix()
        engine = SearchEngine.from_about(parts, {**about, "model": before["model"]} if aligned else about)
        if aligned:
            engine.adopt(Generator.load(folder / GENERATOR), folder.name)
        engines.append(engine)
    return judge(run_data, *engines)


def _config(run: Path, method: Method, steps: int, overrides: Iterable[str]) -> RunSettings:
    own = settings_of(run)
    stage = "dpo" if method == "dpo" else "grpo"
    sets = [f"{stage}.steps={steps}"] if steps else []
    sets += [f"grpo.algorithm={method}"] if method != "dpo" else []
    values = apply_overrides(own.model_dump(mode="json"), [*sets, *overrides], RunSettings)
    config = RunSettings.model_validate(values)
    settings = config.dpo if method == "dpo" else config.grpo
    if not steps:
        return config
    # A short round is looked at often enough to be stopped.
    every = min(settings.loop.validate_steps or steps, max(1, settings.steps // 4))
    return RunSettings.model_validate(apply_overrides(values, [f"{stage}.loop.validate_steps={every}"], RunSettings))


def _read(path: Path, dataset: Dataset) -> tuple[pl.DataFrame, int]:
    """The page views that show, or had clicked, an item of the catalogue and are new, and how many were not."""
    given = conform("page_views", read_parquet(path)).sort("time", maintain_order=True)
    if without := given["page_view_id"].null_count():
        raise ValueError(f"{path}: {without} of {len(given)} page views have no page_view_id; give each one of its own")
    seen = np.zeros(len(given), bool)
    for name in ("shown", "clicked", "ordered"):
        seen |= ragged_rows(given[name], dataset.items["item_id"]).lengths > 0
    found = given.filter(pl.Series(seen)).unique("page_view_id", keep="last", maintain_order=True)
    # Those of the log are in its counts and in everybody's history already.
    found = found.join(dataset.page_views, on="page_view_id", how="anti", maintain_order="left")
    return found, len(given) - len(found)


def _split(page_views: pl.DataFrame, items: pl.Series) -> Split:
    """The oldest page views to learn from, newer ones to choose the weights by, the newest to judge by."""
    clicked = ragged_rows(page_views["clicked"], items).lengths > 0
    have = np.flatnonzero(clicked)
    judged, chosen = (max(LEAST, round(share * len(have))) for share in (SHARE_OF_JUDGE, SHARE_OF_CHOICE))
    if len(have) < 3 * LEAST:
        raise TooFewError(
            f"{len(have)} of {len(page_views)} new page views have a click on a known item; a round needs {3 * LEAST}"
        )
    first, second = int(have[-judged - chosen]), int(have[-judged])
    return Split(page_views[:first], page_views[first:second], page_views[second:], "time")
