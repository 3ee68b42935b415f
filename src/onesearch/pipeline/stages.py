"""The stages of a run in order, and the three things one does with a run: bring it up to date, ask, measure again."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.preference_stages import build_rewards, reward_settings, run_dpo, run_grpo
from onesearch.pipeline.preparation_stages import (
    build_data,
    build_encoder,
    build_index,
    build_khqe,
    build_lexical,
    source_fingerprint,
)
from onesearch.pipeline.report_stage import build_baselines, build_report, write_report
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stage_runner import Stage, StageContext, StageResult, Status, execute, status
from onesearch.pipeline.training_stages import run_cot, run_engine, run_personalisation, run_semantic_tasks
from onesearch.pipeline.understanding_stage import build_understanding

SETTINGS = "config.json"


def stages_of(config: RunSettings) -> list[Stage]:
    """Every stage with exactly the settings it depends on; what it does not name cannot make it stale."""

    def with_run_data(
        build: Callable[..., Mapping[str, Any]], *more: Any
    ) -> Callable[[StageContext], Mapping[str, Any]]:
        return lambda context: build(RunData(context.folder.parent), config, context, *more)

    def dump(*names: str) -> dict[str, Any]:
        return {name: getattr(config, name).model_dump(mode="json") for name in names}

    data = {**dump("data"), "source": source_fingerprint(config.data)}
    prepared = ("data", "encoder", "khqe", "index")
    temperature = config.encoder.align.temperature
    base = {**dump("model"), "temperature": temperature, "held_out": config.sft3.held_out_vectors}
    measures = config.evaluation.model_dump(mode="json")
    engine = {**dump("search"), "fit_requests": config.evaluation.fit_requests}
    cot = {"teach": config.distill.teach, "shuffle": config.distill.shuffle, "held_out": config.sft3.held_out_vectors}
    seed = config.training_seed
    # Preference alignment goes on from V2's stage 3; both parts of it can be left out.
    searches = {
        "order_weight": config.sft3.order_weight,
        "max_targets": config.sft3.max_targets,
        "frequency_power": config.sft3.frequency_power,
        "held_out": config.sft3.held_out_vectors,
    }
    alignment, last = [], "distill"
    if config.dpo.steps:
        alignment.append(
            Stage(
                "dpo",
                (*prepared, last),
                {**dump("dpo"), **searches},
                with_run_data(run_dpo, last),
                resumable=True,
                seed=seed,
            )
        )
        last = "dpo"
    if config.grpo.steps:
        worth = reward_settings(config).model_dump(mode="json")
        alignment.append(
            Stage(
                "rewards",
                ("data", "encoder", "khqe", "understanding"),
                {},
                lambda context: build_rewards(RunData(context.folder.parent), context),
            )
        )
        alignment.append(
            Stage(
                "grpo",
                (*prepared, "rewards", "understanding", last),
                {**dump("grpo"), **searches, "rewards": worth},
                with_run_data(run_grpo, last),
                resumable=True,
                seed=seed,
            )
        )
        last = "grpo"
    # V2 shares everything up to stage 2 with V1; a run without thoughts is V1 alone.
    v2 = (
        [
            Stage(
                "understanding",
                ("data", "encoder", "khqe"),
                config.understanding.model_dump(mode="json", exclude={"concurrency", "base_url", "cache"}),
                lambda context: build_understanding(RunData(context.folder.parent), config.understanding, context),
                version=2,
                resumable=True,
            ),
            Stage(
                "cot",
                (*prepared, "sft2", "understanding"),
                {**dump("cot"), **cot},
                with_run_data(run_cot, "sft2"),
                resumable=True,
                seed=seed,
            ),
            Stage(
                "distill",
                (*prepared, "cot", "understanding"),
                dump("sft3", "distill", "cot"),
                with_run_data(run_personalisation, "cot", True),
                version=2,
                resumable=True,
                seed=seed,
            ),
            *alignment,
            Stage(
                "engine_v2",
                (*prepared, "lexical", last, "understanding"),
                engine,
                with_run_data(run_engine, last, True),
                seed=seed,
            ),
        ]
        if config.has_v2
        else []
    )
    return [
        Stage("data", (), data, lambda context: build_data(config, context)),
        Stage("encoder", ("data",), dump("encoder"), with_run_data(build_encoder)),
        Stage("khqe", ("data", "encoder"), dump("khqe", "lexicon"), with_run_data(build_khqe)),
        Stage("index", ("data", "encoder", "khqe"), _index_settings(config), with_run_data(build_index)),
        Stage("lexical", ("data", "encoder"), {}, with_run_data(build_lexical)),
        Stage("baselines", prepared, measures, with_run_data(build_baselines), version=2),
        Stage(
            "sft1",
            prepared,
            {**base, **dump("sft1")},
            with_run_data(run_semantic_tasks, None),
            version=3,
            resumable=True,
            seed=seed,
        ),
        Stage(
            "sft2",
            (*prepared, "sft1"),
            dump("sft2"),
            with_run_data(run_semantic_tasks, "sft1"),
            resumable=True,
            seed=seed,
        ),
        Stage(
            "sft3",
            (*prepared, "sft2"),
            dump("sft3"),
            with_run_data(run_personalisation, "sft2"),
            resumable=True,
            seed=seed,
        ),
        Stage(
            "engine", (*prepared, "lexical", "sft3"), engine, with_run_data(run_engine, "sft3"), version=3, seed=seed
        ),
        *v2,
        Stage(
            "report",
            (*prepared, "lexical", "baselines", "sft3", "engine", *(stage.name for stage in v2)),
            measures,
            with_run_data(build_report),
            version=2,
        ),
    ]


def _index_settings(config: RunSettings) -> dict[str, Any]:
    model = config.model
    return {
        "row_dim": model.row_dim,
        "row_precision": model.row_precision,
        "text_vocabulary": model.text_vocabulary,
        "pretrained": model.backbone.pretrained,
        "leading": bool(config.encoder.align.nested),
    }


def run_config(
    path: Path,
    folder: Path,
    overrides: Iterable[str] = (),
    reuse: Iterable[Path] = (),
    redo: Iterable[str] = (),
    until: str | None = None,
) -> list[StageResult]:
    """Bring the run of a configuration file up to date.

    Raises:
        ValueError: a setting is wrong; one line per wrong value.
    """
    from onesearch.common.artefact import write_json

    config = load_settings(RunSettings, path, overrides)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SETTINGS, config.model_dump(mode="json"))
    return execute(stages_of(config), folder, config.seed, reuse=reuse, redo=redo, until=until)


def status_of(path: Path, folder: Path, overrides: Iterable[str] = ()) -> dict[str, Status]:
    """Which stages of a run are up to date with a configuration file."""
    config = load_settings(RunSettings, path, overrides)
    return status(stages_of(config), folder, config.seed)


def settings_of(run: Path) -> RunSettings:
    """The settings that a run was last brought up to date with."""
    path = run / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: {run} is no run folder; make one with `onesearch run CONFIG`")
    return RunSettings.model_validate_json(path.read_text(encoding="utf-8"))


def evaluate_run(run: Path, folder: Path, part: str, page_views: int | None = None) -> str:
    """Measure a finished run on its validation or test part; writes a report folder and returns its Markdown."""
    config = settings_of(run)
    limit = page_views if page_views is not None else config.evaluation.test_requests
    return write_report(RunData(run), config, folder, part, limit).markdown()
