"""SearchEngine: query + shopper in, ranked items out."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.index.item_filters import ItemMask
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator, GeneratorMemory
from onesearch.model.prompt import PromptInputs
from onesearch.search.beam_search import beam_search
from onesearch.search.candidates import Candidates, from_beams, joined, ordered, score_items, without_repeats
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import ClickFeatures, QueryFacts
from onesearch.search.hits import Hits
from onesearch.search.nearest_items import nearest_items
from onesearch.search.ranking_features import lexical_features, likeness_features, popularity_features
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights
from onesearch.search.results import FilterChoices, SearchRequest, SearchResult
from onesearch.search.run_parts import (
    STAGE_OF,
    Keywords,
    Model,
    RunParts,
    choose_model,
    engine_name,
    load_about,
    log_histories,
    varied_queries,
)
from onesearch.search.search_settings import SearchSettings
from onesearch.search.served_versions import published
from onesearch.search.shopper_history import NO_HISTORY, FixedHistories, HistoryStore, ShopperHistory, to_requests

Floats = NDArray[np.float32]
_RECENT = 10  # last clicks that taste is taken from
BEAMS_ONLY: Mapping[str, Any] = {
    "lexical": False,
    "clicked_candidates": 0,
    "nearest": 0,
    "clicks": False,
    "popularity": False,
    "taste": False,
}


@dataclass(frozen=True)
class RequestFacts:
    """What is known of n requests before anything is searched.

    Attributes:
        queries: their terms and their places in the click log.
        clicked: int32 [n, E], the items most clicked for each query, best first, -1 padded.
        prompt: subwords, vectors and SIDs of all their texts, and the shoppers' histories.
    """

    queries: QueryFacts
    clicked: NDArray[np.int32]
    prompt: PromptInputs


@dataclass(frozen=True)
class Scope:
    """Where is searched: the catalogue, the filter (None for all of it) and the number of beams."""

    snapshot: Snapshot
    mask: ItemMask | None
    width: int


@dataclass(frozen=True)
class Found:
    """Items ``more`` int64 [n, E] that other channels than the beams gave, -1 for none.

    With BM25 also its score of all candidates, beams first, ``lexical`` float32 [n, G + E], and of the ``best`` item
    of the catalogue, float32 [n].
    """

    more: NDArray[np.int64]
    lexical: Floats | None = None
    best: Floats | None = None


class SearchEngine:
    """The generative engine of one run.

    Searching is safe from several threads, also while items are upserted: each search reads one snapshot.

    Args:
        generator: the trained model, in eval mode.
        featurizer: encoder, lexicon, quantizer, row space and vocabulary of the run.
        snapshot: the catalogue and its index.
        click_features: of the training log; they order candidates, and what was clicked fills missing history.
        config: beam width, and what else gives and orders candidates.
        weights: how candidates are ordered; the generator alone by default.
        histories: where shoppers' histories come from.
        batch_size: requests per encoder pass in :meth:`rank`.
        name: of the run, shown in ``version``.
        known_shoppers, known_queries: examples for the web page.
    """

    def __init__(
        self,
        generator: Generator,
        featurizer: Featurizer,
        snapshot: Snapshot,
        click_features: ClickFeatures,
        config: SearchSettings,
        weights: RankingWeights = GENERATOR_ALONE,
        histories: HistoryStore | None = None,
        batch_size: int = 64,
        name: str = "run",
        known_shoppers: Sequence[str] = (),
        known_queries: Sequence[str] = (),
        keywords: Keywords | None = None,
    ) -> None:
        self.generator, self.featurizer = generator.eval(), featurizer
        self.click_features, self.config, self.weights = click_features, config, weights
        self.histories: HistoryStore = histories if histories is not None else FixedHistories()
        self.batch_size, self.name = batch_size, name
        self.known_shoppers, self.known_queries = tuple(known_shoppers), tuple(known_queries)
        self.keywords = keywords
        self._snapshot = snapshot.on(generator.begin.device)
        self._writing = threading.Lock()

    @classmethod
    def load(
        cls, run: str | Path, width: int | None = None, model: Model | None = None, device: str | None = None
    ) -> "SearchEngine":
        """The engine of a finished run folder: of its V2 model where it has one, unless ``model`` says ``"v1"``.

        It runs on ``device``, such as ``"cuda:1"``; without one on a GPU where there is one, else on the CPU.

        Raises:
            FileNotFoundError: the run or one of its stages is missing or unfinished; the message says which.
            ValueError: this machine has no such device.
        """
        engine = load_engine(Path(run), model, device)
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
    ) -> "SearchEngine":
        """An engine on the model of a stage; ``keywords`` for a model that reads them in serving, too (RAG)."""
        generator = parts.generator(stage).to(parts.device)
        snapshot = parts.snapshot(generator.config.prompt)
        return cls(
            generator,
            parts.featurizer,
            snapshot,
            parts.click_features,
            config,
            weights,
            name=parts.run.name,
            keywords=keywords,
        )

    @property
    def snapshot(self) -> Snapshot:
        """The catalogue as searches see it now."""
        return self._snapshot

    # -- the public contract ---------------------------------------------------------------------------------------

    def search(
        self, query: str, user: str | None = None, k: int = 10, filters: Mapping[str, Any] | None = None
    ) -> list[SearchResult]:
        """The ``k`` best items for a query; ``query=""`` recommends, an unknown or no ``user`` is anonymous.

        Raises:
            ValueError: a filter key or value is not valid; the message names the valid ones.
        """
        return self.search_batch([SearchRequest(query, user, k, filters)])[0]

    def search_batch(self, requests: Sequence[SearchRequest]) -> list[list[SearchResult]]:
        """As :meth:`search`, for several requests; those with the same filters and width share their passes."""
        snapshot = self._snapshot
        answers: list[list[SearchResult]] = [[] for _ in requests]
        groups: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(repr((request.filters, request.width)), []).append(i)
        for group in groups.values():
            first = requests[group[0]]
            histories = [self._history(requests[i]) for i in group]
            batch = to_requests([requests[i].query for i in group], histories, snapshot.number)
            hits = self.rank(batch, max(requests[i].k for i in group), first.filters, snapshot, first.width)
            for i, items, scores in zip(group, hits.items, hits.scores, strict=True):
                answers[i] = _results(snapshot, items[: requests[i].k], scores)
        return answers

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
    ) -> Hits:
        """The ``k`` best items of each request; shapes as in :class:`Hits`."""
        snapshot = snapshot or self._snapshot
        return ordered(self.candidates(requests, filters, snapshot, width), self.weights, k, snapshot.popularity)

    def candidates(
        self,
        requests: Requests,
        filters: Mapping[str, Any] | None = None,
        snapshot: Snapshot | None = None,
        width: int | None = None,
        fixed: NDArray[np.int64] | None = None,
    ) -> Candidates:
        """Candidates of each request with all features, in batches of ``batch_size``.

        With ``fixed`` item rows [n, C] (-1 for none) these are the candidates, and nothing is searched.
        """
        snapshot = snapshot or self._snapshot
        scope = Scope(snapshot, snapshot.filters.mask(filters) if filters else None, width or self.config.width)
        facts = self._request_facts(requests)
        batches = np.split(np.arange(len(requests)), range(self.batch_size, len(requests), self.batch_size))
        return joined([self._batch(facts, rows, scope, None if fixed is None else fixed[rows]) for rows in batches])

    def _request_facts(self, requests: Requests) -> RequestFacts:
        """Everything that is looked up for requests, once."""
        queries, prompt = self.click_features.query_facts(requests.query), self.generator.config.prompt
        # The same list fills missing history in the prompt and gives candidates; each reads its beginning.
        most = max(prompt.clicked_for_query, self.config.clicked_candidates)
        clicked = self.click_features.statistics.most_clicked(queries.click_rows, most)
        keywords = None if self.keywords is None else self.keywords(requests.query)
        return RequestFacts(
            queries,
            clicked,
            PromptInputs.from_requests(requests, self.featurizer.text_features, prompt, clicked, keywords),
        )

    def _batch(
        self, facts: RequestFacts, rows: NDArray[np.int64], scope: Scope, fixed: NDArray[np.int64] | None
    ) -> Candidates:
        """Candidates of the given requests: one pass of the encoder, one of the decoder's beams, one of BM25."""
        model, snapshot, device = self.generator, scope.snapshot, self.generator.begin.device
        queries = facts.queries.select(rows)
        with torch.inference_mode():
            # Encode: the states that beams attend to, and the state that is compared with whole items.
            prompt = snapshot.builder.search_prompt(facts.prompt, rows, keywords=facts.prompt.keywords is not None)
            memory = model.encode(prompt.to(device))
            state = model.query_state(memory) if model.config.item_score else None

            # Find: items [n, G] of the beams, then more [n, E] of the other channels.
            if fixed is None:
                beams = beam_search(model, memory, snapshot.index, scope.width, scope.mask)
                items, log_probs = from_beams(beams, snapshot, scope.mask, self.config.items_per_sid)
                found = self._other_channels(queries, facts.clicked[rows], items, state, scope)
            else:
                items = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
                log_probs, found = torch.zeros(len(rows), 0, device=device), self._fixed(queries, fixed, snapshot)
            generated = items.shape[1]

            # What no beam found gets its log-probability along its path.
            if found.more.shape[1]:
                more = without_repeats(items, torch.from_numpy(found.more).to(device))
                more, more_log_probs = score_items(model, memory, snapshot, more, scope.mask)
                items, log_probs = torch.cat([items, more], 1), torch.cat([log_probs, more_log_probs], 1)
            features = self._model_features(facts, rows, memory, state, items, snapshot)
        picked = items.cpu().numpy()
        features = {"log_prob": log_probs.float().cpu().numpy(), **features}
        return self._with_log_features(queries, picked, generated, features, found, snapshot)

    def _other_channels(
        self,
        queries: QueryFacts,
        clicked: NDArray[np.int32],
        beams: Tensor,
        state: Tensor | None,
        scope: Scope,
    ) -> Found:
        """Items from elsewhere than the beams: most clicked, best by BM25, nearest by the item score, in this order."""
        config, none = self.config, np.zeros((len(clicked), 0), np.int64)
        clicked = clicked[:, : config.clicked_candidates]
        nearest = none
        if state is not None and config.nearest:
            index = scope.snapshot.index
            nearest = nearest_items(state, index, config.nearest, config.probes, scope.mask).cpu().numpy()
        lexical = scope.snapshot.lexical if config.lexical else None
        if lexical is None:
            return Found(np.concatenate([clicked, nearest], 1).astype(np.int64))
        # The catalogue is scored once: the best items, and the scores of all candidates, come from the same pass.
        before = np.concatenate([beams.cpu().numpy(), clicked], 1)
        known = np.concatenate([before, nearest], 1)
        match = lexical.match(queries.texts, queries.terms, config.lexical_candidates, known)
        scores = np.split(match.scores, [before.shape[1]], 1)
        return Found(
            np.concatenate([clicked, match.found, nearest], 1).astype(np.int64),
            np.concatenate([scores[0], match.found_scores, scores[1]], 1),
            match.best,
        )

    def _fixed(self, queries: QueryFacts, fixed: NDArray[np.int64], snapshot: Snapshot) -> Found:
        """The given items in the place of what channels find."""
        if not self.config.lexical or snapshot.lexical is None:
            return Found(fixed)
        match = snapshot.lexical.match(queries.texts, queries.terms, 0, fixed)
        return Found(fixed, match.scores, match.best)

    def _model_features(
        self,
        facts: RequestFacts,
        rows: NDArray[np.int64],
        memory: GeneratorMemory,
        state: Tensor | None,
        items: Tensor,
        snapshot: Snapshot,
    ) -> dict[str, Floats]:
        """Item score and likeness of the candidates ``items`` [n, C]."""
        candidates = snapshot.item_head_rows[items.clamp(min=0)]
        features = {"item_score": torch.zeros(items.shape, device=items.device)}
        if state is not None:
            features["item_score"] = torch.einsum("nr,ncr->nc", state.float(), candidates)
        if self.config.taste:
            clicks = torch.from_numpy(facts.prompt.clicked[rows][:, -_RECENT:]).long().to(items.device)
            known = (clicks >= 0).unsqueeze(-1)
            history = (snapshot.item_head_rows[clicks.clamp(min=0)] * known).sum(1) / known.sum(1).clamp(min=1)
            numbers = self.featurizer.head_row_projection.features
            features |= likeness_features(memory.query_head_rows, candidates, history, numbers)
        return {name: value.float().cpu().numpy() for name, value in features.items()}

    def _with_log_features(
        self,
        queries: QueryFacts,
        items: NDArray[np.int64],
        generated: int,
        features: dict[str, Floats],
        found: Found,
        snapshot: Snapshot,
    ) -> Candidates:
        """The candidates with the features of the click log, BM25 and popularity added."""
        config, valid = self.config, items >= 0
        if config.clicks:
            features |= self.click_features.features(queries, items, snapshot.traits)
        if found.lexical is not None and found.best is not None:
            features |= lexical_features(found.lexical, found.best)
        if config.popularity:
            features |= popularity_features(features, np.log1p(snapshot.popularity[np.maximum(items, 0)]))
        return Candidates(
            items,
            {name: np.where(valid, value, 0).astype(np.float32) for name, value in features.items()},
            valid & (np.arange(items.shape[1]) < generated),
            self.click_features.contexts(queries) if config.clicks else {},
        )

    # -- what a server asks ----------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Names the run and the state of its catalogue."""
        return f"{self.name}@{self._snapshot.version}"

    def __len__(self) -> int:
        return len(self._snapshot.index)

    def item(self, item_id: str) -> Item | None:
        """A searchable item's record, or None."""
        snapshot = self._snapshot
        return snapshot.item(snapshot.number[item_id]) if item_id in snapshot.number else None

    def sid(self, item_id: str) -> tuple[int, ...]:
        """A searchable item's semantic ID as level-local codes; () when there is no such item."""
        snapshot = self._snapshot
        return tuple(snapshot.sids[snapshot.number[item_id]].tolist()) if item_id in snapshot.number else ()

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
        return self._snapshot.choices()

    def search_lexical(self, query: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> list[SearchResult]:
        """The BM25 ranking, for comparison; empty when the run has no lexical index."""
        snapshot = self._snapshot
        if snapshot.lexical is None or not query.strip():
            return []
        if not filters:
            hits = snapshot.lexical.top_items([query], k)
            return _results(snapshot, hits.items[0], hits.scores[0])
        hits = snapshot.lexical.top_items([query], len(snapshot.items))
        found = torch.from_numpy(hits.items[0].astype(np.int64)).to(snapshot.index.device)
        position = snapshot.index.position_of(found.clamp(min=0))
        allowed = snapshot.filters.mask(filters).items_allowed(position.clamp(min=0)) & (position >= 0)
        keep = np.flatnonzero(allowed.cpu().numpy() & (hits.items[0] >= 0))[:k]
        return _results(snapshot, hits.items[0][keep], hits.scores[0][keep])

    # -- changes -----------------------------------------------------------------------------------------------------

    def upsert(self, items: Sequence[Item]) -> None:
        """Add items or replace those with the same id; the next search finds them."""
        if items:
            with self._writing:
                self._snapshot = self._snapshot.upserted(items, self.featurizer)

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many were known."""
        with self._writing:
            known = sum(i in self._snapshot.number for i in set(item_ids))
            self._snapshot = self._snapshot.deleted(item_ids)
        return known

    def adopt(self, generator: Generator, name: str) -> None:
        """Search with another generator of the same run from the next model call on, under another name.

        Raises:
            ValueError: it reads other prompts, or its tables do not fit the catalogue.
        """
        if (self.generator.config, self.generator.sizes) != (generator.config, generator.sizes):
            raise ValueError(f"the model of {name} was made for another catalogue or prompt than that of {self.name}")
        # One assignment: a model call that has begun keeps the model that it read.
        self.generator, self.name = generator.to(self.generator.begin.device).eval(), name

    def with_settings(self, config: SearchSettings, weights: RankingWeights) -> "SearchEngine":
        """An engine under other settings; shares model, catalogue and index as they are now."""
        return SearchEngine(
            self.generator,
            self.featurizer,
            self._snapshot,
            self.click_features,
            config,
            weights,
            self.histories,
            self.batch_size,
            self.name,
            keywords=self.keywords,
        )

    def alone(self) -> "SearchEngine":
        """The generator alone: the same beams, nothing else, ordered by their log-probability."""
        return self.with_settings(self.config.updated(**BEAMS_ONLY), GENERATOR_ALONE)


def _results(snapshot: Snapshot, items: NDArray[np.int32], scores: Floats) -> list[SearchResult]:
    out = []
    for row, score in zip(items.tolist(), scores.tolist(), strict=False):
        if row >= 0:
            item = snapshot.item(row)
            out.append(SearchResult(item.item_id, score, tuple(snapshot.sids[row].tolist()), item))
    return out


def load_engine(run: Path, model: Model | None = None, device: str | None = None) -> SearchEngine:
    """The engine of a finished run, with the shoppers of its log: V2 where the run has one, unless ``model`` is given.

    V2 has its keywords in its weights and reads none; only a model trained with ``distill.keywords: input`` does.

    Raises:
        FileNotFoundError: there is no such run, or a stage of it is missing or unfinished.
        ValueError: this machine has no such device.
    """
    return load_engines(run, [choose_model(run, model)], device)[0]


def load_engines(run: Path, models: Sequence[Model], device: str | None = None) -> list[SearchEngine]:
    """As :func:`load_engine`, for each of several models; they share all parts of the run but the model."""
    if not run.is_dir():
        raise FileNotFoundError(f"there is no run folder {run}; make one with `onesearch run configs/demo.yaml`")
    parts, engines = RunParts(run, device), []
    version = published(run)
    places = [version if version and model == "v2" else STAGE_OF[model] for model in models]
    abouts = [load_about(run, place) for place in places]
    past = log_histories(parts.dataset)
    active = sorted(past, key=lambda user: -len(past[user].clicked))
    for model, place, about in zip(models, places, abouts, strict=True):
        search = SearchSettings.model_validate(about["search"])
        keywords = parts.keyword_reader(about.get("reads_keywords"))
        engine = SearchEngine.from_parts(parts, about["model"], search, RankingWeights(about["weights"]), keywords)
        engine.name = engine_name(run, model, place)
        engine.histories = FixedHistories(past)
        engine.known_shoppers = tuple(active[:1000])
        engine.known_queries = tuple(varied_queries(parts.dataset))
        engines.append(engine)
    return engines
