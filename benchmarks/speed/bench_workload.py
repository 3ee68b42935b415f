"""What the training benchmarks train on: random items, and page views of shoppers with none to many past clicks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.featurizer import TextFeatures
from onesearch.model.generator import Generator, Sizes
from onesearch.model.model_settings import ModelSettings, PromptSettings
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import TokenVocabulary

POSITIONS = 256
WORDS = ("red", "blue", "shoe", "boot", "lamp", "table", "small", "big", "steel", "wood", "drill", "garden")


@dataclass(frozen=True)
class Workload:
    """Sizes of a benchmark."""

    items: int = 20_000
    requests: int = 4096
    batch_size: int = 128
    d_model: int = 128
    layers: int = 2
    heads: int = 4
    codebooks: tuple[int, ...] = (256, 128, 64, 256, 256)
    subwords: int = 1000
    row: int = 128


QUICK = Workload(300, 64, 8, 16, 1, 2, (16, 8, 8, 16, 16), 300, 16)


@dataclass(frozen=True)
class Corpus:
    """Page views ready to be batched; ``targets`` has a row of item rows for each."""

    size: Workload
    vocabulary: TokenVocabulary
    builder: PromptBuilder
    columns: PromptInputs
    targets: Ragged
    sids: NDArray[np.int32]
    rows: NDArray[np.float32]

    def index(self) -> SidIndex:
        """The SID index of the items."""
        return SidIndex.build(self.sids, self.rows, self.size.codebooks)

    def generator(self, **form: Any) -> Generator:
        """A model of the workload's size from random weights; ``form`` are settings of :class:`ModelSettings`."""
        size = self.size
        backbone = BackboneSettings(
            d_model=size.d_model,
            heads=size.heads,
            encoder_layers=size.layers,
            decoder_layers=size.layers,
            max_positions=POSITIONS,
        )
        config = ModelSettings(backbone=backbone, prompt=self.builder.config, row_dim=size.row, **form)
        centroids = [torch.randn(k, size.row) for k in size.codebooks[:3]]
        return Generator(config, Sizes(self.vocabulary.text_size, size.codebooks, size.row, size.row), centroids)


def corpus(
    size: Workload, prompt: PromptSettings, most_targets: int = 1, most_keywords: int = 0, seed: int = 0
) -> Corpus:
    """Prompts of about 64 tokens on average in the default form of ``prompt``.

    Each page view has 1 to ``most_targets`` targets, and 3 to ``most_keywords`` keywords where that is not 0.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    n, books = size.requests, size.codebooks
    sids = np.stack([rng.integers(0, k, size.items) for k in books], 1).astype(np.int32)
    rows = _unit(rng, size.items, size.row)
    texts = [" ".join(rng.choice(WORDS, rng.integers(1, 9))) for _ in range(n)]
    vocabulary = TokenVocabulary.train(texts, size.subwords, books)

    def table(distinct: Sequence[str]) -> TextFeatures:
        codes = np.stack([rng.integers(0, k, len(distinct)) for k in books], 1).astype(np.int32)
        vectors = _unit(rng, len(distinct), size.row)
        return TextFeatures(list(distinct), vocabulary.tokens(distinct, 24), vectors, codes, vectors)

    clicked, ordered, clicked_for_query = (_history(rng, n, size.items, most) for most in (12, 6, 5))
    recent = [tuple(texts[i] for i in rng.integers(0, n, rng.integers(0, 3))) for _ in range(n)]
    requests = Requests(texts, np.full(n, -1), ["F 24-30"] * n, recent, clicked, np.full_like(clicked, -1), ordered)
    keywords = [_keywords(rng, most_keywords) for _ in range(n)] if most_keywords else None
    columns = PromptInputs.from_requests(requests, table, prompt, clicked_for_query[:, ::-1], keywords)
    lengths = rng.integers(1, most_targets + 1, n)
    targets = Ragged.from_lengths(rng.integers(0, size.items, int(lengths.sum())).astype(np.int32), lengths)
    return Corpus(size, vocabulary, PromptBuilder(vocabulary, prompt, sids), columns, targets, sids, rows)


def _unit(rng: np.random.Generator, n: int, width: int) -> NDArray[np.float32]:
    vectors = rng.normal(size=(n, width)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _history(rng: np.random.Generator, n: int, items: int, most: int) -> NDArray[np.int32]:
    """0 to ``most`` items per request, right-aligned: int32 [n, most], -1 for none."""
    rows = rng.integers(0, items, (n, most)).astype(np.int32)
    return np.where(np.arange(most) >= most - rng.integers(0, most + 1, n)[:, None], rows, -1).astype(np.int32)


def _keywords(rng: np.random.Generator, most: int) -> list[str]:
    """As long as thoughts of complex queries are on the simulated market: words or pairs of words."""
    return [" ".join(rng.choice(WORDS, rng.integers(1, 3))) for _ in range(rng.integers(3, most + 1))]
