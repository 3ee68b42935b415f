import pytest
import torch
from torch.nn import functional

from onesearch.model.attention import attend, dropout


@pytest.mark.parametrize("causal", [False, True])
def test_attention_for_training_in_bfloat16_is_scaled_dot_product_attention(causal):
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 2, 6, 8).bfloat16().requires_grad_() for _ in range(3))
    hidden = torch.tensor([0, 2, 4]).view(3, 1, 1, 1) > torch.arange(5, -1, -1)
    bias = None if causal else torch.zeros(3, 1, 1, 6).masked_fill(hidden, float("-inf"))
    wide = [x.detach().float().requires_grad_() for x in (q, k, v)]
    expected = functional.scaled_dot_product_attention(*wide, attn_mask=bias, is_causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = attend(q, k, v, bias, causal=causal)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=0.03, rtol=0.03)
    weight = torch.randn_like(expected)
    (out.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    for mine, theirs in zip((q, k, v), wide, strict=True):
        torch.testing.assert_close(mine.grad.float(), theirs.grad, atol=0.06, rtol=0.06)


def test_dropout_keeps_the_mean_and_its_rate():
    torch.manual_seed(0)
    for rate in (0.1, 0.5, 0.003):
        x = torch.ones(301, 997, requires_grad=True)  # an odd number of entries
        out = dropout(x, rate)
        assert abs(float((out == 0).float().mean()) - rate) < 5 * (rate * (1 - rate) / x.numel()) ** 0.5
        assert float(out.detach().max()) == pytest.approx(1 / (1 - rate), rel=1e-4)
        out.sum().backward()
        assert torch.equal(x.grad, out.detach())


def test_dropout_of_neighbours_is_independent():
    """Four entries share one random number: pairs of them must be dropped together as often as chance has it."""
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(100_000, 4), 0.3) == 0).float()
    for shift in (1, 2, 3):
        together = float((dropped * dropped.roll(shift, 1)).mean())
        assert abs(together - 0.09) < 0.004


def test_dropout_is_drawn_from_the_global_generator_and_only_in_training():
    x = torch.ones(40, 5)
    torch.manual_seed(3)
    first = dropout(x, 0.2)
    assert not torch.equal(first, dropout(x, 0.2))
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.2))
    assert dropout(x, 0.2, training=False) is x and dropout(x, 0.0) is x
    assert dropout(torch.ones(0, 3), 0.2).shape == (0, 3)
