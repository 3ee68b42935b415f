"""What agents send and get as JSON; the limits of single values are those of `http_bodies`."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from onesearch.data.records import Item, ItemKind
from onesearch.search.agent_search import MOST_EXCLUDED, AgentItem, AgentPage, AgentRequest, rating
from onesearch.search.confidence import NOTHING_FITS
from onesearch.search.results import FilterChoices
from onesearch.search.shopper_history import ShopperHistory
from onesearch.serving.http_answers import Choice, FacetValue
from onesearch.serving.http_bodies import (
    MAX_GROUPS,
    Body,
    Filters,
    Flag,
    Identifier,
    Number,
    Query,
    no_guess,
)

MAX_AGENT_K = 20
MAX_QUESTIONS = 10


class AgentSearchFields(Body):
    """What a search of an agent says, over HTTP and as a tool."""

    query: Query = Field("", description='what to look for; "" asks for a recommendation')
    k: Annotated[int, BeforeValidator(no_guess)] = Field(5, ge=1, le=MAX_AGENT_K, description="items at most")
    filters: Filters | None = Field(None, description="constraints: all of them hold for every item of the answer")
    budget: Number | None = Field(None, description="what an item may cost at most, in the shop's currency")
    exclude: list[Identifier] = Field(
        default_factory=list, max_length=MOST_EXCLUDED, description="ids of items not to show: those seen before"
    )
    questions: Annotated[int, BeforeValidator(no_guess)] = Field(
        3, ge=0, le=MAX_QUESTIONS, description="what to ask next, at most so many"
    )

    @model_validator(mode="after")
    def _ordered_price(self) -> Self:
        low = self.filters.price[0] if self.filters and self.filters.price else None
        if low is not None and self.budget is not None and low > self.budget:
            raise ValueError(f"price: the lowest ({low}) is above the highest ({self.budget}, the budget)")
        return self


class AgentSearchBody(AgentSearchFields):
    """A search of an agent."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"query": "waterproof boots", "filters": {"attributes": {"Color": "red"}}, "budget": 80, "k": 5},
                {"query": "gift for a gardener", "user": "u17", "exclude": ["i4", "i19"]},
            ]
        }
    )

    user: Identifier | None = Field(None, description="the shopper it shops for; null or an unknown id: anonymous")
    reasons: Flag = Field(True, description="whether each item says what made its score; searches once more for it")
    alternatives: Flag = Field(True, description="whether filters are left out by turns, and near items are told")
    groups: list[Identifier] = Field(
        default_factory=list, max_length=MAX_GROUPS, description="of shoppers that this one belongs to, for rules"
    )
    record: Flag = Field(True, description="false keeps this search out of the shopper's history and the log")

    def request(self, user: str | None, history: ShopperHistory) -> AgentRequest:
        """The search of a shopper with a history."""
        return AgentRequest(
            self.query,
            user,
            self.k,
            self.filters.given() if self.filters else None,
            self.budget,
            frozenset(self.exclude),
            history,
            tuple(self.groups),
            self.reasons,
            self.alternatives,
            self.questions,
        )


class WordBody(BaseModel):
    """A word of the query, and where the item says it."""

    word: str
    fields: list[str] = Field(description="title, brand, category, attributes, description; empty: nowhere")


class FactsBody(BaseModel):
    """Facts of an item."""

    item_id: str
    title: str
    kind: ItemKind = Field(description="a live room or a video shows products, and cannot be ordered")
    price: float | None
    brand: str | None
    category: list[str] = Field(description="path, widest first")
    attributes: dict[str, list[str]]
    in_stock: bool | None = Field(description="null: unknown")
    seller: str | None
    rating: float | None = Field(description="of an attribute of that name; null: the shop has none")

    @classmethod
    def facts(cls, item: Item) -> dict[str, Any]:
        """The fields of a record."""
        names = ("item_id", "title", "kind", "price", "brand", "in_stock", "seller")
        lists = {"category": list(item.category), "attributes": {kind: list(v) for kind, v in item.attributes.items()}}
        return {**{name: getattr(item, name) for name in names}, **lists, "rating": rating(item)}


