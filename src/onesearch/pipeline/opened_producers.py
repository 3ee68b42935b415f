"""Whoever thinks about queries over the catalogue of a run or a data set, opened by name."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import Dataset
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.transformer_encoder import TransformerEncoder
from onesearch.pipeline.stages import settings_of
from onesearch.pipeline.understanding_stage import UnderstandingSettings, stand_in
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.encoder_producer import EncoderProducer
from onesearch.understanding.keyword_lexicon import Lexicon
from onesearch.understanding.llm_keyword_producer import LLMKeywordProducer
from onesearch.understanding.llm_producer import LLMProducer, LLMSettings
from onesearch.understanding.log_expert import LogExpert
from onesearch.understanding.producer_keys import STAND_IN, ProducerKind
from onesearch.understanding.thought import Producer

log = logging.getLogger("onesearch")


@contextmanager
def opened_producer(
    kind: ProducerKind,
    catalogue: Path,
    limits: Mapping[str, Any],
    encoder: str | None = None,
    in_thread: bool = False,
) -> Iterator[Producer]:
    """Whoever thinks about queries over a catalogue.

    Args:
        kind: who it is.
        catalogue: folder of a run or of a data set.
        limits: settings of a language model; others have none.
        encoder: name or path of a text encoder, by default that of the run.
        in_thread: the market's stand-in answers in a thread; else in a process of its own, which a worker may not have.
    """
    data, statistics = opened_dataset(catalogue)
    words = _words(data, statistics)
    if kind == "log-expert":
        yield _log_expert(catalogue, data, statistics, words)
    elif kind == "encoder":
        opened = (
            load_encoder(catalogue / "encoder" / "encoder") if encoder is None else TransformerEncoder.open(encoder)
        )
        yield EncoderProducer(words, _lexicon(catalogue), opened.encode)
    elif kind == "llm":
        yield LLMProducer(words, LLMSettings(**limits))
    elif kind == "llm-keywords":
        yield LLMKeywordProducer(words, LLMSettings(**limits))
    else:
        # The market's stand-in serves for as long as somebody thinks; a run's misunderstands what it did in training.
        inside = catalogue / "data"
        known = settings_of(catalogue) if inside.is_dir() else None
        error, seed = (UnderstandingSettings().error, 0) if known is None else (known.understanding.error, known.seed)
        with stand_in(catalogue if known is None else inside, error, seed, in_thread) as address:
            yield LLMProducer(words, LLMSettings(**{**limits, "base_url": address, "model": STAND_IN}))


def opened_dataset(folder: Path) -> tuple[Dataset, ClickStatistics | None]:
    """The dataset of a dataset or run folder, and a run's statistics of its training part."""
    inside = folder / "data"
    if not (inside / "statistics").is_dir():
        return Dataset.load(folder), None
    return Dataset.load(inside), ClickStatistics.load(inside / "statistics")


def catalogue_words(catalogue: Path) -> CatalogueVocabulary:
    """The words that thoughts over the catalogue of a run or a data set must keep to."""
    return _words(*opened_dataset(catalogue))


def _words(data: Dataset, statistics: ClickStatistics | None) -> CatalogueVocabulary:
    return CatalogueVocabulary.from_items(data.items, None if statistics is None else statistics.clicked)


def _log_expert(
    folder: Path, data: Dataset, statistics: ClickStatistics | None, words: CatalogueVocabulary
) -> Producer:
    """From a run its training part and lexicon; from a dataset, which has no parts, all of the log."""
    if statistics is None:
        log.warning("%s has no training part: all of its log speaks; for tests name a run", folder)
        statistics = ClickStatistics.from_page_views(data.page_views, data.items)
    return LogExpert.from_log(data.items, statistics, words, _lexicon(folder))


def _lexicon(folder: Path) -> Lexicon | None:
    """A run that has come as far has learnt which keywords name what."""
    lexicon = folder / "khqe" / "lexicon"
    return Lexicon.load(lexicon) if lexicon.is_dir() else None
