"""The stages of a run in order, and the three things one does with a run: bring it up to date, ask, measure again."""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onesearch.common import rank as launched
from onesearch.common.artefact import read_json, write_json
from onesearch.common.settings import validated
from onesearch.encoding.pictures.picture_settings import PictureSettings
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.engine_stage import run_engine
from onesearch.pipeline.final_stage import run_final
from onesearch.pipeline.picture_stage import build_pictures
from onesearch.pipeline.preference_stages import build_rewards, run_dpo, run_grpo
from onesearch.pipeline.preparation_stages import (
    build_data,
    build_encoder,
    build_index,
    build_khqe,
    build_lexical,
    source_fingerprint,
)
from onesearch.pipeline.pseudo_query_stage import build_pseudo_queries
from onesearch.pipeline.ranked_parts import WorkerPool, rank_in_parts
from onesearch.pipeline.report_stage import build_baselines, build_report, write_report
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import Stage, StageContext, StageResult, Status, execute, status
from onesearch.pipeline.training_stages import run_cot, run_personalisation, run_sft1, run_sft2
from onesearch.pipeline.understanding_stage import build_understanding
from onesearch.search.run_parts import FINAL
from onesearch.search.run_versions import STAGE_VERSIONS, readable
from onesearch.understanding.thought_table import Taught

SETTINGS = "config.json"
PREPARED = ("data", "encoder", "khqe", "index")
_VALIDATION_WIDTH = 32  # beams while training, at most


def stages_of(config: RunSettings) -> list[Stage]:
    """Every stage of a run, in order, with its inputs, its settings and what builds it.

    A stage's settings are all that its build gets of ``config``: what it does not name it cannot read, and cannot make
    it outdated.
    """
    v1 = [*_preparation(config), *_v1(config)]
    v2 = _v2(config) if config.has_v2 else []
    evaluation = config.evaluation
    report = Stage(
        "report",
        (*PREPARED, "lexical", "baselines", "sft3", "engine", *(stage.name for stage in v2)),
        {
            "measures": evaluation.measures,
            "test_requests": evaluation.test_requests,
            "has_v2": config.has_v2,
            "run_seed": config.seed,
        },
        _on_run(build_report),
    )
    final = [] if config.final is None else [_final(config, [*v1, *v2][-1])]
    return [replace(stage, version=STAGE_VERSIONS[stage.name]) for stage in (*v1, *v2, report, *final)]


def _on_run(build: Callable[..., Mapping[str, Any]]) -> Callable[..., Mapping[str, Any]]:
    """``build`` on the artefacts of the run that the stage belongs to."""

    @functools.wraps(build)
    def on_context(context: StageContext, **settings: Any) -> Mapping[str, Any]:
        return build(RunData(context.folder.parent), context, **settings)

    return on_context


def _preparation(config: RunSettings) -> list[Stage]:
    """What every model of the run shares: data, encoder, SIDs, index; and what it is compared with."""
    data, model, evaluation, encoding = config.data, config.model, config.evaluation, config.encoder.encoding
    index = {
        "row_dim": model.row_dim,
        "row_precision": model.row_precision,
        "text_vocabulary": model.text_vocabulary,
        "pretrained": model.backbone.pretrained,
        # Side by side with a picture, the first dimensions are those of the text alone.
        "leading": bool(config.encoder.align.nested) and encoding != "concat",
    }
    compared = {
        "baselines": evaluation.baselines,
        "cascade": evaluation.cascade,
        "relevance": config.search.relevance,
    }
    quantizer = {"khqe": config.khqe, "lexicon": config.lexicon}
    towers = [] if encoding == "text" else ["pictures"]
    return [
        Stage("data", (), {"data": data}, build_data, outside=source_fingerprint(data)),
        *([] if config.pictures is None else [_pictures(config.pictures)]),
        Stage("encoder", ("data", *towers), {"encoder": config.encoder}, _on_run(build_encoder)),
        Stage("khqe", ("data", "encoder"), quantizer, _on_run(build_khqe)),
        Stage("index", ("data", "encoder", "khqe"), index, _on_run(build_index)),
        Stage("lexical", ("data", "encoder"), {}, _on_run(build_lexical)),
        Stage("baselines", (*PREPARED, "lexical"), compared, _on_run(build_baselines)),
    ]