class AgentItemBody(FactsBody):
    """An item of the answer, with what speaks for it."""

    score: float = Field(description="only comparable within this answer")
    meets: list[WordBody] = Field(description="words of the query that the item says")
    misses: list[str] = Field(description="words of the query that it says nowhere; it may mean them all the same")
    reasons: list[str] = Field(description="parts of its score in words, the weightiest first")

    @classmethod
    def from_item(cls, one: AgentItem) -> "AgentItemBody":
        """The JSON form of an item."""
        return cls(
            **FactsBody.facts(one.hit.item),
            score=one.hit.score,
            meets=[WordBody(word=word, fields=list(fields)) for word, fields in one.words if fields],
            misses=[word for word, fields in one.words if not fields],
            reasons=list(one.reasons),
        )


class QuestionBody(BaseModel):
    """A filter to ask the shopper for, or to set."""

    filter: str = Field(description="its key: category, brand, price, in_stock, attributes.TYPE")
    question: str
    bits: float = Field(description="expected information gain: one bit halves the items that are left")
    values: list[FacetValue] = Field(description="answers, with how many items are left under each; at most ten")
    others: int = Field(description="answers beyond these")


class RelaxedBody(BaseModel):
    """A filter of the search without which more is found."""

    filter: str = Field(description="its key, as brand, attributes.Color or not.brand")
    value: Any = Field(description="as the search gave it")
    total: int = Field(description="items without it")
    more: int = Field(description="than with it")


class AlternativesBody(BaseModel):
    """What else there is."""

    relaxed: list[RelaxedBody] = Field(description="filters to leave out, those that bring most first")
    near: list[FactsBody] = Field(description="items like the best one, outside of the filters, too")


class AgentAnswer(BaseModel):
    """What an agent needs to go on."""

    search_id: str
    query: str = Field(description="as it was sent")
    corrected_query: str | None = Field(description="what was searched for in its place; null: it was itself")
    did_you_mean: str | None = Field(description="what it may mean, where it was searched for as it was sent")
    fits: bool | None = Field(
        description=f"false: nothing fits the query (confidence below {NOTHING_FITS}); null: it cannot be told"
    )
    confidence: float | None
    total: int = Field(description="items that the filters allow and that are relevant, the excluded ones among them")
    items: list[AgentItemBody]
    ask: list[QuestionBody] = Field(description="what to ask next, the best question first")
    alternatives: AlternativesBody
    degraded: list[str] = Field(description='what failed: "history" (answered as anonymous), "log" (not recorded)')
    version: str

    @classmethod
    def from_page(cls, page: AgentPage, said: Mapping[str, Any]) -> "AgentAnswer":
        """The JSON form of a page; ``said`` holds what the page does not know."""
        return cls(
            **said,
            corrected_query=page.corrected_query,
            did_you_mean=page.did_you_mean,
            fits=page.fits,
            confidence=page.confidence,
            total=page.total,
            items=[AgentItemBody.from_item(one) for one in page.items],
            ask=[
                QuestionBody(
                    filter=one.facet,
                    question=question(one.facet),
                    bits=round(one.bits, 3),
                    values=[FacetValue(value=value, count=count) for value, count in one.values],
                    others=one.others,
                )
                for one in page.questions
            ],
            alternatives=AlternativesBody(
                relaxed=[RelaxedBody(**vars(one)) for one in page.relaxed],
                near=[FactsBody(**FactsBody.facts(item)) for item in page.near],
            ),
        )


def question(facet: str) -> str:
    """A filter's question in words.

    >>> question("attributes.Color"), question("in_stock")
    ('Which Color?', 'In stock?')
    """
    plain = {"category": "Which category?", "brand": "Which brand?", "price": "At what price?", "in_stock": "In stock?"}
    return plain.get(facet, f"Which {facet.partition('.')[2] or facet}?")


class AgentFiltersAnswer(BaseModel):
    """What can be filtered by."""

    categories: list[Choice]
    brands: list[Choice]
    price: tuple[float, float] | None = Field(description="lowest and highest; null: no item has one")
    attributes: list[Choice] = Field(description="types of attributes, with how often items have a value of each")
    currency: str | None = Field(description="ISO code of all prices; null: unknown")

    @classmethod
    def from_choices(cls, choices: FilterChoices, most: int, currency: str | None) -> "AgentFiltersAnswer":
        """The JSON form of the engine's choices, at most so many of each."""
        return cls(
            categories=_choices(choices.categories[:most]),
            brands=_choices(choices.brands[:most]),
            price=choices.price,
            attributes=_choices(choices.attributes[:most]),
            currency=currency,
        )


def _choices(pairs: tuple[tuple[str, int], ...]) -> list[Choice]:
    return [Choice(value=value, items=items) for value, items in pairs]
