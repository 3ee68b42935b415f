"""The training loop: batches and a loss function in, trained weights, a log and curves out.

A run that is killed and started again with the same call ends in the same weights as one that was never interrupted:
bit-equal in float32 with the same number of threads. For that a checkpoint holds everything that moves (weights,
optimizer, random states, running averages), batches depend on the step alone, and validation leaves no trace in the
random states.

Several processes (`torchrun`, `accelerate launch`) share each batch: a step is that of one process up to what its loss
takes over rows of one share alone, such as the negatives of a contrastive loss. Their weights are the same after every
step, and the first process writes. Another number of processes goes on from the same checkpoint, with random states of
its own. With ``shard`` each process holds a part of the weights, gradients and moments, with the same result
(:mod:`onesearch.training.held_model`).
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor, nn

from onesearch.common.artefact import fingerprint, read_json, write_json
from onesearch.common.device import best_device
from onesearch.common.extras import from_extra
from onesearch.common.memory import resident_mib
from onesearch.common.processes import exchanged, place
from onesearch.common.progress import track
from onesearch.model.backbone_base import Backbone
from onesearch.training import checkpoint as files
from onesearch.training.batching import Batch, Batches, made_ahead, to_device
from onesearch.training.checkpoint import RandomState, random_state_restored
from onesearch.training.held_model import ShardedModel, Sharding, WholeModel
from onesearch.training.loop_settings import FitReport, LoopSettings
from onesearch.training.optimizer import AveragedWeights, adamw, parameter_groups, rate
from onesearch.training.precision import deterministic, resolve_precision
from onesearch.training.training_curves import Averages, CurveLog, plot_curves

with from_extra("train"):
    from accelerate import Accelerator, DistributedDataParallelKwargs, DistributedType
    from accelerate.state import AcceleratorState

__all__ = ["Batches", "FitReport", "LoopSettings", "NotFiniteError", "fit"]

log = logging.getLogger("onesearch")
_WHOLE_MODELS = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)

Terms = dict[str, Tensor]
Loss = Callable[[nn.Module, Any], Terms | Iterator[Terms]]
Validate = Callable[[nn.Module], dict[str, float]]

CHECKPOINTS, FINISHED, WEIGHTS, BEST = "checkpoints", "finished.json", "model.safetensors", "best.safetensors"
LOG, CURVES = "log.jsonl", "curves.png"
_BETAS = (0.9, 0.98)  # AdamW's decay of the moments
_STEPS_UNCHECKED = 16  # on a GPU the losses are looked at together after so many steps, so as not to wait for each


class NotFiniteError(ArithmeticError):
    """A loss term or the gradient became infinite or NaN."""


def fit(
    model: nn.Module,
    batches: Batches,
    loss: Loss,
    config: LoopSettings,
    folder: Path,
    validate: Validate | None = None,
    *,
    seed: int = 0,
    label: str = "training",
    patience: int | None = None,
) -> FitReport:
    """Train ``model`` in place and leave ``model.safetensors``, ``log.jsonl`` and ``curves.png`` in ``folder``.

    ::

        finished before: load the weights and return;  checkpoint: load it and go on behind its step
        for each step:
            for each of its batches, for each loss of the batch: backward of loss / batches
            clip the gradient norm; stop if a loss or the norm is not finite
            AdamW step at the learning rate of this step; move the averaged weights
            when it is time: log, validate (keep the best weights; stop if patience is spent), write a checkpoint
        keep the best, the averaged or the last weights

    Args:
        model: trained in place; buffers that are not persistent stay as they are.
        batches: what to train on; ``config.accumulate`` consecutive ones make a step.
        loss: model and batch content → scalars; ``loss`` is minimised, the others are logged. It may be a generator of
            such terms: each goes backward before the next is computed, so that a later one can read the gradients of
            an earlier one (adversarial training); the gradients add up. All of them are logged.
        config: the settings.
        folder: of this run; the same call continues what it finds there, and returns at once when that is finished.
        validate: model in evaluation mode → figures for the log. Called every ``validate_steps`` and at the end.
        seed: of dropout and anything else that draws from global generators while training.
        label: name in the progress lines.
        patience: with ``config.best``: the weights before the first step compete with all later ones, and training ends
            after so many validations in a row without a better figure, or never for 0. None: the first weights do
            not compete.

    Raises:
        NotFiniteError: with step and term; the last checkpoint was written before it.
        RuntimeError: several processes ended in different weights.
        ValueError: ``folder`` belongs to another run, the settings do not fit the model, or a launcher would split it.
            With ``shard``: the model cannot be split (its attribute ``sharding`` is None).
    """
    return _Fit(model, batches, loss, config, folder, validate, seed, label, patience).run()


class _Fit:
    """One call of :func:`fit`, with its arguments; what moves while training are the attributes."""

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        loss: Loss,
        config: LoopSettings,
        folder: Path,
        validate: Validate | None,
        seed: int,
        label: str,
        patience: int | None,
    ) -> None:
        self.config, self.batches, self.loss, self.validate = config, batches, loss, validate
        self.folder, self.seed, self.label = folder, seed, label
        self.steps = batches.steps // config.accumulate
        if self.steps < 1:
            raise ValueError(f"{batches.steps} batches make no step of {config.accumulate}: lower 'accumulate'")
        if patience is not None and not (config.best and validate):
            raise ValueError("patience needs a validation and the figure of it that counts ('best')")
        self.model, self.patience = model, patience
        for module in model.modules():
            if isinstance(module, Backbone):
                module.recompute = config.recompute
        self.precision = resolve_precision(config.precision)
        # What decides the resulting weights: a checkpoint continues only a run in which all of it is the same.
        shapes = {name: [str(p.dtype), *p.shape] for name, p in model.named_parameters()}
        decisive = [config.decisive(), batches.fingerprint(), seed, shapes]
        self.fingerprint = fingerprint(decisive if patience is None else [*decisive, patience])
        self.checkpoints = files.Checkpoints(folder / CHECKPOINTS, keep=1)
        self.log = CurveLog(folder / LOG)
        self.averages = Averages()
        self.best: dict[str, Any] = {}  # step and figures of the best validation
        self.waited = 0  # validations since the best one
        self.own, self.shares, self.spent = 0, [0], 0.0  # samples of this process, and of each one when last asked

    @property
    def samples(self) -> int:
        """Rows that all processes have trained on, as of the last look at the losses."""
        return sum(self.shares)

    def run(self) -> FitReport:
        # accelerate keeps its precision and processes in process-wide objects; each fit has its own.
        AcceleratorState._reset_state(True)
        # A task leaves the heads of others unused. Buffers are constants, or move alike in all processes.
        several = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
        on_cpu = best_device().type == "cpu"
        self.accelerator = Accelerator(mixed_precision=self.precision, cpu=on_cpu, kwargs_handlers=[several])
        if self.accelerator.distributed_type not in _WHOLE_MODELS:
            kind = self.accelerator.distributed_type.value
            raise ValueError(
                f"each process trains a whole model here, not a part of one ({kind}):"
                " launch without FSDP, DeepSpeed and other ways to split a model, and set loop.shard instead"
            )
        done = self._finished()
        if done is not None:
            return done
        try:
            with deterministic(True):
                return self._train()
        finally:
            self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def _finished(self) -> FitReport | None:
        path = self.folder / FINISHED
        if not exchanged(path.is_file())[0]:  # a file system of several machines may show it to some alone
            return None
        state = read_json(path)
        files.check_same_run(state, self.fingerprint, self.folder)
        files.load_weights(self.model, self.folder / WEIGHTS)
        self.model.eval()
        return FitReport(**state["report"])

    def _train(self) -> FitReport:
        config = self.config
        self.start_mib = resident_mib()
        # Everything that moves: weights, optimizer, averaged weights, random states; then what a checkpoint kept of it.
        groups = parameter_groups(self.model, config.learning_rate, config.weight_decay, config.learning_rates)
        self.held = self._held()
        for group in groups:
            group["params"] = [self.held.parts[name] for name in group["names"]]
        plain = adamw(groups, _BETAS)
        self.average = AveragedWeights(self.held.parts, config.average) if config.average else None
        self.parameters = list(self.held.parts.values())
        torch.manual_seed(self.seed + self.accelerator.process_index)
        first = self._resume(plain)
        self.held.begin(plain)
        self.optimizer = plain
        self.pending: list[tuple[int, str, dict[str, Tensor]]] = []  # losses that nobody has looked at yet
        self.started, self.saved = time.perf_counter() - self.spent, time.perf_counter()
        if self.patience is not None and first == 0:
            self._validate(0)  # the first weights compete
        # Batches are made in a thread while the model computes.
        ahead = made_ahead(self._batches_of, range(first, self.steps), config.prefetch)
        with closing(ahead):
            shown = track(ahead, self.label, self.steps - first, "step")
            steps = self._through(shown if self.accelerator.is_main_process else ahead, first)
        return self._end(steps)

    def _through(self, steps: Iterable[list[Batch]], step: int) -> int:
        """Every step from number ``step`` on, or until patience is spent; the number of steps done."""
        config = self.config
        warmup = round(config.warmup * self.steps)
        for made in steps:
            factor = rate(step, self.steps, warmup, config.schedule, config.floor)
            for group in self.optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            self._step(step, made)
            step += 1
            self._look(step, config.learning_rate * factor)
            # Ends early: the steps since the last line of the log get one of their own.
            if self.patience and self.waited >= self.patience:
                log.info("%s: nothing better in %s validations, ending at step %s", self.label, self.waited, step)
                if step % config.log_steps and step < self.steps:
                    self._write(step, config.learning_rate * factor)
                break
        return step

    def _held(self) -> WholeModel | ShardedModel:
        """What this process holds of the model."""
        if not self.config.shard:
            return WholeModel(self.model, self.accelerator)
        if self.accelerator.num_processes == 1:
            log.info("%s: loop.shard changes nothing, since there is one process", self.label)
            return WholeModel(self.model, self.accelerator)
        sharding: Sharding | None = getattr(self.model, "sharding", "whole")
        if sharding is None:
            raise ValueError(
                "loop.shard: each process needs the whole model for this training, as adversarial steps, averaged"
                " teachers, rollouts and references do: set it to false, or leave those out"
            )
        return ShardedModel(self.model, self.accelerator.device, sharding)

    def _batches_of(self, step: int) -> list[Batch]:
        """The share that this process has of a step's batches."""
        numbers = range(step * self.config.accumulate, (step + 1) * self.config.accumulate)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        return [self.batches.batch(number, rank, world) for number in numbers]

    def _step(self, step: int, made: list[Batch]) -> None:
        """One optimizer step on its batches."""
        accelerator, config = self.accelerator, self.config
        self.held.module.train()
        for number, batch in enumerate(made):
            content = to_device(batch.content, accelerator.device)
            wait = number < len(made) - 1  # processes exchange gradients with the last batch of a step alone
            losses = self._losses(content, wait)
            names: dict[str, str] = {}
            # Each loss goes backward before the next is computed, which may read the gradients so far (FGM).
            while (terms := self._next(losses, wait)) is not None:
                if "loss" not in terms:
                    raise ValueError(f"the loss function returned {sorted(terms)} without the key 'loss'")
                with self._without_exchange(wait):
                    accelerator.backward(terms["loss"] / len(made))
                logged = {names.get(name, name): value.detach() for name, value in terms.items()}
                self.pending.append((step + 1, batch.task, logged))
                names["loss"] = "later_loss"  # what is logged as the loss is the first one
            self.own += batch.samples
        # The norm is logged as it was before clipping.
        norm = self.held.gradient_norm()
        if config.clip_norm:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, config.clip_norm, norm)
        self.pending.append((step + 1, "", {"gradient_norm": norm.detach()}))
        if accelerator.device.type == "cpu":
            self._collect()  # before the update, so that weights stay sound
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def _without_exchange(self, wait: bool) -> AbstractContextManager[Any]:
        """Where processes do not exchange gradients, if there is more to come in this step."""
        return self.held.without_exchange() if wait else nullcontext()

    def _losses(self, content: Any, wait: bool) -> Iterator[Terms]:
        """The loss function's terms as an iterator, whichever of the two forms it has."""
        with self._without_exchange(wait), self.accelerator.autocast():
            terms = self.loss(self.held.module, content)
        return iter((terms,)) if isinstance(terms, dict) else terms

    def _next(self, losses: Iterator[Terms], wait: bool) -> Terms | None:
        # A generator computes when it is asked, so asking happens under autocast, too.
        with self._without_exchange(wait), self.accelerator.autocast():
            return next(losses, None)

    def _look(self, step: int, learning_rate: float) -> None:
        """After step number ``step`` (from 1): log, validate, save, each when it is time."""
        config, end = self.config, step == self.steps
        validate = self.validate is not None and (end or (config.validate_steps and step % config.validate_steps == 0))
        # Clocks differ between processes, and all of them must save at the same step; asking costs a little.
        by_time = False
        if config.checkpoint_seconds and (self.accelerator.num_processes == 1 or step % _STEPS_UNCHECKED == 0):
            by_time = exchanged(config.checkpoint_seconds < time.perf_counter() - self.saved)[0]
        save = not end and (by_time or (config.checkpoint_steps and step % config.checkpoint_steps == 0))
        write = end or step % config.log_steps == 0
        # What is written, judged or kept was looked at before.
        if write or validate or save or len(self.pending) >= 2 * _STEPS_UNCHECKED:
            self._collect()
        if write:
            self._write(step, learning_rate)
        if validate:
            self._validate(step)
        if save:
            self._save(step)

    def _write(self, step: int, learning_rate: float) -> None:
        """A line of the log: averages since the last one."""
        figures = self.averages.take(time.perf_counter() - self.started)
        if self.accelerator.is_main_process:
            epoch = self.batches.epoch(step * self.config.accumulate)
            self.log.add(step, figures, epoch=epoch, learning_rate=learning_rate)

    def _collect(self) -> None:
        """Look at the losses computed since the last time and add them to the averages."""
        # One transfer from the device for all terms of a batch; then those of all processes.
        own: list[dict[str, float]] = []
        for _, _, terms in self.pending:
            values = torch.stack([value.float() for value in terms.values()])
            own.append(dict(zip(terms, values.tolist(), strict=True)))
        every = exchanged([self.own, own])
        self.shares = [samples for samples, _ in every]
        for number, (step, task, _) in enumerate(self.pending):
            for name, value in mean_terms([terms[number] for _, terms in every]).items():
                if not math.isfinite(value):
                    where = f" of task '{task}'" if task else ""
                    raise NotFiniteError(
                        f"step {step} of {self.steps}: the term '{name}'{where} is {value}. Lower learning_rate "
                        f"(now {self.config.learning_rate}), lengthen warmup, or try precision: 'no'"
                    )
                self.averages.add(f"{task}/{name}" if task else name, value)
                if task and name == "loss":
                    self.averages.add("loss", value)
        self.pending.clear()
        self.averages.samples = self.samples

    def _validate(self, step: int) -> None:
        assert self.validate is not None
        # With the weights that would be kept, and without a trace in the random states: training must not notice.
        with self._weights_to_keep(), self.held.on_device(), random_state_restored():
            self.model.eval()
            with torch.no_grad():
                figures = exchanged(self.validate(self.model))[0]  # one answer to what depends on them
            if self.accelerator.is_main_process:
                self.log.add(step, {f"valid/{name}": value for name, value in figures.items()})
            wanted = self.config.best
            if wanted and wanted not in figures:
                raise ValueError(f"best: '{wanted}' is no validation figure; there are {sorted(figures)}")
            if not self.best or not wanted or figures[wanted] > self.best["figures"][wanted]:
                self.best, self.waited = {"step": step, "figures": figures}, 0
                if wanted and self.accelerator.is_main_process:
                    files.save_weights(self.model, self.folder / BEST)
            else:
                self.waited += 1
        self.model.train()
        shown = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        log.info("%s: step %s of %s, %s", self.label, step, self.steps, shown)

    @contextmanager
    def _weights_to_keep(self) -> Iterator[None]:
        """The averaged weights in place of the live ones, if there are any."""
        if self.average is None:
            yield
            return
        self.average.swap()
        try:
            yield
        finally:
            self.average.swap()

    def _save(self, step: int) -> None:
        accelerator, held = self.accelerator, self.held
        # What all of them put together, where they hold parts; else the first one has everything.
        held.gather()
        moments, average = {}, {}
        if accelerator.is_main_process or isinstance(held, ShardedModel):
            moments = files.optimizer_tensors(self.optimizer, held.whole)
            average = (
                {name: held.whole(name, value) for name, value in self.average.values.items()} if self.average else {}
            )
        if accelerator.is_main_process:
            temporary = self.checkpoints.begin(step)
            files.save_weights(self.model, temporary / WEIGHTS)
            files.save_tensors(moments, temporary / "optimizer.safetensors")
            if average:
                files.save_tensors(average, temporary / "average.safetensors")
            write_json(
                temporary / "state.json",
                {
                    "step": step,
                    "shares": self.shares,
                    "seconds": time.perf_counter() - self.started,
                    "fingerprint": self.fingerprint,
                    "averages": self.averages.state(),
                    "best": self.best,
                    "waited": self.waited,
                },
            )
        # Every process adds its own random states before the folder gets its name.
        accelerator.wait_for_everyone()
        RandomState.now().save(self.checkpoints.writing(step), accelerator.process_index)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            self.checkpoints.finish(step)
        self.saved = time.perf_counter()

    def _resume(self, optimizer: torch.optim.Optimizer) -> int:
        """Load the newest checkpoint; the number of steps already done."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        newest = self.checkpoints.newest()
        step = exchanged(None if newest is None else newest.name)[0]
        if step is None:
            if rank == 0:
                self.log.keep_until(0)  # of a run that was killed before its first checkpoint
            return 0
        found = self.checkpoints.folder / step
        state = read_json(found / "state.json")
        files.check_same_run(state, self.fingerprint, self.folder)
        part = self.held.part_of
        files.load_weights(self.model, found / WEIGHTS)
        files.load_optimizer(optimizer, found / "optimizer.safetensors", part)
        if self.average is not None:
            average = files.load_tensors(found / "average.safetensors")
            self.average.load({name: part(name, value) for name, value in average.items()})
        self.averages = Averages.from_state(state["averages"])
        self.best, self.spent = state["best"], state["seconds"]
        self.waited = state.get("waited", 0)
        # As many processes as before go on exactly as they were; others have random states of their own.
        self.shares = state.get("shares") or [state["samples"]]
        if len(self.shares) == world:
            RandomState.load(found, rank).restore()
            self.own = self.shares[rank]
        else:
            log.warning(
                "%s: %s processes go on from a checkpoint of %s; the weights will not be, bit by bit, those of an"
                " unbroken training",
                *(self.label, world, len(self.shares)),
            )
            torch.manual_seed(self.seed + 1009 * state["step"] + rank)
            self.own = self.samples if rank == 0 else 0
        if rank == 0:
            self.log.keep_until(state["step"])
        log.info("%s: continuing after step %s of %s", self.label, state["step"], self.steps)
        return int(state["step"])

    def _end(self, steps: int) -> FitReport:
        """Choose the weights after so many steps, write them, and only then drop the checkpoints."""
        seconds = time.perf_counter() - self.started
        # The averaged weights, or the last; but the best where validation chooses, which the first process has written
        # by now.
        if self.average is not None:
            self.average.swap()
        self.held.gather()
        check_same_weights(self.model)
        self.accelerator.wait_for_everyone()
        if self.config.best and self.best:
            files.load_weights(self.model, self.folder / BEST)
        self.model.eval()
        report = FitReport(
            steps,
            self.samples,
            round(seconds, 3),
            round(self.samples / max(seconds, 1e-9), 2),
            self.log.last("loss"),
            self.precision,
            self.best.get("figures", {}),
            self.best.get("step", steps),
            self.shares,
            round(self.start_mib),
        )
        report = FitReport(**exchanged(asdict(report))[0])
        # The report is what makes a run finished: it comes after the weights, and before the checkpoints go.
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            files.save_weights(self.model, self.folder / WEIGHTS)
            if self.config.curves:
                plot_curves(self.folder / LOG, self.folder / CURVES, self.label)
            write_json(self.folder / FINISHED, {"fingerprint": self.fingerprint, "report": asdict(report)})
            self.checkpoints.clear()
            (self.folder / BEST).unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
        return report


def check_same_weights(model: nn.Module) -> None:
    """What processes have trained together must be the same in all of them, bit by bit.

    Raises:
        RuntimeError: it is not, so that going on would mix up several models.
    """
    if place()[1] == 1:
        return
    values = (value.detach().cpu().flatten().view(torch.uint8) for value in model.parameters())
    sums = [crc32(value.numpy().tobytes()) for value in values]
    every = exchanged(sums)
    if any(other != every[0] for other in every):
        names = [name for name, _ in model.named_parameters()]
        parts = [name for name, *values in zip(names, *every, strict=True) if len(set(values)) > 1]
        raise RuntimeError(
            f"after the training the processes' weights differ in {len(parts)} of {len(names)} tables, the first is"
            f" '{parts[0]}': start again from the last checkpoint, and look for faulty memory or a GPU of another kind"
        )


def mean_terms(every: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each process's terms by name, over those that have it: a share may be without a teacher."""
    names = dict.fromkeys(name for terms in every for name in terms)
    known = {name: [terms[name] for terms in every if name in terms] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items()}
