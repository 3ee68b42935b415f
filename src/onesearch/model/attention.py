"""Attention to a prompt that many targets share, and to the few tokens a beam has decoded."""

import torch
from torch import Tensor
from torch.nn import functional


class Grid:
    """Places M targets of B prompts in a [B, n] grid, so that keys and values are read per prompt, not per target.

    Where targets are spread so unevenly that most of the grid would be empty, keys and values are copied instead.
    """

    def __init__(self, owner: Tensor, batch: int) -> None:
        m = len(owner)
        counts = torch.bincount(owner, minlength=batch)
        self.n = int(counts.max()) if m else 1
        self.batch = batch
        self.owner: Tensor | None = owner if batch * self.n > 4 * m else None
        order = torch.argsort(owner, stable=True)
        rank = torch.empty_like(owner)
        rank[order] = torch.arange(m, device=owner.device) - (counts.cumsum(0) - counts)[owner[order]]
        self.slot = owner * self.n + rank
        self.full = m == batch * self.n and bool((self.slot == torch.arange(m, device=owner.device)).all())

    def spread(self, x: Tensor) -> Tensor:
        """[M, ...] to [B, n, ...]; unused places are zero."""
        if self.owner is not None:
            return x.unsqueeze(1)
        if self.full:
            whole: Tensor = x.unflatten(0, (self.batch, self.n))
            return whole
        out = x.new_zeros(self.batch * self.n, *x.shape[1:]).index_copy(0, self.slot, x)
        spread: Tensor = out.unflatten(0, (self.batch, self.n))
        return spread

    def collect(self, x: Tensor) -> Tensor:
        """[B, n, ...] back to [M, ...]."""
        if self.owner is not None:
            return x.squeeze(1)
        x = x.flatten(0, 1)
        return x if self.full else x.index_select(0, self.slot)

    def memory(self, x: Tensor) -> Tensor:
        """Something per prompt, [B, ...], in the grid's rows."""
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


def shared_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0) -> Tensor:
    """Queries [B, n, H, h] against keys, values [B, H_kv, S, h] of their prompt, bias [B, 1, 1, S]: [B, n, H * h]."""
    n = q.shape[1]
    grouped = group_heads(q, k.shape[1])
    return ungroup_heads(attend(grouped, k, v, bias, dropout), n)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, dropout: float = 0.0, causal: bool = False) -> Tensor:
    """Scaled dot-product attention over [B, H, n, h]; while training in bfloat16 on a CPU it runs in float32.

    The backward pass of torch's bfloat16 kernel on a CPU is many times slower than that of the float32 one (measured:
    3.0 s against 0.2 s for the seven attentions of a batch of 256 prompts).
    """
    if torch.is_grad_enabled() and q.device.type == "cpu" and (q.requires_grad or k.requires_grad):
        with torch.autocast("cpu", enabled=False):
            wide = None if bias is None else bias.float()
            out = functional.scaled_dot_product_attention(
                _wide(q), _wide(k), _wide(v), attn_mask=wide if q.dtype == torch.bfloat16 else bias,
                dropout_p=dropout, is_causal=causal,
            )  # fmt: skip
        return out.to(q.dtype)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout, is_causal=causal)


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype == torch.bfloat16 else x


def beam_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """As :func:`shared_attention`, for scaled queries of many beams and a short prompt: three plain products."""
    scores = torch.matmul(group_heads(q, k.shape[1]), k.transpose(2, 3))
    if bias is not None:
        scores = scores + bias
    return ungroup_heads(torch.matmul(scores.softmax(-1), v), q.shape[1])


def own_scores(q: Tensor, k: Tensor) -> Tensor:
    """Products of scaled queries [N, H, h] with the few keys of each beam [t, N, H_kv, h]: [t, N, H_kv, G]."""
    n, heads, h = q.shape
    kv_heads = k.shape[2]
    return (k.unsqueeze(3) * q.view(n, kv_heads, heads // kv_heads, h)).sum(-1)


def own_mix(p: Tensor, v: Tensor) -> Tensor:
    """Weights [t, N, H_kv, G] times values [t, N, H_kv, h]: [N, H * h]."""
    return (p.unsqueeze(-1) * v.unsqueeze(3)).sum(0).flatten(1)
