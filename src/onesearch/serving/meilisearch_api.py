"""Searches as Meilisearch's clients send them, so that front ends made for it, such as InstantSearch, run unchanged.

What is answered: search, multi-search and facet-search, with filters, facets, sorting, highlighting and both kinds of
pages. The name of the index is of no concern: there is one catalogue. What a call asks beyond that (cropping, geo,
vectors) is left out where that only makes an answer plainer, and refused where it would make it wrong (a filter).
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from onesearch.common.extras import from_extra
from onesearch.data.text import fold
from onesearch.search.results import Sort
from onesearch.serving.engine_workers import RequestRefusedError
from onesearch.serving.http_answers import FacetValue, ResultBody, SearchAnswer, encodable
from onesearch.serving.http_bodies import MAX_K, SearchBody
from onesearch.serving.meilisearch_filters import our_filters
from onesearch.serving.service import Service

with from_extra("serve"):
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

_SORTS: Mapping[str, Sort] = {
    "price:asc": "price",
    "price:desc": "-price",
    "listed_at:desc": "newest",
    "popularity:desc": "popularity",
}
_LEVEL = "category.lvl"
_SEPARATOR = " > "
_MOST_QUERIES, _MOST_NAMES = 20, 200
USER_HEADER = "x-onesearch-user"  # a shopper's id, which Meilisearch has no word for


class OneMoreBody(SearchBody):
    """A search whose page has one more result: the client asks for it to know whether there is a next page."""

    k: int = Field(10, ge=1, le=MAX_K + 1)


class MeilisearchQuery(BaseModel):
    """A search; what is not named here is ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    q: str | None = None
    offset: int = Field(0, ge=0)
    limit: int = Field(20, ge=0)
    page: int | None = Field(None, ge=0)
    hits_per_page: int | None = Field(None, ge=0, alias="hitsPerPage")
    filter: Any = None
    facets: list[Annotated[str, Field(max_length=200)]] | None = Field(None, max_length=20)
    sort: list[str] | None = Field(None, max_length=_MOST_NAMES)
    retrieve: list[str] | None = Field(None, max_length=_MOST_NAMES, alias="attributesToRetrieve")
    highlight: list[str] | None = Field(None, max_length=_MOST_NAMES, alias="attributesToHighlight")
    before: str = Field("<em>", alias="highlightPreTag", max_length=100)
    after: str = Field("</em>", alias="highlightPostTag", max_length=100)

    def pages(self) -> tuple[int, int, bool]:
        """Offset, number of hits, and whether pages are counted."""
        if self.page is None and self.hits_per_page is None:
            return self.offset, self.limit, False
        size = 20 if self.hits_per_page is None else self.hits_per_page
        return max(0, (1 if self.page is None else self.page) - 1) * size, size, True

    def body(self, user: str | None) -> SearchBody:
        """The search as our own API takes it.

        Raises:
            ValueError: it asks for what we do not have.
        """
        offset, size, counted = self.pages()
        # Cut short without a word, pages would repeat or miss results.
        if size > MAX_K + (not counted):
            raise ValueError(f"a page has at most {MAX_K} hits, got {size}: ask for fewer by limit or hitsPerPage")
        orders = [one for one in self.sort or [] if one]
        if len(orders) > 1 or any(one not in _SORTS for one in orders):
            raise ValueError(f"sort takes one of {', '.join(_SORTS)}, got {', '.join(orders)[:100]}")
        return OneMoreBody.model_validate(
            {
                "query": self.q or "",
                "user": user,
                "k": max(size, 1),
                "offset": offset,
                "filters": our_filters(self.filter) or None,
                "facets": self.our_facets(),
                "facet_query": self.our_facet_query(),
                "sort": _SORTS[orders[0]] if orders else None,
                "count": True,
                "highlight": bool(self.highlight),
                # Counts alone, as InstantSearch asks for beside each search, are nobody's search, nor is the page that
                # it opens with, before anything is typed.
                "record": size > 0 and self.q is not None,
            }
        )

    def typed(self) -> str | None:
        """What may go on: InstantSearch searches at each letter; None for further pages, and without a query."""
        return self.q if self.q and self.q.strip() and not self.pages()[0] else None

    def our_facet_query(self) -> str:
        """What the values that are counted hold."""
        return ""

    def our_facets(self) -> list[str]:
        """The keys that are counted for the facets asked for."""
        asked = self.facets or []
        if "*" in asked:
            return ["category", "brand", "seller", "price", "in_stock", "kind"]
        return list(dict.fromkeys("category" if one.startswith(_LEVEL) else one for one in asked))


class IndexQuery(MeilisearchQuery):
    """A search of several."""

    index: str = Field(alias="indexUid", max_length=400)


class MultiSearchBody(BaseModel):
    """Several searches in one call."""

    queries: list[IndexQuery] = Field(max_length=_MOST_QUERIES)


class FacetSearchBody(MeilisearchQuery):
    """Values of a facet that hold some text."""

    name: str = Field(alias="facetName", max_length=200)
    text: str | None = Field(None, alias="facetQuery", max_length=200)

    def our_facet_query(self) -> str:
        """The text: values that hold it are counted before the rare ones are cut."""
        return self.text or ""


