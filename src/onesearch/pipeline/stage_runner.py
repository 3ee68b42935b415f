"""A run is a folder with one subfolder per stage; a stage is rebuilt when, and only when, what it depends on changed.

A stage's settings are the keyword arguments of its build: it can read no others. Its fingerprint covers them, the seed,
the version of its code's output and the fingerprints of its inputs. A stage folder holds ``started.json`` (fingerprint
of the work begun) and, written last, ``manifest.json`` (settings, input fingerprints, library versions, metrics, seed,
seconds, processor seconds, peak memory), whose presence means complete:

- complete with the same fingerprint → skipped;
- begun with the same fingerprint and resumable → built on the folder as it stands, to continue from its checkpoints;
- anything else → emptied and built afresh, or taken over from another run that has it (``reuse``).

Under `torchrun` or `accelerate launch` every process comes by. The first one holds the run's lock, decides what a stage
needs and writes the folder; the others wait for its word, or build along where the stage is distributed.
"""

import importlib.metadata
import json
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from onesearch.common.artefact import (
    MANIFEST,
    fingerprint,
    read_json,
    read_manifest,
    refuse_links,
    write_json,
    write_manifest,
)
from onesearch.common.memory import forget_peak, give_back, keep_few_kernels, peak_mib, resident_mib
from onesearch.common.processes import Job, joined
from onesearch.common.progress import beside
from onesearch.common.run_lock import RunLock
from onesearch.common.settings import Settings
from onesearch.common.time_left import TimeLeft
from onesearch.search.run_versions import SCHEMA

log = logging.getLogger("onesearch")

STARTED = "started.json"
_LIBRARIES = ("onesearch", "torch", "numpy", "polars", "faiss-cpu", "transformers", "accelerate", "lightgbm")
Status = Literal["finished", "begun", "outdated", "missing"]


@dataclass(frozen=True)
class StageContext:
    """What a stage's build gets.

    Attributes:
        name: of the stage.
        folder: where to write; exists. Holds earlier work of the same fingerprint when ``resumed``.
        inputs: folders of the finished input stages, by name.
        seed: of the run.
        resumed: whether an interrupted build of the same fingerprint left files in ``folder``.
        notes: what the manifest has beside what the build gives back.
    """

    name: str
    folder: Path
    inputs: Mapping[str, Path]
    seed: int = 0
    resumed: bool = False
    notes: dict[str, float] = field(default_factory=dict)

    def all_loaded(self) -> None:
        """All data are there, and the work begins: what it takes in memory from here on is the same for any size."""
        self.notes.setdefault("start_mib", round(resident_mib()))

    def metrics(self, stage: str) -> dict[str, Any]:
        """Metrics that an input stage reported."""
        manifest = read_manifest(self.inputs[stage])
        return dict(manifest["metrics"]) if manifest else {}


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: of the stage and its folder.
        inputs: stages whose folders it reads.
        settings: what it depends on, by name: settings models and JSON-able values. They are the keyword arguments of
            ``build``, which thus cannot read what the fingerprint does not cover.
        build: writes the folder and returns JSON-able metrics.
        unmarked: further arguments of ``build``, which change how it works and not what it writes.
        outside: a JSON-able fingerprint of files outside of the run that it reads.
        version: raise it when the stage's code changes what it writes.
        resumable: ``build`` continues from what an interrupted build left; otherwise that is removed first.
        distributed: every process of an ``accelerate launch`` calls ``build``, not the first alone; what is not left
            to the training loop is written by the first one (:func:`~onesearch.common.processes.is_first`).
        seed: in place of the run's.
    """

    name: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any]
    build: Callable[..., Mapping[str, Any]]
    unmarked: Mapping[str, Any] = field(default_factory=dict)
    outside: Any = None
    version: int = 1
    resumable: bool = False
    distributed: bool = False
    seed: int | None = None

    def seed_in(self, run: int) -> int:
        """The stage's seed in a run that has the seed ``run``."""
        return run if self.seed is None else self.seed

    def described(self) -> dict[str, Any]:
        """The settings as JSON."""
        found = {name: _as_json(value) for name, value in self.settings.items()}
        return found if self.outside is None else {**found, "outside": self.outside}

    def run(self, context: StageContext) -> Mapping[str, Any]:
        """Build with exactly the declared settings."""
        return self.build(context, **self.settings, **self.unmarked)


def _as_json(value: Any) -> Any:
    """A setting as JSON: models as mappings, also those in a tuple."""
    if isinstance(value, tuple):
        return [_as_json(one) for one in value]
    return value.marking() if isinstance(value, Settings) else value


