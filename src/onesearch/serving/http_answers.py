"""What the HTTP service answers as JSON; what it reads is in `http_bodies`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

from onesearch.data.records import Item
from onesearch.encoding.sid_text import sid_tokens
from onesearch.search.confidence import NOTHING_FITS
from onesearch.search.results import Explanation, FilterChoices, SearchResult
from onesearch.search.rules import Rules, write_rules
from onesearch.search.suggestions import Kind
from onesearch.serving.http_bodies import ItemBody
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import RulesVersion


class PartBody(BaseModel):
    """A feature's part of a score: ``value * weight``."""

    feature: str
    value: float
    weight: float


class StepBody(BaseModel):
    """A token of the way to an item."""

    token: str
    probability: float | None = Field(description="the model's, among the legal tokens after those before it")
    items: int = Field(description="of the catalogue that share the way so far")
    category: str = Field(description="that most of them have")


class WhyBody(BaseModel):
    """Why a result stands where it does."""

    parts: list[PartBody] = Field(description="of its score, largest first; none behind the candidates")
    found_by: list[str] = Field(description="beams, most clicked, evidence, BM25, nearest")
    path: list[StepBody]
    rules: list[str] = Field(description="names of the rules that touched it")
    intent: str | None = Field(None, description="what the query asks for, where that brings it forward: live")

    @classmethod
    def from_explanation(cls, why: Explanation) -> "WhyBody":
        """The JSON form of an explanation."""
        return cls(
            parts=[PartBody(**part._asdict()) for part in why.parts],
            found_by=list(why.found_by),
            path=[StepBody(**step._asdict()) for step in why.path],
            rules=list(why.rules),
            intent=why.intent,
        )


class ShownItem(ItemBody):
    """An item of an answer: without the fields that the search did not ask for."""

    title: str = Field("", max_length=1000)


class ResultBody(BaseModel):
    """One ranked item."""

    item_id: str
    score: float
    sid: list[int] = Field(description="level-local codes")
    sid_tokens: list[str] = Field(description="the same as the model speaks them", examples=[["a_12", "b_7", "c_3"]])
    item: ShownItem
    why: WhyBody | None = Field(None, description="where the search asks to explain")
    highlights: dict[str, list[tuple[int, int]]] = Field(
        default_factory=dict,
        description="where the query's words stand in title, brand and description: [start, end) in Unicode "
        "characters; where the search asks for it",
    )

    @classmethod
    def from_result(cls, result: SearchResult, fields: Sequence[str] | None = None) -> "ResultBody":
        """The JSON form of a result, with some fields of its item or all of them."""
        # Not validated again: a page of results is made thousands of times a second.
        return cls.model_construct(
            item_id=result.item_id,
            score=result.score,
            sid=list(result.sid),
            sid_tokens=sid_tokens(result.sid),
            item=_shown(result.item, fields),
            why=None if result.why is None else WhyBody.from_explanation(result.why),
            highlights={name: list(spans) for name, spans in result.highlights.items()},
        )


def _shown(item: Item, fields: Sequence[str] | None) -> ShownItem:
    values = vars(ItemBody.from_item(item))
    if fields is not None:
        values = {name: values[name] for name in ("item_id", *fields)}
    return ShownItem.model_construct(_fields_set=set(values), **values)


class FacetValue(BaseModel):
    """A value that items of a search have."""

    value: str | bool | tuple[float, float] = Field(description="of price a range [low, high], ends included")
    count: int


class SearchAnswer(BaseModel):
    """A page of results."""

    search_id: str
    query: str = Field(description="as it was sent")
    corrected_query: str | None = Field(None, description="what was searched for in its place; null: it was itself")
    did_you_mean: str | None = Field(None, description="what it may mean, where it was searched for as it was sent")
    method: str
    results: list[ResultBody]
    confidence: float | None = Field(
        description="share of searches ending in a click whose best item matched no better: below "
        f"{NOTHING_FITS} nothing fits; null for recommendations and bm25"
    )
    total: int | None = Field(
        description="items of the search on all pages, no fewer than shown; null unless asked for"
    )
    facets: dict[str, list[FacetValue]] = Field(description="values of these items, for each facet that was asked for")
    personalised: bool = Field(description="whether a history of the shopper was used")
    degraded: list[str] = Field(description='what failed: "history" (answered as anonymous), "log" (not recorded)')
    took_ms: float = Field(description="from the request's arrival to the answer")
    engine_ms: float = Field(description="inside the engine, for the whole batch")
    batch: int = Field(description="searches answered together with this one, itself included")
    version: str


class SuggestionBody(BaseModel):
    """A completion."""

    text: str = Field(description="to search for")
    kind: Kind = Field(description="a query of the log, a category, or the title of an item")
    item_id: str | None = Field(None, description="of an item")


