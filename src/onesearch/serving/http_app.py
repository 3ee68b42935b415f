"""The HTTP interface: routes, and who may call them. What they do is in `service`, how errors look in `http_errors`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from onesearch.common.extras import from_extra
from onesearch.encoding.pictures.local_pictures import LocalPictures
from onesearch.encoding.pictures.picture_decoding import MEDIA_TYPES, picture_format
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError
from onesearch.encoding.sid_text import sid_tokens
from onesearch.serving.access import Keys, Role
from onesearch.serving.agent_api import add_agents
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.engine_workers import RequestRefusedError
from onesearch.serving.http_answers import (
    EventAnswer,
    FiltersAnswer,
    HealthAnswer,
    HistoryAnswer,
    ItemAnswer,
    ItemsAnswer,
    PreviewAnswer,
    ProbeAnswer,
    Problem,
    ResultBody,
    RulesAnswer,
    RulesInForceAnswer,
    RulesVersionAnswer,
    RulesVersionsAnswer,
    SearchAnswer,
    ShoppersAnswer,
    SimilarAnswer,
    SuggestAnswer,
    SuggestionBody,
    UserDeletedAnswer,
)
from onesearch.serving.http_bodies import (
    MAX_K,
    MAX_SUGGESTIONS,
    EventBody,
    ItemBody,
    ItemsBody,
    PatchBody,
    PreviewBody,
    RulesBody,
    SearchBody,
)
from onesearch.serving.http_bodies import Query as QueryText
from onesearch.serving.http_errors import say_errors
from onesearch.serving.keyword_coverage import ThoughtSource
from onesearch.serving.live_catalogue import UnreadableItemError
from onesearch.serving.live_rules import stored_rules
from onesearch.serving.meilisearch_api import USER_HEADER, add_meilisearch
from onesearch.serving.middleware import Guard
from onesearch.serving.request_log import note
from onesearch.serving.service import Service, UnknownItemError
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Store

with from_extra("serve"):
    from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
    from fastapi import Path as PathParameter
    from fastapi.middleware.cors import CORSMiddleware
    from fastapi.responses import FileResponse, JSONResponse
    from fastapi.security import HTTPBearer
    from fastapi.staticfiles import StaticFiles
    from starlette.convertors import Convertor, register_url_convertor

_PAGE = Path(__file__).parent / "page"
_MOST_PICTURE = 1 << 20  # bytes


class _AnyText(Convertor[str]):
    """An id in a path, whatever is in it: also slashes, and the line ends that ``path`` does not know."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("text", _AnyText())
# What a route may answer besides its success, for the API description.
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    422: {"model": Problem, "description": "breaks a rule, which the answer names"}
}
# What `Guard` may answer to any call.
_ANY: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "not HTTP or JSON as it should be, or for another host"},
    408: {"model": Problem, "description": "the body did not arrive in time"},
    413: {"model": Problem, "description": "the body is too large"},
    503: {"model": Problem, "description": "try again after Retry-After seconds"},
}
_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "no such item"}}
_KEYED: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "no key"},
    403: {"model": Problem, "description": "wrong key"},
}


