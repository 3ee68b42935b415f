"""The objective of SFT against plain twins on a tiny generator."""

import numpy as np
import torch
from torch.nn import functional

from onesearch.training.supervised import SupervisedObjective
from onesearch.training.tasks import TaskBatch, item_targets
from small_models import CODEBOOKS, R, catalogue, generator, prompts

N = 40


def objective(score: float = 0.0, codebook: float = 0.0) -> SupervisedObjective:
    rows = torch.randn(N, R, generator=torch.Generator().manual_seed(0))
    return SupervisedObjective(generator(dtype=torch.float32), catalogue(N), rows, score, codebook).eval()


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