@dataclass(frozen=True)
class StageResult:
    """How a stage fared in :func:`execute`."""

    name: str
    outcome: Literal["skipped", "reused", "resumed", "built"]
    seconds: float
    metrics: Mapping[str, Any] = field(default_factory=dict)


def fingerprints(stages: Sequence[Stage], seed: int = 0) -> dict[str, str]:
    """Fingerprint of each stage, in order.

    Raises:
        ValueError: two stages of one name, an input that does not come before, or settings that are not JSON.
    """
    found: dict[str, str] = {}
    for stage in stages:
        if stage.name in found:
            raise ValueError(f"two stages are named '{stage.name}'")
        missing = [name for name in stage.inputs if name not in found]
        if missing:
            raise ValueError(f"stage '{stage.name}' reads {missing}, which no earlier stage makes")
        settings = stage.described()
        try:
            json.dumps(settings)
        except TypeError as error:
            raise ValueError(f"the settings of stage '{stage.name}' are not JSON: {error}") from error
        inputs = {name: found[name] for name in stage.inputs}
        own = [SCHEMA, stage.name, stage.version, stage.seed_in(seed), settings, inputs]
        found[stage.name] = fingerprint(own)
    return found


def status(stages: Sequence[Stage], run: Path, seed: int = 0) -> dict[str, Status]:
    """What :func:`execute` would find, by stage."""
    return {name: _status(run / name, mark) for name, mark in fingerprints(stages, seed).items()}


def _status(folder: Path, mark: str) -> Status:
    manifest = read_manifest(folder)
    if manifest is not None:
        return "finished" if manifest.get("fingerprint") == mark else "outdated"
    started = folder / STARTED
    if started.is_file():
        return "begun" if read_json(started).get("fingerprint") == mark else "outdated"
    return "outdated" if folder.is_dir() and any(folder.iterdir()) else "missing"


def execute(
    stages: Sequence[Stage],
    run: Path,
    seed: int = 0,
    *,
    reuse: Iterable[Path] = (),
    redo: Iterable[str] = (),
    until: str | None = None,
    forecast: Mapping[str, float | None] | None = None,
) -> list[StageResult]:
    """Bring every stage of a run up to date.

    Args:
        stages: in an order in which inputs come first.
        run: the run's folder.
        seed: of the run.
        reuse: other runs; a stage finished there with the same fingerprint is taken over instead of built. Its files
            are hard-linked where the file system can, so that grids of runs share their early stages.
        redo: stages to build afresh although nothing changed; what depends on them is built afresh too.
        until: the last stage to bring up to date.
        forecast: seconds of each stage, None for what is not known: progress lines then tell what the run still takes.

    Raises:
        ValueError: unknown stage names in ``redo`` or ``until``; a folder in the way that no stage made.
        RunLockedError: another process works on this run.
        OtherProcessError: another process of the same job failed.
    """
    marks = fingerprints(stages, seed)
    keep_few_kernels()
    redo, reuse = set(redo), list(reuse)
    for name in [*redo, *([until] if until else [])]:
        if name not in marks:
            raise ValueError(f"there is no stage '{name}'; the stages are {list(marks)}")
    # The stages up to ``until``.
    wanted = list(stages)
    if until is not None:
        wanted = wanted[: [stage.name for stage in stages].index(until) + 1]
    results: list[StageResult] = []
    left = TimeLeft({stage.name: forecast.get(stage.name) for stage in wanted} if forecast is not None else {})
    with joined() as job, _guard(run, job), beside(lambda: left):
        for number, stage in enumerate(wanted, 1):
            left.begin(stage.name)
            # What depends on a stage that is built again is built again.
            if redo & set(stage.inputs):
                redo.add(stage.name)
            # The first process brings the stage up to date and tells the others what came of it.
            if job.first:
                place = f"[{number}/{len(wanted)}] {stage.name}"
                result = _bring_up(stage, run, marks, seed, reuse, stage.name in redo, place, job)
                job.tell(stage.name, asdict(result))
                left.finish(stage.name, result.outcome == "built")
                if forecast is not None and result.outcome != "skipped" and (text := str(left)):
                    log.info("%s", text)
            else:
                result = _follow(stage, run, seed, job)
            results.append(result)
    return results


def _guard(run: Path, job: Job) -> AbstractContextManager[Any]:
    """The run's lock, which the first process holds for all."""
    return RunLock(run) if job.first else nullcontext()


def _context(stage: Stage, run: Path, seed: int, resumed: bool) -> StageContext:
    inputs = {name: run / name for name in stage.inputs}
    return StageContext(stage.name, run / stage.name, inputs, stage.seed_in(seed), resumed)


