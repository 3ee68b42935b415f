"""Every logged term of a short V2 training against a stored curve: no formula and no weight changes silently.

The other tests check each term once, against arithmetic done by hand; this one checks step by step what the loop really
minimises, with everything on: focal and plain cross-entropy, KL at a temperature, the words' rows, the teacher's
cross-entropy, R-Drop, hidden states, FGM (``later_loss``), item score and codebook head. The weights are written out
here, so that the curves depend on no default, and are such that every term is a fair part of the loss.

The tolerance, 2e-3 of a value, is wide for other BLAS libraries and other rounding: initial weights off by 1e-6 of
themselves stay within a tenth of it (``test_rounding_passes``). It is narrow for changes: 5 % on any one setting, or
2 % on a formula, is outside it (``test_a_changed_setting_fails``, ``test_a_changed_formula_fails``). The numbers do
depend on the order in which torch's generator is asked (initial weights, dropout). After a change that is meant:

    python tests/training/test_reference_curves.py --write

and say in the commit why the curves moved.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch

from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.generator import Generator, Sizes
from onesearch.model.model_settings import ModelSettings, PromptSettings
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.token_vocabulary import MARKS
from onesearch.training import self_distillation as distill
from onesearch.training.batching import BatchSource
from onesearch.training.loop import LoopSettings, fit
from onesearch.training.self_distillation import DistillationSettings, SelfDistillationObjective, distillation_loss
from onesearch.training.tasks import TaskBatch, item_targets

STORED = Path(__file__).with_name("reference_curves.json")
TOLERANCE = 2e-3
STEPS = 12
CODEBOOKS, D, R, E, ITEMS, TEXT, PAGE_VIEWS = (5, 4, 3, 6, 6), 16, 8, 12, 60, 20, 48
SCORE, CODEBOOK = 0.5, 0.3
SETTINGS = DistillationSettings(
    kl=2.0,
    row=1.5,
    temperature=2.0,
    teacher_ce=0.8,
    detach=True,
    hidden=10.0,
    r_drop=1.5,
    fgm=0.6,
    focal=True,
    focal_alpha=2.0,
    focal_gamma=3.0,
)
TERMS = {
    "loss",
    "ce",
    "kl",
    "row",
    "teacher_ce",
    "r_drop",
    "hidden",
    "later_loss",
    "score",
    "codebook",
    "gradient_norm",
    *(f"level_{level}" for level in range(1, 6)),
}


def parts():
    rng = np.random.default_rng(0)
    sids = np.stack([(size * rng.random(ITEMS) ** 2).astype(np.int64) for size in CODEBOOKS], 1)
    rows = rng.normal(size=(ITEMS, R)).astype(np.float32)
    torch.manual_seed(3)
    backbone = BackboneSettings(d_model=D, heads=2, encoder_layers=1, decoder_layers=1, ffn=24, max_positions=32)
    centroids = [torch.randn(size, E) for size in CODEBOOKS[:3]]
    config = ModelSettings(backbone=backbone, prompt=PromptSettings(long=0), word_rows=True)
    generator = Generator(config, Sizes(TEXT, CODEBOOKS, E, R, 1.5), centroids)
    for name, parameter in generator.named_parameters():
        if parameter.dim() > 1 and name != "word_rows.weight":  # item heads start at zero, where passes do not differ
            torch.nn.init.normal_(parameter, std=0.3)
    return generator, SidIndex.build(sids, rows, CODEBOOKS), rows


def batch(rows):
    """Page views made of their numbers alone: the query decides the click, keywords say more of it."""
    rng = np.random.default_rng(rows)
    clicked, lengths = rows * 7 % ITEMS, 3 + rows % 3
    tokens = np.stack([4 + (clicked + j * (1 + rows % 2)) % 16 for j in range(8)], 1)
    tokens[:, 0] = TEXT + MARKS.index("q")
    vectors = rng.normal(size=(len(rows), E))

    def prompt(of, tokens, lengths, keywords=None):
        mask = np.arange(tokens.shape[1]) < lengths[:, None]
        query = vectors[of].astype(np.float32)
        soft = None if keywords is None else torch.from_numpy(keywords.astype(np.float32))
        return PromptBatch(
            torch.from_numpy(tokens * mask).long(),
            torch.from_numpy(mask),
            torch.from_numpy(query),
            torch.nn.functional.normalize(torch.from_numpy(query[:, :R])),
            None,
            soft,
        )

    taught = np.flatnonzero(rows % 3 == 0)
    keywords = np.array(tokens[taught])
    keywords[np.arange(len(taught)), lengths[taught]] = TEXT + MARKS.index("kw")
    owner = np.repeat(np.arange(len(rows)), 1 + rows % 2)
    second = np.concatenate([[False], owner[1:] == owner[:-1]])
    items = np.where(second, (clicked[owner] + 11) % ITEMS, clicked[owner])
    return TaskBatch(
        "search",
        prompt(np.arange(len(rows)), tokens, lengths),
        items=item_targets(items, owner, 1.0 + second, ITEMS, 100, owner),
        teacher=prompt(taught, keywords, lengths[taught] + 3, rng.normal(size=(len(taught), E))),
        with_teacher=torch.from_numpy(taught),
    )


def curves(settings=SETTINGS, score=SCORE, codebook=CODEBOOK, noise=0.0):
    """Each logged term by step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        generator, index, rows = parts()
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.mul_(1 + noise * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
        objective = SelfDistillationObjective(generator, index, torch.from_numpy(rows), score, codebook, settings)
        source = BatchSource(np.full(PAGE_VIEWS, 5), batch, 12, steps=STEPS)
        config = LoopSettings(learning_rate=1e-2, precision="no", log_steps=1, checkpoint_seconds=0, curves=False)
        with tempfile.TemporaryDirectory() as folder:
            fit(objective, source, distillation_loss, config, Path(folder), seed=5)
            lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    finally:
        torch.set_num_threads(threads)
    return {name: [line[name] for line in lines] for name in lines[0] if name.split("/")[-1] in TERMS}


def difference(found, stored):
    """The largest relative difference of each term, to 1e-3 at least; infinite where a term is missing or new."""
    worst = dict.fromkeys(found.keys() ^ stored.keys(), float("inf"))
    for name in found.keys() & stored.keys():
        ours, theirs = np.array(found[name]), np.array(stored[name])
        worst[name] = float((np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1e-3)).max())
    return worst


