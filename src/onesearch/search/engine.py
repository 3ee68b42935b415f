"""SearchEngine: query + shopper in, ranked items out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.artefact import readable
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.index.item_filters import ItemMask
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.search.boosts import Boost
from onesearch.search.candidate_search import FEWEST, CandidateSearch, Scope
from onesearch.search.candidates import Candidates, ordered
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import LIVE
from onesearch.search.confidence import Confidence, best_match
from onesearch.search.current_snapshot import CurrentSnapshot
from onesearch.search.explanation import explain
from onesearch.search.highlighting import highlights
from onesearch.search.hits import Hits, followed_by
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights
from onesearch.search.result_set import facet_counts, in_order, result_set
from onesearch.search.results import FilterChoices, SearchRequest, SearchResult, SearchResults
from onesearch.search.rule_effects import RuleEffects, pinned_rows
from onesearch.search.rules import Asked, BoostRule, Rules, Touching, unknown_names
from onesearch.search.run_parts import (
    STAGE_OF,
    Keywords,
    Model,
    RunParts,
    boosts_of,
    choose_model,
    confidence_of,
    engine_name,
    load_about,
    log_histories,
    varied_queries,
)
from onesearch.search.search_settings import BEAMS_ONLY, SearchSettings
from onesearch.search.served_versions import served_place
from onesearch.search.shopper_history import NO_HISTORY, FixedHistories, HistoryStore, ShopperHistory, to_requests
from onesearch.search.similar_items import similar_items
from onesearch.search.spelling import Correction
from onesearch.search.suggestions import Suggestion, Suggestions

log = logging.getLogger("onesearch")
Floats = NDArray[np.float32]
_LIVE = RankingWeights({LIVE: 1.0})  # n clicks since the log raise the odds of an item on a page (1 + n)-fold
_DEMOTED = RankingWeights({"out_of_stock": 1.0})
_MOST_KEPT = 256  # sets of rules whose effects are kept


class SearchEngine(CandidateSearch):
    """The generative engine of one run.

    Searching is safe from several threads, also while items are upserted: each search reads one snapshot.

    Args:
        featurizer: encoder, lexicon, quantizer, row space and vocabulary of the run.
        snapshot: the trained model, which is put into eval mode, the catalogue, its index and its click log.
        config: beam width, and what else gives and orders candidates.
        weights: how candidates are ordered; the generator alone by default.
        histories: where shoppers' histories come from.
        batch_size: requests per encoder pass in :meth:`rank`.
        name: of the run, shown in ``version``.
        known_shoppers, known_queries: examples for the web page.
        keywords: of queries, for a model that reads them in serving, too (RAG).
        confidence: what tells whether anything fits a query.

    Attributes:
        logged_until: when the newest page view of the run's log was; None where that is unknown.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        snapshot: Snapshot,
        config: SearchSettings,
        weights: RankingWeights = GENERATOR_ALONE,
        histories: HistoryStore | None = None,
        batch_size: int = 64,
        name: str = "run",
        known_shoppers: Sequence[str] = (),
        known_queries: Sequence[str] = (),
        keywords: Keywords | None = None,
        confidence: Confidence | None = None,
    ) -> None:
        super().__init__(featurizer, config, batch_size, keywords)
        self.weights, self.name, self.confidence = weights, name, confidence
        self.histories: HistoryStore = histories if histories is not None else FixedHistories()
        self.known_shoppers, self.known_queries = tuple(known_shoppers), tuple(known_queries)
        self._kept: tuple[Snapshot, dict[tuple[str, ...], RuleEffects]] = (snapshot, {})
        self.logged_until: datetime | None = None
        self.current = CurrentSnapshot(snapshot.on(snapshot.generator.eval().begin.device))
        self.suggestions = Suggestions(self.current, snapshot.click_features.statistics)

    @classmethod
    def load(
        cls,
        run: str | Path,
        width: int | None = None,
        model: Model | None = None,
        device: str | None = None,
        measured: bool = False,
    ) -> "SearchEngine":
        """The engine of a finished run folder: of its V2 model where it has one, unless ``model`` says ``"v1"``.

        It is what the run serves, as :func:`load_engine` says; with ``measured`` the engine that its report measured.
        It runs on ``device``, such as ``"cuda:1"``; without one on a GPU where there is one, else on the CPU.

        Raises:
            FileNotFoundError: the run or one of its stages is missing or unfinished; the message says which.
            ValueError: this machine has no such device.
        """
        engine = load_engine(Path(run), model, device, measured)
        if width is not None:
            engine.config = engine.config.updated(width=width)
        return engine

    @classmethod
    def from_parts(
        cls,
        parts: RunParts,
        stage: str,
        config: SearchSettings,
        weights: RankingWeights,
        keywords: Keywords | None = None,
        boosts: Sequence[Boost] = (),
        confidence: Confidence | None = None,
    ) -> "SearchEngine":
        """An engine on the model of a stage; ``keywords`` for a model that reads them in serving, too (RAG)."""
        generator = parts.generator(stage).to(parts.device)
        snapshot = parts.snapshot(generator).boosted(boosts)
        return cls(
            parts.featurizer,
            snapshot,
            config,
            weights,
            name=parts.run.name,
            keywords=keywords,
            confidence=confidence,
        )

    @classmethod
    def from_about(cls, parts: RunParts, about: Mapping[str, Any]) -> "SearchEngine":
        """The engine that an ``engine.json`` describes."""
        return cls.from_parts(
            parts,
            about["model"],
            SearchSettings.model_validate(about["search"]),
            RankingWeights(about["weights"]),
            parts.keyword_reader(about.get("reads_keywords")),
            boosts_of(about),
            confidence_of(about),
        )

    @property
    def snapshot(self) -> Snapshot:
        """The catalogue and the model as searches see them now."""
        return self.current.value

    @property
    def generator(self) -> Generator:
        """The model that searches use now."""
        return self.snapshot.generator

    # -- the public contract ---------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        user: str | None = None,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        offset: int = 0,
        correct: bool = True,
    ) -> SearchResults:
        """The ``k`` best items for a query; ``query=""`` recommends, an unknown or no ``user`` is anonymous.

        With an ``offset`` those after so many better ones: pages of a search repeat and miss nothing, as long as the
        catalogue and the shopper's history stay as they are. A query with a word that neither items nor log know is
        searched for as it was most likely meant, unless ``correct`` is off; the answer's ``corrected_query`` says so.

        Raises:
            ValueError: a filter key or value is not valid; the message names the valid ones.
        """
        return self.search_batch([SearchRequest(query, user, k, filters, offset=offset, correct=correct)])[0]

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        """As :meth:`search`, for several requests; those with the same filters and width share their passes.

        Raises:
            ValueError: a filter, facet or order is not valid, or the run cannot tell which items are relevant.
        """
        snapshot, time = self.snapshot, datetime.now(UTC)
        requests = [replace(request, filters=self._offered(request.filters)) for request in requests]
        answers = [SearchResults() for _ in requests]
        histories = [self._history(request) for request in requests]
        touching = [_touching(snapshot, *each, time) for each in zip(requests, histories, strict=True)]
        # Mistyped queries are searched for as they were meant, where that is sure; what a rule knows is not mistyped.
        meant = [
            None if touched.by_query else self._correction(snapshot, request.query)
            for request, touched in zip(requests, touching, strict=True)
        ]
        for i, correction in enumerate(meant):
            if correction is not None and correction.sure and requests[i].correct:
                requests[i] = replace(requests[i], query=correction.text)
                touching[i] = _touching(snapshot, requests[i], histories[i], time)
        # What is asked of the whole result set, and pages in another order than the engine's.
        for i, request in enumerate(requests):
            if request.facets or request.count or request.sort:
                answers[i] = self._of_result_set(snapshot, request, touching[i])
        for answer, request, correction in zip(answers, requests, meant, strict=True):
            if correction is not None and request.query == correction.text:
                answer.corrected_query = correction.text
            elif correction is not None:
                answer.did_you_mean = correction.text
        # A batch shares one filter, one width, one page and the rules that change scores.
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            if not request.sort:
                shared = (request.filters, request.width, request.offset, id(request.rules), touching[i].effects)
                groups.setdefault(repr(shared), []).append(i)
        for group in groups.values():
            first = requests[group[0]]
            effects = self._effects(snapshot, first, touching[group[0]])
            scope = self._scope(snapshot, first.filters, first.width, effects)
            # Histories as columns; items that left the catalogue are left out.
            batch = _batch(snapshot, [touching[i] for i in group], [histories[i] for i in group])
            end = first.offset + max(requests[i].k for i in group)
            hits = self.rank(batch, end, first.filters, snapshot, first.width, effects)
            # A recommendation has no query that anything could fit.
            sure: list[float | None] = [None] * len(group)
            if hits.match is not None and self.confidence is not None:
                shares = self.confidence.of(hits.match).tolist()
                sure = [one if touching[i].query.strip() else None for i, one in zip(group, shares, strict=True)]
            for i, items, scores, confidence in zip(group, hits.items, hits.scores, sure, strict=True):
                named = _named(snapshot, touching[i].in_log, scope.mask)
                if named is not None and confidence is not None:
                    confidence = 1.0
                # Who types an item's id looks for that item: it comes first; then what rules pin.
                pinned = pinned_rows(touching[i], snapshot, scope.mask)
                ahead = list(dict.fromkeys([*([] if named is None else [named]), *pinned]))
                if ahead:
                    others = ~np.isin(items, ahead)
                    places = np.arange(len(ahead), 0, -1, dtype=np.float32)
                    items = np.append(np.array(ahead, np.int32), items[others])
                    scores = np.append(scores.max(initial=0) + places, scores[others])
                page = slice(first.offset, first.offset + requests[i].k)
                answers[i][:] = _results(snapshot, items[page], scores[page])
                answers[i].confidence = confidence
                if requests[i].explain:
                    asked = _batch(snapshot, [touching[i]], [histories[i]])
                    rows = [int(row) for row in items[page] if row >= 0]
                    why = explain(self, self._ordering(), asked, scope, rows, ahead, touching[i])
                    answers[i][:] = [hit._replace(why=one) for hit, one in zip(answers[i], why, strict=True)]
        for request, touched, answer in zip(requests, touching, answers, strict=True):
            if request.highlight:
                self._highlight(snapshot, touched.query, answer)
        return answers

    def _highlight(self, snapshot: Snapshot, query: str, answer: SearchResults) -> None:
        """Say of each result where the query's words stand in it; nothing where a run has no BM25."""
        if snapshot.lexical is None:
            return
        analyze, numbers = snapshot.click_features.analyze, snapshot.lexical.numbers
        wanted = frozenset(numbers(analyze(query)))
        found = [highlights(hit.item, wanted, lambda word: numbers(analyze(word))) for hit in answer]
        answer[:] = [hit._replace(highlights=spans) for hit, spans in zip(answer, found, strict=True)]

    def _ordering(self) -> RankingWeights:
        weights = self.weights if self.snapshot.click_features.live is None else self.weights.plus(_LIVE, 1.0)
        return weights.plus(_DEMOTED, 1.0) if self.out_of_stock == "demoted" else weights

    def _offered(self, filters: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """The filters of a search, and that of the shop where it hides what is out of stock."""
        if self.out_of_stock != "hidden" or "in_stock" in (filters or {}):
            return filters
        return {**(filters or {}), "in_stock": True}

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """What a shopper may go on to type: at most ``k`` queries of the log, categories and titles, best first."""
        found, snapshot = self.suggestions.complete(text, k), self.snapshot
        mask = self._plain_mask(snapshot, "", None)
        if mask is None:
            return found
        # Titles of items that rules hide are not said.
        number, device = snapshot.number, snapshot.index.device
        rows = [number.get(one.item_id, -1) if one.item_id is not None else -1 for one in found]
        shown = mask.rows_allowed(torch.tensor(rows, device=device)).tolist()
        return [one for one, is_shown in zip(found, shown, strict=True) if is_shown or one.item_id is None]

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """The ``k`` items most like one of the catalogue, by their texts and by what shoppers took together.

        Raises:
            KeyError: there is no such item.
            ValueError: a filter is not valid.
        """
        snapshot = self.snapshot
        filters = self._offered(filters)
        mask = self._plain_mask(snapshot, "", filters)
        numbers = self.featurizer.head_row_projection.features
        return _results(snapshot, *similar_items(snapshot, snapshot.number[item_id], k, numbers, mask))

    def _of_result_set(self, snapshot: Snapshot, request: SearchRequest, touching: Touching) -> SearchResults:
        """Total and facets of a request, and its page where it asks for an order of its own."""
        query, margin = None, 0.0
        if touching.query.strip():
            if self.confidence is None:
                raise ValueError(
                    f"the engine of {self.name} does not know which items are relevant to a query, so that it cannot "
                    "count or sort them: `onesearch run` makes it anew"
                )
            vector = self.featurizer.vectors([touching.query])
            query = self.featurizer.head_row_projection.project_queries(vector)[0]
            margin = self.confidence.margin
        mask = self._scope(snapshot, request.filters, None, self._effects(snapshot, request, touching)).mask
        rows = result_set(snapshot, mask, query, margin)
        # What rules pin is shown, and so belongs to what is counted.
        if pinned := pinned_rows(touching, snapshot, mask):
            rows = np.union1d(rows, pinned)
        page: list[SearchResult] = []
        if request.sort:
            items = in_order(snapshot, rows, request.sort)[request.offset : request.offset + request.k]
            places = request.offset + np.arange(len(items), dtype=np.float32)
            page = _results(snapshot, items.astype(np.int32), -places)
        facets = facet_counts(snapshot, rows, request.facets) if request.facets else {}
        return SearchResults(page, total=len(rows), facets=facets)

    def _correction(self, snapshot: Snapshot, query: str) -> Correction | None:
        return None if _row_of_id(snapshot, query) is not None else self.suggestions.corrected(query)

    def _history(self, request: SearchRequest) -> ShopperHistory:
        if request.history is not None:
            return request.history
        return NO_HISTORY if request.user is None else self.histories.history(request.user)

    # -- the path of a search: facts -> candidates -> features -> order ----------------------------------------------

    def rank(
        self,
        requests: Requests,
        k: int,
        filters: Mapping[str, Any] | None = None,
        snapshot: Snapshot | None = None,
        width: int | None = None,
        effects: RuleEffects | None = None,
    ) -> Hits:
        """The ``k`` best items of each request, all of them where so many match; shapes as in :class:`Hits`.

        ``effects`` of the rules that touch all of them; those of :meth:`search_batch` alone, no others.

        Candidates come first, in the order of the engine's score; then all other items that match, in the order of the
        item score. So a longer page begins as a shorter one.
        """
        snapshot = snapshot or self.snapshot
        scope = self._scope(snapshot, filters, width, effects)
        facts = self.request_facts(requests, snapshot)
        found = self.find_for(facts, np.arange(len(requests)), scope)
        hits = replace(ordered(found, self._ordering(), k, snapshot.popularity), match=best_match(found))
        # A filter that leaves few candidates: the nearest of all that match join them, however long the page is.
        few = self.with_few(found, scope)
        if len(few):
            found = self.find_for(facts, few, replace(scope, least=FEWEST + facts.taken.shape[1]))
            more = ordered(found, self._ordering(), k, snapshot.popularity)
            hits.items[few], hits.scores[few] = more.items, more.scores
            if hits.match is not None and (match := best_match(found)) is not None:
                hits.match[few] = match
        # A page longer than the candidates.
        short = np.flatnonzero((hits.items >= 0).sum(1) < min(k, scope.matching))
        if len(short) and self.config.nearest:
            nearest = self._nearest(facts, short, scope, min(k + facts.taken.shape[1], scope.matching))
            followed_by(hits, short, nearest, facts.taken[short])
        return hits

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
        return self.find(requests, self._scope(snapshot or self.snapshot, filters, width), fixed)

    def _scope(
        self,
        snapshot: Snapshot,
        filters: Mapping[str, Any] | None,
        width: int | None,
        effects: RuleEffects | None = None,
    ) -> Scope:
        mask = snapshot.filters.mask(filters) if filters else None
        width = width or self.config.width
        if effects is None:
            return Scope(snapshot, mask, width)
        return Scope(snapshot, effects.within(mask), width, boost=effects.boost)

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

    def _plain_mask(self, snapshot: Snapshot, query: str, filters: Mapping[str, Any] | None) -> ItemMask | None:
        """What may be shown to anybody beside the engine's own search."""
        request = SearchRequest(query, filters=filters)
        touching = _touching(snapshot, request, NO_HISTORY, datetime.now(UTC))
        return self._scope(snapshot, filters, None, self._effects(snapshot, request, touching)).mask

    # -- what a server asks ----------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Names the run and the state of its catalogue."""
        return f"{self.name}@{self.snapshot.version}"

    def __len__(self) -> int:
        return len(self.snapshot.index)

    def item(self, item_id: str) -> Item | None:
        """A searchable item's record, or None."""
        snapshot = self.snapshot
        return snapshot.item(snapshot.number[item_id]) if item_id in snapshot.number else None

    def sid(self, item_id: str) -> tuple[int, ...]:
        """A searchable item's semantic ID as level-local codes; () when there is no such item."""
        snapshot = self.snapshot
        return snapshot.sid(snapshot.number[item_id]) if item_id in snapshot.number else ()

    def logged_history(self, user: str) -> ShopperHistory:
        """What the log knows of a shopper."""
        return self.histories.history(user)

    def shoppers(self, limit: int) -> list[str]:
        """Some shoppers with a history, the most active first."""
        return list(self.known_shoppers[:limit])

    def example_queries(self, limit: int) -> list[str]:
        """Some queries worth trying."""
        return list(self.known_queries[:limit])

    def filters_available(self) -> FilterChoices:
        """Filter values to offer, most frequent first."""
        return self.snapshot.choices

    def search_lexical(self, query: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """The BM25 ranking, for comparison; empty when the run has no lexical index."""
        snapshot = self.snapshot
        filters = self._offered(filters)
        if snapshot.lexical is None or not query.strip():
            return SearchResults()
        mask = self._plain_mask(snapshot, query, filters)
        if mask is None:
            hits = snapshot.lexical.top_items([query], k)
            return _results(snapshot, hits.items[0], hits.scores[0])
        # BM25 knows no filters: rank everything that matches, then keep what the filter allows.
        hits = snapshot.lexical.top_items([query], len(snapshot.records))
        found = torch.from_numpy(hits.items[0].astype(np.int64)).to(snapshot.index.device)
        position = snapshot.index.position_of(found.clamp(min=0))
        allowed = mask.items_allowed(position.clamp(min=0)) & (position >= 0)
        keep = np.flatnonzero(allowed.cpu().numpy() & (hits.items[0] >= 0))[:k]
        return _results(snapshot, hits.items[0][keep], hits.scores[0][keep])

    # -- changes -----------------------------------------------------------------------------------------------------

    def upsert(self, items: Sequence[Item]) -> None:
        """Add items or replace those with the same id; the next search finds them."""
        if items:
            self.current.upsert(items, self.featurizer)
            self.suggestions.add(items)

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many were known."""
        return self.current.delete(item_ids)

    def count(self, live: LiveClicks) -> None:
        """Let clicks since the log move items up from the next search on; they take the place of earlier ones."""
        self.current.count(live)

    def adopt(self, generator: Generator, name: str, boosts: Sequence[Boost] | None = None) -> None:
        """Search with another generator of the same run from the next search on, under another name.

        ``boosts`` take the place of those that the engine has, unless they are None.

        Raises:
            ValueError: it reads other prompts, or its tables do not fit the catalogue.
        """
        if (self.generator.config, self.generator.sizes) != (generator.config, generator.sizes):
            raise ValueError(f"the model of {name} was made for another catalogue or prompt than that of {self.name}")
        generator = generator.to(self.generator.begin.device).eval()
        self.current.adopt(generator, boosts)
        self.name = name

    @property
    def rules(self) -> Rules:
        """The rules in force; where there never were any, the boosts that the engine was made with as rules."""
        snapshot = self.snapshot
        if snapshot.rules is not None:
            return snapshot.rules
        return Rules(boosts=tuple(BoostRule.model_validate(boost.model_dump()) for boost in snapshot.boosts))

    def follow_rules(self, rules: Rules | None) -> None:
        """Search under other rules from the next search on; None: as if there never were any."""
        self.current.rule(rules)

    def rule_problems(self, rules: Rules) -> dict[str, str]:
        """Why rules cannot work here, by name: what they name is not in the catalogue, or the engine knows no boost."""
        snapshot = self.snapshot
        there = np.array(sorted(snapshot.number.values()), np.int64)
        found = unknown_names(rules, snapshot.records.flat().table[there])
        if rules.boosts and not (self.config.boost and self.weights.values.get("boost")):
            found |= {rule.name: f"boosts, {rule.name}: search.boost of this engine is 0" for rule in rules.boosts}
        return found

    def with_settings(self, config: SearchSettings, weights: RankingWeights) -> "SearchEngine":
        """An engine under other settings; shares model, catalogue and index as they are now."""
        engine = SearchEngine(
            self.featurizer,
            self.snapshot,
            config,
            weights,
            self.histories,
            self.batch_size,
            self.name,
            keywords=self.keywords,
            confidence=self.confidence,
        )
        engine.out_of_stock = self.out_of_stock
        return engine

    def alone(self) -> "SearchEngine":
        """The generator alone: the same beams, nothing else, ordered by their log-probability."""
        return self.with_settings(self.config.updated(**BEAMS_ONLY), GENERATOR_ALONE)


def _touching(snapshot: Snapshot, request: SearchRequest, history: ShopperHistory, time: datetime) -> Touching:
    """The rules that touch a request, and its query under them."""
    rules = snapshot.rules if request.rules is None else request.rules
    if rules is None:
        return Touching(request.query, request.query)
    groups = (*request.groups, *history.profile.split())
    return rules.touching(request.query, Asked.from_search(request.query, request.filters, groups, time))


def _batch(snapshot: Snapshot, touching: Sequence[Touching], histories: Sequence[ShopperHistory]) -> Requests:
    """Searches as columns, each with its query under the rules."""
    found = to_requests([one.query for one in touching], histories, snapshot.number)
    return replace(found, in_log=[one.in_log for one in touching])


def _named(snapshot: Snapshot, query: str, mask: ItemMask | None) -> int | None:
    """The row of the item whose id is the query, if the mask allows it."""
    row = _row_of_id(snapshot, query)
    if row is None or mask is None:
        return row
    at = torch.tensor([row], device=snapshot.index.device)
    return row if bool(mask.rows_allowed(at)) else None


def _row_of_id(snapshot: Snapshot, query: str) -> int | None:
    typed = query.strip()
    return next((snapshot.number[i] for i in (typed, typed.upper(), typed.lower()) if i in snapshot.number), None)


def _results(snapshot: Snapshot, items: NDArray[np.int32], scores: Floats) -> SearchResults:
    out = SearchResults()
    for row, score in zip(items.tolist(), scores.tolist(), strict=False):
        if row >= 0:
            item = snapshot.item(row)
            out.append(SearchResult(item.item_id, score, snapshot.sid(row), item))
    return out


def load_engine(
    run: str | Path, model: Model | None = None, device: str | None = None, measured: bool = False
) -> SearchEngine:
    """The engine of a finished run, with the shoppers of its log: V2 where the run has one, unless ``model`` is given.

    Of that model it is the version that an update published, else the final engine, which has learnt from all page
    views, else the one that the report measured. ``measured`` asks for the last one.

    V2 has its keywords in its weights and reads none; only a model trained with ``distill.keywords: input`` does.

    Raises:
        FileNotFoundError: there is no such run, or a stage of it is missing or unfinished.
        ValueError: this machine has no such device, or a file of the run is damaged.
    """
    with readable(Path(run)):
        return load_engines(Path(run), [choose_model(Path(run), model)], device, measured)[0]


def load_engines(
    run: Path, models: Sequence[Model], device: str | None = None, measured: bool = False
) -> list[SearchEngine]:
    """As :func:`load_engine`, for each of several models; those with the same counts share all parts but the model."""
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run folder {run}; make one with `onesearch run configs/demo.yaml`")
    places = [STAGE_OF[model] if measured else served_place(run, model) for model in models]
    abouts = [load_about(run, place) for place in places]
    parts_of = {counts: RunParts(run, device, counts) for counts in {about.get("counts") for about in abouts}}
    # What all models share: histories of the log, and examples for the page.
    dataset = next(iter(parts_of.values())).dataset
    past = log_histories(dataset)
    active = sorted(past, key=lambda user: -len(past[user].clicked))
    queries = tuple(varied_queries(dataset))
    engines = []
    for model, place, about in zip(models, places, abouts, strict=True):
        engine = SearchEngine.from_about(parts_of[about.get("counts")], about)
        engine.name = engine_name(run, model, place)
        engine.histories = FixedHistories(past)
        engine.logged_until = cast(datetime | None, dataset.page_views["time"].max())
        engine.known_shoppers = tuple(active[:1000])
        engine.known_queries = queries
        engines.append(engine)
    return engines
