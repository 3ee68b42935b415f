"""The default text encoder: a sum of learned feature vectors, trained in about a minute, microseconds per query."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import save_file
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import embedding_bag

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.encoding.ngram_features import NgramFeatures
from onesearch.encoding.text_encoder import DESCRIPTION

_TEXTS_AT_ONCE = 65_536
_MAX_PAIRS = 400_000  # pairs of adjacent words with a vector of their own, the most frequent ones
_NGRAM_SIZES = (3, 4)
_PAIR_SCALE, _NGRAM_SCALE = 0.5, 0.3  # initial lengths of the vectors of pairs and n-grams; a word's is 1


class StaticSettings(Settings):
    """The static encoder's size. Defaults suit catalogues of ten thousand to some million items."""

    dimension: int = Field(256, description="length of the vectors")
    min_word: int = Field(2, description="a word needs this many texts to get a vector of its own")
    min_pair: int = Field(3, description="the same for two adjacent words")
    ngram_buckets: int = Field(20_000, description="vectors that the character n-grams share by hashing")
    learning_rate: float = Field(0.02, description="of the alignment")

    def features(self, texts: Iterable[str]) -> NgramFeatures:
        """Words, pairs and n-grams of a corpus that get a vector."""
        return NgramFeatures.build(texts, self.min_word, self.min_pair, _MAX_PAIRS, _NGRAM_SIZES, self.ngram_buckets)


class StaticEncoder:
    """Sum of the vectors of a text's features, L2-normalised.

    Attributes:
        features: text to feature numbers.
        table: feature vectors, float32 [F, d].
    """

    def __init__(self, features: NgramFeatures, table: NDArray[np.float32], learning_rate: float = 0.02) -> None:
        self.features, self.learning_rate = features, learning_rate
        self.table = torch.from_numpy(np.ascontiguousarray(table, np.float32))

    @classmethod
    def build(cls, texts: Iterable[str], config: StaticSettings | None = None, seed: int = 0) -> "StaticEncoder":
        """An untrained encoder of the features of a corpus."""
        config = config or StaticSettings()
        return cls.untrained(config.features(texts), config, seed)

    @classmethod
    def untrained(cls, features: NgramFeatures, config: StaticSettings, seed: int) -> "StaticEncoder":
        """Random directions, lengths by inverse document frequency.

        Random directions of dimension d are nearly orthogonal, so even before training the cosine is an IDF-weighted
        word overlap; training starts from there.
        """
        rng = np.random.default_rng(seed)
        table = rng.standard_normal((len(features), config.dimension), np.float32) / np.float32(config.dimension**0.5)
        # a rare word says more than a frequent one, a pair less than its words
        words, pairs, ngrams = features.kinds
        table[words] *= features.idf[words, None]
        table[pairs] *= features.idf[pairs, None] * _PAIR_SCALE
        table[ngrams] *= _NGRAM_SCALE
        return cls(features, table, config.learning_rate)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.table.shape[1])

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors float32 [n, d]; zeros for a text without a known feature."""
        out = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            bags = self.features.bags(texts[start : start + _TEXTS_AT_ONCE])
            vectors = _bag_sums(torch.from_numpy(bags.values), bags.offsets, self.table)
            out[start : start + len(bags)] = torch.nn.functional.normalize(vectors, dim=1).numpy()
        return out

    def trainer(self, texts: Sequence[str], learning_rate: float | None = None) -> "StaticEncoderTrainer":
        """Training view on a table of texts; updates change ``table`` in place."""
        return StaticEncoderTrainer(self.table, self.features.bags(texts), learning_rate or self.learning_rate)

    def save(self, folder: Path) -> None:
        """Write ``encoder.safetensors`` and ``encoder.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays, values = self.features.arrays()
        save_file({**arrays, "table": self.table.numpy()}, folder / "encoder.safetensors")
        write_json(folder / DESCRIPTION, {"kind": "static", "learning_rate": self.learning_rate, **values})

    @classmethod
    def load(cls, folder: Path) -> "StaticEncoder":
        """Load what :meth:`save` wrote."""
        tensors, values = load_file(folder / "encoder.safetensors"), read_json(folder / DESCRIPTION)
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}  # mapped into memory, not copied
        return cls(NgramFeatures.restore(arrays, values), arrays["table"], float(values["learning_rate"]))


def _bag_sums(values: Tensor, offsets: NDArray[np.int64], table: Tensor) -> Tensor:
    """Sum of table rows per bag, [n, d]."""
    return embedding_bag(values.long(), table, torch.from_numpy(offsets[:-1]), mode="sum")


class StaticEncoderTrainer:
    """Adam on just the feature rows that a batch touches: the cost does not depend on the vocabulary."""

    def __init__(
        self, table: Tensor, bags: Ragged, learning_rate: float, betas: tuple[float, float] = (0.9, 0.99)
    ) -> None:
        self.table, self.bags, self.learning_rate, self.betas = table, bags, learning_rate, betas
        self._mean = torch.zeros_like(table)
        self._square = torch.zeros(len(table), 1)  # one second moment per row halves the memory traffic
        self._steps = torch.zeros(len(table), 1)
        self._pending: list[tuple[Tensor, Tensor]] = []

    def embed(self, rows: NDArray[np.integer]) -> Tensor:
        """Differentiable sums [n, d] of the given texts."""
        bags = self.bags.select(rows)
        # only the rows that these texts touch become a leaf with a gradient
        unique, local = torch.unique(torch.from_numpy(bags.values).long(), return_inverse=True)
        part = self.table[unique].requires_grad_()
        self._pending.append((unique, part))
        return _bag_sums(local, bags.offsets, part)

    def update(self, rate: float) -> None:
        """One lazy Adam step on the touched rows."""
        touched = [(unique, part.grad) for unique, part in self._pending if part.grad is not None]
        self._pending.clear()
        if not touched:
            return
        # a row read by several terms gets the sum of their gradients
        if len(touched) == 1:
            unique, gradient = touched[0]
        else:
            unique, local = torch.unique(torch.cat([rows for rows, _ in touched]), return_inverse=True)
            gradient = torch.zeros(len(unique), self.table.shape[1])
            gradient.index_add_(0, local, torch.cat([grad for _, grad in touched]))
        first, second = self.betas
        # bias correction counts the updates of each row, not of the whole table
        steps = self._steps[unique] + 1
        mean = self._mean[unique].lerp_(gradient, 1 - first)
        square = self._square[unique].lerp_(gradient.square().mean(1, keepdim=True), 1 - second)
        self._steps[unique], self._mean[unique], self._square[unique] = steps, mean, square
        scale = (square / (1 - second**steps)).sqrt_().add_(1e-10)
        self.table[unique] -= (self.learning_rate * rate) * (mean / (1 - first**steps)) / scale
