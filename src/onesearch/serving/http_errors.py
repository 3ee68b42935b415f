"""How every error is told over HTTP: as a `Problem` with a status, whatever raised it."""

from collections.abc import Callable, Sequence
from typing import Any

from onesearch.common.extras import from_extra
from onesearch.serving.engine_workers import RequestRefusedError
from onesearch.serving.http_answers import Problem, encodable
from onesearch.serving.live_catalogue import UnreadableItemError
from onesearch.serving.live_rules import RulesRefusedError
from onesearch.serving.service import UnknownItemError
from onesearch.serving.store import EventConflictError, RulesConflictError, StoreError
from onesearch.serving.worker_threads import SaturatedError

with from_extra("serve"):
    from fastapi import FastAPI, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException as StarletteHTTPException
    from starlette.routing import Match

_LONGEST_MESSAGE = 500
_MOST_PROBLEMS = 50  # of rules that are told at once


def say_errors(app: FastAPI) -> None:
    """Every error is a `Problem`, whatever raised it."""

    def answering(
        status: int, text: str = "{}", retry_seconds: int | None = None
    ) -> Callable[[Request, Exception], Response]:
        """An answer with the error's own words; ``retry_seconds``: sending the request again then is safe."""
        headers = None if retry_seconds is None else {"Retry-After": str(retry_seconds)}
        return lambda _, error: _problem(status, text.format(error), headers=headers)

    def http_problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:  # the first route of the path names its own methods alone
            headers["Allow"] = ", ".join(_methods(request))
        return _problem(error.status_code, str(error.detail), headers=headers)

    def rule_problem(_: Request, error: Exception) -> Response:
        """What pydantic found wrong, by field; of several rules that a field breaks the first."""
        assert isinstance(error, RequestValidationError)
        fields: dict[str, str] = {}
        for problem in error.errors():
            if problem["type"] == "json_invalid":
                return _problem(400, f"the body is not valid JSON: {problem['ctx']['error']}")
            # ("body", "filters", "price") is filters.price; the body itself has no field. Names come from the caller.
            place = ".".join(str(part) for part in problem["loc"][1:]) or str(problem["loc"][0])
            words = str(problem["msg"]).removeprefix("Value error, ")[:_LONGEST_MESSAGE]
            fields.setdefault(place[:200], words + _of_item(error.body, problem["loc"]))
        return _problem(422, "; ".join(f"{name}: {message}" for name, message in fields.items()), fields)

    def rules_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, RulesRefusedError)
        few = dict(list(error.problems.items())[:_MOST_PROBLEMS])
        return _problem(422, str(error), {name: words[:_LONGEST_MESSAGE] for name, words in few.items()})

    handlers: dict[type[Exception], Callable[[Request, Exception], Response]] = {
        StarletteHTTPException: http_problem,
        RequestValidationError: rule_problem,
        RequestRefusedError: answering(422),
        UnknownItemError: answering(404),
        EventConflictError: answering(409),
        RulesConflictError: answering(409),
        UnreadableItemError: answering(409),
        RulesRefusedError: rules_problem,
        # Whose words may hold a path or an address.
        StoreError: answering(503, "not done, sending it again is safe: the store failed, see the log", 2),
        SaturatedError: answering(503, "too busy, try again: {}", 1),
        Exception: answering(500, "internal error; see the server's log"),  # whose words stay inside
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _methods(request: Request) -> list[str]:
    """The methods that the path of a request has."""
    routes = [route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE]
    return sorted({method for route in routes for method in getattr(route, "methods", None) or ()})


def _of_item(body: Any, place: Sequence[int | str]) -> str:
    """Which item of a call is meant, where ``place`` in the body leads into one: an index alone is hard to find."""
    if len(place) < 4 or place[1] != "upsert" or not isinstance(place[2], int):
        return ""
    item_id = body["upsert"][place[2]].get("item_id")
    return f" (item {item_id[:200]!r})" if isinstance(item_id, str) else ""


def _problem(
    status: int, message: str, fields: dict[str, str] | None = None, headers: dict[str, str] | None = None
) -> Response:
    told = {encodable(name): encodable(words) for name, words in (fields or {}).items()}
    body = Problem(error=encodable(message[:_LONGEST_MESSAGE]), fields=told)
    return JSONResponse(body.model_dump(), status, headers=headers)
