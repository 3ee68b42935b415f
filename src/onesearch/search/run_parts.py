"""Where the parts of a finished run lie, and how they are put together again. Nothing here runs code from the run."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.array_files import map_array
from onesearch.common.artefact import inside, read_json, read_manifest, refuse_links
from onesearch.common.device import device_of
from onesearch.common.layered_table import LayeredTable
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import Dataset
from onesearch.data.item_pairs import ItemPairs
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.khqe import KHQE
from onesearch.encoding.linked_items import load_linked_weight
from onesearch.encoding.pictures.item_pictures import ItemPictures
from onesearch.encoding.pictures.item_towers import ItemTower
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.index.filter_column_files import FILE as FILTERS_FILE
from onesearch.index.filter_column_files import load_filter_columns
from onesearch.index.item_filters import ItemFilters
from onesearch.index.sid_index import SidIndex
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.model_settings import PromptSettings
from onesearch.model.numeric_item_features import NumericItemFeatures
from onesearch.model.prompt import PromptBuilder
from onesearch.model.token_vocabulary import TokenVocabulary
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_feature_files import CLICK_FEATURES, load_click_features
from onesearch.search.click_features import ClickFeatures, ItemTraits
from onesearch.search.evidence_finder import EvidenceFinder, evidence_finder
from onesearch.search.item_lines import FILE as LINES_FILE
from onesearch.search.item_lines import ItemLines
from onesearch.search.item_records import ItemFrame, ItemTable
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.logged_histories import FILE as HISTORIES_FILE
from onesearch.search.logged_histories import LoggedHistories
from onesearch.search.run_versions import need as need
from onesearch.understanding.keyword_lexicon import Lexicon
from onesearch.understanding.thought_table import FILE as THOUGHTS_FILE
from onesearch.understanding.thought_table import Taught, Thoughts

log = logging.getLogger("onesearch")
Floats = NDArray[np.float32]
Model = Literal["v1", "v2"]
Keywords = Callable[[Sequence[str]], Sequence[Sequence[str]]]
GENERATOR: Final = "generator"
ITEM_PAIRS: Final = "item_pairs"
EXAMPLES: Final = "examples.json"
STAGE_OF: Final[dict[Model, str]] = {"v1": "engine", "v2": "engine_v2"}
FINAL: Final = "final"


def load_array(path: Path) -> Floats:
    """A float32 array, mapped into memory; never runs code. What is written to it stays in this process."""
    return np.asarray(map_array(path), np.float32)


class RunParts:
    """The artefacts of a run's folder, each read when first asked for.

    Args:
        run: the run's folder.
        device: where its engines run.
        counts: folder below the run that holds what the log's counts make (statistics, item pairs, head rows, index);
            None for those of the training part, in the run's own stages.

    Raises:
        ValueError: the folder holds a link; a run may come from a stranger, and is not to lead elsewhere.
    """

    def __init__(self, run: Path, device: str | None = None, counts: str | None = None) -> None:
        refuse_links(run)
        self.run, self.device, self.counts = run, device_of(device), counts

    def _counted(self, stage: str) -> Path:
        """Where what the counts make of a stage lies."""
        return inside(self.run, self.counts) if self.counts else need(self.run, stage)

    @cached_property
    def dataset(self) -> Dataset:
        """The catalogue and its log."""
        return Dataset.load(need(self.run, "data"))

    @cached_property
    def statistics(self) -> ClickStatistics:
        """Click counts of the training part, or of all page views."""
        return ClickStatistics.load(self._counted("data") / "statistics")

    @cached_property
    def item_pairs(self) -> ItemPairs:
        """Items that the shoppers of the same page views took together."""
        return ItemPairs.load(self._counted("data") / ITEM_PAIRS)

    @cached_property
    def lexicon(self) -> Lexicon | None:
        """The keyword lexicon; None where fusion is off."""
        folder = need(self.run, "khqe") / "lexicon"
        return Lexicon.load(folder) if folder.is_dir() else None

    @cached_property
    def encoder(self) -> TextEncoder:
        """The aligned text encoder."""
        return load_encoder(need(self.run, "encoder") / "encoder")

    @cached_property
    def item_pictures(self) -> ItemPictures | None:
        """What reads the pictures of items that come in; None where the run's vectors know of none.

        Paths start from the run's own data: nothing that a run says leads out of it.
        """
        if not isinstance(self.encoder, ItemTower):
            return None
        return ItemPictures.load(need(self.run, "pictures"), need(self.run, "data"))

    @cached_property
    def khqe(self) -> KHQE:
        """The quantizer."""
        return KHQE.load(need(self.run, "khqe"))

    @cached_property
    def item_vectors(self) -> Floats:
        """Fused item vectors, float32 [N, d_e]."""
        return load_array(need(self.run, "khqe") / "item_vectors.npy")

    @cached_property
    def sids(self) -> NDArray[np.int32]:
        """Item SIDs, int32 [N, L]."""
        return np.asarray(map_array(need(self.run, "khqe") / "item_sids.npy"), np.int32)

    @cached_property
    def vocabulary(self) -> TokenVocabulary:
        """Subwords and SID tokens."""
        return TokenVocabulary.load(need(self.run, "index") / "vocabulary")

    @cached_property
    def head_row_projection(self) -> HeadRowProjection:
        """From vectors to rows of the item head."""
        return HeadRowProjection.load(need(self.run, "index") / "row_space.safetensors")

    @cached_property
    def item_features(self) -> NumericItemFeatures:
        """Numbers beside the text in item rows."""
        return NumericItemFeatures.load(self._counted("index") / "item_features.json")

    @cached_property
    def item_head_rows(self) -> torch.Tensor:
        """Rows of the item head, float32 [N, R], in item-row order."""
        return torch.from_numpy(load_array(self._counted("index") / "item_rows.npy"))

    @cached_property
    def index(self) -> SidIndex:
        """The SID index."""
        return SidIndex.load(self._counted("index"))

    @cached_property
    def item_table(self) -> ItemTable:
        """The items by row."""
        folder = need(self.run, "data")
        if (folder / LINES_FILE).is_file():
            return ItemLines.load(folder, len(self.sids), self.dataset.item_columns)
        return ItemFrame(self.dataset.items)  # a run of an earlier version

    @cached_property
    def filters(self) -> ItemFilters:
        """What answers filters, over the index."""
        folder = self._counted("index")
        if (folder / FILTERS_FILE).is_file():
            return ItemFilters.over(load_filter_columns(folder, len(self.index)), self.index)
        return ItemFilters.build(self.dataset.items, self.index)  # a run of an earlier version

    @cached_property
    def lexical(self) -> LexicalSearcher:
        """BM25 over the catalogue."""
        return LexicalSearcher.load(need(self.run, "lexical"))

    @cached_property
    def click_features(self) -> ClickFeatures:
        """What the counted log says of queries, words and items."""
        return self._click_features[0]

    @cached_property
    def item_traits(self) -> ItemTraits:
        """What the click features read of every item."""
        return self._click_features[1]

    @cached_property
    def _click_features(self) -> tuple[ClickFeatures, ItemTraits]:
        folder = self._counted("data") / CLICK_FEATURES
        if folder.is_dir():
            return load_click_features(self.statistics, folder)
        # A run of an earlier version: counted again.
        features = ClickFeatures.from_log(self.statistics, self.dataset.items)
        return features, features.item_traits(self.dataset.items)

    @cached_property
    def histories_of_log(self) -> LoggedHistories:
        """What every user of the log did up to its end."""
        folder = need(self.run, "data")
        saved = (folder / HISTORIES_FILE).is_file()
        return LoggedHistories.load(folder) if saved else LoggedHistories.from_dataset(self.dataset)

    @cached_property
    def example_queries(self) -> tuple[str, ...]:
        """A few queries of the log for the page to offer."""
        path = need(self.run, "data") / EXAMPLES
        return tuple(map(str, read_json(path))) if path.is_file() else tuple(varied_queries(self.dataset))

    @cached_property
    def thoughts(self) -> Thoughts:
        """What the queries of the log are about."""
        return Thoughts.load(need(self.run, "understanding"))

    @cached_property
    def live_queries(self) -> frozenset[str]:
        """The log's queries whose thought says that they ask for live rooms; none where nobody thought, or none is."""
        path = self.run / "understanding" / THOUGHTS_FILE
        if not path.is_file():
            return frozenset()
        table = pl.read_parquet(path, columns=["query", "intent"])
        return frozenset(table.filter(table["intent"] == "live")["query"].to_list())

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Item columns that make an item's text."""
        return tuple(read_json(need(self.run, "encoder") / "fields.json"))

    @cached_property
    def featurizer(self) -> Featurizer:
        """All that turns a text into what the model reads."""
        keywords = self.run / "khqe" / "keyword_vectors.npy"
        return Featurizer(
            self.encoder,
            self.lexicon,
            self.khqe,
            self.head_row_projection,
            self.vocabulary,
            keyword_vectors=load_array(keywords) if keywords.is_file() else None,
            fields=self.fields,
            item_features=self.item_features,
            pictures=self.item_pictures,
            linked=load_linked_weight(need(self.run, "khqe")),
        )

    def builder(self, config: PromptSettings) -> PromptBuilder:
        """Prompts over the run's items."""
        return PromptBuilder(self.vocabulary, config, self.sids, self.item_head_rows)

    def evidence_finder(self, config: PromptSettings) -> EvidenceFinder | None:
        """What finds the evidence of requests in the run's catalogue; None where prompts have none."""
        if not config.evidence.any:
            return None
        return evidence_finder(
            config,
            self.statistics,
            self.item_pairs if config.evidence.together else None,
            self.lexical if config.evidence.lexical else None,
            self.index,
            LayeredTable.over(self.item_head_rows),
            self.click_features.words,
            self.item_traits.categories,
        )

    def generator(self, stage: str) -> Generator:
        """The model that a training stage left."""
        return Generator.load(need(self.run, stage) / GENERATOR)

    def snapshot(self, generator: Generator, lexical: bool = True) -> Snapshot:
        """The catalogue ready to be searched with a model; ``lexical`` off leaves BM25 out."""
        config = generator.config.prompt
        return Snapshot.over(
            generator,
            self.item_table,
            self.index,
            self.filters,
            self.builder(config),
            self.sids,
            self.item_head_rows,
            self.statistics.clicked,
            self.dataset.item_rows,
            self.lexical if lexical or config.evidence.lexical else None,
            self.click_features,
            self.item_traits,
            self.item_pairs,
        )

    def keyword_reader(self, which: Taught | None) -> Keywords | None:
        """What a model reads beside the query in serving: nothing, or thoughts of the run's queries (RAG)."""
        if which is None:
            return None
        return lambda queries: self.thoughts.taught_keywords(queries, which)


