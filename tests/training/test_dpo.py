import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from onesearch.common.ragged import Ragged
from onesearch.index.sid_index import SidIndex
from onesearch.model.prompt_batch import ItemTokens
from onesearch.search.path_scoring import score_paths
from onesearch.training.dpo import (
    LEVEL_WEIGHTS,
    Behaviour,
    DpoObjective,
    DpoSettings,
    PreferenceBatch,
    Preferences,
    gap_weights,
    listwise_dpo_loss,
    orders_elsewhere,
    preference_task,
    preferences,
)
from onesearch.training.tasks import TaskBatch
from small_models import CODEBOOKS, catalogue, generator, prompts

# Items 0-9 are of category 0, 10-19 of 1, 20-29 of 2.
CATEGORY = np.repeat([0, 1, 2], 10)
BEHAVIOUR = Behaviour(
    shown=Ragged.from_lists([[0, 1, 2, 3, 10], [], [20, 21]]),
    clicked=Ragged.from_lists([[1, 2], [11], [20]]),
    ordered=Ragged.from_lists([[2], [], []]),
    ordered_elsewhere=Ragged.from_lists([[5], [], []]),
    category=CATEGORY,
)


def test_gap_weights_by_hand():
    found = gap_weights(torch.tensor([2.0, 1.0]), torch.tensor([[0.5, 0.0], [0.2, 0.0]]))
    assert_close(found, torch.tensor([[1 + 1.5**-1.5, 1 + 2**-1.5], [1 + 0.8**-1.5, 2.0]]))
    assert len(LEVEL_WEIGHTS) == 6 and list(LEVEL_WEIGHTS) == sorted(LEVEL_WEIGHTS, reverse=True)


def test_loss_by_hand():
    chosen, chosen_reference = torch.tensor([-2.0]), torch.tensor([-3.0])
    rejected, rejected_reference = torch.tensor([[-4.0, -5.0, 0.0]]), torch.tensor([[-4.0, -4.0, 0.0]])
    gaps, valid = torch.tensor([[2.0, 1.5, 9.0]]), torch.tensor([[True, True, False]])
    found = listwise_dpo_loss(chosen, chosen_reference, rejected, rejected_reference, gaps, valid, 0.5, 0.1)
    # ρ_w = 0.5, ρ_l = 0, -0.5: rw·(ρ_l - ρ_w) = -1, -1.5; log Σ exp = log(e^-1 + e^-1.5).
    z = math.log(math.exp(-1.0) + math.exp(-1.5))
    preference = -math.log(1 / (1 + math.exp(z)))
    assert_close(found["preference"].item(), preference, rtol=1e-5, atol=1e-6)
    assert_close(found["loss"].item(), preference + 0.1 * 2.0, rtol=1e-5, atol=1e-6)
    assert found["nll"].item() == 2.0 and found["accuracy"].item() == 1.0


def test_the_gradient_raises_chosen_and_lowers_rejected_items():
    chosen, rejected = torch.tensor([-2.0, -1.0], requires_grad=True), torch.full((2, 2), -2.0, requires_grad=True)
    valid = torch.tensor([[True, False], [False, False]])
    gaps = torch.full((2, 2), 2.0)
    found = listwise_dpo_loss(chosen, chosen.detach(), rejected, rejected.detach(), gaps, valid, 1.0, 0.0)
    found["loss"].backward()
    assert chosen.grad[0] < 0 < rejected.grad[0, 0]
    assert chosen.grad[1] == 0 and rejected.grad[0, 1] == 0 and (rejected.grad[1] == 0).all()


def test_without_rejected_items_only_the_likelihood_is_left():
    chosen = torch.tensor([-2.0], requires_grad=True)
    none = torch.zeros(1, 0)
    found = listwise_dpo_loss(chosen, chosen.detach(), none, none, none, none.bool(), 1.0, 1.0)
    assert found["loss"].item() == 2.0 and found["preference"].item() == 0.0
    found["loss"].backward()
    assert chosen.grad.item() == -1.0


