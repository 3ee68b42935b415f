"""What the decoding benchmark compares: a synthetic catalogue, our generator, transformers' generate, bare products."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import BartConfig, BartForConditionalGeneration

from onesearch.index.bits import RankedBits, pack
from onesearch.index.item_filters import ItemMask
from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.generator import Generator, GeneratorMemory, Sizes
from onesearch.model.model_settings import ModelSettings

TEXT = 20_000  # subwords of the compared models
ROW = 128  # dimension of the rows of items and nodes
VECTOR = 32  # text-encoder dimension; not part of what is measured


@dataclass(frozen=True)
class Shape:
    """Sizes of the benchmark."""

    d: int = 256
    layers: int = 3
    heads: int = 4
    prompt: int = 64
    codebooks: tuple[int, ...] = (1024, 512, 256, 256, 256)


def synthetic_sids(n: int, codebooks: tuple[int, ...], seed: int) -> NDArray[np.int64]:
    """SIDs [n, L] of a made-up catalogue: codes are skewed within every prefix, other ones common in each.

    With code rank ``K u^a``, u uniform: a = 1.3 for the first code, 2 for the second and third (a cell's items fill few
    of its sub-cells, some of them heavily), 1 for the two OPQ codes, which quantize what the others left.
    """
    rng = np.random.default_rng(seed)
    out = np.empty((n, len(codebooks)), np.int64)
    prefix = np.zeros(n, np.uint64)
    for level, size in enumerate(codebooks):
        skew = (1.3, 2.0, 2.0)[level] if level < 3 else 1.0
        rank = (size * rng.random(n) ** skew).astype(np.uint64)
        prefix = (prefix + np.uint64(level + 1)) * np.uint64(0x9E3779B97F4A7C15)
        offset = (prefix >> np.uint64(40)) if level else np.uint64(0)
        out[:, level] = (rank + offset) % np.uint64(size)
        prefix ^= out[:, level].astype(np.uint64)
    return out


def synthetic_index(n: int, shape: Shape, seed: int = 0) -> SidIndex:
    """An index of ``n`` items whose unit vectors lie around their first two codes, so that node means differ."""
    sids = synthetic_sids(n, shape.codebooks, seed)
    rng = torch.Generator().manual_seed(seed)
    first = torch.randn(shape.codebooks[0], ROW, generator=rng)
    second = torch.randn(shape.codebooks[1], ROW, generator=rng)
    vectors = torch.empty(n, ROW)
    for part in torch.arange(n).split(1 << 18):
        codes = torch.from_numpy(sids[part.numpy()])
        noise = torch.randn(len(part), ROW, generator=rng)
        vectors[part] = functional.normalize(first[codes[:, 0]] + 0.7 * second[codes[:, 1]] + 0.7 * noise, dim=1)
    return SidIndex.build(sids, vectors, shape.codebooks)


def synthetic_mask(index: SidIndex, share: float = 0.1, seed: int = 0) -> ItemMask:
    """A filter that allows a random share of the items."""
    members = np.random.default_rng(seed).random(len(index)) < share
    return ItemMask(RankedBits.from_words(pack(members)), index)


@dataclass(frozen=True)
class Ours:
    """Our generator with random weights, ready to search for one prompt."""

    model: Generator
    embeds: Tensor
    query_head_rows: Tensor

    @classmethod
    def make(cls, shape: Shape, anchored: bool, dtype: torch.dtype, device: str = "cpu", batch: int = 1) -> "Ours":
        """Weights of the transformer are random but fixed; so are the ``batch`` prompts."""
        torch.manual_seed(0)
        config = BackboneSettings(
            d_model=shape.d,
            heads=shape.heads,
            encoder_layers=shape.layers,
            decoder_layers=shape.layers,
            ffn=4 * shape.d,
        )
        centroids = [torch.zeros(size, VECTOR) for size in shape.codebooks[:3]]
        sizes = Sizes(TEXT, shape.codebooks, VECTOR, ROW)
        model = Generator(ModelSettings(backbone=config, anchored=anchored), sizes, centroids).eval().to(device, dtype)
        query = functional.normalize(torch.randn(batch, ROW), dim=1)
        return cls(model, torch.randn(batch, shape.prompt, shape.d).to(device, dtype), query.to(device, dtype))

    def encode(self) -> GeneratorMemory:
        """The encoder pass."""
        mask = torch.ones(self.embeds.shape[:2], dtype=torch.bool, device=self.embeds.device)
        with torch.inference_mode():
            return GeneratorMemory(self.model.backbone.encode(self.embeds, mask), self.query_head_rows)


def peer(shape: Shape, index: SidIndex, ours: Ours, dtype: torch.dtype) -> Callable[[int], Any]:
    """``generate`` of transformers on the same transformer weights, constrained to the same SIDs by a dict trie.

    Its vocabulary is the text and the SID tokens, as in every published implementation.
    """
    starts = TEXT + np.concatenate([[0], np.cumsum(shape.codebooks)[:-1]])
    config = BartConfig(
        vocab_size=TEXT + sum(shape.codebooks),
        d_model=shape.d,
        encoder_layers=shape.layers,
        decoder_layers=shape.layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=4 * shape.d,
        decoder_ffn_dim=4 * shape.d,
        forced_eos_token_id=None,
    )
    model = BartForConditionalGeneration(config)
    weights = {name.removeprefix("model."): tensor for name, tensor in ours.model.backbone.state_dict().items()}
    model.model.load_state_dict(weights, strict=False)
    device = ours.embeds.device
    model = model.to(device, dtype).eval()
    trie = _dict_trie(index, starts)
    tokens = torch.randint(3, TEXT, (1, shape.prompt), device=device)

    def allowed(_: int, sent: Tensor) -> list[int]:
        return trie[tuple(sent[1:].tolist())]

    def run(width: int) -> Any:
        with torch.inference_mode():
            return model.generate(
                tokens,
                num_beams=width,
                num_return_sequences=width,
                max_new_tokens=index.levels,
                use_cache=True,
                do_sample=False,
                prefix_allowed_tokens_fn=allowed,
            )

    return run


def _dict_trie(index: SidIndex, starts: NDArray[np.int64]) -> dict[tuple[int, ...], list[int]]:
    """Prefix of tokens to the tokens that may follow."""
    last = index.levels - 1
    paths = index.sids(last, torch.arange(index.size(last), device=index.device)).cpu().numpy() + starts
    children: dict[tuple[int, ...], dict[int, None]] = {}
    for path in paths.tolist():
        for level in range(len(path)):
            children.setdefault(tuple(path[:level]), {})[path[level]] = None
    return {prefix: list(tokens) for prefix, tokens in children.items()}


def bare_products(shape: Shape, width: int, levels: int, dtype: torch.dtype, device: str = "cpu") -> Callable[[], None]:
    """The matrix products of the same search, nothing else: encoder, cross keys and values, one step for the root and
    ``levels - 1`` steps of ``width`` beams, item-head projections.
    """
    d, s, heads = shape.d, shape.prompt, shape.heads

    def some(*size: int) -> Tensor:
        return torch.randn(*size).to(device, dtype)

    weight = {n: some(n * d, d) for n in (1, 2, 3, 4)}
    narrow, head = some(d, 4 * d), some(ROW, d)
    x, y = some(width, d), some(width, 4 * d)
    prompt, wide_prompt = some(s, d), some(s, 4 * d)
    q, k, p = some(heads, width, d // heads), some(heads, s, d // heads), some(heads, width, s)

    def step(rows: int) -> None:
        for _ in range(shape.layers):
            functional.linear(x[:rows], weight[3])
            functional.linear(x[:rows], weight[1])
            functional.linear(x[:rows], weight[1])
            torch.bmm(q[:, :rows], k.transpose(1, 2))
            torch.bmm(p[:, :rows], k)
            functional.linear(x[:rows], weight[1])
            functional.linear(x[:rows], weight[4])
            functional.linear(y[:rows], narrow)
        functional.linear(x[:rows], head)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(shape.layers):
                functional.linear(prompt, weight[3])
                torch.bmm(k, k.transpose(1, 2))
                torch.bmm(p[:, :s], k)
                functional.linear(prompt, weight[1])
                functional.linear(prompt, weight[4])
                functional.linear(wide_prompt, narrow)
                functional.linear(prompt, weight[2])
            step(1)
            for _ in range(levels - 1):
                step(width)

    return run