class SuggestAnswer(BaseModel):
    """What a shopper may go on to type, best first."""

    query: str
    suggestions: list[SuggestionBody]


class SimilarAnswer(BaseModel):
    """Items like one."""

    item_id: str
    results: list[ResultBody]


class EventAnswer(BaseModel):
    """An event was remembered."""

    event_id: str
    recorded: bool = Field(description="false: this event id was known already")


class ItemsAnswer(BaseModel):
    """What became of the changes."""

    upserted: int
    deleted: int
    items: int = Field(description="searchable items now")
    version: str


class ItemAnswer(BaseModel):
    """An item and its semantic ID."""

    item: ItemBody
    sid: list[int]
    sid_tokens: list[str]


class HistoryEntry(BaseModel):
    """Something a shopper clicked or ordered."""

    item_id: str
    title: str | None = Field(description="null: the item is no longer in the catalogue")
    query: str
    live: bool = Field(description="happened in this service, not in the data set's log")


class HistoryAnswer(BaseModel):
    """A shopper's history as the next search sees it; newest first."""

    user: str
    profile: str
    clicked: list[HistoryEntry]
    ordered: list[HistoryEntry]
    recent_queries: list[str]
    degraded: list[str]


class ShoppersAnswer(BaseModel):
    """Shoppers to pick from: those seen by this service first."""

    shoppers: list[str]


class Choice(BaseModel):
    """A filter value and how many items have it."""

    value: str
    items: int


class FiltersAnswer(BaseModel):
    """What can be filtered by, some queries to try, and how the page shows prices and pictures."""

    categories: list[Choice]
    brands: list[Choice]
    price: tuple[float, float] | None
    examples: list[str]
    currency: str | None = Field(description="ISO code of all prices; null: plain numbers")
    image_hosts: list[str] = Field(description="servers whose pictures may be shown")

    @classmethod
    def from_choices(cls, choices: FilterChoices, examples: list[str], config: ServingSettings) -> "FiltersAnswer":
        """The JSON form of the engine's choices and of the service's settings."""
        return cls(
            categories=[Choice(value=value, items=items) for value, items in choices.categories],
            brands=[Choice(value=value, items=items) for value, items in choices.brands],
            price=choices.price,
            examples=examples,
            currency=config.currency,
            image_hosts=list(config.image_hosts),
        )


class RulesVersionAnswer(BaseModel):
    """Who wrote a version of the rules, and when."""

    version: int = Field(description="0: nobody wrote any, these are the boosts that the run was made with")
    time: datetime | None
    who: str


class RulesAnswer(RulesVersionAnswer):
    """A version of the rules."""

    rules: str = Field(description="YAML")

    @classmethod
    def from_version(cls, version: RulesVersion | None, rules: Rules) -> "RulesAnswer":
        """The JSON form of a version; None before the first."""
        if version is None:
            return cls(version=0, time=None, who="", rules=write_rules(rules))
        return cls(version=version.version, time=version.time, who=version.who, rules=write_rules(rules))


class RulesInForceAnswer(RulesAnswer):
    """The rules in force."""

    newest: int = Field(
        description="number of the newest version, to be sent as base; above `version` where this server cannot read it"
    )
    warnings: dict[str, str] = Field(description="by rule: what it names and the catalogue has no more")

    @classmethod
    def from_rules(
        cls, version: RulesVersion | None, rules: Rules, newest: int, warnings: dict[str, str]
    ) -> "RulesInForceAnswer":
        """The JSON form of a version that is in force; None before the first."""
        return cls(**dict(RulesAnswer.from_version(version, rules)), newest=newest, warnings=warnings)


class RulesVersionsAnswer(BaseModel):
    """Versions of the rules, the newest first."""

    versions: list[RulesVersionAnswer]


class PreviewAnswer(BaseModel):
    """A search under the rules in force, and under others."""

    before: SearchAnswer
    after: SearchAnswer
    warnings: dict[str, str] = Field(description="by rule of those others: what it names and the catalogue has no more")


class HealthAnswer(BaseModel):
    """Whether the service works."""

    status: Literal["ready", "degraded", "down"]
    reasons: list[str]
    items: int
    version: str


class ProbeAnswer(BaseModel):
    """What an orchestrator asks for; the reasons are in `HealthAnswer`."""

    status: Literal["live", "loading", "ready", "down"]


class UserDeletedAnswer(BaseModel):
    """What was recorded of a shopper and is no more; 0 where nothing was, or is any more."""

    user: str
    events: int
    searches: int


def encodable(text: str) -> str:
    """A text that repeats what a caller sent, without lone surrogates, which no answer can hold."""
    return text.encode("utf-8", "replace").decode()


class Problem(BaseModel):
    """Every answer that is not a success: what was wrong and what to do."""

    error: str
    fields: dict[str, str] = Field(default_factory=dict, description="by field, for a request that breaks a rule")