def create_app(
    engine: Engine,
    store: Store,
    config: ServingSettings | None = None,
    admin_token: str | None = None,
    thoughts: ThoughtSource | None = None,
    checks: Sequence[Callable[[], str | None]] = (),
    search_key: str | None = None,
    events_key: str | None = None,
    pictures: Path | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        engine: what searches.
        store: what remembers; closed when the application stops.
        config: how much to take on at once.
        admin_token: what `POST` and `PATCH /items` and all of `/rules` ask for; None switches them off.
        thoughts: where searched queries are looked up and queued; None leaves that out.
        checks: asked for `/healthz`; each gives what degrades the service, or None.
        search_key: what searches ask for; None leaves them open.
        events_key: what `POST /events` asks for; None leaves it open.
        pictures: zip archive of pictures that the page may show; left out where there is none.

    Raises:
        ValueError: a key for searches or events, and the page, which sends none.
    """
    keys = Keys(search_key, events_key, admin_token)
    service = Service(engine, store, config, thoughts, checks)

    if service.config.page and (search_key, events_key) != (None, None):
        raise ValueError("the web page sends no key: leave it out (--api-only), or set none for searches and events")

    # Threads and tasks of the service live as long as the application.
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    # The API's description is shown by a page of our own, which loads nothing from elsewhere.
    app = FastAPI(
        title="OneSearch",
        version=version("onesearch"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        description="Generative product search: a model writes the semantic ID of the item a shopper wants.",
        responses=_ANY,
    )
    app.state.service = service  # for tests and for whoever embeds the application
    # Around everything: who may call, limits, security headers, measurements.
    app.add_middleware(
        Guard, metrics=service.metrics, config=service.config, keys=keys, most_at_work=service.most_at_work
    )
    if service.config.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=service.config.allowed_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("authorization", "content-type", "x-meilisearch-client", USER_HEADER),
        )
    # Every error is a `Problem`; then the routes.
    say_errors(app)
    _add_search(app, service, keys)
    add_meilisearch(app, service, _keyed(keys, "search"))
    add_agents(app, service, _keyed(keys, "search"))
    _add_items(app, service, keys)
    _add_rules(app, service, keys)
    _add_users(app, service, keys)
    _add_health(app, service)
    if service.config.page:
        _add_page(app, service)
        if pictures is not None and pictures.is_file():
            _add_pictures(app, pictures)
    return app


def _add_search(app: FastAPI, service: Service, keys: Keys) -> None:
    @app.post(
        "/search",
        tags=["search"],
        responses=_PROBLEMS | _KEYED,
        dependencies=[_keyed(keys, "search")],
        response_model_exclude_unset=True,  # item fields that nobody asked for
    )
    async def search(body: SearchBody) -> SearchAnswer:
        """The best items for a query and a shopper."""
        return await service.search(body)

    @app.get("/suggest", tags=["search"], responses=_PROBLEMS | _KEYED, dependencies=[_keyed(keys, "search")])
    def suggest(q: QueryText = "", k: Annotated[int, Query(ge=1, le=MAX_SUGGESTIONS)] = 8) -> SuggestAnswer:
        """Queries, categories and titles that begin with what is typed so far; "" gives what is searched for most."""
        found = service.engine.suggest(q, k)
        return SuggestAnswer(query=q, suggestions=[SuggestionBody(**one._asdict()) for one in found])

    @app.post(
        "/events",
        tags=["search"],
        responses=_PROBLEMS | _UNKNOWN | _KEYED | {409: {"model": Problem}},
        dependencies=[_keyed(keys, "events")],
    )
    def events(body: EventBody) -> EventAnswer:
        """Remember a click or an order; the shopper's next search sees it."""
        note(body.query, body.user)
        return service.record(body)


def _add_items(app: FastAPI, service: Service, keys: Keys) -> None:
    @app.post("/items", tags=["catalogue"], responses=_PROBLEMS | _KEYED, dependencies=[_keyed(keys, "admin")])
    def change_items(body: ItemsBody) -> ItemsAnswer:
        """Add, replace and delete items; needs the admin token. All or nothing, searchable when the answer arrives."""
        # Written to the store first: a change that the engine cannot index is not lost, and others index it later.
        problems = service.catalogue.change([item.item() for item in body.upsert], body.delete)
        return answer(problems, len(body.upsert), len(body.delete))

    @app.patch(
        "/items",
        tags=["catalogue"],
        responses=_PROBLEMS | _UNKNOWN | _KEYED | {409: {"model": Problem}},
        dependencies=[_keyed(keys, "admin")],
    )
    def patch_items(body: PatchBody) -> ItemsAnswer:
        """Change single fields of items, such as price and stock; needs the admin token. All or nothing."""
        try:
            problems = service.catalogue.patch({item.item_id: item.applied_to for item in body.items})
        except KeyError as error:
            raise UnknownItemError(f"no item {error.args[0][:200]!r} in the catalogue; nothing was changed") from None
        except UnreadableItemError:
            raise
        except ValueError as error:  # fields that do not go together with those that stay
            raise RequestRefusedError(str(error)) from None
        return answer(problems, len(body.items), 0)

    def answer(problems: Mapping[str, str], upserted: int, deleted: int) -> ItemsAnswer:
        if problems:
            raise HTTPException(
                500,
                "stored, but could not be indexed: "
                + "; ".join(f"{item_id!r}: {problem}" for item_id, problem in problems.items()),
            )
        engine = service.engine
        return ItemsAnswer(upserted=upserted, deleted=deleted, items=len(engine), version=engine.version)

    @app.get(
        "/items/{item_id:text}/similar",
        tags=["search"],
        responses=_UNKNOWN | _KEYED,
        response_model=SimilarAnswer,
        dependencies=[_keyed(keys, "search")],
    )
    def similar(
        request: Request, item_id: str, k: Annotated[int, Query(ge=1, le=MAX_K)] = 10
    ) -> SimilarAnswer | Response:
        """Items like one of the catalogue: by their texts, and by what shoppers took together."""
        if not request.scope.get("raw_path", b"/similar").endswith(b"/similar"):  # "%2Fsimilar" is part of an id
            return JSONResponse(item(f"{item_id}/similar").model_dump(mode="json"))
        try:
            found = service.engine.similar(item_id, k)
        except KeyError:
            raise UnknownItemError(f"no item {item_id[:200]!r} in the catalogue") from None
        return SimilarAnswer(item_id=item_id, results=[ResultBody.from_result(hit) for hit in found])

    @app.get(
        "/items/{item_id:text}",
        tags=["catalogue"],
        responses=_UNKNOWN | _KEYED,
        dependencies=[_keyed(keys, "search")],
    )
    def item(item_id: str) -> ItemAnswer:
        """An item and its semantic ID."""
        record = service.engine.item(item_id)
        if record is None:
            raise UnknownItemError(f"no item {item_id[:200]!r} in the catalogue")
        sid = service.engine.sid(item_id)
        return ItemAnswer(item=ItemBody.from_item(record), sid=list(sid), sid_tokens=sid_tokens(sid))


def _add_rules(app: FastAPI, service: Service, keys: Keys) -> None:
    admin = _keyed(keys, "admin")
    unknown: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "no such version"}}
    conflict: dict[int | str, dict[str, Any]] = {409: {"model": Problem, "description": "there is a newer version"}}

    # What is in force, and other rules in its place.
    @app.get("/rules", tags=["rules"], responses=_KEYED, dependencies=[admin])
    def rules() -> RulesInForceAnswer:
        """The rules in force: the newest version that can be read; needs the admin token."""
        found = service.rules.newest()
        return RulesInForceAnswer.from_rules(*found, service.rules.warnings(found.rules))

    @app.put("/rules", tags=["rules"], responses=_PROBLEMS | _KEYED | conflict, dependencies=[admin])
    def change_rules(body: RulesBody) -> RulesInForceAnswer:
        """New rules in the place of all; needs the admin token. In force when the answer arrives."""
        found, warnings = service.rules.read(body.rules)
        version = service.rules.change(found, body.who, body.base)
        return RulesInForceAnswer.from_rules(service.store.rules(version), found, version, warnings)

    # What was in force, and what would be.
    @app.get("/rules/versions", tags=["rules"], responses=_KEYED, dependencies=[admin])
    def versions(limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> RulesVersionsAnswer:
        """Who wrote rules, and when, the newest first; needs the admin token."""
        found = service.store.rules_versions(limit)
        return RulesVersionsAnswer(
            versions=[RulesVersionAnswer(version=one.version, time=one.time, who=one.who) for one in found]
        )

    @app.get("/rules/versions/{version}", tags=["rules"], responses=_PROBLEMS | _KEYED | unknown, dependencies=[admin])
    def one_version(version: Annotated[int, PathParameter(ge=1, le=10**9)]) -> RulesAnswer:
        """An earlier version, to write again what it says; needs the admin token."""
        found = service.store.rules(version)
        if found is None:
            raise HTTPException(404, f"there is no version {version} of the rules")
        if (rules := stored_rules(found)) is None:
            raise HTTPException(503, f"version {version} of the rules cannot be read: did a newer onesearch write it?")
        return RulesAnswer.from_version(found, rules)

    @app.post("/rules/preview", tags=["rules"], responses=_PROBLEMS | _KEYED, dependencies=[admin])
    async def preview(body: PreviewBody) -> PreviewAnswer:
        """A search under the rules in force and under others, which nobody else sees; needs the admin token."""
        return await service.preview(body)


def _add_users(app: FastAPI, service: Service, keys: Keys) -> None:
    @app.delete(
        "/users/{user:text}", tags=["operation"], responses=_PROBLEMS | _KEYED, dependencies=[_keyed(keys, "admin")]
    )
    def delete_user(user: Annotated[str, PathParameter(min_length=1)]) -> UserDeletedAnswer:
        """Delete what the service recorded of a shopper; needs the admin token. Sending it again is safe."""
        return service.shoppers.delete(user)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/livez", tags=["operation"])
    def livez() -> ProbeAnswer:
        """The process answers, also while it loads the run."""
        return ProbeAnswer(status="live")

    @app.get("/readyz", tags=["operation"], responses={503: {"model": ProbeAnswer, "description": "loading or down"}})
    def readyz(response: Response) -> ProbeAnswer:
        """Searches are answered."""
        response.status_code = 200 if service.working else 503
        return ProbeAnswer(status="ready" if service.working else "down")

    @app.get("/healthz", tags=["operation"], responses={503: {"model": HealthAnswer, "description": "down"}})
    def healthz(response: Response) -> HealthAnswer:
        """Ready or degraded (200), or down (503), with reasons."""
        health = service.health()
        response.status_code = 503 if health.status == "down" else 200
        return health

    @app.get("/metrics", tags=["operation"], response_class=Response)
    def metrics() -> Response:
        """Measurements in Prometheus' text format."""
        return Response(service.measurements(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI, service: Service) -> None:
    # What the page asks for beside searches.
    @app.get("/shoppers", tags=["page"])
    def shoppers(limit: Annotated[int, Query(ge=1, le=500)] = 50) -> ShoppersAnswer:
        """Some shoppers with a history."""
        return ShoppersAnswer(shoppers=service.shoppers.some(limit))

    @app.get("/shoppers/{user:text}/history", tags=["page"])
    def history(user: str) -> HistoryAnswer:
        """What the next search of a shopper knows of them."""
        return service.shoppers.history(user)

    @app.get("/filters", tags=["page"])
    def filters() -> FiltersAnswer:
        """What can be filtered by, some queries to try, and how prices and pictures are shown."""
        engine = service.engine
        return FiltersAnswer.from_choices(engine.filters_available(), engine.example_queries(8), service.config)

    # The pages themselves, and what they load.
    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_PAGE / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/admin", include_in_schema=False)
    def admin() -> FileResponse:
        return FileResponse(_PAGE / "admin.html", headers={"cache-control": "no-cache"})

    @app.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(_PAGE / "docs.html", headers={"cache-control": "no-cache"})

    app.mount("/page", StaticFiles(directory=_PAGE))


def _add_pictures(app: FastAPI, archive: Path) -> None:
    members = LocalPictures(archive.parent, _MOST_PICTURE)

    @app.get("/pictures/{name}", include_in_schema=False)
    def picture(name: str) -> Response:
        """A picture of the run's own, as what its first bytes say that it is; no other file, whatever it is called."""
        try:
            data = members.read(f"{archive.name}/{name}")
        except PictureRefusedError:
            data = b""
        if (kind := picture_format(data)) is None:
            raise HTTPException(404, "there is no such picture")
        return Response(data, media_type=MEDIA_TYPES[kind], headers={"cache-control": "max-age=300"})


def _keyed(keys: Keys, role: Role) -> Any:
    """A dependency that lets only the holder of a role's key pass, wherever the application is mounted.

    `Guard` has looked at most calls before their body was read; the description of the API learns of it here, if there
    is a key.
    """
    if role != "admin" and getattr(keys, role) is None:
        return Depends(lambda: None)
    bearer = HTTPBearer(auto_error=False, scheme_name=f"{role}_key", description=f"the key for {role} calls")

    def check(request: Request, _: Annotated[object, Depends(bearer)]) -> None:
        if problem := keys.problem(role, request.headers.get("authorization", "").encode("latin-1")):
            status, words = problem
            raise HTTPException(status, words, headers={"WWW-Authenticate": "Bearer"} if status == 401 else None)

    return Depends(check)