def choose_model(run: Path, model: Model | None = None) -> Model:
    """The model asked for, or the newest one that the run has.

    Raises:
        FileNotFoundError: V2 is asked for and the run has none.
    """
    folder = run / STAGE_OF["v2"]
    made = read_manifest(folder)
    if model == "v2" and made is None:
        raise FileNotFoundError(
            f"{run} has no V2 engine ({folder} is no finished stage): set understanding.producer in the run's"
            " configuration and run `onesearch run CONFIG` until it is through, or take model v1"
        )
    # Without a wish V2, where its stages are finished.
    if model is not None or made is None:
        return model or "v1"
    # A run that is being brought up to date still holds the V2 engine of its earlier parts.
    if changed := _changed(run, made):
        log.warning("%s was made from another %s, so V1 is used; `onesearch run` renews it", folder, changed)
        return "v1"
    return "v2"


def own_place(run: Path, model: Model) -> str:
    """The folder of the engine that a run's stages leave of a model: the final one if there is one, else the measured.

    A run has a final engine of its newest model alone.
    """
    made, measured = read_manifest(run / FINAL), STAGE_OF[model]
    if made is None or measured not in made["inputs"]:
        return measured
    if changed := _changed(run, made):
        log.warning(
            "%s was made from another %s, so the measured engine is used; `onesearch run` renews it",
            run / FINAL,
            changed,
        )
        return measured
    return FINAL


def _changed(run: Path, made: Mapping[str, Any]) -> str:
    """The inputs of a stage, given its manifest, that were built again since.

    Raises:
        ValueError: the manifest, which a stranger may have written, names a folder outside of the run.
    """
    marks = {name: (read_manifest(inside(run, name)) or {}).get("fingerprint") for name in made["inputs"]}
    return ", ".join(name for name, mark in made["inputs"].items() if marks[name] != mark)


def engine_name(run: Path, model: Model, place: str) -> str:
    """What an engine is called: run and model, and ``final`` or the version where it is not the measured one."""
    return f"{run.name}/{model}" + (f"@{Path(place).name}" if place != STAGE_OF[model] else "")


def varied_queries(dataset: Dataset, per_type: int = 4) -> list[str]:
    """A few frequent queries of every query type, for the page to offer."""
    counts = dataset.page_views.filter(pl.col("query") != "").group_by("query_type", "query").len()
    ordered = counts.sort("len", "query", descending=[True, False])
    best = ordered.group_by("query_type", maintain_order=True).head(per_type)
    return list(best["query"].to_list())