def _pictures(settings: PictureSettings) -> Stage:
    """Pictures of the items as vectors; who asks for nothing else of them still learns which cannot be read."""
    return Stage("pictures", ("data",), {"pictures": settings}, _on_run(build_pictures))


def _trained(
    name: str,
    before: str | None,
    settings: Mapping[str, Any],
    build: Callable[..., Mapping[str, Any]],
    seed: int | None,
    more: Sequence[str] = (),
) -> Stage:
    """A training stage: it starts from the weights of the stage ``before`` and goes on after an interruption.

    All processes of a job train it together.
    """
    start = {} if before is None else {"before": before}
    inputs = (*PREPARED, *start.values(), *more)
    return Stage(name, inputs, {**start, **settings}, _on_run(build), resumable=True, distributed=True, seed=seed)


def _v1(config: RunSettings) -> list[Stage]:
    """Three stages of supervised training and the engine on what they leave."""
    seed, held_out = config.training_seed, config.sft3.held_out_vectors
    first = {
        "sft1": config.sft1,
        "model": config.model,
        "temperature": config.encoder.align.temperature,
        "held_out": held_out,
    }
    more, answered = pseudo_query_stages(config)
    return [
        _trained("sft1", None, first, run_sft1, seed),
        _trained("sft2", "sft1", {"sft2": config.sft2, "held_out": held_out}, run_sft2, seed),
        *answered,
        _trained("sft3", "sft2", {**stage_3_settings(config), **more}, run_personalisation, seed, [*more.values()]),
        _engine("engine", "sft3", config),
    ]


def pseudo_query_stages(config: RunSettings) -> tuple[dict[str, str], list[Stage]]:
    """The stage that writes and ranks searches that nobody made, where the run has one, and how stage 3 names it."""
    if not config.pseudo.searches:
        return {}, []
    settings = {
        "before": "sft2",
        "pseudo": config.pseudo,
        "search": config.search,
        "fit_requests": config.evaluation.fit_requests,
        "run_seed": config.seed,
    }
    inputs = (*PREPARED, "lexical", "sft2")
    return {"pseudo": "pseudo"}, [Stage("pseudo", inputs, settings, _on_run(build_pseudo_queries))]


def _v2(config: RunSettings) -> list[Stage]:
    """Thoughts, tasks that write them, self-distillation, preference optimisation where it has steps, the engine.

    V2 shares everything up to stage 2 with V1.
    """
    seed, thinker, distill = config.training_seed, config.understanding, config.distill
    writing = {
        "cot": config.cot,
        "teach": distill.teach,
        "shuffle": distill.shuffle,
        "held_out": config.sft3.held_out_vectors,
        "run_seed": config.seed,
    }
    more, _ = pseudo_query_stages(config)
    distilled = {**stage_3_settings(config), "distill": distill, "cot": config.cot, **more}
    # What is asked of whom shapes the thoughts; where, and how fast, does not.
    asked: dict[str, Any] = {"producer": thinker.producer, "error": thinker.error, "model": thinker.model}
    asked |= {"calibrate": thinker.calibrate} if thinker.calibrate else {}
    asked |= {"max_calls": thinker.max_calls} if thinker.max_calls is not None else {}
    asked |= {"encoder": thinker.encoder} if thinker.encoder is not None else {}
    how = ("base_url", "response_format", "concurrency", "cache")
    stages = [
        Stage(
            "understanding",
            ("data", "encoder", "khqe"),
            asked,
            _on_run(build_understanding),
            {name: getattr(thinker, name) for name in how},
            resumable=True,
        ),
        _trained("cot", "sft2", writing, run_cot, seed, ["understanding"]),
        _trained("distill", "cot", distilled, run_personalisation, seed, ["understanding", *more.values()]),
    ]
    # Preference optimisation: either part goes on from what is there.
    if config.dpo.steps:
        settings = {"dpo": config.dpo, **stage_3_settings(config)}
        stages.append(_trained("dpo", stages[-1].name, settings, run_dpo, seed))
    if config.grpo.steps:
        settings = {"grpo": config.grpo, "rewards": config.rewards_now(), **stage_3_settings(config)}
        grpo = _trained("grpo", stages[-1].name, settings, run_grpo, seed, ["rewards", "understanding"])
        rewards = Stage("rewards", ("data", "encoder", "khqe", "understanding"), {}, _on_run(build_rewards))
        stages += [rewards, grpo]
    return [*stages, _engine("engine_v2", stages[-1].name, config, distill.reads, ["understanding"])]


