"""In which arithmetic a model decodes: float32, or bfloat16, half the bytes, which some machines multiply faster.

Large models are faster in bfloat16 where the processor has it; small ones are mostly slower, as converting takes longer
than multiplying. ``auto`` therefore measures, when a model is loaded, and only where it is large.
"""

import copy
import time
from typing import Final, Literal

import torch

from onesearch.common.device import has_native_bf16
from onesearch.model.backbone_base import Backbone
from onesearch.model.generator import Generator

DecodingPrecision = Literal["float32", "bfloat16", "auto"]
_LARGE: Final = 20_000_000
"""Weights of the layers from which on a measurement is worth its time; BART-base has 127 million."""
_GAIN: Final = 0.9
"""What bfloat16 may take of float32's time, at most, to be chosen: replicas on one machine should agree."""
_PROMPT, _TOKENS, _ROUNDS = 64, 5, 3


def decoding_dtype(generator: Generator, precision: DecodingPrecision, width: int) -> torch.dtype:
    """What a model decodes in, for a precision and so many beams."""
    if precision != "auto":
        return torch.float32 if precision == "float32" else torch.bfloat16
    weights = sum(one.numel() for one in generator.backbone.parameters())
    if weights < _LARGE or not has_native_bf16():
        return torch.float32
    times = {}
    for dtype in (torch.float32, torch.bfloat16):
        # The backbone alone: rows of items and words may be many times as large.
        times[dtype] = _seconds(copy.deepcopy(generator.backbone).to(dtype), width)
    return min(times, key=lambda dtype: times[dtype] * (_GAIN if dtype == torch.float32 else 1.0))


@torch.inference_mode()
def _seconds(backbone: Backbone, width: int) -> float:
    """The shortest of a few searches without an index: a prompt is read, then five tokens of every beam are written."""
    weight = next(backbone.parameters())
    prompt = torch.randn(1, _PROMPT, backbone.d_model).to(weight)
    beams = torch.randn(1, width, backbone.d_model).to(weight)
    mask = torch.ones(1, _PROMPT, dtype=torch.bool, device=weight.device)
    times = []
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        state = backbone.start(backbone.encode(prompt, mask), width)
        hidden = backbone.step(state, beams[:, :1], None)
        for _ in range(_TOKENS):
            hidden = backbone.step(state, beams, None)
        float(hidden.float().sum())  # a GPU has done it all when its sum is here
        times.append(time.perf_counter() - start)
    return min(times)
