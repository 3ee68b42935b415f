import numpy as np
from benchmarks.speed.bench_tpma_step import tpma_step_ratio
from benchmarks.speed.bench_training import QUICK, Workload, synthetic
from benchmarks.speed.bench_v2_step import KEYWORDS, TARGETS, corpus, v2_step_ratios

from onesearch.model.model_settings import PromptSettings
from onesearch.model.token_vocabulary import PAD


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


def test_v2_is_timed_on_the_prompts_of_sft_with_the_teachers_of_some_or_all():
    made = corpus(QUICK, PromptSettings(), TARGETS, KEYWORDS)
    lengths = made.builder.search_prompt(made.columns, np.arange(64)).mask.sum(1)
    taught = made.builder.search_prompt(made.columns, np.arange(64), keywords=True).mask.sum(1)
    assert (taught - lengths).min() >= 1 + 3 and 1 <= made.targets.lengths.min() < made.targets.lengths.max() == TARGETS
    found = v2_step_ratios(QUICK, "no", 2, 2)
    assert found["v2_step_over_sft_step"] > 0 and found["v2_step_over_sft_step_all"] > 0


def test_a_tpma_step_is_timed_with_all_terms_of_the_reward():
    found = tpma_step_ratio(QUICK, "no", 2, 1)
    assert found["tpma_step_over_sft_step"] > 0 and found["tpma_prompts"] * found["tpma_rollouts"] == QUICK.batch_size
