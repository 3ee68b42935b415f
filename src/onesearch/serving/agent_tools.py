"""The tools that agents may call: what each takes, which call of the service it is, and what it gives.

Reading tools change nothing, not even the log of searches. Those of the admin are offered to who holds the admin key.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from onesearch.data.records import Item
from onesearch.search.rules import MAX_TEXT
from onesearch.serving.agent_api import MOST_CHOICES
from onesearch.serving.agent_bodies import (
    MAX_AGENT_K,
    AgentAnswer,
    AgentFiltersAnswer,
    AgentSearchFields,
    FactsBody,
)
from onesearch.serving.http_answers import ItemAnswer, ItemsAnswer, RulesAnswer, SimilarAnswer
from onesearch.serving.http_bodies import Body, Flag, Identifier, ItemBody, Query, no_guess
from onesearch.serving.service_client import CallRefusedError, ServiceClient, quoted

_LONGEST_DESCRIPTION: Final = 2000
_MOST_FIELDS: Final = 20  # of a refused call that are told


class SearchTool(AgentSearchFields):
    """What ``search`` takes."""

    query: Query = Field(description='what to look for; "" asks for a recommendation')
    reasons: Flag = Field(False, description="whether each item says what made its score")


class ItemTool(Body):
    """What ``item`` takes."""

    item_id: Identifier


class SimilarTool(Body):
    """What ``similar`` takes."""

    item_id: Identifier
    k: Annotated[int, BeforeValidator(no_guess)] = Field(5, ge=1, le=MAX_AGENT_K, description="items at most")


class FiltersTool(Body):
    """What ``filters`` takes."""

    most: Annotated[int, BeforeValidator(no_guess)] = Field(
        30, ge=1, le=MOST_CHOICES, description="categories, brands and types of attributes, at most so many of each"
    )


class RulesTool(Body):
    """What ``set_rules`` takes."""

    rules: str = Field(max_length=MAX_TEXT, description="YAML: all rules, in the place of those in force")
    base: Annotated[int, BeforeValidator(no_guess)] = Field(
        ge=0, description="the version they were made from, as ``rules`` tells it; refused if there is a newer one"
    )


class NothingTool(Body):
    """What a tool without parameters takes."""


class ItemFacts(FactsBody):
    """An item."""

    description: str | None = Field(description=f"its first {_LONGEST_DESCRIPTION} characters")


class SimilarFacts(BaseModel):
    """Items like one."""

    model_config = ConfigDict(extra="forbid")

    item_id: str
    items: list[FactsBody]


Call = Callable[[ServiceClient, Any, str | None], Awaitable[BaseModel]]


@dataclass(frozen=True)
class AgentTool:
    """One tool.

    Attributes:
        name: unique.
        what: it does, for the model that chooses.
        takes: its arguments.
        gives: its structured answer.
        call: client, arguments, shopper → answer.
        admin: whether it is the admin's.
        changes: whether it changes anything.
    """

    name: str
    what: str
    takes: type[Body]
    gives: type[BaseModel]
    call: Call
    admin: bool = False
    changes: bool = False

    async def run(self, client: ServiceClient, arguments: Any, user: str | None) -> BaseModel:
        """Check the arguments, call the service, check its answer.

        Raises:
            CallRefusedError: an argument breaks a rule, or the service refuses the call; the words are for the agent.
        """
        try:
            asked = self.takes.model_validate(arguments)
        except ValidationError as error:
            raise CallRefusedError(f"{self.name}: {_rules_broken(error)}") from None
        try:
            return await self.call(client, asked, user)
        except ValidationError as error:  # the service is another version, or another program
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise CallRefusedError(f"{self.name}: the service's answer is not understood at {place!r}") from error


def _rules_broken(error: ValidationError) -> str:
    """What is wrong with arguments, by field."""
    told: dict[str, str] = {}
    for problem in error.errors(include_url=False, include_context=False, include_input=False)[:_MOST_FIELDS]:
        place = ".".join(map(str, problem["loc"]))[:200] or "arguments"
        told.setdefault(place, str(problem["msg"]).removeprefix("Value error, ")[:300])
    return "; ".join(f"{place}: {words}" for place, words in told.items())


async def _search(client: ServiceClient, asked: SearchTool, user: str | None) -> AgentAnswer:
    # Nobody's history and no log learns of it: who only reads changes nothing.
    body = {**asked.model_dump(mode="json", by_alias=True, exclude_none=True), "user": user, "record": False}
    return AgentAnswer.model_validate(await client.call("POST", "/agent/search", body))


async def _item(client: ServiceClient, asked: ItemTool, _: str | None) -> ItemFacts:
    item = ItemAnswer.model_validate(await client.call("GET", f"/items/{quoted(asked.item_id)}")).item.item()
    description = item.description and item.description[:_LONGEST_DESCRIPTION]
    return ItemFacts(**FactsBody.facts(item), description=description)


async def _similar(client: ServiceClient, asked: SimilarTool, _: str | None) -> SimilarFacts:
    path = f"/items/{quoted(asked.item_id)}/similar"
    found = SimilarAnswer.model_validate(await client.call("GET", path, query={"k": asked.k}))
    items: list[Item] = [hit.item.item() for hit in found.results]
    return SimilarFacts(item_id=found.item_id, items=[FactsBody(**FactsBody.facts(item)) for item in items])


async def _filters(client: ServiceClient, asked: FiltersTool, _: str | None) -> AgentFiltersAnswer:
    return AgentFiltersAnswer.model_validate(await client.call("GET", "/agent/filters", query={"most": asked.most}))


async def _upsert_item(client: ServiceClient, asked: ItemBody, _: str | None) -> ItemsAnswer:
    body = {"upsert": [asked.model_dump(mode="json", exclude_unset=True)]}
    return ItemsAnswer.model_validate(await client.call("POST", "/items", body, admin=True))


async def _rules(client: ServiceClient, _: NothingTool, __: str | None) -> RulesAnswer:
    return RulesAnswer.model_validate(await client.call("GET", "/rules", admin=True))


async def _set_rules(client: ServiceClient, asked: RulesTool, _: str | None) -> RulesAnswer:
    body = {"rules": asked.rules, "base": asked.base, "who": "agent"}
    return RulesAnswer.model_validate(await client.call("PUT", "/rules", body, admin=True))


TOOLS: Final = (
    AgentTool(
        "search",
        "Search the shop. Gives items with facts, which words of the query each says, what to ask the shopper next, "
        "which filters to leave out for more, and items near the best one. Refine with filters rather than with more "
        "words; give the ids of items already seen as exclude.",
        SearchTool,
        AgentAnswer,
        _search,
    ),
    AgentTool("item", "All facts of one item, by its id.", ItemTool, ItemFacts, _item),
    AgentTool(
        "similar",
        "Items like one, by their texts and by what shoppers took together.",
        SimilarTool,
        SimilarFacts,
        _similar,
    ),
    AgentTool(
        "filters",
        "What can be filtered by: categories, brands, prices, types of attributes.",
        FiltersTool,
        AgentFiltersAnswer,
        _filters,
    ),
)
ADMIN_TOOLS: Final = (
    AgentTool(
        "upsert_item", "Add an item, or replace the one with its id.", ItemBody, ItemsAnswer, _upsert_item, True, True
    ),
    AgentTool("rules", "The rules in force, with their version.", NothingTool, RulesAnswer, _rules, True),
    AgentTool(
        "set_rules",
        "Other rules in the place of all: pins, hidden items, boosts, synonyms.",
        RulesTool,
        RulesAnswer,
        _set_rules,
        True,
        True,
    ),
)
