"""A catalogue, a generator with random weights and prompts, small enough for plain twins."""

from typing import Any

import numpy as np
import torch

from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.generator import Generator, GeneratorMemory, Sizes
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt_batch import PromptBatch

CODEBOOKS = (5, 4, 3, 6, 6)
D, R, B = 16, 8, 4
LENGTHS = (6, 2, 5, 3)


def catalogue(n: int = 120, seed: int = 0, precision: str = "float32") -> SidIndex:
    rng = np.random.default_rng(seed)
    # Skewed codes: some prefixes hold many items, many hold one, some SIDs are shared.
    sids = np.stack([(size * rng.random(n) ** 2).astype(np.int64) for size in CODEBOOKS], 1)
    return SidIndex.build(sids, rng.normal(size=(n, R)).astype(np.float32), CODEBOOKS, precision=precision)


def generator(
    kind: str = "bart", anchored: bool = True, dtype: torch.dtype = torch.float64, **settings: Any
) -> Generator:
    torch.manual_seed(3)
    backbone = BackboneSettings(
        kind=kind, d_model=D, heads=2, encoder_layers=1, decoder_layers=2, ffn=24, max_positions=16
    )
    centroids = [torch.randn(size, 12) for size in CODEBOOKS[:3]]
    config = ModelSettings(backbone=backbone, anchored=anchored, **settings)
    model = Generator(config, Sizes(20, CODEBOOKS, 12, R, 1.5, 40), centroids)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4) if parameter.dim() > 1 else parameter.data.add_(
            0.1 * torch.randn_like(parameter)
        )
    return model.to(dtype).eval()


def remember(model: Generator, rows: list[int] | None = None) -> GeneratorMemory:
    """Memory of random prompts; ``rows`` selects some of them, encoded without the others."""
    torch.manual_seed(4)
    dtype = model.begin.dtype
    embeds = torch.randn(B, max(LENGTHS), D, dtype=torch.float64)
    query_head_rows = torch.randn(B, R, dtype=torch.float64)
    rows = list(range(B)) if rows is None else rows
    length = max(LENGTHS[i] for i in rows)
    mask = torch.arange(length) < torch.tensor([LENGTHS[i] for i in rows])[:, None]
    with torch.no_grad():
        return GeneratorMemory(
            model.backbone.encode(embeds[rows, :length].to(dtype), mask), query_head_rows[rows].to(dtype)
        )


def prompts(n: int, seed: int = 0, length: int = 6) -> PromptBatch:
    """Random prompts for a float32 generator."""
    rng = torch.Generator().manual_seed(seed)
    mask = torch.arange(length) < torch.randint(2, length + 1, (n, 1), generator=rng)
    tokens = torch.randint(4, 20, (n, length), generator=rng) * mask
    return PromptBatch(tokens, mask, torch.randn(n, 12, generator=rng), torch.randn(n, R, generator=rng), None)
