"""What a run will cost, stage by stage, from what runs of the same kind did cost on this machine.

::

    work of a stage   = what its time grows with: items, page views, samples, searches (:func:`work_of`)
    one run is known  : seconds, disk   in proportion to the work; memory, too, but for what the process held
                        before the stage (libraries, what they keep) and what the steps of a training, or batches
                        of searches, take
    several are known : the line through the one with the least and the one with the most work

Nothing is measured: what a stage took stands in its manifest. A training is forecast in two parts, its samples by their
speed and the rest by the page views that it prepares.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onesearch.common.artefact import read_manifest
from onesearch.data.dataset import DESCRIPTION, Dataset
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stages import settings_of, stages_of

_SEARCH_ITEMS: Final = 140_000
"""Items with which a search takes twice the processor time that it takes in a small catalogue (docs/sizing.md)."""


@dataclass(frozen=True)
class Size:
    """Of a catalogue and its log: items, and page views of the training part."""

    items: int
    page_views: int


@dataclass(frozen=True)
class Cost:
    """Of one stage: seconds, MiB at most, MiB on disk; None for what no run tells."""

    stage: str
    seconds: float | None
    memory_mib: float | None
    disk_mib: float | None


def plan(config: RunSettings, size: Size, runs: Sequence[Path], held_mib: float) -> list[Cost]:
    """The cost of every stage of a run, in order.

    Args:
        config: the run to come.
        size: of its data.
        runs: finished runs of the same kind, on the machine that the new one is for.
        held_mib: what the program with its libraries holds before a stage begins, where a run does not tell.

    Raises:
        FileNotFoundError: a run is missing or has no finished stage.
        ValueError: a run was made before stages noted what they take.
    """
    known = [_KnownRun.read(run) for run in runs]
    return [_forecast(stage.name, config, size, known, held_mib) for stage in stages_of(config)]


def size_of(config: RunSettings) -> Size | None:
    """The size of a run's data, where the configuration or a data set tells it; None where files would have to be read.

    Page views are those of the training part.
    """
    data, found = config.data, None
    if data.market is not None:
        page_views = data.market.page_views or round(12.5 * data.market.users)
        found = Size(data.market.items, page_views)
    elif data.folder is not None and (data.folder / DESCRIPTION).is_file():
        counts = Dataset.load(data.folder).counts
        found = Size(counts["items"], counts["page_views"])
    return found and Size(found.items, round(found.page_views * (1 - data.valid - data.test)))


# -- what the cost of a stage grows with -----------------------------------------------------------------------------


def work_of(stage: str, config: RunSettings, size: Size) -> float:
    """What the time of a stage grows with, in a unit of its own; of a training that of its preparation."""
    found = _WORK.get(stage)
    return float(found(config, size)) if found else float(size.items + size.page_views)


def samples_of(stage: str, config: RunSettings, size: Size) -> float | None:
    """Examples that a training stage learns; None for other stages."""
    found = _SAMPLES.get(stage)
    return float(found(config, size)) if found else None


def _alignment(config: RunSettings, size: Size) -> float:
    """Page views that the encoders are aligned on, pass by pass, one encoder for each fold and one for all."""
    encoders = 1 + (config.encoder.folds if config.encoder.folds >= 2 else 0)
    align = config.encoder.align
    learnt = align.epochs * size.page_views
    return encoders * (learnt if align.max_steps is None else min(learnt, align.max_steps * align.batch_size))


def _quantizing(config: RunSettings, size: Size) -> float:
    """Distances of vectors to centroids, and of the report's queries to items, which is what the stage computes."""
    khqe = config.khqe
    centroids = sum(khqe.layers)
    sample = min(khqe.sample, size.items + size.page_views // 4)
    fit, encode = khqe.iterations * sample * centroids, 2 * size.items * centroids
    return fit + encode + 4 * min(5000, size.page_views // 4) * size.items


def _searches(number: int, size: Size) -> float:
    """Searches, in those of a small catalogue."""
    return number * (1 + size.items / _SEARCH_ITEMS)


def _ranked(config: RunSettings, size: Size) -> float:
    """Searches by which the cascade is trained; its trees grow from their candidates, as many for any size."""
    most = config.evaluation.cascade.page_views
    return _searches(size.page_views if most is None else min(size.page_views, most), size)


def _passes(epochs: float, config: RunSettings, size: Size) -> float:
    """Samples of stage 3 or of a stage that goes on like it: page views, and pseudo-queries beside them."""
    return epochs * size.page_views / (1 - config.sft3.pseudo_share)


_WORK: Final[Mapping[str, Callable[[RunSettings, Size], float]]] = {
    "pictures": lambda config, size: size.items,
    "encoder": _alignment,
    "khqe": _quantizing,
    "index": lambda config, size: size.items,
    "lexical": lambda config, size: size.items,
    "baselines": _ranked,
    "pseudo": lambda config, size: _searches(config.pseudo.searches, size),
    "engine": lambda config, size: _searches(config.evaluation.fit_requests, size),
    "engine_v2": lambda config, size: _searches(config.evaluation.fit_requests, size),
    "report": lambda config, size: _searches(config.evaluation.test_requests, size),
}
_SAMPLES: Final[Mapping[str, Callable[[RunSettings, Size], float]]] = {
    "sft1": lambda config, size: config.sft1.steps * config.sft1.batch_size,
    "sft2": lambda config, size: config.sft2.steps * config.sft2.batch_size,
    "sft3": lambda config, size: _passes(config.sft3.epochs, config, size),
    "cot": lambda config, size: config.cot.steps * config.cot.batch_size,
    "distill": lambda config, size: _passes(config.sft3.epochs, config, size),
    "dpo": lambda config, size: config.dpo.steps * config.dpo.batch_size,
    "grpo": lambda config, size: config.grpo.steps * config.grpo.prompts,
    "final": lambda config, size: _passes(config.final.epochs if config.final else 0, config, size),
}


# -- runs that are known ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _KnownRun:
    """A finished run: its settings, its size, and the manifests of its stages."""

    config: RunSettings
    size: Size
    stages: Mapping[str, Mapping[str, Any]]

    @classmethod
    def read(cls, run: Path) -> "_KnownRun":
        config = settings_of(run)
        made = {stage.name: read_manifest(run / stage.name) for stage in stages_of(config)}
        stages = {name: about for name, about in made.items() if about is not None}
        if "data" not in stages:
            raise FileNotFoundError(f"{run} has no finished stage to learn from; make it with `onesearch run`")
        if not any("peak_mib" in about for about in stages.values()):
            raise ValueError(f"{run} was made by a version that did not note what stages take; make it again")
        counts = stages["data"]["metrics"]
        # A stage that went on after a stop, or came from elsewhere, noted a part of its time alone.
        whole = {name: about for name, about in stages.items() if "peak_mib" in about and not about["resumed"]}
        return cls(config, Size(int(counts["items"]), int(counts["train_page_views"])), whole)

    def work_of(self, stage: str, config: RunSettings, size: Size) -> float:
        """As :func:`work_of`; thoughts go by queries, which repeat each other in a log as they do in this run's."""
        if stage != "understanding":
            return work_of(stage, config, size)
        queries = self.stages["understanding"]["metrics"].get("queries", self.size.page_views)
        most = config.understanding.max_calls
        found = queries * size.page_views / max(self.size.page_views, 1)
        return float(found if most is None else min(found, most))


def _forecast(stage: str, config: RunSettings, size: Size, known: Sequence[_KnownRun], held_mib: float) -> Cost:
    """Cost of one stage, as the runs have it that have the stage."""
    runs = [run for run in known if stage in run.stages]
    if not runs:
        return Cost(stage, None, None, None)
    work, volume = runs[-1].work_of(stage, config, size), float(size.items + size.page_views)
    works = [run.work_of(stage, run.config, run.size) for run in runs]
    volumes = [float(run.size.items + run.size.page_views) for run in runs]
    about = [run.stages[stage] for run in runs]
    # What was held before, what its steps or batches take: as much for any size; the rest grows with the data.
    held = [float(one.get("held_mib", held_mib)) for one in about]
    steps = [_of_steps(one) for one in about]
    memory = [max(float(one["peak_mib"]) - sum(two), 0) for one, *two in zip(about, held, steps, strict=True)]
    disk = [sum(one["files"].values()) / 2**20 for one in about]
    # A training: its samples, and what it does beside them.
    rest, learning = [float(one["seconds"]) for one in about], 0.0
    samples = samples_of(stage, config, size)
    if samples is not None:
        taken = [_learning(stage, run) for run in runs]
        rest = [max(one - part, 0.0) for one, part in zip(rest, taken, strict=True)]
        last = runs[-1]
        each = taken[-1] / max(samples_of(stage, last.config, last.size) or 0, 1)
        learning = samples * each * _layers(config) / _layers(last.config)
    return Cost(
        stage,
        learning + _on_line(works, rest, work),
        held[-1] + steps[-1] + _on_line(volumes, memory, volume),
        _on_line(volumes, disk, volume),
    )


def _of_steps(about: Mapping[str, Any]) -> float:
    """MiB that steps of a training, or batches of searches, took on top of the data; 0 where a stage does not tell."""
    start = about["metrics"].get("start_mib") or about.get("start_mib")
    return max(float(about["peak_mib"]) - float(start), 0.0) if start else 0.0


def _learning(stage: str, run: _KnownRun) -> float:
    """Seconds that a training of a known run spent on its samples."""
    about = run.stages[stage]
    speed, whole = about["metrics"].get("samples_per_second"), float(about["seconds"])
    samples = samples_of(stage, run.config, run.size) or 0
    return min(samples / speed, whole) if speed else whole


def _layers(config: RunSettings) -> float:
    """Arithmetic of a token: numbers in the layers of the backbone."""
    one = config.model.backbone
    return float(
        (one.encoder_layers + one.decoder_layers) * one.d_model * (4 * one.d_model + 2 * (one.ffn or 4 * one.d_model))
    )


def _on_line(works: Sequence[float], costs: Sequence[float], work: float) -> float:
    """The cost of some work: in proportion to one that is known, else on the line through the least and the most."""
    few, many = min(range(len(works)), key=works.__getitem__), max(range(len(works)), key=works.__getitem__)
    if works[few] == works[many]:
        return costs[many] * work / works[many] if works[many] else costs[many]
    slope = max((costs[many] - costs[few]) / (works[many] - works[few]), 0.0)
    return max(costs[many] + slope * (work - works[many]), 0.0)
