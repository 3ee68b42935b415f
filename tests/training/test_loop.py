import importlib.util
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onesearch.common.device import has_native_bf16
from onesearch.model.backbones import BackboneSettings, build_backbone
from onesearch.training import loop
from onesearch.training.batching import BatchSource
from onesearch.training.loop import CHECKPOINTS, CURVES, LOG, WEIGHTS, LoopSettings, NotFiniteError, fit
from onesearch.training.optimizer import AveragedWeights, parameter_groups, rate
from onesearch.training.precision import resolve_precision

spec = importlib.util.spec_from_file_location("tiny_fit", Path(__file__).with_name("tiny_fit.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


def records(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_it_learns_logs_validates_and_plots(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "onesearch"):
        model, report = tiny.train(tmp_path, tiny.CONFIG.updated(curves=True))
    assert report.steps == tiny.STEPS and report.samples > 1800 and report.precision == "no"
    assert report.metrics["accuracy"] > 0.9 and not model.training
    lines = records(tmp_path)
    training = [line for line in lines if "loss" in line]
    assert [line["step"] for line in training] == [10, 20, 30, 40, 50, 60]
    assert training[-1]["loss"] < 0.5 * training[0]["loss"]
    assert {"first/entropy", "second/loss", "learning_rate", "samples_per_second", "gradient_norm"} <= set(training[0])
    assert [line["step"] for line in lines if "valid/accuracy" in line] == [20, 40, 60]
    assert (tmp_path / CURVES).read_bytes()[:4] == b"\x89PNG" and (tmp_path / WEIGHTS).is_file()
    assert not (tmp_path / CHECKPOINTS).exists()
    assert "step 60 of 60, accuracy" in caplog.text


def test_a_finished_run_returns_its_weights_at_once(tmp_path):
    model, report = tiny.train(tmp_path)
    again, second = tiny.train(tmp_path, loss=lambda model, batch: pytest.fail("trained again"))
    assert second == report and equal(model, again)
    with pytest.raises(ValueError, match="another training run"):
        tiny.train(tmp_path, tiny.CONFIG.updated(learning_rate=2.0))


def test_two_runs_are_bit_equal_and_bookkeeping_changes_nothing(tmp_path):
    model, _ = tiny.train(tmp_path / "a")
    quiet = tiny.CONFIG.updated(log_steps=60, checkpoint_steps=0, checkpoint_seconds=0, prefetch=0)
    other, _ = tiny.train(tmp_path / "b", quiet, validate=None)
    assert equal(model, other)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("at", [1, 7, 23, 60])
def test_an_interrupted_run_ends_as_an_unbroken_one(tmp_path, at):
    model, report = tiny.train(tmp_path / "whole")
    seen = []

    def breaking(model, batch):
        seen.append(1)
        if len(seen) == at:
            raise StoppedError
        return model(batch)

    with pytest.raises(StoppedError):
        tiny.train(tmp_path / "broken", loss=breaking)
    other, second = tiny.train(tmp_path / "broken")
    assert equal(model, other) and second.samples == report.samples

    def comparable(folder):
        return [{k: v for k, v in line.items() if "second" not in k or "/" in k} for line in records(folder)]

    assert comparable(tmp_path / "broken") == comparable(tmp_path / "whole")


def test_a_non_finite_loss_stops_with_step_and_term_and_keeps_the_checkpoint(tmp_path):
    calls = []

    def poisoned(model, batch):
        terms = model(batch)
        calls.append(1)
        if len(calls) == 20:
            terms["entropy"] = torch.tensor(float("nan"))
        return terms

    with pytest.raises(NotFiniteError, match=r"step 20 of 60: the term 'entropy' of task '(first|second)' is nan"):
        tiny.train(tmp_path, loss=poisoned)
    assert [p.name for p in (tmp_path / CHECKPOINTS).iterdir()] == ["step-00000014"]
    model, _ = tiny.train(tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_infinite_gradient_is_found_too(tmp_path):
    def exploding(model, batch):
        terms = model(batch)
        return {"loss": terms["loss"] + (model.head.weight.sum() * 0).sqrt()}

    with pytest.raises(NotFiniteError, match="step 1 of 60: the term 'gradient_norm'"):
        tiny.train(tmp_path, loss=exploding)


def regression(n=64, **config):
    x = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    source = BatchSource(np.ones(n, int), lambda rows: x[rows], 8, epochs=2)
    values = {"precision": "no", "learning_rate": 1e-2, "warmup": 0.0, "curves": False, **config}
    return source, LoopSettings(**values)


def test_best_weights_are_chosen_by_the_named_figure(tmp_path):
    source, config = regression(validate_steps=4, best="score")
    model, calls, weights = nn.Linear(3, 1), [], []

    def validate(model):
        calls.append(1)
        weights.append(model.weight.detach().clone())
        return {"score": [1.0, 3.0, 2.0, 0.0][len(calls) - 1]}

    def loss(model, batch):
        return {"loss": (model(batch) - 1).square().mean()}

    report = fit(model, source, loss, config, tmp_path, validate)
    assert report.chosen_step == 8 and report.metrics == {"score": 3.0} and torch.equal(model.weight, weights[1])
    with pytest.raises(ValueError, match=r"best: 'hr' is no validation figure; there are \['score'\]"):
        fit(nn.Linear(3, 1), source, loss, config.updated(best="hr"), tmp_path / "b", lambda model: {"score": 1.0})


@pytest.mark.parametrize(
    ("scores", "patience", "chosen", "ended"),
    [
        ([5.0, 3.0, 4.0, 9.0, 9.0], 2, 0, 8),  # falls from the start on: the first weights stay, and it ends early
        ([1.0, 3.0, 2.0, 4.0, 0.0], 2, 12, 16),
        ([1.0, 3.0, 2.0, 1.0, 0.0], 3, 4, 16),
        ([5.0, 3.0, 4.0, 2.0, 1.0], 0, 0, 16),  # without patience to the end, and the first weights still compete
    ],
)
def test_a_falling_figure_ends_training_and_the_best_weights_come_back(tmp_path, scores, patience, chosen, ended):
    source, config = regression(validate_steps=4, best="score")
    model, weights = nn.Linear(3, 1), []

    def validate(model):
        weights.append(model.weight.detach().clone())
        return {"score": scores[len(weights) - 1]}

    def loss(model, batch):
        return {"loss": (model(batch) - 1).square().mean()}

    report = fit(model, source, loss, config, tmp_path, validate, patience=patience)
    assert (report.chosen_step, report.steps) == (chosen, ended)
    assert torch.equal(model.weight, weights[chosen // 4]) and report.loss > 0
    assert report.metrics == {"score": max(scores[: ended // 4 + 1])}
    assert fit(nn.Linear(3, 1), source, loss, config, tmp_path, validate, patience=patience) == report  # finished
    with pytest.raises(ValueError, match="patience needs a validation"):
        fit(nn.Linear(3, 1), source, loss, config.updated(best=""), tmp_path / "b", validate, patience=1)


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    models = []
    for size, accumulate in ((16, 1), (8, 2)):
        torch.manual_seed(0)
        model = nn.Linear(3, 1)
        rows = np.arange(64)
        # Step s of the large run and steps 2s, 2s + 1 of the small one see the same rows.
        source = BatchSource(np.ones(64, int), lambda r: r, size, epochs=1)
        source.rows = lambda step, rank=0, world=1, size=size, rows=rows: rows[step * size : (step + 1) * size]
        source.collate = lambda r: x[r]
        config = LoopSettings(precision="no", curves=False, accumulate=accumulate, learning_rate=1e-2)
        fit(model, source, lambda m, b: {"loss": (m(b) - 1).square().mean()}, config, tmp_path / str(size))
        models.append(model)
    assert torch.allclose(models[0].weight, models[1].weight, atol=1e-6)


def test_the_loss_needs_its_key_and_steps_are_needed(tmp_path):
    source, config = regression()
    with pytest.raises(ValueError, match=r"returned \['nll'\] without the key 'loss'"):
        fit(nn.Linear(3, 1), source, lambda m, b: {"nll": m(b).mean()}, config, tmp_path)
    with pytest.raises(ValueError, match="lower 'accumulate'"):
        fit(nn.Linear(3, 1), source, lambda m, b: {}, config.updated(accumulate=99), tmp_path / "b")


def test_bf16_trains_in_bf16_and_leaves_the_model_as_it_was(tmp_path):
    source, config = regression(precision="bf16")
    model, seen = nn.Linear(3, 1), []

    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model

        def forward(self, batch):
            out = self.inner(batch)
            seen.append(out.dtype)
            return {"loss": (out.float() - 1).square().mean()}

    wrapper = Wrapper()
    fit(wrapper, source, lambda m, b: m(b), config, tmp_path)
    assert set(seen) == {torch.bfloat16} and model.weight.dtype == torch.float32
    assert "forward" not in vars(wrapper) or wrapper.forward.__func__ is Wrapper.forward
    seen.clear()
    wrapper(torch.ones(2, 3))
    assert seen == [torch.float32]
    assert resolve_precision("auto") == ("bf16" if has_native_bf16() else "no")


def test_learning_rate_rises_and_falls():
    linear = [rate(step, 10, 2, "linear", 0.1) for step in range(10)]
    assert linear[:3] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert linear[9] == pytest.approx(0.1 + 0.9 / 8) and linear == sorted(linear[:2]) + sorted(linear[2:], reverse=True)
    assert rate(6, 10, 2, "cosine") == pytest.approx(0.5)
    assert rate(9, 10, 0, "constant") == 1.0


def test_groups_follow_name_prefixes_and_spare_vectors_and_embeddings():
    model = tiny.Model()
    groups = parameter_groups(model, 1.0, 0.1, {"head": 2.0, "head.bias": 3.0, "embedding": 0.0})
    found = {name: (group["peak"], group["weight_decay"]) for group in groups for name in group["names"]}
    assert found == {
        "embedding.weight": (0.0, 0.0),
        "norm.weight": (1.0, 0.0),
        "norm.bias": (1.0, 0.0),
        "head.weight": (2.0, 0.1),
        "head.bias": (3.0, 0.0),
    }
    with pytest.raises(ValueError, match=r"begins with 'decoder'.*'embedding'"):
        parameter_groups(model, 1.0, 0.1, {"decoder": 1.0})
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that requires"):
        parameter_groups(model, 1.0, 0.1, {})


def test_averaged_weights_by_hand():
    model = nn.Linear(1, 1, bias=False)
    model.weight.data.fill_(1.0)
    average = AveragedWeights(dict(model.named_parameters()), 0.75)
    model.weight.data.fill_(5.0)
    average.update()
    average.swap()
    assert model.weight.item() == 2.0  # 0.75 · 1 + 0.25 · 5
    average.swap()
    assert model.weight.item() == 5.0


def test_a_loss_may_be_a_generator_that_sees_the_gradients_of_its_first_part(tmp_path):
    seen = []

    def twice(model, batch):
        terms = model(batch)
        yield terms
        seen.append(model.embedding.weight.grad is not None)
        yield {"loss": terms["loss"].detach() * 0 + model.head.weight.square().sum() * 0, "more": terms["entropy"]}

    plain, _ = tiny.train(tmp_path / "plain")
    model, report = tiny.train(tmp_path / "twice", loss=twice)
    assert report.steps == tiny.STEPS and all(seen) and len(seen) == tiny.STEPS
    assert equal(plain, model)  # the second part adds nothing to the gradients here
    last = [line for line in records(tmp_path / "twice") if "loss" in line][-1]
    assert last["first/more"] == pytest.approx(last["first/entropy"]) and last["first/later_loss"] == 0.0


def test_the_weights_are_those_of_a_plain_loop(tmp_path):
    """Warm-up, schedule, accumulation, clipping, decay and averaging against AdamW in a loop written out."""
    source, config = regression(learning_rate=0.1, warmup=0.25, floor=0.1, clip_norm=2.5, accumulate=2, average=0.8)
    config = config.updated(weight_decay=0.3, log_steps=1)
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    twin = nn.Linear(3, 1)
    twin.load_state_dict(model.state_dict())
    fit(model, source, lambda m, b: {"loss": (m(b) - 1).square().mean()}, config, tmp_path)

    optimizer = torch.optim.AdamW(
        [{"params": [twin.weight], "weight_decay": 0.3}, {"params": [twin.bias], "weight_decay": 0.0}],
        betas=(0.9, 0.98),
    )
    average, norms, rates = [p.detach().clone() for p in twin.parameters()], [], []
    for step in range(8):
        # Two steps of warm-up, then down to a tenth.
        rates.append(0.1 * ((step + 1) / 3 if step < 2 else 0.1 + 0.9 * (1 - (step - 2) / 6)))
        optimizer.zero_grad()
        for number in (2 * step, 2 * step + 1):
            ((twin(source.batch(number).content) - 1).square().mean() / 2).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(twin.parameters(), 2.5)))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
        average = [0.8 * kept + 0.2 * p.detach() for kept, p in zip(average, twin.parameters(), strict=True)]
    assert min(norms) < 2.5 < max(norms)  # some steps are clipped and some are not
    for p, kept in zip(model.parameters(), average, strict=True):
        torch.testing.assert_close(p.detach(), kept, atol=1e-6, rtol=1e-5)
    lines = records(tmp_path)
    assert [line["gradient_norm"] for line in lines] == pytest.approx(norms, rel=1e-4)
    assert [line["learning_rate"] for line in lines] == pytest.approx(rates)


def test_a_launcher_that_would_split_the_model_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(loop.Accelerator, "distributed_type", loop.DistributedType.FSDP)
    source = BatchSource(np.ones(4, int), lambda rows: torch.ones(1, 3), 4)
    with pytest.raises(ValueError, match=r"not a part of one \(FSDP\): launch without FSDP"):
        fit(nn.Linear(3, 1), source, lambda model, batch: {"loss": model(batch).sum()}, LoopSettings(), tmp_path)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_loop_says_whether_layers_are_computed_again(tmp_path, recompute):
    backbone = build_backbone(BackboneSettings(d_model=8, heads=2, encoder_layers=1, decoder_layers=1, ffn=8))
    source = BatchSource(np.ones(4, int), lambda rows: torch.ones(1, 2, 8), 4)
    seen = []

    def loss(model, batch):
        seen.append(backbone.recompute)
        mask = torch.ones(1, 2, dtype=torch.bool)
        return {"loss": backbone.decode(backbone.encode(batch, mask), batch, torch.tensor([0])).square().mean()}

    config = LoopSettings(precision="no", curves=False, recompute=recompute)
    fit(backbone, source, loss, config, tmp_path)
    assert seen == [recompute]
    # It changes no weight: the other way goes on with the same checkpoints.
    assert config.decisive() == config.updated(recompute=not recompute).decisive()
