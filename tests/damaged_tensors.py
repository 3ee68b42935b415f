"""A file of tensors with one of them damaged, each in turn."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def damaged(path: Path, free: Sequence[str] = ()) -> Iterator[str]:
    """Damage the file in one way after another, and say how; whole again at the end.

    Each tensor missing, one value longer, of another type, and, where it holds whole numbers that are not ``free``,
    with one far too large and one far too small.
    """
    whole = {name: tensor.clone() for name, tensor in load_file(path).items()}
    for name, tensor in whole.items():
        others = {key: value for key, value in whole.items() if key != name}
        save_file(others, path)
        yield f"no {name}"
        save_file({**others, name: torch.cat([tensor, tensor.new_zeros(1, *tensor.shape[1:])])}, path)
        yield f"{name} too long"
        save_file({**others, name: tensor.to(torch.float16)}, path)
        yield f"{name} of another type"
        if name in free or not len(tensor) or tensor.dtype not in (torch.int32, torch.int64):
            continue
        for number in (10**8, -7):
            wrong = tensor.clone()
            wrong[len(wrong) // 2] = number
            save_file({**others, name: wrong}, path)
            yield f"{name} with {number}"
    save_file(whole, path)
