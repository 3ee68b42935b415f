"""Attention to a prompt that many targets share, and to the few tokens a beam has decoded.

In the order in which a backbone needs it: dropout; scaled dot-product attention; targets grouped by their prompt, so
that its keys and values are never copied; the two attentions of a beam; weights fused once and kept until they change.
Shapes: B prompts of S tokens, M targets, A beams a prompt, H query heads of width h, G of them on each key/value head.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

_BITS = 16


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """``x`` with a share ``rate`` of its entries set to zero and the others scaled by ``1 / (1 - rate)``.

    torch draws one number per entry on a CPU, one after the other; here each 64-bit number decides over four entries,
    which takes a third of the time. The rate is rounded to 2^-16, and the scale to match.
    """
    if not training or rate == 0.0:
        return x
    # other devices draw in parallel
    if x.device.type != "cpu":
        return functional.dropout(x, rate, True)
    dropped = round(rate * 2**_BITS)
    # four 16-bit numbers of each word, compared with the threshold of the rate
    words = torch.empty(-(-x.numel() * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = (bits >= dropped - 2 ** (_BITS - 1)).to(x.dtype)
    return x.mul(keep.mul_(2**_BITS / (2**_BITS - dropped)))


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bias: Tensor | None,
    rate: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Scaled dot-product attention over [B, H, n, h]; ``rate`` of dropout, ``scale`` is ``h ** -0.5`` unless told.

    While training in bfloat16 on a CPU it is written out as two products: the backward pass of torch's fused kernel
    takes several times as long (measured: 65 ms against 16 ms for 128 prompts of 75 tokens, forward and backward).
    """
    if q.dtype == torch.bfloat16 and q.device.type == "cpu" and torch.is_grad_enabled():
        return _written_out(q, k, v, bias, rate, causal, scale)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=bias, dropout_p=rate, is_causal=causal, scale=scale
    )


def _written_out(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float, causal: bool, scale: float | None
) -> Tensor:
    """``softmax(q kᵀ / √h + bias) v`` as two products."""
    with torch.autocast(q.device.type, enabled=False):  # it would widen the softmax
        scores = torch.matmul(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.transpose(-1, -2))
        if bias is not None:
            scores = scores + bias.to(scores.dtype)
        if causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        return torch.matmul(dropout(scores.softmax(-1), rate), v)


