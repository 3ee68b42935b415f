"""Routes for agents: a search that says what an agent needs to go on, and what can be filtered by."""

import uuid
from typing import Annotated, Any

from onesearch.common.extras import from_extra
from onesearch.search.agent_search import agent_page, search_request
from onesearch.serving.agent_bodies import AgentAnswer, AgentFiltersAnswer, AgentSearchBody
from onesearch.serving.engine_workers import RequestRefusedError
from onesearch.serving.http_answers import Problem
from onesearch.serving.request_log import note
from onesearch.serving.service import Service

with from_extra("serve"):
    from fastapi import FastAPI, Query
    from fastapi.concurrency import run_in_threadpool

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem, "description": "breaks a rule, which the answer names"},
    401: {"model": Problem, "description": "no key"},
    403: {"model": Problem, "description": "wrong key"},
}
MOST_CHOICES = 200


def add_agents(app: FastAPI, service: Service, keyed: Any) -> None:
    """Add the routes; ``keyed`` is the dependency that lets only holders of the key for searches pass."""

    @app.post("/agent/search", tags=["agents"], responses=_PROBLEMS, dependencies=[keyed])
    async def search_for_agent(body: AgentSearchBody) -> AgentAnswer:
        """The best items with facts, what speaks for each, what else there is, and what to ask next."""
        return await agent_answer(service, body)

    @app.get("/agent/filters", tags=["agents"], responses=_PROBLEMS, dependencies=[keyed])
    def filters_for_agent(most: Annotated[int, Query(ge=1, le=MOST_CHOICES)] = 50) -> AgentFiltersAnswer:
        """What can be filtered by: frequent categories, brands and types of attributes, and the range of prices."""
        return AgentFiltersAnswer.from_choices(service.engine.filters_available(), most, service.config.currency)


async def agent_answer(service: Service, body: AgentSearchBody) -> AgentAnswer:
    """Answer a search of an agent; a failing store makes it anonymous and unrecorded, and the answer says so.

    Raises:
        SaturatedError: too many searches wait, or this one waited too long.
        RequestRefusedError: the engine does not accept the request.
    """
    note(body.query, body.user)
    search_id, degraded = uuid.uuid4().hex, list[str]()
    user, history = await service.shoppers.known(body.user, degraded)
    asked = service.asked(body.query) if body.record else None
    request = body.request(user, history)
    # The page is ranked together with other searches that wait; what is told beside it is counted, not ranked.
    search = await run_in_threadpool(search_request, service.engine, request)
    found = (await service.workers.answer("onesearch", search)).value
    try:
        page = await run_in_threadpool(agent_page, service.engine, request, found)
    except ValueError as error:  # the engine's word for "the request is wrong"
        raise RequestRefusedError(str(error)) from error
    if body.record:
        await service.keep(search_id, body.query, body.user, found, [one.hit for one in page.items], asked, degraded)
    for part in degraded:
        service.metrics.degraded.labels(part).inc()
    if not page.items:
        service.metrics.empty.labels("agent").inc()
    said = {"search_id": search_id, "query": body.query, "degraded": degraded, "version": service.engine.version}
    return AgentAnswer.from_page(page, said)
