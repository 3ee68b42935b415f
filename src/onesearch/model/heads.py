"""The item head and the item score: hidden states against rows of trie nodes and items (architecture, three heads)."""

import torch
from torch import Tensor, nn


def _zero_linear(width: int, out: int) -> nn.Linear:
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class ItemHead(nn.Module):
    """Per level ``state = α_l · query row + W_l h``; a child's logit is ``state · row(child) + b_l · log count``.

    ``W_l`` starts at zero and ``α`` at the inverse temperature of dense search, so that an untrained head ranks nodes
    by the query's product with their mean item, and learns what that misses. The log count is the size term of the
    exact ``log Σ exp`` over the items below a node. Nothing is learned per node.
    """

    def __init__(self, d_model: int, row_dim: int, levels: int, scale: float) -> None:
        super().__init__()
        self.project = nn.ModuleList(_zero_linear(d_model, row_dim) for _ in range(levels))
        self.log_scale = nn.Parameter(torch.full((levels,), float(scale)).log())
        self.count_weight = nn.Parameter(torch.ones(levels))

    def state(self, level: int, hidden: Tensor, query_rows: Tensor) -> Tensor:
        """``hidden`` [..., d] and ``query_rows`` [..., R] (broadcast) to the state [..., R]."""
        return torch.as_tensor(self.project[level](hidden)) + self.log_scale[level].exp() * query_rows

    def bias(self, level: int, counts: Tensor) -> Tensor:
        """The size term of nodes with ``counts`` items below, same shape."""
        return self.count_weight[level] * counts.to(self.count_weight.dtype).log()


class ItemScore(nn.Module):
    """The item score ``s = (α · query row + W h_0) · item row``, h_0 the decoder's state before the first SID token."""

    def __init__(self, d_model: int, row_dim: int, scale: float) -> None:
        super().__init__()
        self.project = _zero_linear(d_model, row_dim)
        self.log_scale = nn.Parameter(torch.tensor(float(scale)).log())

    def forward(self, hidden: Tensor, query_rows: Tensor) -> Tensor:
        """``hidden`` [..., d] and ``query_rows`` [..., R] to the vector that multiplies item rows, [..., R]."""
        return torch.as_tensor(self.project(hidden)) + self.log_scale.exp() * query_rows
