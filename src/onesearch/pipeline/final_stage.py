"""The last stage of a run: an engine of all page views, made after the report and served in place of the measured one.

A run's engine knows nothing of its validation and test part, the newest page views where the log is split by time. Once
it is measured they need not be kept from it any longer::

    counts of all page views: click statistics, item pairs, and with them head rows and index; SIDs stay
    the measured engine's model goes on with stage 3's objective on the page views that it never learnt, and as many
        of those that it did, so that nothing is forgotten; own clicks are left out of the counts as before
    the weights of the features stay those of the measured engine

Weights cannot be fitted on page views that the counts hold: a feature that has counted the very click would be trusted
too much. The measured engine's weights were fitted on clicks that its counts do not hold, just as those of the final
engine do not hold tomorrow's. Encoder, quantizer, thoughts and BM25 stay as well. Nothing measures the final engine:
no page view is left that it has not seen.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from onesearch.common.artefact import write_json
from onesearch.common.processes import is_first, wait_for_all
from onesearch.data.split import Split
from onesearch.pipeline.preparation_stages import save_counts, save_head_rows
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.training_stages import run_personalisation
from onesearch.search.engine_file import ENGINE, load_about
from onesearch.search.run_parts import FINAL
from onesearch.training.self_distillation import DistillationSettings
from onesearch.training.sft_settings import CoTSettings, FinalSettings, PersonalisationSettings


class FinalData(RunData):
    """A run's artefacts with the counts of its whole log; ``seed`` draws the page views that are learnt again."""

    def __init__(self, run: Path, seed: int) -> None:
        super().__init__(run, FINAL)
        self._seed = seed

    @cached_property
    def split(self) -> Split:
        """To train on: the validation and test part, and as many page views of the training part. Nothing validates."""
        parts = RunData(self.run).split
        new = pl.concat([parts.valid, parts.test])
        return Split(with_old_ones(new, parts.train, self._seed), new.clear(), new.clear(), parts.by)


def with_old_ones(new: pl.DataFrame, old: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Page views to learn, behind as many ``old`` ones, drawn with ``seed``, so that nothing is forgotten."""
    many = min(len(new), len(old))
    again = np.sort(np.random.default_rng([seed, 91]).choice(len(old), many, replace=False))
    return pl.concat([old[again], new])


def run_final(
    run_data: RunData,
    context: StageContext,
    engine: str,
    before: str,
    final: FinalSettings,
    sft3: PersonalisationSettings,
    run_seed: int,
    distill: DistillationSettings | None = None,
    cot: CoTSettings | None = None,
    pseudo: str | None = None,
) -> Mapping[str, Any]:
    """Counts of the whole log, a short training, and the engine on both.

    Args:
        run_data: of the run.
        context: of the stage.
        engine: stage of the measured engine, whose weights stay.
        before: training stage whose model that engine has.
        final: how long, and how fast, that model is trained.
        sft3: stage 3's settings, for all else.
        run_seed: draws the page views that are learnt again, and what stage 3 draws.
        distill: V2's, whose stage 3 has a teacher.
        cot: V2's tasks beside it.
        pseudo: stage of the searches that nobody made, where stage 3 learnt them.
    """
    folder, every = context.folder, run_data.dataset.page_views
    whole = FinalData(run_data.run, run_seed)
    figures = renew(run_data, whole, every, context, before, final, sft3, run_seed, distill, cot, pseudo)
    # The measured engine's settings and weights, on the new model and counts.
    if is_first():
        write_json(folder / ENGINE, {**load_about(run_data.run, engine), "model": FINAL, "counts": FINAL})
    return {"page_views": len(every), "learnt": len(whole.split.train), **figures}


def renew(
    run_data: RunData,
    whole: RunData,
    counted: pl.DataFrame,
    context: StageContext,
    before: str,
    final: FinalSettings,
    sft3: PersonalisationSettings,
    run_seed: int,
    distill: DistillationSettings | None = None,
    cot: CoTSettings | None = None,
    pseudo: str | None = None,
) -> Mapping[str, Any]:
    """Counts of more page views than before in the stage's folder, and a short training on them; as :func:`run_final`.

    Args:
        run_data: of the run, as it is.
        whole: the same with the counts that this makes, and with the page views to learn as its training part.
        counted: page views that the counts are made of.
        context: of the stage.
        before: stage whose model is trained.
        final: how long, and how fast.
        sft3: stage 3's settings, for all else.
        run_seed: as in stage 3.
        distill: V2's.
        cot: V2's.
        pseudo: stage of the searches that nobody made.
    """
    # Everything that counts clicks; other processes than the first wait, and read it.
    if is_first():
        projection, precision = run_data.head_row_projection, run_data.index.precision
        save_counts(counted, run_data.dataset.items, context.folder)
        save_head_rows(run_data, whole.statistics, projection, precision, context.folder)
    wait_for_all()
    # Stage 3 goes on; no figure of page views that are learnt could choose among its weights.
    loop = sft3.loop.updated(learning_rate=final.learning_rate_factor * sft3.loop.learning_rate, best="")
    settings = sft3.updated(epochs=final.epochs, loop=loop.model_dump())
    return run_personalisation(whole, context, before, settings, 1, run_seed, distill, cot, pseudo)
