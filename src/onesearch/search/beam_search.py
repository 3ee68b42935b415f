"""Constrained beam search: only legal children are scored, exactly, for a batch of requests at once.

A beam is a node of the trie with the log-probability of its path::

    beams = best `width` nodes of level 0
    for level in 1 .. L-1:
        logits = decoder step of the beams that still have a choice, against their legal children
        scores = beam's score + log softmax over ALL its legal children
        beams  = best `width` allowed children

A beam with one item left below it has only one way to go on, of probability one: it keeps its place without any
computation.
Log-probabilities run over all legal children; a filter removes children only afterwards, so a filtered exhaustive
search gives the unfiltered ranking without the disallowed items. The readable twin is
:mod:`search.reference_beam`.

Paths found elsewhere are scored in the same decoder steps: a prefix that is a beam's is computed once for both, and one
that several paths share once for all of them. They take no part in the choice of beams.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from onesearch.index.sid_index import SidIndex
from onesearch.search.ragged_scores import Children, best, pad_rows, ragged_logsumexp
from onesearch.search.shards import WHOLE, Shards, kept_of_all, log_softmax_of_all
from onesearch.search.trie_expansion import Expansion, TrieScorer


class Mask(Protocol):
    """What a filter tells about nodes (``onesearch.index.item_filters.ItemMask``)."""

    def allowed(self, level: int, nodes: Tensor) -> Tensor:
        """Whether an allowed item lies below each node."""
        ...


@dataclass(frozen=True)
class Beams:
    """The best paths of B requests, best first.

    Shapes: ``nodes`` int64 [B, W] at the last level, -1 where a request has fewer legal paths; ``log_probs`` [B, W],
    -inf there; float32 (float64 of a float64 model); ``others`` [B, E] log-probabilities of the other paths that were
    asked for, -inf where there was none.
    """

    nodes: Tensor
    log_probs: Tensor
    others: Tensor


def beam_search(
    model: TrieScorer,
    memory: Any,
    index: SidIndex,
    width: int,
    mask: Sequence[Mask | None] | Mask | None = None,
    decode_forced: bool = False,
    others: Tensor | None = None,
    shards: Shards = WHOLE,
) -> Beams:
    """The ``width`` best paths of every request in ``memory``, and the log-probabilities of others.

    Args:
        model: in eval mode; the search takes no gradients.
        memory: what ``model.encode`` gave for B requests, prompts of any lengths.
        index: legal children.
        width: number of beams.
        mask: a filter for all requests, or one per request.
        decode_forced: decode beams with one item left too. The result is the same; benchmarks use it to hold the
            number of decoded beams constant.
        others: int64 [B, E, L] nodes per level of paths to score whatever their rank and the filter; -1 for none.
        shards: the engines that search together; of the best paths of all, those in ``index`` are returned.
    """
    if width < 1:
        raise ValueError(f"width must be >= 1, got {width}")
    with torch.inference_mode():
        beams = _Search(model, memory, index, width, mask, decode_forced, others, shards).run()
    # Clones made outside of inference mode may take part in training.
    return Beams(beams.nodes.clone(), beams.log_probs.clone(), beams.others.clone())


@dataclass
class _Level:
    """The beams of one level, best first: nodes int64 [B, A], scores [B, A], row of the last step that led to each."""

    nodes: Tensor
    scores: Tensor
    row: Tensor


class _OtherPaths:
    """E paths of each of B requests on their way down, beside the beams.

    Shapes: ``paths`` int64 [B, E, L]; ``scores`` [B, E] so far, -inf for none; ``row`` int64 [B, E] of the last decoder
    step that led to each.
    """

    def __init__(self, paths: Tensor, root: Tensor) -> None:
        self.paths = paths
        self.alive = paths[..., 0] >= 0
        self.scores = root.gather(1, paths[..., 0].clamp(min=0)).masked_fill_(~self.alive, float("-inf"))
        self.row = torch.zeros_like(paths[..., 0])

    def join(self, level: int, beams: _Level, closed: Callable[[int, Tensor], Tensor]) -> _Level:
        """The beams [B, C] that take this step, and behind them the paths' other prefixes, each once: [B, C + F]."""
        nodes = self.paths[..., level - 1]
        self.choosing = self.alive & ~closed(level - 1, nodes.clamp(min=0))
        # The column of each path's prefix among the beams; their filling is of nodes without a choice.
        same = nodes.unsqueeze(2) == beams.nodes.unsqueeze(1)
        width, beam = same.shape[2], same.any(2)
        # Others get columns of their own: the first path with a prefix stands for all that share it.
        alone = self.choosing & ~beam
        shared = (nodes.unsqueeze(2) == nodes.unsqueeze(1)) & alone.unsqueeze(1)
        first = _first(shared)
        leads = alone & (first == torch.arange(nodes.shape[1], device=nodes.device))
        place = width + (leads.cumsum(1) - 1).gather(1, first)
        self.column = torch.where(beam, _first(same), place) if width else place
        columns, filled = _compact(leads)
        own = nodes.gather(1, columns).masked_fill_(~filled, -1)
        scores = torch.nn.functional.pad(beams.scores, (0, columns.shape[1]))  # a path's own score is not a beam's
        row = self.row.gather(1, columns).masked_fill_(~filled, 0)  # of filling it may be of a wider step long ago
        return _Level(torch.cat([beams.nodes, own], 1), scores, torch.cat([beams.row, row], 1))

    def add(self, level: int, children: Children, logits: Tensor, normaliser: Tensor) -> None:
        """Go one level down: logits [T] of the children of all A columns, and their log Σ exp, [B · A]."""
        b, width = len(self.paths), (len(children.offsets) - 1) // len(self.paths)
        request = torch.arange(b, device=logits.device).unsqueeze(1)
        flat = (request * width + self.column)[self.choosing]
        # The children of a column are consecutive nodes.
        begin = children.offsets[flat]
        at = begin + self.paths[..., level][self.choosing] - children.nodes[begin]
        self.scores[self.choosing] += logits[at] - normaliser[flat]
        self.row = torch.where(self.choosing, self.column, self.row)


