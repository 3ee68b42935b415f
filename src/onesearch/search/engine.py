"""SearchEngine: query + shopper in, ranked items out."""

import threading
from collections.abc import Mapping, Sequence
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
from onesearch.model.numeric_item_features import FEATURE_NAMES
from onesearch.model.prompt import PromptInputs
from onesearch.search.beam_search import beam_search
from onesearch.search.candidates import NOTHING, Candidates, add_extra, from_beams, score_extra
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import Evidence, lexical_features, with_popularity
from onesearch.search.hits import Hits
from onesearch.search.nearest_items import nearest_items
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
_RECENT = 10  # past clicks that taste is taken from
NO_EVIDENCE: Mapping[str, Any] = {
    "lexical": False,
    "clicked_candidates": 0,
    "nearest": 0,
    "clicks": False,
    "popularity": False,
    "taste": False,
}


class SearchEngine:
    """The generative engine of one run.

    Searching is safe from several threads, also while items are upserted: each search reads one snapshot.

    Args:
        generator: the trained model, in eval mode.
        featurizer: encoder, lexicon, quantizer, row space and vocabulary of the run.
        snapshot: the catalogue and its index.
        evidence: of the training log; fills missing history and orders candidates.
        config: beam width and evidence.
        weights: how candidates are ordered; the generator alone by default.
        histories: where shoppers' pasts come from.
        batch_size: requests per encoder pass in :meth:`rank`.
        name: of the run, shown in ``version``.
        known_shoppers, known_queries: examples for the web page.
    """

    def __init__(
        self,
        generator: Generator,
        featurizer: Featurizer,
        snapshot: Snapshot,
        evidence: Evidence,
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
        self.evidence, self.config, self.weights = evidence, config, weights
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
            parts.evidence,
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
            pasts = [self._past(requests[i]) for i in group]
            columns = to_requests([requests[i].query for i in group], pasts, snapshot.number)
            k = max(requests[i].k for i in group)
            hits = self.rank(columns, k, first.filters, snapshot, width=first.width)
            for i, items, scores in zip(group, hits.items, hits.scores, strict=True):
                answers[i] = _results(snapshot, items[: requests[i].k], scores)
        return answers

    def _past(self, request: SearchRequest) -> ShopperHistory:
        if request.history is not None:
            return request.history
        return NO_HISTORY if request.user is None else self.histories.history(request.user)

    # -- columns -----------------------------------------------------------------------------------------------------

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
        return top_k(self.candidates(requests, filters, snapshot, width), self.weights, k, snapshot.popularity)

    def candidates(
        self,
        requests: Requests,
        filters: Mapping[str, Any] | None = None,
        snapshot: Snapshot | None = None,
        width: int | None = None,
        given: NDArray[np.int64] | None = None,
    ) -> Candidates:
        """Beams and evidence of each request with all features, in batches of ``batch_size``.

        With ``given`` item rows [n, C] (-1 for none) these are the candidates, and nothing is searched.
        """
        snapshot = snapshot or self._snapshot
        mask = snapshot.filters.mask(filters) if filters else None
        clicked_for_query = self.evidence.statistics.most_clicked(requests.query, self._clicked_for_query_width())
        thoughts = None if self.keywords is None else self.keywords(requests.query)
        inputs = PromptInputs.from_requests(
            requests, self.featurizer.text_features, self.generator.config.prompt, clicked_for_query, thoughts
        )
        parts = [
            self._candidates(
                inputs,
                rows,
                requests,
                clicked_for_query[rows],
                snapshot,
                mask,
                width or self.config.width,
                None if given is None else given[rows],
            )
            for rows in np.split(np.arange(len(requests)), range(self.batch_size, len(requests), self.batch_size))
        ]
        return _joined(parts)

    def _clicked_for_query_width(self) -> int:
        return max(self.generator.config.prompt.clicked_for_query, self.config.clicked_candidates)

    def _candidates(
        self,
        inputs: PromptInputs,
        rows: NDArray[np.int64],
        requests: Requests,
        clicked_for_query: NDArray[np.int32],
        snapshot: Snapshot,
        mask: ItemMask | None,
        width: int,
        given: NDArray[np.int64] | None,
    ) -> Candidates:
        model, config = self.generator, self.config
        device = model.begin.device
        queries = [requests.query[i] for i in rows]
        teacher = inputs.keywords is not None
        with torch.inference_mode():
            memory = model.encode(snapshot.builder.search_prompt(inputs, rows, keywords=teacher).to(device))
            state = model.query_state(memory) if model.config.item_score else None
            if given is None:
                beams = beam_search(model, memory, snapshot.index, width, mask)
                items, log_probs = from_beams(beams, snapshot, mask, config.items_per_sid)
                more = self._added(queries, clicked_for_query, state, snapshot, mask)
            else:
                items = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
                log_probs, more = torch.zeros(len(rows), 0, device=device), given
            generated = items.shape[1]
            if more.shape[1]:
                wanted = add_extra(items, torch.from_numpy(more).to(device))
                added, added_log_probs = score_extra(model, memory, snapshot, wanted, mask)
                items = torch.cat([items, added], 1)
                log_probs = torch.cat([log_probs, added_log_probs], 1)
            features = {"log_prob": log_probs.float(), "item_score": torch.zeros_like(log_probs)}
            candidates = snapshot.item_head_rows[items.clamp(min=0)]
            if state is not None:
                features["item_score"] = torch.einsum("nr,ncr->nc", state.float(), candidates)
            if config.taste:
                past = torch.from_numpy(inputs.clicked[rows][:, -_RECENT:]).long().to(device)
                features |= self._taste_features(memory, candidates, snapshot.item_head_rows, past)
        picked = items.cpu().numpy()
        valid = picked >= 0
        columns_of = {name: value.float().cpu().numpy() for name, value in features.items()}
        if config.clicks:
            columns_of |= self.evidence.clicks(queries, picked, snapshot.facts)
        if config.lexical and snapshot.lexical is not None:
            columns_of |= lexical_features(snapshot.lexical, queries, picked)
        if config.popularity:
            columns_of |= with_popularity(columns_of, np.log1p(snapshot.popularity[np.maximum(picked, 0)]))
        masked = {name: np.where(valid, value, 0).astype(np.float32) for name, value in columns_of.items()}
        of_beam = valid & (np.arange(picked.shape[1]) < generated)
        return Candidates(picked, masked, of_beam, self.evidence.contexts(queries) if config.clicks else {})

    def _added(
        self,
        queries: Sequence[str],
        clicked_for_query: NDArray[np.int32],
        state: Tensor | None,
        snapshot: Snapshot,
        mask: ItemMask | None,
    ) -> NDArray[np.int64]:
        """Candidates from elsewhere than the beams: most clicked, best by BM25, nearest by item score; [n, E]."""
        config = self.config
        found: list[NDArray[Any]] = [clicked_for_query[:, : config.clicked_candidates]]
        if config.lexical and snapshot.lexical is not None:
            found.append(snapshot.lexical.rank(Requests.anonymous(queries), config.lexical_candidates).items)
        if state is not None and config.nearest:
            found.append(nearest_items(state, snapshot.index, config.nearest, config.probes, mask).cpu().numpy())
        return np.concatenate(found, 1).astype(np.int64)

    def _taste_features(
        self, memory: GeneratorMemory, candidates: Tensor, item_head_rows: Tensor, past: Tensor
    ) -> dict[str, Tensor]:
        """Likeness to query and past clicks (int64 [n, H], -1 for none), and the numbers in the rows [n, C, R]."""
        numbers = self.featurizer.head_row_projection.features
        width = candidates.shape[-1] - numbers
        text = candidates[..., :width]
        known = (past >= 0).unsqueeze(-1)
        mean = (item_head_rows[past.clamp(min=0)] * known).sum(1) / known.sum(1).clamp(min=1)
        return {
            "text": torch.einsum("nr,ncr->nc", memory.query_head_rows[:, :width].float(), text),
            "taste": torch.einsum("nr,ncr->nc", mean[:, :width].float(), text),
            **{f"item_{name}": candidates[..., width + i] for i, name in enumerate(FEATURE_NAMES[:numbers])},
        }

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
            hits = snapshot.lexical.rank(Requests.anonymous([query]), k)
            return _results(snapshot, hits.items[0], hits.scores[0])
        hits = snapshot.lexical.rank(Requests.anonymous([query]), len(snapshot.items))
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

    def alone(self) -> "EngineView":
        """The generator alone: the same beams, no evidence, ordered by their log-probability."""
        return EngineView(self, self.config.updated(**NO_EVIDENCE), GENERATOR_ALONE)

    def as_searcher(self) -> "EngineView":
        """The engine with its own settings, as a plain searcher."""
        return EngineView(self, self.config, self.weights)


class EngineView:
    """An engine under other settings; shares model, catalogue and index."""

    def __init__(self, engine: SearchEngine, config: SearchSettings, weights: RankingWeights) -> None:
        self._engine = SearchEngine(
            engine.generator,
            engine.featurizer,
            engine.snapshot,
            engine.evidence,
            config,
            weights,
            engine.histories,
            engine.batch_size,
            keywords=engine.keywords,
        )

    def candidates(self, requests: Requests) -> Candidates:
        """Candidates with features under these settings."""
        return self._engine.candidates(requests)

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` best items of each request."""
        return self._engine.rank(requests, k)


def top_k(found: Candidates, weights: RankingWeights, k: int, popularity: Floats) -> Hits:
    """Order candidates by weighted features, ties by the item score, then by popularity; the first ``k``."""
    valid = found.items >= 0
    scores = np.where(valid, weights.score(found.features, found.contexts), NOTHING).astype(np.float32)
    liking = popularity[np.maximum(found.items, 0)]
    order = np.lexsort((-liking, -found.features["item_score"], -scores), axis=1)[:, :k]
    items = np.take_along_axis(found.items, order, 1).astype(np.int32)
    ranked = np.where(items >= 0, np.take_along_axis(scores, order, 1), -np.inf).astype(np.float32)
    if items.shape[1] < k:
        room = ((0, 0), (0, k - items.shape[1]))
        items, ranked = np.pad(items, room, constant_values=-1), np.pad(ranked, room, constant_values=-np.inf)
    return Hits(items, ranked)


def _results(snapshot: Snapshot, items: NDArray[np.int32], scores: Floats) -> list[SearchResult]:
    out = []
    for row, score in zip(items.tolist(), scores.tolist(), strict=False):
        if row >= 0:
            item = snapshot.item(row)
            out.append(SearchResult(item.item_id, score, tuple(snapshot.sids[row].tolist()), item))
    return out


def _joined(parts: Sequence[Candidates]) -> Candidates:
    if len(parts) == 1:
        return parts[0]
    width = max(part.items.shape[1] for part in parts)

    def widen(values: NDArray[Any], fill: Any) -> NDArray[Any]:
        return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)

    return Candidates(
        np.concatenate([widen(part.items, -1) for part in parts]),
        {name: np.concatenate([widen(p.features[name], 0) for p in parts]) for name in parts[0].features},
        np.concatenate([widen(part.generated, False) for part in parts]),
        {name: np.concatenate([part.contexts[name] for part in parts]) for name in parts[0].contexts},
    )


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
