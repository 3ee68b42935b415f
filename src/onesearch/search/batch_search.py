"""From requests to answers: several searches on one state of the catalogue, those that are alike together::

    read    the history of each and the rules that touch it; a mistyped query is searched for as it was meant
    count   what is asked of the whole result set, and pages in an order of their own (`result_set`)
    rank    all other pages, in groups that share filters, width, page and rules: candidates, then those in order
    tell    how sure it is, what comes first whatever its score, why it is there, the words of the query in it

The path of one group, from facts to candidates and their features, is :mod:`onesearch.search.candidate_search`.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.index.filter_values import conjuncts, names_key
from onesearch.index.item_filters import ItemMask
from onesearch.model.featurizer import Featurizer
from onesearch.search.candidate_search import FEWEST, CandidateSearch, Scope
from onesearch.search.candidates import Candidates, ordered
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import LIVE as LIVE_CLICKS
from onesearch.search.confidence import Confidence, best_match
from onesearch.search.current_snapshot import CurrentSnapshot
from onesearch.search.explanation import explain
from onesearch.search.exploration import DEPTH, Exploration, explore
from onesearch.search.hits import Hits, followed_by
from onesearch.search.live_intent import LIVE, MOST_ROOMS, asks_for_live, relevant_rooms
from onesearch.search.one_search import (
    OneSearch,
    as_columns,
    results_of,
    row_named,
    row_of_id,
    rows_ahead,
    tell_counts,
    tell_words,
    touching_of,
    with_ahead,
)
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.result_set import in_order, named_and_clicked, result_set
from onesearch.search.results import FilterChoices, SearchRequest, SearchResults
from onesearch.search.rule_effects import RuleEffects
from onesearch.search.rules import Touching
from onesearch.search.run_parts import Keywords
from onesearch.search.search_settings import SearchSettings
from onesearch.search.shopper_history import NO_HISTORY, FixedHistories, HistoryStore, ShopperHistory
from onesearch.search.suggestions import Suggestions
from onesearch.search.word_matches import WordMatch, query_words, word_matches

Floats = NDArray[np.float32]
_LIVE = RankingWeights({LIVE_CLICKS: 1.0})  # n clicks since the log raise the odds of an item on a page (1 + n)-fold
_DEMOTED = RankingWeights({"out_of_stock": 1.0})
_MOST_KEPT = 256  # sets of rules whose effects are kept


class BatchSearch(CandidateSearch):
    """Answers batches of searches; each reads one snapshot.

    Args:
        featurizer: of the run.
        snapshot: the catalogue with its model.
        config: beam width, and what else gives and orders candidates.
        weights: how candidates are ordered.
        histories: where shoppers' histories come from; by default nobody has one.
        batch_size: requests per encoder pass.
        keywords: of queries, for a model that reads them in serving, too (RAG).
        confidence: what tells whether anything fits a query.

    Attributes:
        current: the snapshot that changes.
        suggestions: what completes and corrects queries.
        live_queries: normalised queries of the log whose thought says that they ask for live rooms.
        clock: what time it is, for rules and items that have a time.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        snapshot: Snapshot,
        config: SearchSettings,
        weights: RankingWeights,
        histories: HistoryStore | None = None,
        batch_size: int = 64,
        keywords: Keywords | None = None,
        confidence: Confidence | None = None,
    ) -> None:
        super().__init__(featurizer, config, batch_size, keywords)
        self.weights, self.confidence = weights, confidence
        self.histories: HistoryStore = histories if histories is not None else FixedHistories()
        self._kept: tuple[Snapshot, dict[tuple[str, ...], RuleEffects]] = (snapshot, {})
        self._offered: tuple[Snapshot, dict[tuple[str, ...], FilterChoices]] = (snapshot, {})
        self.current = CurrentSnapshot(snapshot.on(snapshot.generator.eval().begin.device), featurizer)
        self.suggestions = Suggestions(self.current, snapshot.click_features.statistics)
        self.live_queries: frozenset[str] = frozenset()
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    @property
    def snapshot(self) -> Snapshot:
        """The catalogue and the model as searches see them now."""
        return self.current.value

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        """The answers to several searches; those with the same filters and width share their passes.

        Raises:
            ValueError: a filter, facet or order is not valid.
        """
        snapshot, time = self.snapshot, self.clock()
        # Refused before the shards meet: those that were not asked for this would wait.
        if snapshot.shards.count > 1 and any(one.explain for one in requests):
            raise ValueError("shards give no explanations: ask an engine with the whole catalogue")
        searches = [self._read(snapshot, request, time) for request in requests]
        groups: defaultdict[str, list[OneSearch]] = defaultdict(list)
        for search in searches:
            request = search.request
            if request.facets or request.count or request.sort:
                search.about = self._result_set(snapshot, search)
            if request.sort and search.about is not None:
                some = snapshot.shards.total(len(search.about))
                search.shown = search.about if some else self._nearest_allowed(snapshot, search)
                items = in_order(snapshot, search.shown, request.sort, search.page.stop)[search.page]
                places = request.offset + np.arange(len(items), dtype=np.float32)
                search.answer[:] = results_of(snapshot, items.astype(np.int32), -places)
            else:
                shared = (request.filters, request.width, request.offset, id(request.rules), search.touching.effects)
                groups[repr(shared)].append(search)
        for group in groups.values():
            self._rank_group(snapshot, group)
        for search in searches:
            tell_counts(snapshot, search)
            tell_words(snapshot, search)
        return [search.answer for search in searches]

    # -- what each search is about -------------------------------------------------------------------------------------

    def _read(self, snapshot: Snapshot, request: SearchRequest, time: datetime) -> OneSearch:
        """Filters, history, rules; and the query as it was meant."""
        request = replace(request, filters=self.offered(request.filters))
        history = self._history(request)
        search = OneSearch(request, history, touching_of(snapshot, request, history, time), time)
        # What a rule knows is not mistyped, be it the whole query or words of it, and an item's id is no word.
        if not search.touching.whole and row_of_id(snapshot, request.query) is None:
            search.correction = self.suggestions.corrected(request.query, search.touching.words)
        if search.correction is not None and search.correction.sure and request.correct:
            search.request = replace(request, query=search.correction.text)
            search.touching = touching_of(snapshot, search.request, history, time)
        if asks_for_live(search.touching.query, request.filters, snapshot, self.live_queries):
            search.rooms = self._rooms(snapshot, search)
        return search

    def _rooms(self, snapshot: Snapshot, search: OneSearch) -> tuple[int, ...]:
        """Rows of the live rooms that are on and relevant, best first."""
        request = replace(search.request, filters={**(search.request.filters or {}), "kind": LIVE})
        scope = self._scope_of(snapshot, replace(search, request=request))
        if not scope.matching:
            return ()
        hits = self._rank(as_columns(snapshot, [search]), min(scope.matching, MOST_ROOMS), scope)[0]
        rows = hits.items[0][hits.items[0] >= 0]
        if self.confidence is not None:
            rows = relevant_rooms(snapshot, rows, self._head_row(search.touching.query), self.confidence.margin)
        return tuple(rows.tolist())

    def _history(self, request: SearchRequest) -> ShopperHistory:
        if request.history is not None:
            return request.history
        return NO_HISTORY if request.user is None else self.histories.history(request.user)

    def offered(self, filters: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The filters of a search, and that of the shop where it hides what is out of stock."""
        if self.out_of_stock != "hidden" or any(names_key(one, "in_stock") for one in conjuncts(filters)):
            return filters
        return {**(filters or {}), "in_stock": True}

    # -- the whole result set ------------------------------------------------------------------------------------------

    def _result_set(self, snapshot: Snapshot, search: OneSearch) -> NDArray[np.int64]:
        """Rows of the items that a search is about, ascending: what is counted, and shown in an order of its own.

        A shard has those of its own items.
        """
        touching, mask = search.touching, self._scope_of(snapshot, search).mask
        # What the shopper has taken is shown no more; unless it is named, or rules pin it.
        taken = as_columns(snapshot, [search]).taken(self.config.leave_out)
        ahead = snapshot.indexed(np.array(rows_ahead(snapshot, search, mask), np.int64))
        if not touching.query.strip():
            return np.union1d(np.setdiff1d(result_set(snapshot, mask), taken), ahead)
        told = named_and_clicked(snapshot, touching.in_log, self.config.clicked_candidates)
        # Where no click ever said how near is near enough: what has the query's words, and what was clicked for it.
        margin = -math.inf if self.confidence is None else self.confidence.margin
        found = result_set(snapshot, mask, self._head_row(touching.query), margin, told)
        return np.union1d(np.setdiff1d(found, taken), ahead)

    def _nearest_allowed(self, snapshot: Snapshot, search: OneSearch) -> NDArray[np.int64]:
        """What is shown in an order of its own where the filters allow nothing relevant: rows, ascending.

        As in the engine's order, that is what comes nearest. A shard has its own items.
        """
        query = search.touching.query
        if not query.strip() or self.confidence is None:
            return np.zeros(0, np.int64)
        mask = self._scope_of(snapshot, search).mask
        found = result_set(snapshot, mask, self._head_row(query), self.confidence.margin, best_allowed=True)
        return np.setdiff1d(found, as_columns(snapshot, [search]).taken(self.config.leave_out))

    def _head_row(self, query: str) -> Floats:
        """Of a query's text, [R]."""
        row: Floats = self.featurizer.head_row_projection.project_queries(self.featurizer.vectors([query]))[0]
        return row

    # -- pages in the engine's order -----------------------------------------------------------------------------------

    def _rank_group(self, snapshot: Snapshot, group: Sequence[OneSearch]) -> None:
        """The pages of searches that share filters, width, offset and rules."""
        first = group[0].request
        scope = self._scope_of(snapshot, group[0])
        end = first.offset + max(search.request.k for search in group)
        exploring = [one.request.exploration for one in group]
        hits, found, drawn = self._rank(as_columns(snapshot, group), end, scope, exploring)
        sure = [None] * len(group) if hits.match is None or self.confidence is None else self.confidence.of(hits.match)
        for place, (search, items, scores, confidence) in enumerate(
            zip(group, hits.items, hits.scores, sure, strict=True)
        ):
            # Who types an item's id looks for that item: it comes first; then what rules pin; then live rooms.
            ahead = rows_ahead(snapshot, search, scope.mask)
            items, scores = with_ahead(ahead, items, scores)
            search.shown = items[: search.page.stop][items[: search.page.stop] >= 0]
            search.answer[:] = results_of(snapshot, items[search.page], scores[search.page])
            if drawn and len(drawn[place]):
                by_draw, page = set(drawn[place].tolist()).difference(ahead), [hit.item_id for hit in search.answer]
                search.answer.explored = tuple(item_id for item_id in page if snapshot.number[item_id] in by_draw)
            # A recommendation has no query that anything could fit.
            if confidence is not None and search.touching.query.strip():
                named = row_named(snapshot, search.touching.in_log, scope.mask)
                search.answer.confidence = float(confidence) if named is None else 1.0
            if search.request.explain:
                rows = [int(row) for row in items[search.page] if row >= 0]
                asked = as_columns(snapshot, [search])
                its = found.of(np.arange(len(group)) == place)
                why = explain(self, self._ordering(snapshot), asked, scope, its, rows, ahead, search.touching)
                why = [
                    replace(one, intent=LIVE) if r in search.rooms else one for r, one in zip(rows, why, strict=True)
                ]
                search.answer[:] = [hit._replace(why=one) for hit, one in zip(search.answer, why, strict=True)]

    def rank(
        self,
        requests: Requests,
        k: int,
        filters: Mapping[str, Any] | None = None,
        snapshot: Snapshot | None = None,
        width: int | None = None,
        effects: RuleEffects | None = None,
        time: datetime | None = None,
    ) -> Hits:
        """The ``k`` best items of each request, all of them where so many match; shapes as in :class:`Hits`.

        ``effects`` of the rules that touch all of them; those of :meth:`search_batch` alone, no others. At a ``time``,
        of what is shown then; without one of all items, whenever they are shown.

        Candidates come first, in the order of the engine's score; then all other items that match, in the order of the
        item score. So a longer page begins as a shorter one.
        """
        return self._rank(requests, k, self.scope(snapshot or self.snapshot, filters, width, effects, time))[0]

    def _rank(
        self, requests: Requests, k: int, scope: Scope, exploring: Sequence[Exploration | None] = ()
    ) -> tuple[Hits, Candidates, list[NDArray[np.int32]]]:
        """As :meth:`rank`, and the candidates that were ordered; of requests with few, without those that joined.

        Where a request explores, the item rows that were drawn as well, of each request.
        """
        snapshot, drawn = scope.snapshot, list[NDArray[np.int32]]()
        facts = self.request_facts(requests, snapshot)
        found = self.find_for(facts, np.arange(len(requests)), scope)
        # What is drawn may come from behind the page.
        asked, k = k, max(k, DEPTH) if any(exploring) else k
        hits = replace(ordered(found, self._ordering(snapshot), k, snapshot.popularity), match=best_match(found))
        # A filter that leaves few candidates: the nearest of all that match join them, however long the page is.
        few = self.with_few(found, scope)
        if len(few):
            joined = self.find_for(facts, few, replace(scope, least=FEWEST + facts.taken.shape[1]))
            more = ordered(joined, self._ordering(snapshot), k, snapshot.popularity)
            hits.items[few], hits.scores[few] = more.items, more.scores
            if hits.match is not None and (match := best_match(joined)) is not None:
                hits.match[few] = match
        if any(exploring):
            drawn = explore(hits, exploring)
            hits = replace(hits, items=hits.items[:, :asked].copy(), scores=hits.scores[:, :asked].copy())
        # A page longer than the candidates.
        short = np.flatnonzero((hits.items >= 0).sum(1) < min(asked, scope.matching))
        if len(short) and self.config.nearest:
            nearest = self._nearest(facts, short, scope, min(asked + facts.taken.shape[1], scope.matching))
            followed_by(hits, short, nearest, facts.taken[short])
        return hits, found, drawn

    def candidates(
        self,
        requests: Requests,
        filters: Mapping[str, Any] | None = None,
        snapshot: Snapshot | None = None,
        width: int | None = None,
        fixed: NDArray[np.int64] | None = None,
    ) -> Candidates:
        """Candidates of each request with all features.

        With ``fixed`` item rows [n, C] (-1 for none) these are the candidates, and nothing is searched.
        """
        return self.find(requests, self.scope(snapshot or self.snapshot, filters, width), fixed)

    def scope(
        self,
        snapshot: Snapshot,
        filters: Mapping[str, Any] | None,
        width: int | None,
        effects: RuleEffects | None = None,
        time: datetime | None = None,
    ) -> Scope:
        """Where is searched, under a filter and rules; at a time, of what is shown then."""
        timed = time is not None and snapshot.filters.turn(time) is not None
        mask = snapshot.filters.mask(filters or {}, time) if filters or timed else None
        width = width or self.config.width
        mask = mask if effects is None else effects.within(mask)
        matching = snapshot.shards.total(len(snapshot.index) if mask is None else mask.count)
        return Scope(snapshot, mask, width, matching, boost=None if effects is None else effects.boost)

    def _scope_of(self, snapshot: Snapshot, search: OneSearch) -> Scope:
        """Where one search looks."""
        request = search.request
        effects = self._effects(snapshot, request, search.touching)
        return self.scope(snapshot, request.filters, request.width, effects, search.time)

    def _effects(self, snapshot: Snapshot, request: SearchRequest, touching: Touching) -> RuleEffects | None:
        """What the rules that touch a request do to items; None without rules."""
        if request.rules is not None:  # a draft
            return RuleEffects.from_rules(touching, snapshot)
        if snapshot.rules is None:
            return None
        # Kept as long as the snapshot is: most searches are touched by the same few rules.
        of, kept = self._kept
        if of is not snapshot:
            self._kept = (snapshot, kept := {})
        if (effects := kept.get(touching.effects)) is None:
            effects = RuleEffects.from_rules(touching, snapshot)
            if len(kept) < _MOST_KEPT:
                kept[touching.effects] = effects
        return effects

    def _ordering(self, snapshot: Snapshot) -> RankingWeights:
        weights = self.weights if snapshot.click_features.live is None else self.weights.plus(_LIVE, 1.0)
        return weights.plus(_DEMOTED, 1.0) if self.out_of_stock == "demoted" else weights

    def plain_mask(self, snapshot: Snapshot, request: SearchRequest) -> ItemMask | None:
        """What may be shown beside the engine's own search, under a request's filters; None where that is everything.

        That is by the shop's setting for what is out of stock, and by the rules that touch the request.
        """
        filters, time = self.offered(request.filters), self.clock()
        touching = touching_of(snapshot, request, NO_HISTORY, time)
        return self.scope(snapshot, filters, None, self._effects(snapshot, request, touching), time).mask

    def filters_available(self) -> FilterChoices:
        """Filter values to offer, of the items that are shown; most frequent first."""
        snapshot, request = self.snapshot, SearchRequest("")
        # Kept as long as the snapshot is and the same is shown, for each set of rules and each setting of the shop.
        time = self.clock()
        turn = str(snapshot.filters.turn(time))
        key = (self.out_of_stock, turn, *touching_of(snapshot, request, NO_HISTORY, time).effects)
        of, kept = self._offered
        if of is not snapshot:
            self._offered = (snapshot, kept := {})
        if (found := kept.get(key)) is None:
            found = snapshot.choices(self.plain_mask(snapshot, request))
            if len(kept) < _MOST_KEPT:
                kept[key] = found
        return found

    # -- what is told of the results -----------------------------------------------------------------------------------

    def word_matches(self, query: str, items: Sequence[Item]) -> list[tuple[WordMatch, ...]]:
        """Where the words of a query stand in each item, as BM25 counts words; empty for a run without BM25."""
        snapshot = self.snapshot
        if snapshot.lexical is None:
            return [()] * len(items)
        analyze, numbers = snapshot.click_features.analyze, snapshot.lexical.numbers
        words = query_words(query)
        return [word_matches(words, item, lambda text: numbers(analyze(text))) for item in items]
