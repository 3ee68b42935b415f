"""From requests to candidates with features: the path of a search, one batch after the other.

facts      = what is known of the requests: terms, click log, BM25, prompt        each looked up once
memory     = encoder(prompts)                                                     one pass
candidates = items below the beams + most clicked + best by BM25 + nearest        one beam search
features   = log probability, item score, likeness, click log, BM25, popularity, boosts
order      = linear in the features (:func:`onesearch.search.candidates.ordered`)
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.data.requests import Requests
from onesearch.index.item_filters import ItemMask
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Asked, GeneratorMemory
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.search.beam_search import beam_search
from onesearch.search.candidates import (
    NOTHING,
    Candidates,
    from_beams,
    joined,
    of_all_shards,
    paths_of,
    score_items,
    searchable,
    without_repeats,
)
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import QueryFacts
from onesearch.search.evidence_finder import EvidenceRequests
from onesearch.search.lexical_search import LexicalMatches
from onesearch.search.nearest_items import nearest_items
from onesearch.search.ranking_features import (
    lexical_features,
    likeness_features,
    pair_features,
    popularity_features,
    probability_features,
)
from onesearch.search.results import OutOfStock
from onesearch.search.rule_effects import RuleBoost
from onesearch.search.run_parts import Keywords
from onesearch.search.search_settings import SearchSettings

Floats = NDArray[np.float32]
FEWEST = 20  # candidates that a request has at least, where so many items match
_RECENT = 10  # last clicks that taste is taken from
_ITEMS_PER_SID = 8  # items of one SID that enter the ranking
_DEMOTION = -math.log(20)  # of items out of stock, where they are demoted: a twentieth of their odds on a page
_PROBES = 64  # first-level nodes opened to find the nearest items; the whole level is exact


@dataclass(frozen=True)
class RequestFacts:
    """What is known of n requests before anything is searched.

    Attributes:
        queries: their terms and their places in the click log.
        clicked: int32 [n, E], the items most clicked for each query, best first, -1 padded.
        lexical: the best items of each by BM25, for the evidence and for the candidates.
        prompt: subwords, vectors and SIDs of all their texts, and the shoppers' histories.
        history: int32 [n, H], items clicked before, newest last, -1 for none; taken: [n, T], those not shown again.
    """

    queries: QueryFacts
    clicked: NDArray[np.int32]
    lexical: LexicalMatches | None
    prompt: PromptInputs
    history: NDArray[np.int32]
    taken: NDArray[np.int32]


@dataclass(frozen=True)
class Scope:
    """Where is searched: the catalogue with its model, the filter (None for all of it), the number of beams, and how
    many items may be found, in all shards; how many candidates there are at least, where so many items match; and the
    rules' boost, in the place of the snapshot's.
    """

    snapshot: Snapshot
    mask: ItemMask | None
    width: int
    matching: int
    least: int = 0
    boost: RuleBoost | None = None


class Read(NamedTuple):
    """What the model makes of a batch of prompts.

    ``evidence`` int64 [n, E] items of the prompts, None without any; ``memory`` and ``asked`` None without generator;
    ``head_rows`` [n, R] of the queries; ``state`` [n, R] that items are compared with, None without item score.
    """

    evidence: NDArray[np.int64] | None
    memory: GeneratorMemory | None
    asked: Asked | None
    head_rows: Tensor
    state: Tensor | None


class CandidateSearch:
    """Finds candidates over a catalogue, with the model and the click log that belong to it.

    Args:
        featurizer: encoder, lexicon, quantizer and vocabulary of the run.
        config: beam width, and what else gives and describes candidates.
        batch_size: requests per encoder pass.
        keywords: of queries, for a model that reads them in serving, too (RAG).

    Attributes:
        out_of_stock: what becomes of items out of stock where a search does not filter by stock: "shown", "demoted" (to
            a twentieth of their odds on a page), or "hidden", for which the engine adds a filter.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        config: SearchSettings,
        batch_size: int = 64,
        keywords: Keywords | None = None,
    ) -> None:
        self.featurizer = featurizer
        self.config, self.batch_size, self.keywords = config, batch_size, keywords
        self.out_of_stock: OutOfStock = "shown"

    def find(self, requests: Requests, scope: Scope, fixed: NDArray[np.int64] | None = None) -> Candidates:
        """Candidates of each request with all features, in batches of ``batch_size``.

        With ``fixed`` item rows [n, C] (-1 for none) these are the candidates, and nothing is searched.
        """
        facts = self.request_facts(requests, scope.snapshot)
        return self.find_for(facts, np.arange(len(requests)), scope, fixed)

    def find_for(
        self, facts: RequestFacts, rows: NDArray[np.int64], scope: Scope, fixed: NDArray[np.int64] | None = None
    ) -> Candidates:
        """Candidates of some of the requests that ``facts`` tell of, or of the ``fixed`` items of each of those."""
        batches = np.split(np.arange(len(rows)), range(self.batch_size, len(rows), self.batch_size))
        found = joined([self._batch(facts, rows[at], scope, None if fixed is None else fixed[at]) for at in batches])
        return of_all_shards(found, scope.snapshot.shards)

    def with_few(self, found: Candidates, scope: Scope) -> NDArray[np.int64]:
        """The requests that have fewer candidates than they should, where more items match."""
        if not self.config.nearest:
            return np.zeros(0, np.int64)
        return np.flatnonzero((found.items >= 0).sum(1) < min(FEWEST, scope.matching))

    def prompt_inputs(self, requests: Requests, snapshot: Snapshot) -> PromptInputs:
        """What the model reads of requests."""
        return self.request_facts(requests, snapshot).prompt

    def request_facts(self, requests: Requests, snapshot: Snapshot) -> RequestFacts:
        """Everything that is looked up for requests, once."""
        queries, prompt = snapshot.click_features.query_facts(requests.query, requests.in_log), snapshot.builder.config
        # The same list fills missing history in the prompt and gives candidates; each reads its beginning.
        most = max(prompt.clicked_for_query, self.config.clicked_candidates)
        clicked = snapshot.click_features.statistics.most_clicked(queries.click_rows, most)
        keywords = None if self.keywords is None else self.keywords(requests.query)
        inputs = PromptInputs.from_requests(requests, self.featurizer.text_features, prompt, clicked, keywords)
        # BM25 scores the catalogue once, for the evidence and for the candidates.
        config, lexical = self.config, None
        if snapshot.lexical is not None and (config.lexical or prompt.evidence.lexical):
            wanted = max(prompt.evidence.lexical, config.lexical_candidates if config.lexical else 0)
            lexical = snapshot.lexical.match(queries.texts, queries.terms, wanted).of_all(snapshot.shards, wanted)
        if snapshot.evidence_finder is not None:
            asked = EvidenceRequests(
                queries.texts,
                queries.terms,
                queries.click_rows,
                queries.words,
                inputs.query_head_rows(),
                requests.clicked,
                matches=lexical,
            )
            inputs = inputs.with_evidence(snapshot.evidence_finder.prepare(asked))
        taken = requests.taken(config.leave_out)
        return RequestFacts(queries, clicked, lexical, inputs, requests.clicked, taken)

    def _batch(
        self, facts: RequestFacts, rows: NDArray[np.int64], scope: Scope, fixed: NDArray[np.int64] | None
    ) -> Candidates:
        """Candidates of the given requests: one pass of the encoder, one of the decoder's beams."""
        snapshot, model = scope.snapshot, scope.snapshot.generator
        device = model.begin.device
        with torch.inference_mode():
            # Encode: the states that beams attend to, and the state that is compared with whole items.
            evidence, memory, asked, head_rows, state = self.read(facts, rows, snapshot)
            # Find: items [n, G] of the beams, and others [n, E] of the other channels.
            items = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
            log_probs = torch.zeros(len(rows), 0, device=device)
            if fixed is None:
                channels = self.channels(facts, rows, evidence, head_rows, state, scope)
                wanted = np.concatenate(list(channels.values()), 1).astype(np.int64)
            else:
                wanted = fixed
            others = torch.from_numpy(wanted).to(device)
            others = searchable(without_repeats(items, others), snapshot, scope.mask)
            if memory is not None and fixed is None:
                # What no beam finds gets its log-probability along its path, in the same decoder steps.
                paths = paths_of(others, snapshot)
                beams = beam_search(
                    model, memory, snapshot.index, scope.width, scope.mask, others=paths, shards=snapshot.shards
                )
                items, log_probs = from_beams(beams, snapshot, scope.mask, _ITEMS_PER_SID)
                others = without_repeats(items, others)
                log_probs = torch.cat([log_probs, beams.others.masked_fill(others < 0, float(NOTHING))], 1)
            elif memory is not None:
                log_probs = score_items(model, memory, snapshot, others)
            generated = items.shape[1]
            items = torch.cat([items, others], 1)
            features = self._model_features(facts, rows, head_rows, asked, items, snapshot)
        if memory is not None:
            features = {"log_prob": log_probs.float().cpu().numpy(), **features}
        return self._with_log_features(facts, rows, items.cpu().numpy(), generated, features, scope)

    def channels(
        self,
        facts: RequestFacts,
        rows: NDArray[np.int64],
        evidence: NDArray[np.int64] | None,
        head_rows: Tensor,
        state: Tensor | None,
        scope: Scope,
    ) -> dict[str, NDArray[np.integer]]:
        """The items [n, E] of each channel beside the beams, by its name, -1 for none."""
        config = self.config
        if state is None and scope.least:  # without an item score the nearest are those of the query's text
            state = head_rows
        channels: dict[str, NDArray[np.integer]] = {"most clicked": facts.clicked[rows, : config.clicked_candidates]}
        live = scope.snapshot.click_features.live
        if live is not None:
            channels["clicked since"] = live.most_clicked(facts.queries.live_rows[rows], config.clicked_candidates)
        if config.evidence and evidence is not None:
            channels["evidence"] = evidence
        if config.lexical and facts.lexical is not None:
            channels["BM25"] = facts.lexical.items[rows, : config.lexical_candidates]
        if state is not None and config.nearest:
            index, shards = scope.snapshot.index, scope.snapshot.shards
            k, probes = (scope.least, index.codebook_sizes[0]) if scope.least else (config.nearest, _PROBES)
            channels["nearest"] = nearest_items(state, index, k, probes, scope.mask, shards).cpu().numpy()
        return channels

    def read(self, facts: RequestFacts, rows: NDArray[np.int64], snapshot: Snapshot) -> Read:
        """One pass of the encoder over the prompts of some requests."""
        model = snapshot.generator
        if self.config.generator:
            prompt = snapshot.builder.search_prompt(facts.prompt, rows, keywords=facts.prompt.keywords is not None)
            # The evidence is looked up once: it is the last of the prompt's items.
            evidence = None if prompt.items is None else prompt.items.items[:, prompt.items.history :].numpy()
            memory = model.encode(prompt.to(model.begin.device))
            asked = model.ask(memory) if model.config.item_score else None
            return Read(evidence, memory, asked, memory.query_head_rows, None if asked is None else asked.state)
        # The control: a query's own head row finds what is nearest, as in dense search.
        head_rows = torch.from_numpy(facts.prompt.query_head_rows(rows)).to(model.begin.device)
        evidence = None if facts.prompt.evidence is None else facts.prompt.evidence(rows).items.astype(np.int64)
        return Read(evidence, None, None, head_rows, head_rows)

    def _nearest(self, facts: RequestFacts, rows: NDArray[np.int64], scope: Scope, k: int) -> NDArray[np.int64]:
        """The ``k`` items nearest by the item score, of all that the filter allows: int64 [n, k], -1 padded.

        Without an item score nearest to the query's text.
        """
        index, shards, found = scope.snapshot.index, scope.snapshot.shards, []
        with torch.inference_mode():
            for at in np.split(rows, range(self.batch_size, len(rows), self.batch_size)):
                read = self.read(facts, at, scope.snapshot)
                state = read.head_rows if read.state is None else read.state
                every = index.codebook_sizes[0]
                found.append(nearest_items(state, index, k, every, scope.mask, shards).cpu().numpy())
        return np.concatenate(found)

    def _model_features(
        self,
        facts: RequestFacts,
        rows: NDArray[np.int64],
        head_rows: Tensor,
        asked: Asked | None,
        items: Tensor,
        snapshot: Snapshot,
    ) -> dict[str, Floats]:
        """Item score and likeness of the candidates ``items`` [n, C]; ``head_rows`` of the queries [n, R]."""
        # Head rows of the candidates, [n, C, R].
        candidates = snapshot.item_head_rows[items.clamp(min=0)]
        features = {"item_score": torch.zeros(items.shape, device=items.device)} if self.config.generator else {}
        if asked is not None:
            features["item_score"] = snapshot.generator.item_scores(asked, items, candidates)
        if self.config.taste:
            # The mean row of the last clicks says what the shopper likes.
            clicks = torch.from_numpy(facts.prompt.clicked[rows][:, -_RECENT:]).long().to(items.device)
            known = (clicks >= 0).unsqueeze(-1)
            history = (snapshot.item_head_rows[clicks.clamp(min=0)] * known).sum(1) / known.sum(1).clamp(min=1)
            numbers = self.featurizer.head_row_projection.features
            features |= likeness_features(head_rows, candidates, history, numbers)
        return {name: value.float().cpu().numpy() for name, value in features.items()}

    def _with_log_features(
        self,
        facts: RequestFacts,
        rows: NDArray[np.int64],
        items: NDArray[np.int64],
        generated: int,
        features: dict[str, Floats],
        scope: Scope,
    ) -> Candidates:
        """The candidates with the features of the click log, BM25 and popularity added."""
        snapshot = scope.snapshot
        config, queries = self.config, facts.queries.select(rows)
        taken = facts.taken[rows]
        if taken.shape[1]:
            # What the shopper has taken already is no candidate.
            items = np.where((items[:, :, None] == taken[:, None, :]).any(2), -1, items)
        valid = items >= 0
        if config.probability and "log_prob" in features:
            features |= probability_features(features["log_prob"])
        if config.pairs and snapshot.pairs is not None and facts.history.shape[1]:
            history = facts.history[rows]
            features |= pair_features(snapshot.pairs.beside(history[:, -_RECENT:]), history, items)
        if config.clicks:
            features |= snapshot.click_features.features(queries, items, snapshot.traits)
        if config.lexical and snapshot.lexical is not None and facts.lexical is not None:
            features |= lexical_features(snapshot.lexical.pair_scores(queries.terms, items), facts.lexical.best[rows])
        if config.boost and (boost := scope.boost or snapshot.boost) is not None:
            features["boost"] = boost.take(np.maximum(items, 0))
        if self.out_of_stock == "demoted":
            rows_in_stock = snapshot.filters.mask({"in_stock": True}).rows_allowed
            in_stock = rows_in_stock(torch.from_numpy(np.maximum(items, 0)).to(snapshot.index.device))
            features["out_of_stock"] = np.where(in_stock.cpu().numpy(), 0, _DEMOTION).astype(np.float32)
        if config.popularity:
            features |= popularity_features(features, np.log1p(snapshot.popularity.take(np.maximum(items, 0))))
        # Where there is no item every feature is 0.
        return Candidates(
            items,
            {name: np.where(valid, value, 0).astype(np.float32) for name, value in features.items()},
            valid & (np.arange(items.shape[1]) < generated),
            snapshot.click_features.contexts(queries) if config.clicks else {},
        )
