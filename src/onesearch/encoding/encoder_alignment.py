"""Alignment training with L_align: one loop for every kind of text encoder."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, relu

from onesearch.common.progress import track
from onesearch.common.settings import Settings
from onesearch.encoding.click_pairs import Edges, Pairs, drop_distant
from onesearch.encoding.pseudo_queries import pseudo_queries
from onesearch.encoding.text_encoder import TrainableEncoder


def contrastive(
    left: Tensor, right: Tensor, temperature: float, weight: Tensor | None = None, same: Tensor | None = None
) -> Tensor:
    """Symmetric in-batch contrastive loss (L_q2q, L_i2i, L_q2i): row i of ``left`` belongs to row i of ``right``.

    Args:
        left: unit vectors [n, d].
        right: unit vectors [n, d].
        temperature: cosines are divided by it.
        weight: importance of each pair [n]; equal by default.
        same: bool [n, n], True where ``right[j]`` is no negative of ``left[i]`` (the same text, another positive).

    Returns:
        Half the sum of both directions' weighted mean cross-entropies.
    """
    logits = left @ right.T / temperature
    if same is not None:
        diagonal = torch.eye(len(left), dtype=torch.bool, device=left.device)
        logits = logits.masked_fill(same.to(left.device) & ~diagonal, float("-inf"))
    target = torch.arange(len(left), device=left.device)
    both = 0.5 * (cross_entropy(logits, target, reduction="none") + cross_entropy(logits.T, target, reduction="none"))
    return both.mean() if weight is None else (both * weight).sum() / weight.sum()


def rank_margin(query: Tensor, better: Tensor, worse: Tensor, margin: float) -> Tensor:
    """L_rank: ordered above clicked above shown, ``mean(max(0, margin - cos(q, better) + cos(q, worse)))``.

    All arguments are unit vectors [n, d].
    """
    return relu(margin - (query * better).sum(-1) + (query * worse).sum(-1)).mean()


def relevance_regression(query: Tensor, item: Tensor, level: Tensor, scale: Tensor) -> Tensor:
    """L_rel: squared error of the cosine, on a learned line, against the relevance level 0-3 mapped to 0..1.

    Args:
        query: unit vectors [n, d].
        item: unit vectors [n, d].
        level: relevance levels 0, 1, 2, 3, [n].
        scale: slope and intercept of the line, [2].
    """
    predicted = scale[0] * (query * item).sum(-1) + scale[1]
    return (predicted - level / 3.0).square().mean()


log = logging.getLogger("onesearch")


class EncoderAlignmentSettings(Settings):
    """Weights of the five terms (0 switches one off) and the training schedule."""

    q2i: float = Field(default=1.0, ge=0)
    q2q: float = Field(default=0.1, ge=0)
    i2i: float = Field(default=0.1, ge=0)
    rank: float = Field(default=0.1, ge=0)
    relevance: float = Field(default=0.1, ge=0)
    temperature: float = Field(default=0.05, gt=0)
    margin: float = Field(default=0.1, ge=0)
    least_cosine: float = -1.0  # drop pairs below this zero-shot cosine; 0.6 in the paper, for pretrained encoders
    batch_size: int = Field(default=512, ge=2)
    pseudo_share: float = Field(default=0.5, ge=0, lt=1)  # part of the q2i batch that is (pseudo-query, title)
    pseudo_typos: float = Field(default=0.05, ge=0, le=1)
    nested: tuple[int, ...] = (128,)  # the q2i loss is also taken on these leading dimensions (Matryoshka)
    epochs: float = Field(default=10.0, gt=0)  # passes over the q2i pairs
    max_steps: int | None = None
    learning_rate: float | None = None  # the encoder's own default when None
    warmup: float = Field(default=0.05, ge=0, le=1)
    seed: int = 0


class _Draw:
    """Endless draws of pair numbers: one shuffled pass after another where weights are equal, else by weight."""

    def __init__(self, edges: Edges, size: int, rng: np.random.Generator) -> None:
        self._rng, self._size, self._n = rng, size, len(edges)
        weights = edges.weight.astype(np.float64)
        equal = len(weights) == 0 or np.ptp(weights) < 1e-9
        self._cumulative = None if equal else np.cumsum(weights) / weights.sum()
        self._order: NDArray[np.int64] = np.zeros(0, np.int64)

    def next(self) -> NDArray[np.int64]:
        """Pair numbers [size]."""
        if self._cumulative is not None:
            drawn = np.searchsorted(self._cumulative, self._rng.random(self._size))
            return np.minimum(drawn, self._n - 1).astype(np.int64)
        while len(self._order) < self._size:
            self._order = np.concatenate([self._order, self._rng.permutation(self._n)])
        out, self._order = self._order[: self._size], self._order[self._size :]
        return out


@dataclass(frozen=True)
class _Texts:
    """One table of all texts: queries, then items, then ``rounds`` pseudo-queries of every item."""

    texts: list[str]
    queries: int
    items: int
    rounds: int

    @classmethod
    def from_pairs(cls, pairs: Pairs, pseudo_draws: int, config: EncoderAlignmentSettings) -> "_Texts":
        rounds = 0
        if pseudo_draws and len(pairs.items):
            rounds = int(np.clip(pseudo_draws // len(pairs.items) + 1, 1, 6))
        texts = [*pairs.queries, *pairs.items]
        for number in range(rounds):
            texts += pseudo_queries(pairs.items, config.seed + number, typos=config.pseudo_typos)
        return cls(texts, len(pairs.queries), len(pairs.items), rounds)

    def item(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.queries + number

    def pseudo(self, item: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        return self.queries + self.items * (1 + rng.integers(0, self.rounds, len(item))) + item


def align_encoder(
    encoder: TrainableEncoder, pairs: Pairs, config: EncoderAlignmentSettings | None = None
) -> TrainableEncoder:
    """Train ``encoder`` in place on ``pairs`` with L_align and return it.

    Raises:
        ValueError: there is nothing to train on.
    """
    config = config or EncoderAlignmentSettings()
    if not len(pairs.items) or not (len(pairs.q2i) or config.pseudo_share):
        raise ValueError("alignment needs items and query-item pairs (or pseudo_share > 0); the training log has none")
    if config.least_cosine > -1:
        pairs = _without_distant(encoder, pairs, config.least_cosine)
    rng = np.random.default_rng(config.seed)
    pseudo = round(config.batch_size * config.pseudo_share) if len(pairs.q2i) else config.batch_size
    real = config.batch_size - pseudo
    steps = max(1, round(config.epochs * (len(pairs.q2i) / real if real else len(pairs.items) / pseudo)))
    steps = min(steps, config.max_steps or steps)
    texts = _Texts.from_pairs(pairs, pseudo * steps, config)
    trainer = encoder.trainer(texts.texts, config.learning_rate)
    batches = _Batches(pairs, texts, real, pseudo, config, rng)
    line = torch.tensor([1.0, 0.0], requires_grad=True)  # slope and intercept of the relevance regression
    for step in track(range(steps), "align text encoder", steps, "step"):
        loss = torch.zeros(())
        for rows, term in batches.draw():
            vectors = trainer.embed(rows)
            loss = loss + term(vectors, line)
        loss.backward()
        trainer.update(min(1.0, (step + 1) / (config.warmup * steps + 1)) * max(0.02, 1.0 - step / steps))
        if line.grad is not None:
            with torch.no_grad():
                line -= 0.05 * line.grad
                line.grad = None
    return encoder


class _Batches:
    """Draws the rows and the loss of every active term of one step."""

    def __init__(
        self,
        pairs: Pairs,
        texts: _Texts,
        real: int,
        pseudo: int,
        config: EncoderAlignmentSettings,
        rng: np.random.Generator,
    ) -> None:
        self.pairs, self.texts, self.real, self.pseudo, self.config, self.rng = pairs, texts, real, pseudo, config, rng
        # The weaker terms take a quarter batch each: they regularise, q2i is the task.
        self._small = max(2, config.batch_size // 4)
        self._q2i = _Draw(pairs.q2i, real, rng)
        self._q2q = _Draw(pairs.q2q, self._small, rng) if config.q2q and len(pairs.q2q) else None
        self._i2i = _Draw(pairs.i2i, self._small, rng) if config.i2i and len(pairs.i2i) else None

    def draw(self) -> Iterator[tuple[NDArray[np.int64], "_Term"]]:
        """(rows of the text table, term) for each active loss."""
        pairs, config, rng = self.pairs, self.config, self.rng
        if config.q2i:
            edges = pairs.q2i.select(self._q2i.next()) if self.real else pairs.q2i.select(np.zeros(0, np.int64))
            drawn = rng.integers(0, self.texts.items, self.pseudo)
            left = np.concatenate([edges.left, self.texts.pseudo(drawn, rng)]) if self.pseudo else edges.left
            item = np.concatenate([edges.right, drawn])
            term = _Contrastive(left, item, config.q2i, config, config.nested)
            yield np.concatenate([left, self.texts.item(item)]), term
        if self._q2q is not None:
            edges = pairs.q2q.select(self._q2q.next())
            yield np.concatenate([edges.left, edges.right]), _Contrastive(edges.left, edges.right, config.q2q, config)
        if self._i2i is not None:
            edges = pairs.i2i.select(self._i2i.next())
            rows = self.texts.item(np.concatenate([edges.left, edges.right]))
            yield rows, _Contrastive(edges.left, edges.right, config.i2i, config)
        if config.rank and len(pairs.rank):
            at = rng.integers(0, len(pairs.rank), self._small)
            better, worse = self.texts.item(pairs.rank.better[at]), self.texts.item(pairs.rank.worse[at])
            yield np.concatenate([pairs.rank.query[at], better, worse]), _Rank(config.rank, config.margin)
        if config.relevance and len(pairs.relevance):
            at = rng.integers(0, len(pairs.relevance), self._small)
            edges = pairs.relevance.select(at)
            yield (
                np.concatenate([edges.left, self.texts.item(edges.right)]),
                _Relevance(config.relevance, torch.from_numpy(edges.weight.astype(np.float32))),
            )


class _Term:
    """Loss of one term given the vectors of its rows, stacked side by side, and the regression line."""

    def __call__(self, vectors: Tensor, line: Tensor) -> Tensor:
        raise NotImplementedError


class _Contrastive(_Term):
    def __init__(
        self,
        left: NDArray[np.int64],
        right: NDArray[np.int64],
        weight: float,
        config: EncoderAlignmentSettings,
        nested: tuple[int, ...] = (),
    ) -> None:
        self.same = torch.from_numpy((left[:, None] == left[None]) | (right[:, None] == right[None]))
        self.weight, self.temperature, self.nested = weight, config.temperature, nested

    def __call__(self, vectors: Tensor, line: Tensor) -> Tensor:
        widths = [width for width in self.nested if width < vectors.shape[1]] + [vectors.shape[1]]
        total = torch.zeros(())
        for width in widths:
            left, right = normalize(vectors[:, :width], dim=1).chunk(2)
            total = total + contrastive(left, right, self.temperature, None, self.same)
        return self.weight * total / len(widths)


class _Rank(_Term):
    def __init__(self, weight: float, margin: float) -> None:
        self.weight, self.margin = weight, margin

    def __call__(self, vectors: Tensor, line: Tensor) -> Tensor:
        query, better, worse = normalize(vectors, dim=1).chunk(3)
        return self.weight * rank_margin(query, better, worse, self.margin)


class _Relevance(_Term):
    def __init__(self, weight: float, level: Tensor) -> None:
        self.weight, self.level = weight, level

    def __call__(self, vectors: Tensor, line: Tensor) -> Tensor:
        query, item = normalize(vectors, dim=1).chunk(2)
        return self.weight * relevance_regression(query, item, self.level.to(item.device), line.to(item.device))


def _without_distant(encoder: TrainableEncoder, pairs: Pairs, least: float) -> Pairs:
    queries, items = encoder.encode(pairs.queries), encoder.encode(pairs.items)
    kept = Pairs(
        pairs.queries,
        pairs.items,
        drop_distant(pairs.q2i, queries, items, least),
        drop_distant(pairs.q2q, queries, queries, least),
        drop_distant(pairs.i2i, items, items, least),
        pairs.rank,
        pairs.relevance,
    )
    log.info(
        "pairs under cosine %.2f dropped: q2i %d of %d, q2q %d of %d, i2i %d of %d",
        least,
        len(pairs.q2i) - len(kept.q2i),
        len(pairs.q2i),
        len(pairs.q2q) - len(kept.q2q),
        len(pairs.q2q),
        len(pairs.i2i) - len(kept.i2i),
        len(pairs.i2i),
    )
    return kept
