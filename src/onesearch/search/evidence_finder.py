"""Finds the evidence of requests: the items that stand in the prompt (:mod:`onesearch.model.evidence`).

Four cheap searches, each with its own numbers; an item found by several is one piece of evidence::

    clicked   items most clicked for the query
    together  items that others took with the history's
    lexical   best items by BM25
    nearest   items nearest to the query's vector, of the first-level nodes that are nearest: all of a small catalogue

In training the page view's own clicks, and the shopper's own pairs of items, are left out of every count, and each
search is left out of a share of the prompts, so that the model learns to do without it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.layered_table import LayeredTable
from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.item_pairs import ItemPairs
from onesearch.data.pair_counts import contained
from onesearch.index.sid_index import SidIndex
from onesearch.model.evidence import EVIDENCE_NUMBERS, Evidence, FindEvidence
from onesearch.model.model_settings import EvidenceSettings, PromptSettings
from onesearch.search.click_features import WordClicks
from onesearch.search.lexical_search import LexicalMatches, LexicalSearcher
from onesearch.search.nearest_items import nearest_items
from onesearch.search.ragged_scores import best
from onesearch.search.shards import WHOLE, Shards

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_CELLS = 8_000_000  # products of queries and items held at once
_EXACT = 60_000  # items with which a query's vector is compared one by one: all of a catalogue that has no more
_MANY = 20_000  # distinct queries that are not all searched for ahead of a training that draws few of them
_COMPARED = 30_000  # items, about, of a larger one: scattered rows cost more than all of a table
_HISTORY = 10  # items of a history whose neighbours are asked for


@dataclass(frozen=True)
class EvidenceRequests:
    """n requests as the searches need them.

    Attributes:
        texts, terms: queries as typed and analysed, [n].
        click_rows: int64 [n], the query's number in the click statistics, -1 for none.
        words: int32 [n, 8], numbers of the query's words among those of the log, -1 for none.
        head_rows: float32 [n, R], zero without a query.
        history: int32 [n, H], items taken before, newest last, -1 for none.
        own: for training rows, the items clicked in each page view.
        own_pairs: for training rows, what each shopper took in the training part.
        matches: for a search, whose BM25 candidates come from the same pass: the first ones are the evidence.
    """

    texts: Sequence[str]
    terms: Sequence[Sequence[str]]
    click_rows: NDArray[np.int64]
    words: NDArray[np.int32]
    head_rows: Floats
    history: Ints
    own: Ragged | None = None
    own_pairs: Ragged | None = None
    matches: LexicalMatches | None = None


class EvidenceFinder:
    """The four searches over one catalogue and one training log."""

    def __init__(
        self,
        settings: EvidenceSettings,
        statistics: ClickStatistics,
        pairs: ItemPairs | None,
        lexical: LexicalSearcher | None,
        index: SidIndex,
        item_head_rows: LayeredTable,
        words: WordClicks,
        categories: NDArray[np.int64] | LayeredTable,
        shards: Shards = WHOLE,
    ) -> None:
        """Shapes: ``item_head_rows`` float32 [N, R] and ``categories`` int64 [N] of all item rows.

        ``lexical`` and ``index`` hold the items of one of the ``shards``; what is found is of all of them.
        """
        self.shards = shards
        self.settings, self.statistics, self.pairs, self.lexical = settings, statistics, pairs, lexical
        self.index, self.item_head_rows, self.words, self.categories = index, item_head_rows, words, categories

    def prepare(
        self, requests: EvidenceRequests, dropout: float = 0.0, seed: int = 0, drawn: float = 1.0
    ) -> FindEvidence:
        """What finds the evidence of any of the requests; each distinct query is searched for once.

        With ``dropout`` each search is left out of that share of the prompts, drawn anew for every batch of rows. Where
        less than half of many requests will be ``drawn``, a query is searched for when it first is, else all now.
        """
        # Distinct queries, and the place of each request's.
        _, first, place = np.unique(np.asarray(requests.texts, dtype=object), return_index=True, return_inverse=True)
        ahead = len(first) < _MANY or drawn > 0.5
        searched = np.full(len(first), ahead)
        lexical, shares, nearest = self._searched(requests, first if ahead else first[:1])
        if not ahead:
            lexical, nearest = (np.zeros((len(first), one.shape[1]), np.int32) for one in (lexical, nearest))
            shares = np.zeros((len(first), shares.shape[1]), np.float32)

        def find(rows: NDArray[np.integer]) -> Evidence:
            new = np.unique(place[rows][~searched[place[rows]]])
            if len(new):
                lexical[new], shares[new], nearest[new] = self._searched(requests, first[new])
                searched[new] = True
            use = np.ones((len(rows), 4), bool)
            if dropout:
                draw = np.random.default_rng([seed, *np.asarray(rows[:16], np.int64).tolist()])
                use = draw.random(use.shape) >= dropout
            at = place[rows]
            return self._find(requests, rows, lexical[at], shares[at], nearest[at], use)

        return find

    def _searched(self, requests: EvidenceRequests, first: NDArray[np.int64]) -> tuple[Ints, Floats, Ints]:
        """What the searches of the requests ``first`` find: BM25's items with their shares, the nearest items."""
        lexical, shares = self._lexical(requests, first)
        return lexical, shares, self._nearest(requests.head_rows[first])

    def _lexical(self, requests: EvidenceRequests, first: NDArray[np.int64]) -> tuple[Ints, Floats]:
        """BM25's best of the requests ``first``, int32 [Q, k], and their shares of the best one's score [Q, k]."""
        if self.lexical is None or not self.settings.lexical:
            return np.full((len(first), 0), -1, np.int32), np.zeros((len(first), 0), np.float32)
        match, rows = requests.matches, first
        if match is None:
            texts, terms = [requests.texts[i] for i in first.tolist()], [requests.terms[i] for i in first.tolist()]
            match = self.lexical.match(texts, terms, self.settings.lexical).of_all(self.shards, self.settings.lexical)
            rows = np.arange(len(first))
        best = match.best[rows]
        items, scores = match.items[rows, : self.settings.lexical], match.scores[rows, : self.settings.lexical]
        return items.astype(np.int32), (scores / np.where(best > 0, best, 1)[:, None]).astype(np.float32)

    def _nearest(self, head_rows: Floats) -> Ints:
        """The items nearest to queries [Q, R], int32 [Q, k]; none for a query without a vector.

        A query's row is zero where an item's has numbers, so these do not count.
        """
        searched, first_nodes = (self.shards.total(one) for one in (len(self.index), self.index.size(0)))
        k, n, items = min(self.settings.nearest, searched), len(head_rows), len(self.item_head_rows)
        found = np.full((n, k), -1, np.int32)
        if not k:
            return found
        # All items, in one product with all rows if that is possible; of a large catalogue those below so many
        # first-level nodes as hold about ``_COMPARED``.
        probes = first_nodes if searched <= _EXACT else math.ceil(first_nodes * _COMPARED / searched)
        # A table of which every row is in the index as the run left it.
        exact = probes >= first_nodes and len(self.index) == len(self.item_head_rows.base) == items
        exact &= not len(self.item_head_rows.changed.rows) and self.shards.count == 1
        step = max(1, _CELLS // (items if exact else _COMPARED))
        for begin in range(0, n, step):
            part = slice(begin, begin + step)
            asked = torch.from_numpy(head_rows[part]).to(self.item_head_rows.base)
            if exact:
                near = self._nearest_of_all(asked, k)
            else:
                near = nearest_items(asked, self.index, k, probes, shards=self.shards)
            found[part] = near.cpu().numpy()
        found[~head_rows.any(1)] = -1
        return found

    def _nearest_of_all(self, asked: torch.Tensor, k: int) -> torch.Tensor:
        """The ``k`` nearest items of a plain index with all rows; equal ones in its order, as in nearest_items."""
        scores = asked @ self.item_head_rows.base.T
        near = scores.topk(min(k + 1, scores.shape[1]))
        by_place = self.index.position_of(near.indices).argsort(1)
        items, found = near.indices.gather(1, by_place), near.values.gather(1, by_place)
        items = items.gather(1, found.argsort(dim=1, descending=True, stable=True)[:, :k])
        # Where the last one has equals beyond, which of them were found is chance: these few queries once more.
        tied = (near.values[:, k:] == near.values[:, k - 1 : k]).any(1).nonzero()[:, 0]
        if len(tied):
            every = torch.arange(scores.shape[1], device=scores.device).expand(len(tied), -1)
            items[tied] = best(scores[tied], every, k, self.index.position_of)[0]
        return items

    def _find(
        self,
        requests: EvidenceRequests,
        rows: NDArray[np.integer],
        lexical: Ints,
        shares: Floats,
        nearest: Ints,
        use: NDArray[np.bool_],
    ) -> Evidence:
        """Evidence of the requests ``rows`` int64 [n]; ``use`` bool [n, 4] says which searches count.

        BM25's best items of each, int32 [n, k], their ``shares`` float32 [n, k], and the nearest int32 [n, k'].
        """
        settings, statistics, n = self.settings, self.statistics, len(rows)
        queries, history = requests.click_rows[rows], requests.history[rows][:, -_HISTORY:]
        own = None if requests.own is None else requests.own.select(rows)
        own_pairs = None if requests.own_pairs is None else requests.own_pairs.select(rows)
        none = np.full((n, 0), -1, np.int32)
        # Each search's items [n, k], best first.
        clicked = statistics.most_clicked(queries, settings.clicked, own) if settings.clicked else none
        together, cosine, following = none, none.astype(np.float32), none.astype(np.float32)
        if settings.together and history.shape[1] and self.pairs is not None:
            together, cosine, following = self.pairs.top(history, settings.together, own_pairs)
        lists = [clicked, together, lexical, nearest]
        lists = [np.where(use[:, i, None], found, np.int32(-1)) for i, found in enumerate(lists)]
        items = _distinct(np.concatenate(lists, 1), settings.most)
        known = items >= 0
        # Numbers, in the order of EVIDENCE_NUMBERS; all [n, E].
        out = np.zeros((*items.shape, len(EVIDENCE_NUMBERS)), np.float32)
        out[..., 0], out[..., 1] = _looked_up(items, lists[2], shares)
        counted = queries >= 0
        counts = statistics.pair_counts(np.where(use[:, 0], queries, -1), items, own)
        total = statistics.query_clicks[queries] * counted - (0 if own is None else own.lengths)
        out[..., 2] = np.log1p(counts) / 3
        out[..., 3] = counts / np.maximum(total, 1)[:, None]
        number = torch.from_numpy(np.maximum(items, 0).astype(np.int64)).to(self.item_head_rows.device)
        out[..., 4] = np.einsum("nr,ner->ne", requests.head_rows[rows], self.item_head_rows[number].cpu().numpy())
        out[..., 5], _ = _looked_up(items, lists[1], cosine)
        out[..., 6], _ = _looked_up(items, lists[1], following)
        logged = known & (items < len(statistics.clicked))
        popularity = np.where(logged, statistics.clicked[np.where(logged, items, 0)], 0)
        if own is not None:
            popularity = popularity - contained(own, items)
        out[..., 7] = np.log1p(np.maximum(popularity, 0)) / 5
        out[..., 8] = ((items[:, :, None] == requests.history[rows][:, None, :]) & known[:, :, None]).any(2)
        lifts = self.words.lifts(requests.words[rows], items, self.categories, own)
        out[..., 9], out[..., 10] = lifts[0] / 3, lifts[1] / 3
        out[~known] = 0
        return Evidence(items, out)


def evidence_finder(
    config: PromptSettings,
    statistics: ClickStatistics,
    pairs: ItemPairs | None,
    lexical: LexicalSearcher | None,
    index: SidIndex,
    item_head_rows: LayeredTable,
    words: WordClicks,
    categories: NDArray[np.int64] | LayeredTable,
    shards: Shards = WHOLE,
) -> EvidenceFinder | None:
    """The finder that prompts of these settings need; None where they have no evidence."""
    if not config.evidence.any:
        return None
    return EvidenceFinder(config.evidence, statistics, pairs, lexical, index, item_head_rows, words, categories, shards)


def _distinct(items: Ints, most: int) -> Ints:
    """The first ``most`` distinct items of each row [n, K], left-aligned, -1 for none."""
    repeated = np.tril(items[:, :, None] == items[:, None, :], -1).any(2)
    kept = np.where(repeated, np.int32(-1), items)
    order = np.argsort(kept < 0, axis=1, kind="stable")[:, :most]
    out = np.take_along_axis(kept, order, 1)
    return np.ascontiguousarray(out[:, : int((out >= 0).sum(1).max(initial=0))])


def _looked_up(items: Ints, found: Ints, scores: Floats) -> tuple[Floats, Floats]:
    """The score and 1 / place of each of ``items`` [n, E] in a search's list [n, k]; 0 for those not in it."""
    if not found.shape[1]:
        return np.zeros(items.shape, np.float32), np.zeros(items.shape, np.float32)
    same = (items[:, :, None] == found[:, None, :]) & (items >= 0)[:, :, None]
    at = same.argmax(2)
    there = same.any(2)
    return np.where(there, np.take_along_axis(scores, at, 1), 0), np.where(there, 1 / (at + 1), 0)
