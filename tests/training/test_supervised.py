"""The objective of SFT against plain twins on a tiny generator."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from onesearch.index.sid_index import SidIndex
from onesearch.model.prompt_batch import ItemTokens
from onesearch.search.path_scoring import score_paths
from onesearch.training.supervised import SupervisedObjective
from onesearch.training.supervised_losses import item_nll
from onesearch.training.tasks import TaskBatch, item_targets
from small_models import CODEBOOKS, R, catalogue, generator, prompts

N = 40


def objective(score: float = 0.0, codebook: float = 0.0, **settings: Any) -> SupervisedObjective:
    rows = torch.randn(N, R, generator=torch.Generator().manual_seed(0))
    model = generator(dtype=torch.float32, **settings)
    return SupervisedObjective(model, catalogue(N), rows, score, codebook).eval()


def test_a_code_is_predicted_from_the_codes_before_it_alone():
    """Over all codes of a level the probabilities add up to 1, which they would not if the code were read."""
    made, prompt = objective(), prompts(1)
    for level, size in enumerate(CODEBOOKS):
        sids = torch.tensor([[1, 2, 0, 5, 3]]).repeat(size, 1)
        sids[:, level] = torch.arange(size)
        terms = [made(TaskBatch("t", prompt, sids=sids[code : code + 1])) for code in range(size)]
        total = sum(torch.exp(-one[f"code_{level + 1}"]) for one in terms)
        torch.testing.assert_close(total, torch.tensor(1.0), atol=1e-4, rtol=1e-4)
        if level < 4:  # but the codes after it are predicted from it
            assert len({round(float(one[f"code_{level + 2}"]), 5) for one in terms}) > 1


def test_label_smoothing_gives_a_share_to_all_legal_tokens_alike():
    """Each legal token's probability is that of its level on the path of any item below it."""
    plain, prompt = objective(), prompts(2)
    index, model = plain.index, plain.generator
    smoothed = SupervisedObjective(model, index, plain.item_head_rows, 0.0, 0.0, 0.25).eval()
    rows, owner, weights = np.array([3, 20]), np.array([0, 1]), np.array([1.0, 3.0])
    batch = TaskBatch("t", prompt, items=item_targets(rows, owner, weights, N, N, rows))
    memory, paths = model.encode(prompt), index.path(torch.arange(N))
    spread = 0.0
    for row, request, share in zip(rows.tolist(), owner.tolist(), (0.25, 0.75), strict=True):
        log_probs, _ = score_paths(model, memory, paths, torch.full((N,), request), index)
        for level in range(len(CODEBOOKS)):
            siblings = torch.ones(N, dtype=torch.bool) if not level else paths[:, level - 1] == paths[row, level - 1]
            of_token = dict(zip(paths[siblings, level].tolist(), log_probs[siblings, level], strict=True))
            spread -= share * float(sum(of_token.values()).detach()) / len(of_token)
    expected = 0.75 * plain(batch)["loss"] + 0.25 * spread
    torch.testing.assert_close(smoothed(batch)["loss"], expected, atol=1e-4, rtol=1e-4)


def test_the_score_compares_with_all_candidates_but_further_targets_of_the_request():
    made, prompt = objective(score=0.5), prompts(2)
    rows, owner, weights = np.array([3, 8, 20]), np.array([0, 0, 1]), np.array([1.0, 2.0, 1.0])
    batch = TaskBatch("t", prompt, items=item_targets(rows, owner, weights, N, N, rows))
    found = made(batch)
    memory, model = made.generator.encode(prompt), made.generator
    begin, prompt_of = model.token_embedding(-1, torch.zeros(3, dtype=torch.long)), torch.from_numpy(owner)
    hidden = model.backbone.decode(memory.prompts, begin[:, None], prompt_of)
    state = model.score_state(hidden[:, 0], memory, prompt_of)
    scores = state @ made.item_head_rows.T
    loss = 0.0
    for target, (row, other) in enumerate(((3, 8), (8, 3), (20, None))):
        left = [item for item in range(N) if item != other]
        loss += weights[target] / 4 * float(-functional.log_softmax(scores[target, left], 0)[left.index(row)].detach())
    torch.testing.assert_close(found["score"], torch.tensor(loss, dtype=torch.float32), atol=1e-4, rtol=1e-4)
    bare = objective()(batch)["loss"]
    torch.testing.assert_close(found["loss"], bare + 0.5 * found["score"], atol=1e-4, rtol=1e-4)


