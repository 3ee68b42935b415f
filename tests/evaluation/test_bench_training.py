import numpy as np

from onesearch.evaluation.bench_training import QUICK, Workload, synthetic
from onesearch.model.vocabulary import PAD


def test_both_sides_get_the_same_rows_and_labels():
    sides = synthetic(QUICK)
    rows = np.array([5, 0, 17])
    ours, theirs = sides.task.batch(rows), sides.pairs.batch(rows)
    assert (np.where(ours.prompt.mask, ours.prompt.tokens, PAD) == theirs["input_ids"].numpy()).all()
    assert (ours.prompt.mask.long() == theirs["attention_mask"]).all()
    paths = sides.index.path(ours.items.rows)
    sids = sides.index.sids(len(QUICK.codebooks) - 1, paths[:, -1]).numpy()
    offsets = theirs["labels"].numpy() - sids
    assert (offsets == offsets[0]).all() and (np.diff(offsets[0]) == QUICK.codebooks[:-1]).all()


def test_both_networks_are_of_one_size():
    sides = synthetic(QUICK)
    layers = [sum(p.numel() for n, p in m.named_parameters() if ".layers." in n) for m in (sides.generator, sides.peer)]
    assert layers[0] == layers[1] > 0
    ours = sum(p.numel() for p in sides.generator.backbone.parameters())
    theirs = sum(p.numel() for p in sides.peer.parameters()) - sides.peer.get_input_embeddings().weight.numel()
    assert ours == theirs


def test_prompts_have_about_64_tokens():
    sides = synthetic(Workload(items=500, requests=400))
    assert 54 < sides.pairs.inputs.lengths.mean() < 74
    assert sides.pairs.inputs.lengths.std() > 8
