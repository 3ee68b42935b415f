"""SearchEngine: query + shopper in, ranked items out."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.memory import give_back
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.search.batch_search import BatchSearch
from onesearch.search.boosts import Boost
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.confidence import Confidence
from onesearch.search.decoding_precision import DecodingPrecision, decoding_dtype
from onesearch.search.engine_file import boosts_of, confidence_of, load_about
from onesearch.search.one_search import results_of
from onesearch.search.ranking_weights import GENERATOR_ALONE, RankingWeights
from onesearch.search.results import SearchRequest, SearchResults
from onesearch.search.rule_names import NAMED_COLUMNS, unknown_names
from onesearch.search.rules import BoostRule, Rules
from onesearch.search.run_parts import STAGE_OF, Keywords, Model, RunParts, choose_model, engine_name
from onesearch.search.run_versions import other_version, readable
from onesearch.search.search_settings import BEAMS_ONLY, SearchSettings
from onesearch.search.served_versions import served_place
from onesearch.search.shards import Shards, best_of_all
from onesearch.search.shopper_history import HistoryStore, ShopperHistory
from onesearch.search.similar_items import similar_items
from onesearch.search.suggestions import Suggestion

log = logging.getLogger("onesearch")
Floats = NDArray[np.float32]
_E = TypeVar("_E", bound="SearchEngine")
_KNOWN: Final = 1000  # shoppers that a page can offer as examples


class SearchEngine(BatchSearch):
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
        logged_until: when the newest page view that its counts may hold was; None where that is unknown.
        counts: folder below the run that holds its counts; None for those of the run's own stages.
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
        super().__init__(featurizer, snapshot, config, weights, histories, batch_size, keywords, confidence)
        self.name = name
        self.known_shoppers, self.known_queries = tuple(known_shoppers), tuple(known_queries)
        self.logged_until: datetime | None = None
        self.counts: str | None = None

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
    def generator(self) -> Generator:
        """The model that searches use now."""
        return self.snapshot.generator

    def use_precision(self, precision: DecodingPrecision) -> torch.dtype:
        """Decode in float32, in bfloat16 or, with ``auto``, in what is faster here; what it is, from now on.

        Not while others search. Probabilities differ in their third digit, ranks where two items are as close as that.
        """
        dtype = decoding_dtype(self.generator, precision, self.config.width)
        self.generator.to(dtype)
        if precision == "auto":
            log.info("%s decodes in %s", self.name, str(dtype).removeprefix("torch."))
        return dtype

    def trust_picture_hosts(self, hosts: Sequence[str]) -> None:
        """Pictures of these hosts, or host:port, may be anywhere, as a shop's own servers are; a run may read none."""
        if self.featurizer.pictures is not None:
            self.featurizer.pictures.trust(hosts)

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

    def suggest(self, text: str, k: int = 8) -> list[Suggestion]:
        """What a shopper may go on to type: at most ``k`` queries of the log, categories and titles, best first."""
        return self.suggestions.complete(text, k, lambda snapshot: self.plain_mask(snapshot, SearchRequest("")))

    def similar(self, item_id: str, k: int = 10, filters: Mapping[str, Any] | None = None) -> SearchResults:
        """The ``k`` items most like one of the catalogue, by their texts and by what shoppers took together.

        Raises:
            KeyError: there is no such item.
            ValueError: a filter is not valid.
        """
        snapshot = self.snapshot
        mask = self.plain_mask(snapshot, SearchRequest("", filters=filters))
        numbers = self.featurizer.head_row_projection.features
        return results_of(snapshot, *similar_items(snapshot, snapshot.number[item_id], k, numbers, mask))

    # -- what a server asks ----------------------------------------------------------------------------------------

    @property
    def version(self) -> str:
        """Names the run and the state of its catalogue."""
        return f"{self.name}@{self.snapshot.version}"

    @property
    def explains(self) -> bool:
        """Whether it can say why an item stands where it does, for which it needs the paths of all items."""
        return self.snapshot.shards.count == 1

    def close(self) -> None:
        """It is not asked any more: nothing, here."""

    def __len__(self) -> int:
        return len(self.snapshot.number)

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

    def search_lexical(
        self,
        query: str,
        k: int = 10,
        filters: Mapping[str, Any] | None = None,
        groups: Sequence[str] = (),
        rules: Rules | None = None,
    ) -> SearchResults:
        """The BM25 ranking, for comparison; empty when the run has no lexical index.

        What rules hide for the shopper's ``groups`` is left out; with ``rules`` by these instead of those in force.
        """
        snapshot = self.snapshot
        if snapshot.lexical is None or not query.strip():
            return SearchResults()
        mask = self.plain_mask(snapshot, SearchRequest(query, filters=filters, groups=groups, rules=rules))
        # BM25 knows no filters: where there is one, rank everything that matches, then keep what it allows.
        hits = snapshot.lexical.top_items([query], k if mask is None else len(snapshot.records))
        items, scores = (torch.from_numpy(one[0]) for one in (hits.items.astype(np.int64), hits.scores))
        if mask is not None:
            allowed = mask.rows_allowed(items.to(snapshot.index.device)).cpu().nonzero()[:k, 0]
            items, scores = items[allowed], scores[allowed]
        scores, items = best_of_all(snapshot.shards, k, scores[None], items[None], by_row=True)
        return results_of(snapshot, items[0].numpy().astype(np.int32), scores[0].numpy())

    # -- changes -----------------------------------------------------------------------------------------------------

    def prepare(self, items: Sequence[Item]) -> Mapping[str, int]:
        """Read the pictures of items before :meth:`upsert`, which then need not; the outcomes, by name.

        Nothing where the engine's vectors know of no pictures. See :meth:`ItemPictures.prepare`.
        """
        pictures = self.featurizer.pictures
        return {} if pictures is None else pictures.prepare([item.images for item in items])

    def upsert(self, items: Sequence[Item]) -> None:
        """Add items or replace those with the same id; the next search finds them."""
        if items:
            self.current.upsert(items)
            self.suggestions.add(items)

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many were known."""
        return self.current.delete(item_ids)

    def in_log_counts(self, item_id: str) -> bool:
        """Whether the log's counts hold an item's clicks: not those of an item that came since."""
        snapshot = self.snapshot
        row = snapshot.number.row_of(item_id)
        return row is not None and row < len(snapshot.click_features.statistics.clicked)

    def count(self, live: LiveClicks) -> None:
        """Let clicks since the log move items up from the next search on; they take the place of earlier ones."""
        self.current.count(live)

    def adopt(self, generator: Generator, name: str, boosts: Sequence[Boost] | None = None) -> None:
        """Search with another generator of the same run from the next search on, under another name.

        ``boosts`` take the place of those that the engine has, unless they are None.

        Raises:
            ValueError: it reads other prompts, or its tables do not fit the catalogue.
        """
        self._need_same_form(generator, name)
        generator = generator.to(self.generator.begin).eval()  # its device and its precision
        self.current.adopt(generator, boosts)
        self.name = name

    def take_over(self, other: "SearchEngine") -> None:
        """Search as another engine of the same run does, whose counts differ, with the catalogue as it is now.

        Histories, settings, rules and live clicks stay. ``other`` is not to be used afterwards. It has the whole
        catalogue, of which a shard takes its part.

        Raises:
            ValueError: as :meth:`adopt`.
        """
        self._need_same_form(other.generator, other.name)
        other.generator.to(self.generator.begin)
        shards = self.snapshot.shards
        snapshot = other.snapshot if shards.count == 1 else other.snapshot.part_of(shards)
        # Pictures are read as before: by whom, from where, and those that were.
        featurizer, pictures = other.featurizer, self.featurizer.pictures
        if pictures is not None:
            featurizer = replace(featurizer, pictures=pictures)
        self.current.take_over(snapshot, featurizer)
        self.featurizer, self.name, self.counts = featurizer, other.name, other.counts
        self.logged_until = other.logged_until

    def _need_same_form(self, generator: Generator, name: str) -> None:
        if (self.generator.config, self.generator.sizes) != (generator.config, generator.sizes):
            raise ValueError(f"the model of {name} was made for another catalogue or prompt than that of {self.name}")

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
        found: dict[str, str] = {}
        if any(rules.each()):
            found = unknown_names(rules, snapshot.records.columns(*NAMED_COLUMNS)[snapshot.number.rows()])
        if rules.boosts and not (self.config.boost and self.weights.values.get("boost")):
            found |= {rule.name: f"boosts, {rule.name}: search.boost of this engine is 0" for rule in rules.boosts}
        return found

    def with_settings(self, config: SearchSettings, weights: RankingWeights) -> "SearchEngine":
        """An engine under other settings; shares model, catalogue and index as they are now."""
        return self._over(SearchEngine, self.snapshot, config, weights)

    def _over(self, kind: type[_E], snapshot: Snapshot, config: SearchSettings, weights: RankingWeights) -> _E:
        engine = kind(
            self.featurizer,
            snapshot,
            config,
            weights,
            self.histories,
            self.batch_size,
            self.name,
            keywords=self.keywords,
            confidence=self.confidence,
        )
        engine.out_of_stock, engine.live_queries = self.out_of_stock, self.live_queries
        return engine

    def shard(self, shards: Shards) -> "SearchEngine":
        """The engine that searches this one's catalogue together with others, each of which has a part of the items.

        All shards search for the same at the same time; each then has the answer of all. Likewise they change at the
        same time. What they share of this engine (settings, histories, tables by item) stays as it is; its index and
        BM25 go with it. A shard gives no explanations.

        Raises:
            ValueError: there are more shards than first codes of SIDs, or this engine is a shard already.
        """
        return self.shard_as(SearchEngine, shards)

    def shard_as(self, kind: type[_E], shards: Shards) -> _E:
        """As :meth:`shard`, an engine of some kind."""
        engine = self._over(kind, self.snapshot.part_of(shards), self.config, self.weights)
        engine.known_shoppers, engine.known_queries = self.known_shoppers, self.known_queries
        engine.logged_until, engine.counts = self.logged_until, self.counts
        return engine

    def alone(self) -> "SearchEngine":
        """The generator alone: the same beams, nothing else, ordered by their log-probability."""
        return self.with_settings(self.config.updated(**BEAMS_ONLY), GENERATOR_ALONE)


def load_engine(
    run: str | Path, model: Model | None = None, device: str | None = None, measured: bool = False
) -> SearchEngine:
    """The engine of a finished run, with the shoppers of its log: V2 where the run has one, unless ``model`` is given.

    Of that model it is the version that an update published, else the final engine, which has learnt from all page
    views, else the one that the report measured. ``measured`` asks for the last one.

    V2 has its keywords in its weights and reads none; only a model trained with ``distill.keywords: input`` does.

    Raises:
        FileNotFoundError: there is no such run, or a stage of it is missing or unfinished.
        ValueError: this machine has no such device, a file of the run is damaged, or a version made it that this one
            cannot read.
    """
    with readable(Path(run)):
        engine = load_engines(Path(run), [choose_model(Path(run), model)], device, measured)[0]
    if other := other_version(Path(run), by_name=False):
        log.warning(other)
    return engine


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
    parts = next(iter(parts_of.values()))
    past, queries = parts.histories_of_log, parts.example_queries
    active = tuple(past.most_active(_KNOWN))
    newest = parts.dataset.scan_page_views().select(pl.col("time").max()).collect().item()
    engines = []
    for model, place, about in zip(models, places, abouts, strict=True):
        engine = SearchEngine.from_about(parts_of[about.get("counts")], about)
        engine.name = engine_name(run, model, place)
        engine.histories = past
        engine.live_queries = parts.live_queries
        engine.counts, until = about.get("counts"), about.get("counted_until")
        engine.logged_until = datetime.fromisoformat(until) if until else newest
        engine.known_shoppers = active
        engine.known_queries = queries
        engine.search(queries[0] if queries else "a")  # makes what the first search would have a shopper wait for
        engines.append(engine)
    give_back()  # what was read to be checked, or to be put in another form
    return engines
