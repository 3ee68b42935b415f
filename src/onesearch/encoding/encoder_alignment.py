"""Training a text encoder with L_align (2.3 to 2.6): the losses, the batches, one loop for every kind of encoder.

Differences from the paper, which publishes neither the weights nor the temperature:

1. Part of every q2i batch are pseudo-queries (pieces of titles), so that items without clicks are seen as well.
2. L_q2i may also be taken on the leading dimensions alone (``nested``), so that a shortened vector still works.
3. Pairs under a zero-shot cosine are dropped only for pretrained encoders (``least_cosine``); the static encoder starts
   without a space of its own.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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
from onesearch.encoding.text_encoder import EncoderTrainer, TrainableEncoder

Numbers = NDArray[np.int64]
Around = Callable[[EncoderTrainer, int], EncoderTrainer]
"""Makes of the trainer of texts one that also knows pictures of the items; their texts begin at a number."""
Loss = Callable[[Tensor, Tensor], Tensor]  # vectors [n, d] of a term's texts, regression line [2] -> scalar

log = logging.getLogger("onesearch")
_LINE_RATE = 0.05
_PSEUDO_ROUNDS = 6  # different pseudo-queries of an item, at most
_WARMUP = 0.05  # share of the steps in which the learning rate rises


class EncoderAlignmentSettings(Settings):
    """Weights of the five terms (0 switches one off) and the training schedule."""

    q2i: float = Field(1.0, ge=0, description="weight of query to clicked item, contrastive")
    q2q: float = Field(0.1, ge=0, description="weight of queries that share clicks, contrastive")
    i2i: float = Field(0.1, ge=0, description="weight of items clicked together, contrastive")
    rank: float = Field(0.1, ge=0, description="weight of the margin between an ordered, a clicked and a shown item")
    relevance: float = Field(0.1, ge=0, description="weight of the cosine's fit to judged levels")
    temperature: float = Field(0.05, gt=0, description="of the contrastive terms; the generator starts from it, too")
    margin: float = Field(0.1, ge=0, description="least distance of two cosines in the rank term")
    least_cosine: float = Field(
        -1.0, description="drop pairs below this zero-shot cosine; 0.6 in the paper, for pretrained encoders"
    )
    batch_size: int = Field(512, ge=2, description="query-item pairs of a step")
    pseudo_share: float = Field(0.5, ge=0, lt=1, description="part of the q2i batch that is (pseudo-query, title)")
    pseudo_typos: float = Field(0.05, ge=0, le=1, description="probability that a pseudo-query has a misspelt word")
    nested: tuple[int, ...] = Field(
        (128,), description="the q2i loss is also taken on these leading dimensions (Matryoshka)"
    )
    epochs: float = Field(10.0, gt=0, description="passes over the q2i pairs")
    max_steps: int | None = Field(None, description="steps at most")
    learning_rate: float | None = Field(None, description="the encoder's own default when none")
    seed: int = Field(0, description="of batches and pseudo-queries; a run sets its own")


# -- the losses --------------------------------------------------------------------------------------------------------


def contrastive(
    left: Tensor, right: Tensor, temperature: float, weight: Tensor | None = None, same: Tensor | None = None
) -> Tensor:
    """Symmetric in-batch contrastive loss (2.3): ``left[i]`` belongs to ``right[i]``.

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
    """L_rank (2.4): ordered above clicked above shown, ``mean(max(0, margin - cos(q, better) + cos(q, worse)))``.

    All arguments are unit vectors [n, d].
    """
    return relu(margin - (query * better).sum(-1) + (query * worse).sum(-1)).mean()


def relevance_regression(query: Tensor, item: Tensor, level: Tensor, line: Tensor) -> Tensor:
    """L_rel (2.5): squared error of the cosine, on a learned line, against the relevance level 0-3 mapped to 0..1.

    Args:
        query: unit vectors [n, d].
        item: unit vectors [n, d].
        level: relevance levels 0, 1, 2, 3, [n].
        line: slope and intercept, [2].
    """
    predicted = line[0] * (query * item).sum(-1) + line[1]
    return (predicted - level / 3.0).square().mean()


# -- the loop ----------------------------------------------------------------------------------------------------------