def test_chosen_and_rejected_items_of_page_views():
    settings = DpoSettings(chosen=3, shown=2, same_category=3, other=3)
    found = preferences(BEHAVIOUR, np.array([0, 1, 2]), settings)
    # Ordered before ordered elsewhere before clicked.
    assert found.chosen.tolist() == [2, 5, 1, 11, 20] and found.owner.tolist() == [0, 0, 0, 1, 2]
    assert_close(found.chosen_reward, torch.tensor([2.0, 1.5, 1.0, 1.0, 1.0]))
    assert_close(found.rejected_reward, torch.tensor([0.5, 0.5, 0.2, 0.2, 0.2, 0.0, 0.0, 0.0]))
    first, second, third = found.rejected.tolist()
    assert set(first[:2]) <= {0, 3, 10} and len(set(first[:2])) == 2
    assert second[:2] == [-1, -1]  # nothing was shown
    assert third[0] == 21 and third[1] == -1
    for view, row in enumerate((first, second, third)):
        category = CATEGORY[BEHAVIOUR.clicked[view][0]]
        known = {*BEHAVIOUR.shown[view], *BEHAVIOUR.clicked[view], *BEHAVIOUR.ordered_elsewhere[view]}
        assert all(item == -1 or (CATEGORY[item] == category and item not in known) for item in row[2:5])
        assert all(item == -1 or (CATEGORY[item] != category and item not in known) for item in row[5:])
    again = preferences(BEHAVIOUR, np.array([0, 1, 2]), settings)
    assert torch.equal(found.rejected, again.rejected)
    assert preferences(BEHAVIOUR, np.array([0]), settings.updated(chosen=1)).chosen.tolist() == [2]


def test_orders_elsewhere_are_the_shoppers_own_in_the_category():
    user = np.array([7, 7, 7, 8, -1])
    clicked, ordered = (
        Ragged.from_lists([[1], [12], [4], [3], [2]]),
        Ragged.from_lists([[1], [12, 13], [4, 15], [3], [2]]),
    )
    found = orders_elsewhere(user, clicked, ordered, CATEGORY)
    assert [found[n].tolist() for n in range(5)] == [[4], [15], [1], [], []]


@given(
    st.lists(
        st.tuples(
            st.integers(-1, 2),
            st.lists(st.integers(0, 29), max_size=3, unique=True),
            st.lists(st.integers(0, 29), max_size=3, unique=True),
        ),
        max_size=12,
    )
)
def test_orders_elsewhere_are_what_a_plain_loop_finds(views):
    user = np.array([view[0] for view in views], np.int64)
    clicked, ordered = (Ragged.from_lists([view[at] for view in views]) for at in (1, 2))
    category = np.where(np.arange(30) % 7 == 0, -1, CATEGORY)
    found = orders_elsewhere(user, clicked, ordered, category, 2)
    for view, (who, here, _) in enumerate(views):
        plain: list[int] = []
        for other, (buyer, _, bought) in enumerate(views):
            for item in bought if here and who >= 0 and buyer == who and other != view else ():
                if category[item] == category[here[0]] >= 0 and item not in here and item not in plain:
                    plain.append(item)
        assert found[view].tolist() == plain[:2]


@pytest.fixture
def objective():
    return DpoObjective(generator(dtype=torch.float32), catalogue(30), DpoSettings(beta=0.5, sft=0.0)).train()


def test_the_index_follows_the_module_to_another_device(objective):
    assert objective.to("meta").index.device == objective.generator.begin.device == torch.device("meta")


def test_chosen_items_rise_above_rejected_ones(objective):
    preference = preferences(BEHAVIOUR, np.array([0, 1, 2]), objective.settings)
    batch = PreferenceBatch("dpo", prompts(3), preferences=preference)
    optimizer = torch.optim.Adam(objective.generator.parameters(), 3e-3)
    first = objective(batch)
    # At the start policy and reference agree: every margin is 0 and a chosen with N rejected costs log(1 + N).
    paths = objective.index.path(torch.cat([preference.chosen, preference.rejected.clamp(min=0).flatten()]))[:, -1]
    chosen, rejected = paths[:5], paths[5:].view(preference.rejected.shape)[preference.owner]
    counted = ((preference.rejected >= 0)[preference.owner] & (rejected != chosen[:, None])).sum(1)
    assert counted.min() > 0
    assert_close(first["preference"], torch.log1p(counted.float()).mean())
    for _ in range(40):
        terms = objective(batch)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
    assert terms["accuracy"] > 0.95 and terms["preference"] < 0.5 * first["preference"]
    assert not any(parameter.grad is not None for parameter in objective.reference.parameters())
    policy, reference = (
        score_paths(
            model,
            model.encode(batch.prompt),
            objective.index.path(preference.chosen),
            preference.owner,
            objective.index,
        )[0]
        for model in (objective.generator, objective.reference)
    )
    assert not torch.allclose(policy, reference)


