"""From requests to candidates with features: the path of a search, one batch after the other.

facts      = what is known of the requests: terms, click log, prompt features     each looked up once
memory     = encoder(prompts)                                                     one pass
candidates = items below the beams + most clicked + best by BM25 + nearest        one beam search, one BM25 pass
features   = log probability, item score, likeness, click log, BM25, popularity, boosts
order      = linear in the features (:func:`onesearch.search.candidates.ordered`)
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onesearch.data.requests import Requests
from onesearch.index.item_filters import ItemMask
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Asked, Generator
from onesearch.model.prompt import PromptInputs
from onesearch.search.beam_search import beam_search
from onesearch.search.candidates import Candidates, from_beams, joined, score_items, searchable, without_repeats
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import ClickFeatures, QueryFacts
from onesearch.search.evidence_finder import EvidenceRequests
from onesearch.search.nearest_items import nearest_items
from onesearch.search.ranking_features import (
    lexical_features,
    likeness_features,
    pair_features,
    popularity_features,
    probability_features,
)
from onesearch.search.run_parts import Keywords
from onesearch.search.search_settings import SearchSettings

Floats = NDArray[np.float32]
_RECENT = 10  # last clicks that taste is taken from
_ITEMS_PER_SID = 8  # items of one SID that enter the ranking
_PROBES = 64  # first-level nodes opened to find the nearest items; the whole level is exact


@dataclass(frozen=True)
class RequestFacts:
    """What is known of n requests before anything is searched.

    Attributes:
        queries: their terms and their places in the click log.
        clicked: int32 [n, E], the items most clicked for each query, best first, -1 padded.
        prompt: subwords, vectors and SIDs of all their texts, and the shoppers' histories.
        history: int32 [n, H], items clicked before, newest last, -1 for none; taken: [n, T], those not shown again.
    """

    queries: QueryFacts
    clicked: NDArray[np.int32]
    prompt: PromptInputs
    history: NDArray[np.int32]
    taken: NDArray[np.int32]


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


class CandidateSearch:
    """Finds candidates with a model and a click log, over a catalogue that each call names.

    Args:
        generator: the trained model; it is put into eval mode.
        featurizer: encoder, lexicon, quantizer and vocabulary of the run.
        click_features: of the training log; what was clicked also fills missing history.
        config: beam width, and what else gives and describes candidates.
        batch_size: requests per encoder pass.
        keywords: of queries, for a model that reads them in serving, too (RAG).
    """

    def __init__(
        self,
        generator: Generator,
        featurizer: Featurizer,
        click_features: ClickFeatures,
        config: SearchSettings,
        batch_size: int = 64,
        keywords: Keywords | None = None,
    ) -> None:
        self.generator, self.featurizer, self.click_features = generator.eval(), featurizer, click_features
        self.config, self.batch_size, self.keywords = config, batch_size, keywords

    def find(self, requests: Requests, scope: Scope, fixed: NDArray[np.int64] | None = None) -> Candidates:
        """Candidates of each request with all features, in batches of ``batch_size``.

        With ``fixed`` item rows [n, C] (-1 for none) these are the candidates, and nothing is searched.
        """
        facts = self._request_facts(requests, scope.snapshot)
        batches = np.split(np.arange(len(requests)), range(self.batch_size, len(requests), self.batch_size))
        return joined([self._batch(facts, rows, scope, None if fixed is None else fixed[rows]) for rows in batches])

    def prompt_inputs(self, requests: Requests, snapshot: Snapshot) -> PromptInputs:
        """What the model reads of requests."""
        return self._request_facts(requests, snapshot).prompt

    def _request_facts(self, requests: Requests, snapshot: Snapshot) -> RequestFacts:
        """Everything that is looked up for requests, once."""
        queries, prompt = self.click_features.query_facts(requests.query), self.generator.config.prompt
        # The same list fills missing history in the prompt and gives candidates; each reads its beginning.
        most = max(prompt.clicked_for_query, self.config.clicked_candidates)
        clicked = self.click_features.statistics.most_clicked(queries.click_rows, most)
        keywords = None if self.keywords is None else self.keywords(requests.query)
        inputs = PromptInputs.from_requests(requests, self.featurizer.text_features, prompt, clicked, keywords)
        finder = snapshot.evidence_finder(self.featurizer.head_row_projection.features)
        if finder is not None:
            inputs = inputs.with_evidence(
                finder.prepare(
                    EvidenceRequests(
                        queries.texts,
                        queries.terms,
                        queries.click_rows,
                        queries.words,
                        inputs.query_head_rows(),
                        requests.clicked,
                    )
                )
            )
        return RequestFacts(queries, clicked, inputs, requests.clicked, requests.taken(self.config.leave_out))

    def _batch(
        self, facts: RequestFacts, rows: NDArray[np.int64], scope: Scope, fixed: NDArray[np.int64] | None
    ) -> Candidates:
        """Candidates of the given requests: one pass of the encoder, one of the decoder's beams, one of BM25."""
        model, snapshot, device = self.generator, scope.snapshot, self.generator.begin.device
        config, queries = self.config, facts.queries.select(rows)
        with torch.inference_mode():
            # Encode: the states that beams attend to, and the state that is compared with whole items.
            if config.generator:
                prompt = snapshot.builder.search_prompt(facts.prompt, rows, keywords=facts.prompt.keywords is not None)
                memory = model.encode(prompt.to(device))
                asked = model.ask(memory) if model.config.item_score else None
                head_rows, state = memory.query_head_rows, None if asked is None else asked.state
            else:
                # The control: a query's own head row finds what is nearest, as in dense search.
                head_rows = torch.from_numpy(facts.prompt.query_head_rows(rows)).to(device)
                memory, asked, state = None, None, head_rows
            evidence = np.zeros((len(rows), 0), np.int64)
            if config.evidence and facts.prompt.evidence is not None:
                evidence = facts.prompt.evidence(rows).items.astype(np.int64)

            # Find: items [n, G] of the beams, then more [n, E] of the other channels.
            items = torch.zeros(len(rows), 0, dtype=torch.long, device=device)
            log_probs = torch.zeros(len(rows), 0, device=device)
            if memory is not None and fixed is None:
                beams = beam_search(model, memory, snapshot.index, scope.width, scope.mask)
                items, log_probs = from_beams(beams, snapshot, scope.mask, _ITEMS_PER_SID)
            if fixed is None:
                found = self._other_channels(queries, facts.clicked[rows], evidence, items, state, scope)
            else:
                found = self._fixed(queries, fixed, snapshot)
            generated = items.shape[1]

            # What no beam found gets its log-probability along its path.
            if found.more.shape[1]:
                more = without_repeats(items, torch.from_numpy(found.more).to(device))
                if memory is not None:
                    more, more_log_probs = score_items(model, memory, snapshot, more, scope.mask)
                    log_probs = torch.cat([log_probs, more_log_probs], 1)
                else:
                    more = searchable(more, snapshot, scope.mask)
                items = torch.cat([items, more], 1)
            features = self._model_features(facts, rows, head_rows, asked, items, snapshot)
        if memory is not None:
            features = {"log_prob": log_probs.float().cpu().numpy(), **features}
        return self._with_log_features(facts, rows, queries, items.cpu().numpy(), generated, features, found, snapshot)

    def _other_channels(
        self,
        queries: QueryFacts,
        clicked: NDArray[np.int32],
        evidence: NDArray[np.int64],
        beams: Tensor,
        state: Tensor | None,
        scope: Scope,
    ) -> Found:
        """Items from elsewhere than the beams: most clicked, evidence, best by BM25, nearest by the item score, in this
        order.
        """
        config, none = self.config, np.zeros((len(clicked), 0), np.int64)
        given = np.concatenate([clicked[:, : config.clicked_candidates], evidence], 1)
        nearest = none
        if state is not None and config.nearest:
            index = scope.snapshot.index
            nearest = nearest_items(state, index, config.nearest, _PROBES, scope.mask).cpu().numpy()
        lexical = scope.snapshot.lexical if config.lexical else None
        if lexical is None:
            return Found(np.concatenate([given, nearest], 1).astype(np.int64))
        # The catalogue is scored once: the best items, and the scores of all candidates, come from the same pass.
        before = np.concatenate([beams.cpu().numpy(), given], 1)
        known = np.concatenate([before, nearest], 1)
        match = lexical.match(queries.texts, queries.terms, config.lexical_candidates, known)
        scores = np.split(match.scores, [before.shape[1]], 1)
        return Found(
            np.concatenate([given, match.found, nearest], 1).astype(np.int64),
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
            features["item_score"] = self.generator.item_scores(asked, items, candidates)
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
        queries: QueryFacts,
        items: NDArray[np.int64],
        generated: int,
        features: dict[str, Floats],
        found: Found,
        snapshot: Snapshot,
    ) -> Candidates:
        """The candidates with the features of the click log, BM25 and popularity added."""
        config = self.config
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
            features |= self.click_features.features(queries, items, snapshot.traits)
        if found.lexical is not None and found.best is not None:
            features |= lexical_features(found.lexical, found.best)
        if config.boost and snapshot.boost is not None:
            features["boost"] = snapshot.boost[np.maximum(items, 0)]
        if config.popularity:
            features |= popularity_features(features, np.log1p(snapshot.popularity[np.maximum(items, 0)]))
        # Where there is no item every feature is 0.
        return Candidates(
            items,
            {name: np.where(valid, value, 0).astype(np.float32) for name, value in features.items()},
            valid & (np.arange(items.shape[1]) < generated),
            self.click_features.contexts(queries) if config.clicks else {},
        )