def outside(found):
    worst = difference(found, json.loads(STORED.read_text()))
    return {name: value for name, value in worst.items() if not value <= TOLERANCE}


def test_every_term_follows_its_stored_curve():
    found = curves()
    assert set(found) == TERMS and all(len(values) == STEPS for values in found.values())
    assert outside(found) == {}, "if the change is meant, see the top of this file"


def test_rounding_passes():
    worst = max(difference(curves(noise=1e-6), json.loads(STORED.read_text())).values())
    assert worst < TOLERANCE / 10


SWITCHES = (
    "kl",
    "row",
    "temperature",
    "teacher_ce",
    "hidden",
    "r_drop",
    "fgm",
    "focal_alpha",
    "focal_gamma",
    "score",
    "codebook",
)


@pytest.mark.parametrize("setting", SWITCHES)
def test_a_changed_setting_fails(setting):
    if setting in ("score", "codebook"):
        found = curves(**{setting: 1.05 * {"score": SCORE, "codebook": CODEBOOK}[setting]})
    else:
        found = curves(SETTINGS.updated(**{setting: 1.05 * getattr(SETTINGS, setting)}))
    assert outside(found)


@pytest.mark.parametrize("formula", ["r_drop", "distillation_kl", "row_loss", "focal_nll", "hidden_l1", "item_nll"])
def test_a_changed_formula_fails(formula, monkeypatch):
    plain = getattr(distill, formula)

    def changed(*arguments):
        value = plain(*arguments)
        return tuple(1.02 * one for one in value) if isinstance(value, tuple) else 1.02 * value

    monkeypatch.setattr(distill, formula, changed)
    assert outside(curves())


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    values = {name: [float(f"{value:.7g}") for value in series] for name, series in sorted(curves().items())}
    text = ",\n".join(f" {json.dumps(name)}: {json.dumps(series)}" for name, series in values.items())
    STORED.write_text("{\n" + text + "\n}\n")