class TargetGrid:
    """M targets of B prompts in a [B, n] grid, so that keys and values are read per prompt, not per target.

    Where targets are spread so unevenly that most of the grid would be empty, keys and values are copied instead.
    """

    def __init__(self, owner: Tensor, batch: int) -> None:
        # the slot of each target: its prompt's line of the grid, at its rank among the prompt's targets
        m = len(owner)
        counts = torch.bincount(owner, minlength=batch)
        self.n = int(counts.max()) if m else 1
        self.batch = batch
        self.owner: Tensor | None = owner if batch * self.n > 4 * m else None
        # rank of each target within its prompt: its place in the order, less the targets of prompts before
        order = torch.argsort(owner, stable=True)
        rank = torch.empty_like(owner)
        rank[order] = torch.arange(m, device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        self.slot = owner * self.n + rank
        self.full = m == batch * self.n and bool((self.slot == torch.arange(m, device=owner.device)).all())

    def group(self, x: Tensor) -> Tensor:
        """[M, ...] to [B, n, ...]; unused places are zero."""
        if self.owner is not None:
            return x.unsqueeze(1)
        if self.full:
            whole: Tensor = x.unflatten(0, (self.batch, self.n))
            return whole
        # unused slots stay zero; what is read there is never collected
        out = x.new_zeros(self.batch * self.n, *x.shape[1:]).index_copy(0, self.slot, x)
        grouped: Tensor = out.unflatten(0, (self.batch, self.n))
        return grouped

    def ungroup(self, x: Tensor) -> Tensor:
        """[B, n, ...] back to [M, ...]."""
        if self.owner is not None:
            return x.squeeze(1)
        x = x.flatten(0, 1)
        return x if self.full else x.index_select(0, self.slot)

    def prompts(self, x: Tensor) -> Tensor:
        """Something of each prompt, [B, ...], for the lines of the grid."""
        return x if self.owner is None else x.index_select(0, self.owner)


def group_heads(x: Tensor, kv_heads: int) -> Tensor:
    """Queries [B, n, H, h] to [B, H_kv, n * G, h], the G query heads of each key/value head side by side."""
    b, n, heads, h = x.shape
    if heads == kv_heads:
        return x.transpose(1, 2)
    return x.view(b, n, kv_heads, heads // kv_heads, h).permute(0, 2, 1, 3, 4).reshape(b, kv_heads, -1, h)


def ungroup_heads(x: Tensor, n: int) -> Tensor:
    """[B, H_kv, n * G, h] back to [B, n, H * h]."""
    b, kv_heads, rows, h = x.shape
    if rows == n:
        return x.transpose(1, 2).reshape(b, n, -1)
    return x.reshape(b, kv_heads, n, rows // n, h).transpose(1, 2).reshape(b, n, -1)


def shared_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, rate: float = 0.0) -> Tensor:
    """Queries [B, n, H, h] against keys, values [B, H_kv, S, h] of their prompt, bias [B, 1, 1, S]: [B, n, H * h]."""
    n = q.shape[1]
    grouped = group_heads(q, k.shape[1])
    return ungroup_heads(attend(grouped, k, v, bias, rate), n)


def beam_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """As :func:`shared_attention`, for scaled queries of many beams and a short prompt: three plain products."""
    scores = torch.matmul(group_heads(q, k.shape[1]), k.transpose(2, 3))
    if bias is not None:
        scores = scores + bias
    return ungroup_heads(torch.matmul(scores.softmax(-1), v), q.shape[1])


def beam_self_scores(q: Tensor, k: Tensor) -> Tensor:
    """Products of scaled queries [N, H, h] with the few keys of each beam [t, N, H_kv, h]: [t, N, H_kv, G]."""
    n, heads, h = q.shape
    kv_heads = k.shape[2]
    return (k.unsqueeze(3) * q.view(n, kv_heads, heads // kv_heads, h)).sum(-1)


def beam_self_values(p: Tensor, v: Tensor) -> Tensor:
    """Weights [t, N, H_kv, G] times values [t, N, H_kv, h]: [N, H * h]."""
    return (p.unsqueeze(-1) * v.unsqueeze(3)).sum(0).flatten(1)


T = TypeVar("T")


class FusedWeights(Generic[T]):
    """Tensors derived from a module's parameters, such as q, k and v fused to one matrix.

    They are kept until a parameter changes: an optimizer step, a load or a move makes them anew. The module is the same
    in every call, and keeps its submodules: walking through them would take longer than a decoder step.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._parameters: list[dict[str, nn.Parameter | None]] = []  # of each submodule
        self._key: tuple[tuple[int, int, torch.dtype], ...] | None = None
        self._value: T | None = None

    def forget(self) -> None:
        """Let go of what was derived."""
        self._value = self._key = None

    def current(self, module: nn.Module) -> T:
        """The derived tensors of the module's present weights."""
        if not self._parameters:
            self._parameters = [part._parameters for part in module.modules()]
        key = tuple(_identity(one) for part in self._parameters for one in part.values() if one is not None)
        if self._value is None or key != self._key:
            # also when first asked for under inference mode: training must be able to use them later
            with torch.inference_mode(False), torch.no_grad():
                self._value, self._key = self._make(), key
        return self._value


def _identity(parameter: Tensor) -> tuple[int, int, torch.dtype]:
    # Tensors made under inference mode have no version; they are not trained either.
    version = -1 if parameter.is_inference() else parameter._version
    return parameter.data_ptr(), version, parameter.dtype
