"""Settings of the HTTP service."""

from pydantic import Field

from onesearch.common.settings import Settings


class ServingSettings(Settings):
    """How much the service takes on at once. Limits of single requests are in `http_models`."""

    threads: int = Field(default=1, ge=1, description="engine calls at the same time")
    max_batch: int = Field(default=16, ge=1, description="searches answered by one engine call at most")
    max_queue: int = Field(default=64, ge=1, description="searches waiting at most; more are refused with 503")
    timeout_seconds: float = Field(default=10.0, gt=0, description="a search that waits longer is refused with 503")
    follow_seconds: float = Field(
        default=1.0, gt=0, description="how often item changes of other servers are looked for"
    )
    thoughts_seconds: float = Field(
        default=1.0, gt=0, description="how often searched queries are looked up in the cache of thoughts"
    )
    max_body: int = Field(default=1 << 20, ge=1024, description="bytes of a request body at most")
    max_items_body: int = Field(default=8 << 20, ge=1024, description="bytes of a POST /items body at most")
    page: bool = Field(
        default=True, description="serve the web page and what it needs: shoppers, their histories, filters"
    )