def _first(of: Tensor) -> Tensor:
    """Place of the first true entry along the last axis; 0 where there is none."""
    return of.to(torch.uint8).argmax(-1)


class _Search:
    def __init__(
        self,
        model: TrieScorer,
        memory: Any,
        index: SidIndex,
        width: int,
        mask: Sequence[Mask | None] | Mask | None,
        decode_forced: bool,
        others: Tensor | None,
        shards: Shards,
    ) -> None:
        self.decode_forced, self.shards = decode_forced, shards
        self.index, self.width = index, width
        self.expansion = Expansion(model, memory, index, width)
        self.batch = self.expansion.batch
        self.masks = _by_mask(mask, self.batch)
        none = torch.zeros(self.batch, 0, index.levels, dtype=torch.long, device=self.expansion.device)
        self.wanted = none if others is None else others

    def run(self) -> Beams:
        last = self.index.levels - 1
        if not len(self.index):
            self._meet_others()
            nodes = torch.full((self.batch, self.width), -1, device=self.expansion.device)
            least = torch.full((self.batch, self.width + self.wanted.shape[1]), float("-inf"), device=nodes.device)
            return Beams(nodes, *least.tensor_split([self.width], 1))
        beams = self._root()
        for level in range(1, last + 1):
            beams = self._descend(level, beams)
        missing = self.width - beams.nodes.shape[1]
        nodes = torch.nn.functional.pad(beams.nodes, (0, missing), value=-1)
        scores = torch.nn.functional.pad(beams.scores, (0, missing), value=float("-inf"))
        return Beams(nodes, scores, self.others.scores)

    def _root(self) -> _Level:
        """Level 0: all nodes of the level are a request's children."""
        logits = self.expansion.root()
        nodes = torch.arange(logits.shape[1], device=logits.device)
        every = nodes.expand(self.batch, -1)
        log_probs = log_softmax_of_all(self.shards, logits)
        self.others = _OtherPaths(self.wanted, log_probs)
        column, scores = best(log_probs, every, self.width, self._order_of(0), self._allowed(0))
        return self._level(0, column, scores, torch.zeros_like(column))

    def _descend(self, level: int, beams: _Level) -> _Level:
        """Replace every beam by its children, keep the best."""
        # Beams below which one item is left are closed: they go on for nothing. The others take a decoder step.
        first, count = self.index.children(level, beams.nodes)
        alive = beams.nodes >= 0
        closed = alive & self._closed(level - 1, beams.nodes.clamp(min=0))
        chosen, inside = _compact(alive & ~closed)
        parts = []  # of candidates: request, row of this level's step, node, score
        if closed.any():
            request = closed.nonzero(as_tuple=True)[0]
            parts.append((request, torch.zeros_like(request), first[closed], beams.scores[closed]))
        picked = _Level(*(x.gather(1, chosen) for x in (beams.nodes, beams.scores, beams.row)))
        count = count.gather(1, chosen).masked_fill_(~inside, 0)
        first = first.gather(1, chosen)
        if self.wanted.shape[1]:
            # Prefixes of other paths take the step beside the beams.
            picked = self.others.join(level, picked, self._closed)
            added = self.index.children(level, picked.nodes[:, chosen.shape[1] :])
            first, count = torch.cat([first, added[0]], 1), torch.cat([count, added[1]], 1)
        if picked.nodes.shape[1]:
            # Scores of all legal children of the C beams that still choose, as one list [T].
            children = Children.from_ranges(first.flatten(), count.flatten())
            scores = self._score(level, picked, children)
            width = picked.nodes.shape[1]
            request = children.beam // width if self.batch > 1 else torch.zeros_like(children.beam)
            row, nodes = children.beam - request * width, children.nodes
            if width > chosen.shape[1]:
                beam = (row < chosen.shape[1]).nonzero()[:, 0]
                request, row, nodes, scores = (x.index_select(0, beam) for x in (request, row, nodes, scores))
            if len(nodes):
                parts.append((request, row, nodes, scores))
        if not parts:  # a filter may leave nothing
            return self._level(level, beams.nodes, beams.scores, beams.row)
        # The best ``width`` of both kinds, per request.
        request, row, nodes, scores = _join(parts, self.batch)
        nodes, row, scores = pad_rows(request, self.batch, [(nodes, -1), (row, 0), (scores, float("-inf"))])
        column, scores = best(scores, nodes, self.width, self._order_of(level), self._allowed(level))
        return self._level(level, nodes.gather(1, column), scores, row.gather(1, column))

    def _level(self, level: int, nodes: Tensor, scores: Tensor, row: Tensor) -> _Level:
        """The best of this shard, of which those stay that are among the best of all."""
        if self.shards.count > 1:
            kept = kept_of_all(self.shards, scores, self.width, lambda: self.index.prefixes(level, nodes))
            scores = scores.masked_fill(~kept, float("-inf"))
        return _Level(nodes.masked_fill(scores == float("-inf"), -1), scores, row)

    def _meet_others(self) -> None:
        """What a shard without items tells those that have some: nothing, as often as they tell something."""
        double = self.expansion.state.memory.keys[0].dtype == torch.float64
        scores = torch.float64 if double else torch.float32
        nothing = torch.zeros(self.batch, 0, dtype=scores, device=self.expansion.device)
        log_softmax_of_all(self.shards, nothing)
        for _ in range(self.index.levels):
            kept_of_all(self.shards, nothing, self.width, nothing.long)

    def _closed(self, level: int, nodes: Tensor) -> Tensor:
        """Whether nothing is left to choose below nodes."""
        if self.decode_forced:
            return torch.zeros_like(nodes, dtype=torch.bool)
        return self.index.counts(level, nodes) == 1

    def _score(self, level: int, beams: _Level, children: Children) -> Tensor:
        """Path log-probabilities [T] of the children of beams [B, A]: one decoder step."""
        logits = self.expansion.children(level, beams.nodes, beams.row, children)
        normaliser = ragged_logsumexp(logits, children)
        if self.wanted.shape[1]:
            self.others.add(level, children, logits, normaliser)
        # One gather adds the beam's score and takes off its normaliser.
        return logits.add_((beams.scores.flatten() - normaliser).index_select(0, children.beam))

    def _order_of(self, level: int) -> Callable[[Tensor], Tensor]:
        return lambda nodes: self.index.order_of(level, nodes)

    def _allowed(self, level: int) -> Callable[[Tensor, Tensor], Tensor] | None:
        """What the filters say about nodes [T] of a level for requests [T]; None without filters."""
        if not self.masks:
            return None

        def allowed(nodes: Tensor, request: Tensor) -> Tensor:
            keep = torch.ones_like(nodes, dtype=torch.bool)
            for mask, requests in self.masks:
                # One filter for all requests needs no look at whose node it is.
                if requests is None:
                    return mask.allowed(level, nodes)
                (mine,) = requests.to(request.device)[request].nonzero(as_tuple=True)
                keep[mine] = mask.allowed(level, nodes[mine])
            return keep

        return allowed


def _compact(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the true entries of each row, bool [B, A]: int64 [B, C], and which of them are more than filling."""
    counts = chosen.sum(1, keepdim=True)
    most = int(counts.max())
    columns = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    return columns, torch.arange(most, device=chosen.device) < counts


def _join(parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], batch: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Candidates of several origins as one list sorted by request."""
    if len(parts) == 1:
        return parts[0]
    request, row, nodes, scores = (torch.cat(column) for column in zip(*parts, strict=True))
    if batch == 1:
        return request, row, nodes, scores
    order = request.argsort(stable=True)
    return request[order], row[order], nodes[order], scores[order]


def _by_mask(mask: Sequence[Mask | None] | Mask | None, batch: int) -> list[tuple[Mask, Tensor | None]]:
    """Each distinct filter and the requests it applies to, bool [B]; None for all."""
    if mask is None:
        return []
    if not isinstance(mask, Sequence):
        return [(mask, None)]
    if len(mask) != batch:
        raise ValueError(f"{len(mask)} filters were given for {batch} requests; give one filter, or one per request")
    distinct = {id(each): each for each in mask if each is not None}
    return [(each, torch.tensor([other is each for other in mask])) for each in distinct.values()]
