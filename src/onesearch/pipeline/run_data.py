"""A run's artefacts as training and evaluation need them: the parts of the split, and requests with their features."""

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.artefact import MANIFEST, read_json
from onesearch.common.ragged import Ragged
from onesearch.data.histories import Histories, Targets
from onesearch.data.records import PARTS
from onesearch.data.requests import Requests
from onesearch.data.split import Split
from onesearch.data.text import item_texts, normalise_queries, normalise_query
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import PromptSettings
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.search.evidence_finder import EvidenceRequests
from onesearch.search.run_parts import RunParts, load_array, need

Floats = NDArray[np.float32]


class RunData(RunParts):
    """The artefacts of a run folder with its split; everything is read when first asked for."""

    counted = True
    """Whether the statistics count the clicks of the training part, which its rows must then not see."""

    def __init__(self, run: Path, counts: str | None = None) -> None:
        super().__init__(run, counts=counts)

    @cached_property
    def split(self) -> Split:
        """Training, validation and test page views."""
        folder = need(self.run, "data")
        train, valid, test = (pl.read_parquet(folder / f"{part}.parquet") for part in PARTS)
        return Split(train, valid, test, read_json(folder / MANIFEST)["metrics"]["split_by"])

    @cached_property
    def histories(self) -> Histories:
        """Events of the whole log; time decides what a page view may know."""
        return Histories(self.dataset.page_views, self.dataset.items, self.dataset.users)

    @cached_property
    def training_judgments(self) -> pl.DataFrame:
        """Judgments without those of queries that the validation or the test part has and the training part has not."""
        split = self.split
        before, *after = (set(normalise_queries(part["query"])) for part in (split.train, split.valid, split.test))
        later = set().union(*after) - before
        judged = self.dataset.judgments
        return judged.filter(~normalise_queries(judged["query"]).is_in(list(later)))

    def requests(self, page_views: pl.DataFrame) -> Requests:
        """Page views as requests, with what was known before each."""
        return self.histories.requests(page_views)

    def targets(self, page_views: pl.DataFrame) -> Targets:
        """Item rows shown, clicked and ordered in page views."""
        return self.histories.targets(page_views)

    def sample_with_clicks(self, page_views: pl.DataFrame, most: int, seed: int) -> tuple[pl.DataFrame, Ragged]:
        """At most ``most`` page views that have a click, drawn once, and what was clicked in them."""
        clicked = self.targets(page_views).clicked
        rows = np.flatnonzero(clicked.lengths > 0)
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
        return page_views[rows], clicked.select(rows)

    @cached_property
    def item_texts(self) -> list[str]:
        """The text of every item."""
        return item_texts(self.dataset.items, self.fields)

    @cached_property
    def held_out(self) -> dict[str, int]:
        """Normalised training query → row of :attr:`held_out_vectors`; empty where cross-fitting is off."""
        path = need(self.run, "khqe") / "held_out_queries.parquet"
        texts = pl.read_parquet(path)["query"].to_list() if path.is_file() else []
        return {text: row for row, text in enumerate(texts)}

    @cached_property
    def held_out_vectors(self) -> Floats:
        """Fused vectors of training queries from encoders that never saw them, float32 [Q, d_e]."""
        return load_array(need(self.run, "khqe") / "held_out_vectors.npy")

    def training_vectors(self, texts: Sequence[str], held_out: bool = True) -> Floats:
        """Vectors for training: held-out ones for training queries, the encoder's for all other texts; [n, d_e]."""
        vectors = self.featurizer.vectors(texts)
        if held_out and self.held_out:
            rows = np.fromiter((self.held_out.get(normalise_query(text), -1) for text in texts), np.int64, len(texts))
            vectors[rows >= 0] = self.held_out_vectors[rows[rows >= 0]]
        return vectors

    def training_text_features(self, texts: Sequence[str], held_out: bool = True) -> TextFeatures:
        """Text features for training, from :meth:`training_vectors`."""
        return self.featurizer.text_features(texts, self.training_vectors(texts, held_out))

    def training_columns(
        self,
        page_views: pl.DataFrame,
        config: PromptSettings,
        held_out: bool,
        keywords: Callable[[Requests, Ragged], Sequence[Sequence[str]]] | None = None,
        part_dropout: float = 0.0,
        seed: int = 0,
        drawn: float = 1.0,
    ) -> PromptInputs:
        """Training page views as model input; what is most clicked for a query leaves out each page view's own clicks.

        ``keywords`` gives those of each page view, for a teacher's input, from requests and what was clicked in them.
        Each kind of evidence is left out of a share ``part_dropout`` of the prompts, drawn with ``seed``. ``drawn`` is
        how much of the page views a training will draw: of a large log not all evidence is found ahead of a short one.
        """
        # What the log knew before each page view, its own clicks left out.
        requests = self.requests(page_views)
        clicked = self.targets(page_views).clicked
        own = clicked if self.counted else None
        clicked_for_query = self.statistics.most_clicked(
            self.statistics.query_numbers(requests.query), config.clicked_for_query, leave_out=own
        )
        thoughts = None if keywords is None else keywords(requests, clicked)
        inputs = PromptInputs.from_requests(
            requests, lambda texts: self.training_text_features(texts, held_out), config, clicked_for_query, thoughts
        )
        # Evidence is found when a batch is made, without the shopper's own pairs.
        finder = self.evidence_finder(config)
        if finder is None:
            return inputs
        pairs = self.item_pairs.own_items(page_views) if self.counted and config.evidence.together else None
        return inputs.with_evidence(
            finder.prepare(self._evidence_requests(requests, inputs, own, pairs), part_dropout, seed, drawn)
        )

    def inputs_with_evidence(
        self, requests: Requests, config: PromptSettings, part_dropout: float, seed: int
    ) -> PromptInputs:
        """Searches that are not in the log as model input, with evidence as in serving and ``part_dropout`` of it."""
        inputs = PromptInputs.from_requests(requests, self.featurizer.text_features, config)
        finder = self.evidence_finder(config)
        if finder is None:
            return inputs
        return inputs.with_evidence(
            finder.prepare(self._evidence_requests(requests, inputs, None, None), part_dropout, seed)
        )

    def _evidence_requests(
        self, requests: Requests, inputs: PromptInputs, own: Ragged | None, pairs: Ragged | None
    ) -> EvidenceRequests:
        facts = self.click_features.query_facts(requests.query)
        head_rows = inputs.query_head_rows()
        return EvidenceRequests(
            facts.texts, facts.terms, facts.click_rows, facts.words, head_rows, requests.clicked, own, pairs
        )

    @cached_property
    def own_numbers(self) -> Floats | None:
        """What a page view adds to the numbers of an item that it clicks, and of one that it orders, [2, N, F].

        None where the statistics do not count the page views that are learnt.
        """
        if not self.counted:
            return None
        items, add = self.dataset.items, self.item_features.of_own_page_view
        return np.stack([add(items, self.statistics, ordered) for ordered in (False, True)])