def add_meilisearch(app: FastAPI, service: Service, keyed: Any) -> None:
    """Add the routes; ``keyed`` asks for the key of searches."""
    options: dict[str, Any] = {"tags": ["meilisearch"], "dependencies": [keyed], "include_in_schema": False}

    async def search(query: MeilisearchQuery, user: str | None, index: str) -> dict[str, Any]:
        try:
            body = query.body(user)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RequestRefusedError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from error
        except ValueError as error:
            raise RequestRefusedError(str(error)) from error
        return _answered(await service.search(body, typed=query.typed()), query, index)

    @app.post("/indexes/{index}/search", **options)
    async def one(index: str, query: MeilisearchQuery, request: Request) -> JSONResponse:
        return await _told(search(query, _user(request), index))

    @app.post("/multi-search", **options)
    async def several(body: MultiSearchBody, request: Request) -> JSONResponse:
        async def all_of_them() -> dict[str, Any]:
            # At once, so that they share a batch.
            found = await asyncio.gather(*(search(query, _user(request), query.index) for query in body.queries))
            return {"results": list(found)}

        return await _told(all_of_them())

    @app.post("/indexes/{index}/facet-search", **options)
    async def facet(index: str, body: FacetSearchBody, request: Request) -> JSONResponse:
        async def values() -> dict[str, Any]:
            begun, text = time.perf_counter(), fold(body.text or "")
            asked = body.model_copy(update={"facets": [body.name], "limit": 0, "page": None, "hits_per_page": None})
            counts = (await search(asked, _user(request), index))["facetDistribution"].get(body.name, {})
            hits = [{"value": value, "count": count} for value, count in counts.items() if text in fold(value)]
            took = round((time.perf_counter() - begun) * 1e3)
            return {"facetHits": hits, "facetQuery": body.text, "processingTimeMs": took}

        return await _told(values())


async def _told(answer: Any) -> JSONResponse:
    """An answer, or what is wrong with the request in Meilisearch's form."""
    try:
        return JSONResponse(await answer)
    except RequestRefusedError as error:
        words = encodable(str(error))
        problem = {"message": words, "code": "invalid_search", "type": "invalid_request", "link": ""}
        return JSONResponse({**problem, "error": words, "fields": {}}, 400)


def _user(request: Request) -> str | None:
    return request.headers.get(USER_HEADER) or None


def _answered(answer: SearchAnswer, query: MeilisearchQuery, index: str) -> dict[str, Any]:
    offset, size, counted = query.pages()
    total = answer.total or 0
    out: dict[str, Any] = {
        "indexUid": index,
        # By this name InstantSearch knows which search a click belongs to.
        "hits": [{**_hit(result, query), "__queryID": answer.search_id} for result in answer.results[:size]],
        "query": query.q or "",
        "processingTimeMs": round(answer.took_ms),
    }
    if counted:
        pages = -(-total // size) if size else 0
        out |= {"hitsPerPage": size, "page": max(1, query.page or 1), "totalPages": pages, "totalHits": total}
    else:
        out |= {"limit": size, "offset": offset, "estimatedTotalHits": total}
    if query.facets is not None:
        asked = query.our_facets() if "*" in query.facets else query.facets
        out["facetDistribution"] = {name: _distribution(name, answer.facets) for name in asked}
        out["facetStats"] = _stats(answer.facets)
    return out | {"searchId": answer.search_id}


def _hit(result: ResultBody, query: MeilisearchQuery) -> dict[str, Any]:
    values = result.item.model_dump(mode="json")
    # Hierarchical menus read a level of the category's path by a name of its own.
    paths = [_SEPARATOR.join(values["category"][: end + 1]) for end in range(len(values["category"]))]
    whole = {"id": result.item_id, **values, **{f"{_LEVEL}{level}": path for level, path in enumerate(paths)}}
    wanted = query.retrieve is None or "*" in query.retrieve
    hit = whole if wanted else {name: whole[name] for name in ("id", *(query.retrieve or ())) if name in whole}
    if query.highlight:
        shown = {
            name: _marked(value, result.highlights.get(name, []), query) if isinstance(value, str) else value
            for name, value in hit.items()
        }
        hit = {**hit, "_formatted": shown}
    return hit


def _marked(text: str, spans: Sequence[tuple[int, int]], query: MeilisearchQuery) -> str:
    """A text with tags around its spans; as in Meilisearch nothing is escaped, which is the client's to do."""
    for start, end in reversed(spans):
        text = f"{text[:start]}{query.before}{text[start:end]}{query.after}{text[end:]}"
    return text


def _distribution(name: str, facets: Mapping[str, Sequence[FacetValue]]) -> dict[str, int]:
    if name.startswith(_LEVEL):
        level = name.removeprefix(_LEVEL)
        found = [one for one in facets.get("category", ()) if str(str(one.value).count(_SEPARATOR)) == level]
    elif name == "price":  # a range: its ends are in the statistics
        return {}
    else:
        found = list(facets.get(name, ()))
    return {str(one.value).lower() if isinstance(one.value, bool) else str(one.value): one.count for one in found}


def _stats(facets: Mapping[str, Sequence[FacetValue]]) -> dict[str, dict[str, float]]:
    ranges = [one.value for one in facets.get("price", ()) if isinstance(one.value, tuple)]
    return {"price": {"min": ranges[0][0], "max": ranges[-1][1]}} if ranges else {}
