"""What `GET /metrics` tells Prometheus."""

import logging
from collections.abc import Callable
from typing import TypeVar

from onesearch.common.extras import from_extra
from onesearch.serving.store import StoreError

with from_extra("serve"):
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

log = logging.getLogger("onesearch.serving")
_T = TypeVar("_T")
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """All measurements of one service, in a registry of its own so that several can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        ProcessCollector(registry=r)  # processor time, memory, open files
        # HTTP: every answer.
        self.requests = Counter(
            "onesearch_http_requests_total", "Answers by route and status", ["route", "method", "status"], registry=r
        )
        self.request_seconds = Histogram(
            "onesearch_http_request_seconds", "From arrival to answer", ["route"], buckets=_SECONDS, registry=r
        )
        # Searches: the engine, the queue before it, what came of it.
        self.search_seconds = Histogram(
            "onesearch_search_seconds", "Inside the engine, per batch", ["method"], buckets=_SECONDS, registry=r
        )
        self.batch = Histogram(
            "onesearch_search_batch_size", "Searches answered together", buckets=(1, 2, 4, 8, 16, 32), registry=r
        )
        self.waiting = Gauge("onesearch_search_queue_length", "Searches waiting", registry=r)
        self.refused = Counter("onesearch_searches_refused_total", "Searches refused: saturated or late", registry=r)
        self.empty = Counter("onesearch_searches_empty_total", "Searches without a result", ["method"], registry=r)
        self.explored = Counter("onesearch_results_explored_total", "Results that a draw put on a page", registry=r)
        # What is remembered, and where that failed.
        self.events = Counter("onesearch_events_total", "Events recorded", ["kind"], registry=r)
        self.repeated = Counter("onesearch_events_repeated_total", "Events that were known already", registry=r)
        self.users_deleted = Counter("onesearch_users_deleted_total", "Shoppers deleted on demand", registry=r)
        self.changes = Counter("onesearch_item_changes_total", "Items changed in the index", ["change"], registry=r)
        self.pictures = Counter(
            "onesearch_pictures_total",
            "Pictures of changed items: read, or why they were refused",
            ["outcome"],
            registry=r,
        )
        self.without_picture = Counter(
            "onesearch_items_without_picture_total",
            "Changed items with pictures of which none could be read: found by their text alone",
            registry=r,
        )
        self.items = Gauge("onesearch_items", "Searchable items", registry=r)
        self.store_failures = Counter("onesearch_store_failures_total", "Store calls that failed", ["call"], registry=r)
        self.degraded = Counter("onesearch_degraded_total", "Answers that lack a part", ["part"], registry=r)
        # Thoughts about what is searched.
        self.thought_searches = Counter(
            "onesearch_thought_searches_total",
            "Searches whose query has keywords, no_keywords, none yet, or is unknown: the cache was down too long",
            ["state"],
            registry=r,
        )
        self.thought_states = Counter(
            "onesearch_searches_by_thought_total",
            "Recorded searches by what was known of their query then: distilled into the served model, cached,"
            " no_keywords found, queued, none yet, or unknown: the cache was slower than the engine",
            ["state"],
            registry=r,
        )
        self.thoughts_queued = Counter(
            "onesearch_thoughts_queued_total", "Queries put into the queue of thoughts", registry=r
        )
        self.thought_queue = Gauge(
            "onesearch_thought_queue", "Queries waiting, in_work, and set_aside for good", ["state"], registry=r
        )
        self.thought_failures = Counter(
            "onesearch_thought_failures_total", "Looks into the cache of thoughts that failed", registry=r
        )

    def of_store(self, call: str, action: Callable[[], _T]) -> _T:
        """A call of the store; a failure is counted and logged, with no more than the error's own words.

        Raises:
            StoreError: what the call raised.
        """
        try:
            return action()
        except StoreError as error:
            self.store_failures.labels(call).inc()
            log.warning("%s", error)
            raise

    def text(self) -> bytes:
        """The measurements in Prometheus' text format."""
        return generate_latest(self.registry)