def _bring_up(
    stage: Stage,
    run: Path,
    marks: Mapping[str, str],
    seed: int,
    reuse: Sequence[Path],
    redo: bool,
    place: str,
    job: Job,
) -> StageResult:
    folder, mark = run / stage.name, marks[stage.name]
    # Up to date: nothing to do.
    state: Status = "outdated" if redo else _status(folder, mark)
    if state == "finished":
        manifest = read_manifest(folder) or {}
        log.info("%s: unchanged, skipped", place)
        return StageResult(stage.name, "skipped", 0.0, manifest.get("metrics", {}))
    start = time.perf_counter()
    # Otherwise go on with what was begun, or take the stage over from another run, or begin anew.
    resumed = state == "begun" and stage.resumable
    if not resumed:
        _empty(folder)
        for other in [] if redo else reuse:
            refuse_links(other / stage.name)
            if _status(other / stage.name, mark) == "finished" and other.resolve() != run.resolve():
                _take_over(other / stage.name, folder)
                log.info("%s: taken over from %s", place, other)
                manifest = read_manifest(folder) or {}
                return StageResult(stage.name, "reused", time.perf_counter() - start, manifest.get("metrics", {}))
    # The mark of the work begun comes first, the manifest last.
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STARTED, {"fingerprint": mark})
    log.info("%s: %s", place, "continuing" if resumed else "building")
    # A stage's peak is its own; what there is before it are the libraries, and what they keep for themselves.
    give_back()
    forget_peak()
    held = resident_mib()
    processor, context = time.process_time(), _context(stage, run, seed, resumed)
    if stage.distributed:
        job.tell(_together(stage), resumed)
    try:
        metrics = _plain(dict(stage.run(context)))
    except Exception as error:
        error.add_note(f"in stage '{stage.name}' of run {run}; the stages before it are kept")
        raise
    seconds = time.perf_counter() - start
    write_manifest(
        folder,
        {
            "stage": stage.name,
            "fingerprint": mark,
            "settings": stage.described(),
            "seed": stage.seed_in(seed),
            "schema": SCHEMA,
            "version": stage.version,
            "inputs": {name: marks[name] for name in stage.inputs},
            "versions": versions(),
            "metrics": metrics,
            "seconds": round(seconds, 3),
            "cpu_seconds": round(time.process_time() - processor, 3),
            "peak_mib": round(peak_mib()),
            "held_mib": round(held),
            **context.notes,
            "resumed": resumed,
            "files": {
                str(p.relative_to(folder)): p.stat().st_size
                for p in sorted(folder.rglob("*"))
                if p.is_file() and p.name not in (STARTED, MANIFEST)
            },
        },
    )
    (folder / STARTED).unlink()
    log.info("%s: done in %.1f s", place, seconds)
    return StageResult(stage.name, "resumed" if resumed else "built", seconds, metrics)


def _together(stage: Stage) -> str:
    """The word that a distributed stage is built now; its value is whether it goes on from earlier work."""
    return f"{stage.name}, together"


def _follow(stage: Stage, run: Path, seed: int, job: Job) -> StageResult:
    """Another process than the first: wait for its result, and build along before that when the stage is distributed.

    The first process's result is everyone's: none of the others writes, and the figures of all are the same.
    """
    name, value = job.hear(_together(stage), stage.name)
    if name != stage.name:
        stage.run(_context(stage, run, seed, value))
        _, value = job.hear(stage.name)
    return StageResult(**value)


def _empty(folder: Path) -> None:
    """Remove an outdated stage; a folder that no stage made is left alone."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is in the way of a stage folder: move it away")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not ((folder / MANIFEST).is_file() or (folder / STARTED).is_file()):
        raise ValueError(f"{folder} holds files but no {MANIFEST} or {STARTED}, so no stage made it: move it away")
    # The marks go in an order that leaves a killed removal recognisable: first complete → begun, then the rest.
    write_json(folder / STARTED, {"fingerprint": "outdated"})
    (folder / MANIFEST).unlink(missing_ok=True)
    for child in folder.iterdir():
        if child.name == STARTED:
            continue
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()
    (folder / STARTED).unlink()


def _take_over(source: Path, folder: Path) -> None:
    """Hard links (or copies) of a finished stage, its manifest last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / STARTED, {"fingerprint": "taking over"})
    for file in sorted(source.rglob("*")):
        target = folder / file.relative_to(source)
        if file.is_dir():
            target.mkdir(exist_ok=True)
        elif file.name != STARTED and file != source / MANIFEST:
            _link(file, target)
    write_manifest(folder, {**(read_manifest(source) or {}), "taken_over_from": str(source)})
    (folder / STARTED).unlink()


def _link(file: Path, target: Path) -> None:
    try:
        target.hardlink_to(file)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(file, target)


def _plain(value: Any) -> Any:
    """Metrics as JSON: numbers of numpy and torch become Python's."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape results."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found
