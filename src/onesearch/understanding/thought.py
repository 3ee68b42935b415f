"""A thought: what a query is about, as typed, validated steps (docs/method.md, section 4).

Step 1 is an :class:`Analysis`, step 2 the keywords of a :class:`Thought`, step 3 personalised keywords, which belong to
a query and a shopper's history and are never stored with the query's thought. Whoever writes thoughts is a
:class:`Producer`.
"""

from collections.abc import Sequence
from typing import Final, Literal, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from onesearch.data.records import ATTRIBUTE_TYPES

MOST_KEYWORDS: Final = 8
Intent = Literal["merchandise", "shop", "live", "other"]
QueryType = Literal["plain", "question", "recommendation", "ranking", "knowledge", "negation", "alternatives"]


class ThoughtError(ValueError):
    """No usable thought for a query: the answer is malformed, off the catalogue, or there was none."""


class _Typed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Attribute(_Typed):
    """An attribute that the query states: one of the 18 types, its value, and whether it is ruled out ("without")."""

    type: str
    value: str = Field(min_length=1, max_length=80)
    negated: bool = False

    @field_validator("type")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ATTRIBUTE_TYPES:
            raise ValueError(f"attribute type {value!r} is not one of {', '.join(ATTRIBUTE_TYPES)}")
        return value


class Analysis(_Typed):
    """Step 1: what is meant.

    Attributes:
        intent: only ``merchandise`` goes on to the other fields.
        query_type: form of the query.
        category: path in the catalogue's tree, coarse to fine; empty where the query does not decide it.
        attributes: what the query states, nothing invented.
        topics: products or topics that satisfy category and attributes, best first.
    """

    intent: Intent
    query_type: QueryType = "plain"
    category: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = Field((), max_length=16)
    topics: tuple[str, ...] = Field((), max_length=16)


class Thought(_Typed):
    """Steps 1 and 2 for one query: what a cache may hold. Keywords are ordered by item popularity, most popular first.

    Raises:
        ValueError: more than eight keywords, or keywords for a query that wants no merchandise.
    """

    query: str
    analysis: Analysis
    keywords: tuple[str, ...] = Field((), max_length=MOST_KEYWORDS)
    producer: str
    version: str

    @model_validator(mode="after")
    def _gated(self) -> Self:
        if self.analysis.intent != "merchandise" and (self.keywords or self.analysis.topics):
            raise ValueError(f"intent {self.analysis.intent!r} stops at step 1: no topics, no keywords")
        return self


class Producer(Protocol):
    """Writes thoughts. ``name`` and ``version`` (of prompt or rules) are part of the cache key."""

    name: str
    version: str

    async def think(self, query: str) -> Thought:
        """Steps 1 and 2 for a normalised query.

        Raises:
            ThoughtError: no usable thought; the message says why.
        """


@runtime_checkable
class BulkProducer(Protocol):
    """A producer that is fast on many queries at once; without an answer it gives a thought without keywords."""

    def think_all(self, queries: Sequence[str]) -> list[Thought]:
        """Thoughts of the queries, in order."""


class Grounding(Protocol):
    """The catalogue as a thought may use it; see
    :class:`~onesearch.understanding.catalogue_vocabulary.CatalogueVocabulary`.
    """

    def category(self, path: Sequence[str]) -> tuple[str, ...] | None:
        """The catalogue's own path for a path or the unambiguous end of one; None if there is none."""

    def keyword(self, text: str) -> str | None:
        """The canonical form of a keyword whose words the catalogue's items use together; None if there is none."""

    def popularity(self, keyword: str) -> float:
        """Clicks of the items that a canonical keyword names."""
