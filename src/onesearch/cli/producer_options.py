"""What commands that deal with thoughts share: who thinks, how a model is asked, where thoughts are kept."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from onesearch.understanding.thought_cache import ThoughtCache


class ProducerName(StrEnum):
    """Who thinks."""

    llm = "llm"
    llm_keywords = "llm-keywords"
    log_expert = "log-expert"
    encoder = "encoder"
    market = "market"


class ResponseFormat(StrEnum):
    """How a server is told the schema of an answer."""

    json_schema = "json_schema"
    json_object = "json_object"


Producer = Annotated[
    ProducerName,
    typer.Option(
        help="llm: a language model; llm-keywords: a small one, asked for keywords alone; log-expert: what shoppers"
        " clicked; encoder: words of the catalogue near the query; market: a simulated market's stand-in for a"
        " language model."
    ),
]
BaseUrl = Annotated[
    str | None, typer.Option(help="Address of the model's server, ending in /v1.", envvar="ONESEARCH_LLM_BASE_URL")
]
Format = Annotated[
    ResponseFormat,
    typer.Option(help="How the schema of an answer is sent: json_object for servers that know no json_schema."),
]
TextEncoder = Annotated[
    str | None,
    typer.Option(
        help="With --producer encoder: name or path of a sentence-transformers model; by default the run's own"
        " encoder.",
        show_default=False,
    ),
]


def producer_key(producer: ProducerName) -> tuple[str, str]:
    """Name and version under which the cache keeps a producer's thoughts."""
    from onesearch.understanding.producer_keys import producer_key as key_of

    return key_of(producer.value)


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
