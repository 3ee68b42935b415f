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
    from onesearch.understanding.thought import Producer
    from onesearch.understanding.thought_cache import ThoughtCache

STAND_IN: Final = "stand-in"
"""Model name of the market's stand-in, so that its thoughts are never taken for those of a real model."""


class ProducerName(StrEnum):
    """Who thinks."""

    llm = "llm"
    log_expert = "log-expert"
    market = "market"


def producer_key(producer: ProducerName) -> tuple[str, str]:
    """Name and version under which the cache keeps a producer's thoughts."""
    if producer is ProducerName.log_expert:
        from onesearch.understanding.log_expert import LogExpert

        return LogExpert.name, LogExpert.version
    from onesearch.understanding.llm_producer import LLMSettings, producer_name
    from onesearch.understanding.llm_prompts import VERSION

    return producer_name(STAND_IN if producer is ProducerName.market else LLMSettings().model), VERSION


@contextmanager
def opened_producer(producer: ProducerName, catalogue: Path, limits: dict[str, Any]) -> "Iterator[Producer]":
    """Whoever thinks about queries over a catalogue; ``limits`` are settings of a language model."""
    from onesearch.understanding.llm_producer import LLMProducer, LLMSettings

    data, statistics = opened_dataset(catalogue)
    if producer is ProducerName.log_expert:
        yield _log_expert(catalogue, data, statistics)
    elif producer is ProducerName.llm:
        yield LLMProducer(_words(data, statistics), LLMSettings(**limits))
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
    from onesearch.understanding.keyword_lexicon import Lexicon
    from onesearch.understanding.log_expert import LogExpert

    if statistics is None:
        typer.secho(f"{folder} has no training part: all of its log speaks; for tests name a run", err=True)
        statistics = ClickStatistics.from_page_views(data.page_views, data.items)
    # A run that has come as far has learnt which keywords name what.
    lexicon = folder / "khqe" / "lexicon"
    found = Lexicon.load(lexicon) if lexicon.is_dir() else None
    return LogExpert.from_log(data.items, statistics, _words(data, statistics), found)
