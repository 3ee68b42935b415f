"""Alignment of a run's model on sessions of agents: policy optimisation whose only reward is the final order.

Beside the run, which stays as it is: the weights go to a folder of their own, so that several forms can start from the
same model. `onesearch update` takes the same page views for a version that is served.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from onesearch.common.artefact import read_manifest, write_manifest
from onesearch.data.dataset import ragged_rows
from onesearch.data.split import Split
from onesearch.pipeline.config_files import apply_overrides
from onesearch.pipeline.preference_stages import run_grpo
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.stages import settings_of, stage_3_settings
from onesearch.pipeline.update_round import UpdateData
from onesearch.search.engine_file import load_about
from onesearch.search.run_parts import GENERATOR, own_place

ORDER_ALONE: Final = ("rewards.click_rate=0", "rewards.relevance=0")
"""What a session is rewarded by: an order, and nothing else. The page views have no click that was not one."""
_SHARE_OF_CHOICE: Final = 0.1
_LEAST: Final = 20  # searches of sessions with an order


def align_on_sessions(
    run: Path, page_views: pl.DataFrame, folder: Path, steps: int, overrides: Iterable[str] = (), seed: int = 0
) -> Mapping[str, Any]:
    """Figures of the training, whose generator lies in ``folder``; what is finished is not made again.

    ::

        learn from the earliest searches that led to an order; the others are no prompt, but part of histories
        validate on the latest tenth, which chooses the weights as ``grpo.loop.best`` says

    Args:
        run: a finished run with V2; its own model is what training starts from.
        page_views: searches of sessions (:func:`~onesearch.evaluation.agent_sessions.session_page_views`).
        folder: gets ``generator/``, the log and a manifest.
        steps: of policy optimisation.
        overrides: settings that differ from the run's, such as ``grpo.policy=0`` for the control.
        seed: of the draws.

    Raises:
        FileNotFoundError: the run has no V2, or is not finished.
        ValueError: too few of the searches led to an order, or a setting is wrong.
    """
    if (finished := read_manifest(folder)) is not None:
        return dict(finished["metrics"])
    # The run's settings but for the reward; the sessions in the place of its log.
    sets = settings_of_round(steps, overrides)
    config = RunSettings.model_validate(apply_overrides(settings_of(run).model_dump(mode="json"), sets, RunSettings))
    split = split_sessions(page_views, RunData(run).dataset.items["item_id"])
    about = load_about(run, own_place(run, "v2"))
    log = pl.concat([split.train, split.valid])
    run_data = UpdateData(run, log, split, RunData(run).thoughts, about.get("counts"))
    # One round from the served weights; the manifest says that it is finished.
    folder.mkdir(parents=True, exist_ok=True)
    context = StageContext(folder.name, folder, {}, seed, resumed=True)
    rewards = config.rewards_now()
    figures = run_grpo(
        run_data, context, before=about["model"], grpo=config.grpo, rewards=rewards, **stage_3_settings(config)
    )
    assert (folder / GENERATOR).is_dir()
    write_manifest(folder, {"metrics": dict(figures), "started_from": about["model"], "sets": sets, "seed": seed})
    return figures


def settings_of_round(steps: int, overrides: Iterable[str] = ()) -> list[str]:
    """What differs from the run's settings; ``overrides`` come last."""
    return [f"grpo.steps={steps}", *ORDER_ALONE, *overrides]


def split_sessions(page_views: pl.DataFrame, items: pl.Series) -> Split:
    """The earliest searches to learn from, the latest tenth of those with an order to choose the weights by.

    Raises:
        ValueError: too few searches led to an order of one of the ``items``.
    """
    log = page_views.sort("time", maintain_order=True)
    have = np.flatnonzero(ragged_rows(log["ordered"], items).lengths > 0)
    if len(have) < _LEAST:
        raise ValueError(f"{len(have)} of {len(log)} searches led to an order; alignment needs {_LEAST} at least")
    # Searches of one session have one time, and stay together.
    begin = log["time"][int(have[-max(1, round(_SHARE_OF_CHOICE * len(have)))])]
    chosen = log.filter(pl.col("time") >= begin)
    return Split(log.filter(pl.col("time") < begin), chosen, chosen, "time")