def test_what_own_clicks_add_to_rows_is_taken_off_the_targets_paths_and_scores():
    """As if a page view of two clicks had never been counted: an index and rows with the numbers from before."""
    made = objective(score=1.0)
    model, index, prompt = made.generator, made.index, prompts(2)
    with torch.no_grad():
        model.from_row.weight.zero_()  # what the decoder reads of nodes is not what is tested here
    both, owner = torch.tensor([8, 12, 20]), torch.tensor([0, 0, 1])
    added = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.5, -0.5], [0.0, 0.0, 0.0]])
    rows = index.item_vectors(index.position_of(torch.arange(N))).clone()
    rows[both, -3:] -= added
    sids = index.sids(4, index.path(torch.arange(N))[:, 4])
    before = SidIndex.build(sids.numpy(), rows.numpy(), CODEBOOKS)
    items = item_targets(both.numpy(), owner.numpy(), np.ones(3), N, N, np.array([0]))
    items.leave_out = added
    memory = model.encode(prompt)
    # Every target of the page view, beside the other one; the second page view has added nothing.
    plain, _ = score_paths(model, memory, index.path(both), owner, index)
    expected, _ = score_paths(model, memory, before.path(both), owner, before)
    expected = torch.cat([expected[:2], plain[2:]])
    found = made(TaskBatch("t", prompt, items=items))
    torch.testing.assert_close(found["loss"] - found["score"], item_nll(expected, items.weights)[0])
    assert not torch.allclose(expected[:2], plain[:2], atol=1e-3)
    prompt, target, own = prompts(1), 8, added[:1]
    # The contrastive loss: the target's row without its click, all others as they are.
    items = item_targets(np.array([target]), np.array([0]), np.array([1.0]), N, N, np.array([0]))
    items.leave_out = own
    found = made(TaskBatch("t", prompt, items=items))["score"]
    made.item_head_rows[target, -3:] -= own[0]
    items.leave_out = None
    torch.testing.assert_close(found, made(TaskBatch("t", prompt, items=items))["score"], atol=1e-5, rtol=1e-5)


def test_own_clicks_are_taken_off_in_bfloat16_too():
    """Products are bfloat16 then, sums are not: what is added to what has one type only if somebody sees to it."""
    made = objective(score=1.0, prompt={"evidence": {"lexical": 3}}, item_memory=True)
    prompt = prompts(2)
    evidence = torch.tensor([[3, 7, -1], [5, 20, 9]])
    prompt.items = ItemTokens(evidence, torch.randn(2, 3, R), torch.rand(2, 3, 11))
    items = item_targets(np.array([3, 20]), np.array([0, 1]), np.ones(2), N, N, np.arange(N))
    items.leave_out = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.5, -0.5]])
    batch = TaskBatch("t", prompt, items=items)
    with torch.autocast("cpu", torch.bfloat16):
        found = made(batch)["loss"]
    found.backward()
    torch.testing.assert_close(found, made(batch)["loss"], atol=0.1, rtol=0.02)


def test_the_score_of_evidence_has_what_the_pointer_says_of_it():
    made = objective(score=1.0, prompt={"evidence": {"lexical": 3}}, item_memory=True)
    prompt, rows = prompts(2), np.array([3, 20])
    evidence = torch.tensor([[3, 7, -1], [5, 20, 9]])
    prompt.items = ItemTokens(evidence, torch.randn(2, 3, R), torch.rand(2, 3, 11))
    batch = TaskBatch("t", prompt, items=item_targets(rows, np.arange(2), np.ones(2), N, N, rows))
    found = made(batch)["score"]
    memory, model = made.generator.encode(prompt), made.generator
    asked = model.ask(memory)
    scores = asked.state @ made.item_head_rows.T + asked.recalling @ model.item_memory.weight.T
    for request in range(2):
        for column, item in enumerate(evidence[request].tolist()):
            if item >= 0:
                scores[request, item] += asked.told[request, column]
    loss = functional.cross_entropy(scores, torch.from_numpy(rows))
    torch.testing.assert_close(found, loss, atol=1e-4, rtol=1e-4)
    # Evidence must be among the candidates of a large catalogue: as negatives that are hard to tell.
    few = item_targets(rows, np.arange(2), np.ones(2), 100_000, 4, rows, evidence.numpy())
    assert {3, 5, 7, 9, 20} <= set(few.candidates.tolist()) and -1 not in few.candidates