def stage_3_settings(config: RunSettings) -> dict[str, Any]:
    """What stage 3, and what goes on from it, reads: the training page views, and the sample that validates."""
    return {
        "sft3": config.sft3,
        "validation_width": min(_VALIDATION_WIDTH, config.search.width),
        "run_seed": config.seed,
    }


def _engine(
    name: str,
    before: str,
    config: RunSettings,
    reads: Taught | None = None,
    more: Sequence[str] = (),
) -> Stage:
    """The engine on the model of a training stage."""
    settings = {
        "search": config.search,
        "boosts": config.boosts_now(),
        "fit_requests": config.evaluation.fit_requests,
        "run_seed": config.seed,
    }
    inputs = (*PREPARED, "lexical", before, *more)
    seed = config.training_seed
    return Stage(name, inputs, {"before": before, "reads": reads, **settings}, _on_run(run_engine), seed=seed)


def _final(config: RunSettings, engine: Stage) -> Stage:
    """The engine of all page views, on what the run's newest ``engine`` stage left; no other stage reads it."""
    settings: dict[str, Any] = {
        "engine": engine.name,
        "final": config.final,
        "sft3": config.sft3,
        "run_seed": config.seed,
    }
    more = [engine.name]
    if config.has_v2:
        settings |= {"distill": config.distill, "cot": config.cot}
        more.append("understanding")
    asked, _ = pseudo_query_stages(config)
    settings, more = {**settings, **asked}, [*more, *asked.values()]
    return _trained(FINAL, engine.settings["before"], settings, run_final, config.training_seed, more)


def run_config(
    path: Path,
    folder: Path,
    overrides: Iterable[str] = (),
    reuse: Iterable[Path] = (),
    redo: Iterable[str] = (),
    until: str | None = None,
    forecast: Mapping[str, float | None] | None = None,
) -> list[StageResult]:
    """Bring the run of a configuration file up to date; the arguments are those of :func:`execute`.

    Raises:
        ValueError: a setting is wrong; one line per wrong value.
    """
    config = load_settings(RunSettings, path, overrides)
    if launched.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SETTINGS, config.model_dump(mode="json"))
    stages = stages_of(config)
    return execute(stages, folder, config.seed, reuse=reuse, redo=redo, until=until, forecast=forecast)


def status_of(path: Path, folder: Path, overrides: Iterable[str] = ()) -> dict[str, Status]:
    """Which stages of a run are up to date with a configuration file."""
    config = load_settings(RunSettings, path, overrides)
    return status(stages_of(config), folder, config.seed)


def settings_of(run: Path) -> RunSettings:
    """The settings that a run was last brought up to date with.

    Raises:
        FileNotFoundError: the folder is no run's.
        ValueError: one line per wrong value; a note names the version that made the run where it is another.
    """
    path = run / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {run} is no run folder; make one with `onesearch run CONFIG`")
    with readable(run):
        return validated(RunSettings, read_json(path), path)


def evaluate_run(
    run: Path, folder: Path, part: str, page_views: int | None = None, pool: WorkerPool | None = None
) -> str:
    """Measure a finished run on its validation or test part; writes a report folder and returns its main tables.

    What is measured are the engines of the stages, never the final one: that has learnt these page views. A ``pool``
    of workers ranks the page views part by part, and goes on with what an earlier call left in the folder.
    """
    config = settings_of(run)
    limit = page_views if page_views is not None else config.evaluation.test_requests
    measures, has_v2 = config.evaluation.measures, config.has_v2
    by_workers = None
    if pool is not None:
        # All that a report reads: a part that was ranked before any of it changed is not taken.
        read = next(stage.inputs for stage in stages_of(config) if stage.name == "report")
        by_workers = functools.partial(rank_in_parts, run, folder, part, measures, has_v2, read, pool)
    report = write_report(RunData(run), folder, part, measures, limit, has_v2, config.seed, by_workers)
    return report.markdown(by_group=False)