def test_the_clicks_that_say_what_is_chosen_are_taken_off_the_rows():
    """As if the page view had never been counted: the losses and gradients of an index without its clicks."""
    index, chosen = catalogue(30), torch.tensor([2, 5, 11])
    own = torch.tensor([[0.5, -1.0, 2.0], [1.0, 1.5, -0.5], [-1.0, 0.5, 1.0]])
    rows = index.item_vectors(index.position_of(torch.arange(30))).clone()
    rows[chosen, -3:] -= own
    before = SidIndex.build(index.sids(4, index.path(torch.arange(30))[:, 4]).numpy(), rows.numpy(), CODEBOOKS)
    found = []
    for catalogue_now, leave_out in ((index, own), (before, None), (index, None)):
        made = DpoObjective(generator(dtype=torch.float32), catalogue_now, DpoSettings(beta=0.5, sft=1.0)).train()
        for model in (made.generator, made.reference):
            model.from_row.weight.requires_grad_(False).zero_()  # what the decoder reads of nodes is not tested here
        made.generator.item_head.log_scale.data.add_(0.5)
        pairs = Preferences(
            chosen,
            torch.zeros(3, dtype=torch.long),
            torch.tensor([2.0, 1.0, 1.0]),
            torch.tensor([[7, 19, -1, 23]]),
            torch.tensor([0.5, 0.5, 0.2, 0.2]),
            leave_out,
        )
        terms = made(PreferenceBatch("dpo", prompts(1), preferences=pairs))
        terms["loss"].backward()
        gradient = [p.grad.flatten() for p in made.generator.parameters() if p.grad is not None]
        found.append((terms["preference"], terms["nll"], torch.cat(gradient)))
    for one, same, other in zip(*found, strict=True):
        assert_close(one, same, atol=1e-5, rtol=1e-3)
        assert not torch.allclose(one, other, atol=1e-3)


def test_each_chosen_item_has_the_numbers_of_what_made_it_one():
    own = np.arange(60, dtype=np.float32).reshape(2, 30, 1)
    tokens = ItemTokens(torch.tensor([[2, 9], [2, 20]]), torch.full((2, 2, 3), 100.0), torch.zeros(2, 2, 11))
    prompt = SimpleNamespace(items=tokens)
    builder = SimpleNamespace(search_prompt=lambda *_: prompt, search_lengths=lambda _: np.zeros(3))
    made = preference_task(builder, None, BEHAVIOUR, DpoSettings(), own).batch(np.array([0, 2])).preferences
    # 2 was ordered, 5 ordered elsewhere, 1 and 20 clicked.
    assert made.chosen.tolist() == [2, 5, 1, 20] and made.leave_out[:, 0].tolist() == [32, 35, 1, 20]
    # The same is taken off the rows at their tokens: 2 in the first page view, 20 in the second.
    assert made.owner.tolist() == [0, 0, 0, 1]
    assert prompt.items.head_rows[..., 2].tolist() == [[68, 100], [100, 80]]
    assert (prompt.items.head_rows[..., :2] == 100).all()


def test_a_batch_without_preferences_is_refused(objective):
    with pytest.raises(ValueError, match="preferences"):
        objective(PreferenceBatch("dpo", TaskBatch("x", prompts(1)).prompt))


def test_items_that_share_a_sid_are_no_pair():
    # Items 0 and 1 have one SID, 2 another: of two rejected items only the second is compared with the first.
    rows = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
    index = SidIndex.build(np.array([[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [2, 0, 1, 3, 4]]), rows, CODEBOOKS)
    objective = DpoObjective(generator(dtype=torch.float32), index, DpoSettings(beta=0.5, sft=0.0)).train()

    def preference(rejected):
        pairs = Preferences(
            torch.tensor([0]),
            torch.tensor([0]),
            torch.tensor([1.0]),
            torch.tensor([rejected]),
            torch.tensor([0.5, 0.2]),
        )
        return float(objective(PreferenceBatch("dpo", prompts(1), preferences=pairs))["preference"])

    # Policy and reference are equal, so one pair costs log 2, whatever its weight; none costs nothing.
    assert preference([1, 2]) == preference([-1, 2]) == pytest.approx(math.log(2))
    assert preference([1, -1]) == preference([1, 1]) == 0.0
