"""What the commands that deal with thoughts share: who thinks, over which catalogue, and where thoughts are kept."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

if TYPE_CHECKING:
    from onesearch.data.click_statistics import ClickStatistics
    from onesearch.data.dataset import Dataset
    from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
    from onesearch.understanding.keyword_lexicon import Lexicon
    from onesearch.understanding.thought import Producer
    from onesearch.understanding.thought_cache import ThoughtCache

STAND_IN: Final = "stand-in"
"""Model name of the market's stand-in, so that its thoughts are never taken for those of a real model."""


class ProducerName(StrEnum):
    """Who thinks."""

    llm = "llm"
    llm_keywords = "llm-keywords"
    log_expert = "log-expert"
    encoder = "encoder"
    market = "market"


def producer_key(producer: ProducerName) -> tuple[str, str]:
    """Name and version under which the cache keeps a producer's thoughts."""
    if producer is ProducerName.log_expert:
        from onesearch.understanding.log_expert import LogExpert

        return LogExpert.name, LogExpert.version
    if producer is ProducerName.encoder:
        from onesearch.understanding.encoder_producer import EncoderProducer

        return EncoderProducer.name, EncoderProducer.version
    from onesearch.understanding.llm_producer import LLMSettings, producer_name
    from onesearch.understanding.llm_prompts import KEYWORDS_VERSION, VERSION

    version = KEYWORDS_VERSION if producer is ProducerName.llm_keywords else VERSION
    return producer_name(STAND_IN if producer is ProducerName.market else LLMSettings().model), version


@contextmanager
def opened_producer(
    producer: ProducerName, catalogue: Path, limits: dict[str, Any], encoder: str | None = None
) -> "Iterator[Producer]":
    """Whoever thinks about queries over a catalogue.

    ``limits`` are settings of a language model; ``encoder`` names a text encoder, by default that of the run.
    """
    from onesearch.understanding.llm_keyword_producer import LLMKeywordProducer
    from onesearch.understanding.llm_producer import LLMProducer, LLMSettings

    data, statistics = opened_dataset(catalogue)
    if producer is ProducerName.log_expert:
        yield _log_expert(catalogue, data, statistics)
    elif producer is ProducerName.encoder:
        yield _encoder_producer(catalogue, encoder, _words(data, statistics))
    elif producer is ProducerName.llm:
        yield LLMProducer(_words(data, statistics), LLMSettings(**limits))
    elif producer is ProducerName.llm_keywords:
        yield LLMKeywordProducer(_words(data, statistics), LLMSettings(**limits))
    else:
        from onesearch.pipeline.understanding_stage import stand_in

        # The market's stand-in serves for as long as somebody thinks.
        inside = catalogue / "data"
        with stand_in(inside if inside.is_dir() else catalogue, error=0.15, seed=0) as address:
            config = LLMSettings(**{**limits, "base_url": address, "model": STAND_IN})
            yield LLMProducer(_words(data, statistics), config)


def opened_dataset(folder: Path) -> "tuple[Dataset, ClickStatistics | None]":
    """The dataset of a dataset or run folder, and a run's statistics of its training part."""
    from onesearch.data.click_statistics import ClickStatistics
    from onesearch.data.dataset import Dataset

    inside = folder / "data"
    if not (inside / "statistics").is_dir():
        return Dataset.load(folder), None
    return Dataset.load(inside), ClickStatistics.load(inside / "statistics")


def open_thoughts(place: str) -> "ThoughtCache":
    """The cache in a SQLite file or at a Redis address.

    Raises:
        CacheError: it cannot be opened, or Redis is asked for but its client is not installed.
    """
    if "://" in place:
        from onesearch.understanding.redis_thought_cache import RedisThoughts

        return RedisThoughts(place)
    from onesearch.understanding.thought_cache import SqliteThoughts

    return SqliteThoughts(Path(place))


def _words(data: "Dataset", statistics: "ClickStatistics | None") -> "CatalogueVocabulary":
    from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary

    return CatalogueVocabulary.from_items(data.items, None if statistics is None else statistics.clicked)


def _log_expert(folder: Path, data: "Dataset", statistics: "ClickStatistics | None") -> "Producer":
    """From a run its training part and lexicon; from a dataset, which has no parts, all of the log."""
    from onesearch.data.click_statistics import ClickStatistics
    from onesearch.understanding.log_expert import LogExpert

    if statistics is None:
        typer.secho(f"{folder} has no training part: all of its log speaks; for tests name a run", err=True)
        statistics = ClickStatistics.from_page_views(data.page_views, data.items)
    return LogExpert.from_log(data.items, statistics, _words(data, statistics), _lexicon(folder))


def _encoder_producer(folder: Path, encoder: str | None, words: "CatalogueVocabulary") -> "Producer":
    from onesearch.encoding.encoder_loading import load_encoder
    from onesearch.encoding.transformer_encoder import TransformerEncoder
    from onesearch.understanding.encoder_producer import EncoderProducer

    opened = load_encoder(folder / "encoder" / "encoder") if encoder is None else TransformerEncoder.open(encoder)
    return EncoderProducer(words, _lexicon(folder), opened.encode)


def _lexicon(folder: Path) -> "Lexicon | None":
    """A run that has come as far has learnt which keywords name what."""
    from onesearch.understanding.keyword_lexicon import Lexicon

    lexicon = folder / "khqe" / "lexicon"
    return Lexicon.load(lexicon) if lexicon.is_dir() else None