def align_encoder(
    encoder: TrainableEncoder,
    pairs: Pairs,
    config: EncoderAlignmentSettings | None = None,
    around: Around | None = None,
) -> TrainableEncoder:
    """Train ``encoder`` in place on ``pairs`` with L_align (2.6) and return it.

    With ``around`` more of the items than their texts is trained along, on the same terms.

    ::

        texts = queries + items + pseudo-queries                       # tokenised once
        for step in steps:
            loss = 0
            for each term with a weight and pairs:                     # q2i, q2q, i2i, rank, relevance
                draw pairs; loss += weight · term(unit vectors of their texts)
            backward; step of the encoder's own optimizer, rate warmed up, then falling linearly

    Raises:
        ValueError: there is nothing to train on.
    """
    config = config or EncoderAlignmentSettings()
    if not len(pairs.items) or not (len(pairs.q2i) or config.pseudo_share):
        raise ValueError("alignment needs items and query-item pairs (or pseudo_share > 0); the training log has none")
    if config.least_cosine > -1:
        pairs = _without_distant(encoder, pairs, config.least_cosine)
    rng = np.random.default_rng(config.seed)
    # A q2i batch: `clicked` pairs of the log and `pseudo` of titles. Epochs count passes over whichever there are.
    pseudo = round(config.batch_size * config.pseudo_share) if len(pairs.q2i) else config.batch_size
    clicked = config.batch_size - pseudo
    steps = max(1, round(config.epochs * (len(pairs.q2i) / clicked if clicked else len(pairs.items) / pseudo)))
    steps = min(steps, config.max_steps or steps)
    texts = _Texts.from_pairs(pairs, pseudo * steps, config)
    trainer = encoder.trainer(texts.texts, config.learning_rate)
    trainer = trainer if around is None else around(trainer, texts.queries)
    batches = _Batches(pairs, texts, clicked, pseudo, config, rng)
    line = torch.tensor([1.0, 0.0], requires_grad=True)  # of L_rel; learned by plain gradient steps
    for step in track(range(steps), "align text encoder", steps, "step"):
        loss = torch.zeros(())
        for rows, term in batches.draw():
            loss = loss + term(trainer.embed(rows), line)
        loss.backward()
        trainer.update(min(1.0, (step + 1) / (_WARMUP * steps + 1)) * max(0.02, 1.0 - step / steps))
        if line.grad is not None:
            with torch.no_grad():
                line -= _LINE_RATE * line.grad
                line.grad = None
    return encoder


def _without_distant(encoder: TrainableEncoder, pairs: Pairs, least: float) -> Pairs:
    """The pairs whose texts the untrained encoder already finds alike (the paper drops those under 0.6)."""
    queries, items = encoder.encode(pairs.queries), encoder.encode(pairs.items)
    kept = replace(
        pairs,
        q2i=drop_distant(pairs.q2i, queries, items, least),
        q2q=drop_distant(pairs.q2q, queries, queries, least),
        i2i=drop_distant(pairs.i2i, items, items, least),
    )
    for kind in ("q2i", "q2q", "i2i"):
        before, after = len(getattr(pairs, kind)), len(getattr(kept, kind))
        log.info("%s: %d of %d pairs are under cosine %.2f and dropped", kind, before - after, before, least)
    return kept


