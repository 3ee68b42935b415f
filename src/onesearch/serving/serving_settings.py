"""Settings of the HTTP service."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from onesearch.common.settings import Settings

_ORIGIN = re.compile(r"https?://([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:[0-9]{1,5})?")


def _origin(text: str) -> str:
    """A web server's scheme, host and port as browsers write them: nothing else may enter a header."""
    origin = text.lower().removesuffix("/")
    if not _ORIGIN.fullmatch(origin):
        raise ValueError("must be scheme and host alone, such as https://img.shop.example")
    return origin.removesuffix(":443" if origin.startswith("https") else ":80")


def _page(text: str) -> str:
    """An origin whose pages may call, or any; not "null", which pages of anybody send."""
    return text if text == "*" else _origin(text)


def _currency(code: str) -> str:
    if not re.fullmatch("[A-Z]{3}", code):
        raise ValueError("must be a currency's three capital letters in ISO 4217, such as EUR")
    return code


Origin = Annotated[str, AfterValidator(_origin)]
Page = Annotated[str, AfterValidator(_page)]
Currency = Annotated[str, AfterValidator(_currency)]


MOST_DAYS = 100_000
"""Of what is kept or asked for: so many days ago there was a calendar."""


class ServingSettings(Settings):
    """How much the service takes on at once. Limits of single requests are in `http_bodies`."""

    threads: int = Field(default=1, ge=1, description="engine calls at the same time")
    max_batch: int = Field(default=16, ge=1, description="searches answered by one engine call at most")
    max_queue: int = Field(default=64, ge=1, description="searches waiting at most; more are refused with 503")
    timeout_seconds: float = Field(default=10.0, gt=0, description="a search that waits longer is refused with 503")
    follow_seconds: float = Field(
        default=1.0, gt=0, description="how often item changes of other servers are looked for"
    )
    keep_days: float = Field(
        default=365.0, gt=0, le=MOST_DAYS, description="searches and events older than this are removed"
    )
    learn_seconds: float = Field(default=20.0, ge=0, description="how often new clicks reach the searches; 0: never")
    learn_shoppers: int = Field(
        default=2, ge=1, description="new clicks on an item for a query count once so many shoppers made them"
    )
    half_life_days: float = Field(default=14.0, gt=0, description="a click of so long ago counts half")
    examination: tuple[float, ...] = Field(
        default=(), description="P(a result is looked at) by its rank, from the first on; none given: the same for all"
    )
    explore: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="share of the places of recorded pages that are drawn from the order's odds",
    )
    thoughts_seconds: float = Field(
        default=1.0, gt=0, description="how often searched queries are looked up in the cache of thoughts"
    )
    max_body: int = Field(default=1 << 20, ge=1024, description="bytes of a request body at most")
    max_items_body: int = Field(default=8 << 20, ge=1024, description="bytes of a call of /items at most")
    max_held: int = Field(default=64 << 20, ge=1024, description="bytes of all request bodies at once; more get 503")
    body_seconds: float = Field(default=20.0, gt=0, description="a body that takes longer is refused with 408")
    head_seconds: float = Field(
        default=10.0, gt=0, description="a connection without a whole request for so long is closed"
    )
    read_seconds: float = Field(
        default=30.0, gt=0, description="a connection whose caller takes no more of an answer for so long is closed"
    )
    max_connections: int = Field(default=512, ge=1, description="open at once; more are closed after a 503")
    max_changes: int = Field(default=4, ge=1, description="changes of items at work; more are refused with 503")
    max_others: int = Field(
        default=64, ge=1, description="requests at work besides searches and changes; more are refused with 503"
    )
    stop_seconds: int = Field(default=10, ge=1, description="what is at work when the service ends has so long")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="names in the Host header that are answered, without ports; none given: all"
    )
    allowed_origins: tuple[Page, ...] = Field(
        default=(),
        description="web pages elsewhere that may call from a browser, as https://shop.example; none given: none",
    )
    page: bool = Field(
        default=True, description="serve the web page and what it needs: shoppers, their histories, filters"
    )
    image_hosts: tuple[Origin, ...] = Field(
        default=(),
        description="servers whose pictures the page shows, as https://img.shop.example; none given: no pictures",
    )
    currency: Currency | None = Field(
        default=None, description="of all prices, as the page writes them, such as EUR; null: plain numbers"
    )
