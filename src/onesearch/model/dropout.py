"""Dropout whose masks are drawn four at a time on a CPU."""

import torch
from torch import Tensor
from torch.nn import functional

_BITS = 16


def dropout(x: Tensor, rate: float, training: bool = True) -> Tensor:
    """``x`` with a share ``rate`` of its entries set to zero and the others scaled by ``1 / (1 - rate)``.

    torch draws one number per entry on a CPU, one after the other; here each 64-bit number decides over four entries,
    which takes a third of the time. The rate is rounded to 2^-16, and the scale to match.
    """
    if not training or rate == 0.0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, rate, True)
    dropped = round(rate * 2**_BITS)
    words = torch.empty(-(-x.numel() * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: x.numel()].view(x.shape)
    keep = (bits >= dropped - 2 ** (_BITS - 1)).to(x.dtype)
    return x.mul(keep.mul_(2**_BITS / (2**_BITS - dropped)))