# -- the batches -------------------------------------------------------------------------------------------------------


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
            rounds = int(np.clip(pseudo_draws // len(pairs.items) + 1, 1, _PSEUDO_ROUNDS))
        texts = [*pairs.queries, *pairs.items]
        for number in range(rounds):
            texts += pseudo_queries(pairs.items, config.seed + number, typos=config.pseudo_typos)
        return cls(texts, len(pairs.queries), len(pairs.items), rounds)

    def item(self, number: Numbers) -> Numbers:
        return self.queries + number

    def pseudo(self, item: Numbers, rng: np.random.Generator) -> Numbers:
        return self.queries + self.items * (1 + rng.integers(0, self.rounds, len(item))) + item


class _Sampler:
    """Endless draws of pair numbers: one shuffled pass after another where weights are equal, else by weight."""

    def __init__(self, edges: Edges, size: int, rng: np.random.Generator) -> None:
        self._rng, self._size, self._n = rng, size, len(edges)
        weights = edges.weight.astype(np.float64)
        equal = len(weights) == 0 or np.ptp(weights) < 1e-9
        self._cumulative = None if equal else np.cumsum(weights) / weights.sum()
        self._order: Numbers = np.zeros(0, np.int64)

    def next(self) -> Numbers:
        """Pair numbers [size]."""
        if self._cumulative is not None:
            drawn = np.searchsorted(self._cumulative, self._rng.random(self._size))
            return np.minimum(drawn, self._n - 1).astype(np.int64)
        while len(self._order) < self._size:
            self._order = np.concatenate([self._order, self._rng.permutation(self._n)])
        out, self._order = self._order[: self._size], self._order[self._size :]
        return out


class _Batches:
    """Draws the texts and the loss of every active term of one step."""

    def __init__(
        self,
        pairs: Pairs,
        texts: _Texts,
        clicked: int,
        pseudo: int,
        config: EncoderAlignmentSettings,
        rng: np.random.Generator,
    ) -> None:
        self.pairs, self.texts, self.clicked, self.pseudo = pairs, texts, clicked, pseudo
        self.config, self.rng = config, rng
        # The weaker terms take a quarter batch each: they regularise, q2i is the task.
        self._small = max(2, config.batch_size // 4)
        self._q2i = _Sampler(pairs.q2i, clicked, rng)
        self._q2q = _Sampler(pairs.q2q, self._small, rng) if config.q2q and len(pairs.q2q) else None
        self._i2i = _Sampler(pairs.i2i, self._small, rng) if config.i2i and len(pairs.i2i) else None

    def draw(self) -> Iterator[tuple[Numbers, Loss]]:
        """(rows of the text table, loss of their vectors) for each active term."""
        pairs, config, rng, item = self.pairs, self.config, self.rng, self.texts.item
        if config.q2i:
            # clicked pairs of the log, then (pseudo-query, its title): [clicked + pseudo] pairs
            edges = pairs.q2i.select(self._q2i.next() if self.clicked else np.zeros(0, np.int64))
            drawn = rng.integers(0, self.texts.items, self.pseudo)
            left = np.concatenate([edges.left, self.texts.pseudo(drawn, rng)]) if self.pseudo else edges.left
            right = np.concatenate([edges.right, drawn])
            yield np.concatenate([left, item(right)]), self._contrastive(left, right, config.q2i, config.nested)
        if self._q2q is not None:
            edges = pairs.q2q.select(self._q2q.next())
            yield np.concatenate([edges.left, edges.right]), self._contrastive(edges.left, edges.right, config.q2q)
        if self._i2i is not None:
            edges = pairs.i2i.select(self._i2i.next())
            yield (
                item(np.concatenate([edges.left, edges.right])),
                self._contrastive(edges.left, edges.right, config.i2i),
            )
        if config.rank and len(pairs.rank):
            chosen = pairs.rank.select(rng.integers(0, len(pairs.rank), self._small))
            rows = np.concatenate([chosen.query, item(chosen.better), item(chosen.worse)])
            yield rows, self._rank
        if config.relevance and len(pairs.relevance):
            edges = pairs.relevance.select(rng.integers(0, len(pairs.relevance), self._small))
            yield np.concatenate([edges.left, item(edges.right)]), self._relevance(edges.weight)

    def _contrastive(self, left: Numbers, right: Numbers, weight: float, nested: tuple[int, ...] = ()) -> Loss:
        """L_con averaged over the nested widths; pairs that share a text are no negatives of each other."""
        same = torch.from_numpy((left[:, None] == left[None]) | (right[:, None] == right[None]))

        def loss(vectors: Tensor, line: Tensor) -> Tensor:
            widths = [width for width in nested if width < vectors.shape[1]] + [vectors.shape[1]]
            total = torch.zeros(())
            for width in widths:
                one, other = _parts(vectors[:, :width], 2)
                total = total + contrastive(one, other, self.config.temperature, None, same)
            return weight * total / len(widths)

        return loss

    def _rank(self, vectors: Tensor, line: Tensor) -> Tensor:
        query, better, worse = _parts(vectors, 3)
        return self.config.rank * rank_margin(query, better, worse, self.config.margin)

    def _relevance(self, levels: NDArray[np.float32]) -> Loss:
        level = torch.from_numpy(levels.astype(np.float32))

        def loss(vectors: Tensor, line: Tensor) -> Tensor:
            query, item = _parts(vectors, 2)
            return self.config.relevance * relevance_regression(
                query, item, level.to(item.device), line.to(item.device)
            )

        return loss


def _parts(vectors: Tensor, n: int) -> tuple[Tensor, ...]:
    """Unit vectors [n · m, d] as n blocks [m, d]."""
    return normalize(vectors, dim=1).chunk(n)
