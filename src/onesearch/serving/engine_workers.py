"""The threads that ask the engine: each kind of ranking has its own, with a queue of searches before them."""

import asyncio
import math
from collections.abc import Sequence

from onesearch.search.results import SearchRequest, SearchResults
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.turns import Turns
from onesearch.serving.worker_threads import Answer, SaturatedError, Workers


class RequestRefusedError(ValueError):
    """The engine does not accept a request, such as a filter it does not know; the message is for the caller."""


class EngineWorkers:
    """Answers searches by ``onesearch`` and by ``bm25``; `start` before use, `close` after.

    Args:
        engine: what searches.
        config: threads, batches, queues and the time that a search may take.
        metrics: of each search.
        turns: what a batch of searches waits for, and holds until it is done.

    Attributes:
        by_method: the threads of each kind of ranking; none before the start.
    """

    def __init__(self, engine: Engine, config: ServingSettings, metrics: Metrics, turns: Turns) -> None:
        self._engine, self._config, self._metrics, self._turns = engine, config, metrics, turns
        self.by_method: dict[str, Workers[SearchRequest, SearchResults]] = {}
        self._pace = math.inf  # searches that are answered in a second while the engine is at work

    def start(self) -> None:
        """Start the threads."""
        c = self._config
        # BM25 has a thread of its own, so that the plain ranking on the page never waits for the model.
        self.by_method = {
            "onesearch": Workers(
                self._engine.search_batch, c.threads, c.max_batch, c.max_queue, "search", self._turns.search
            ),
            "bm25": Workers(self._lexical, 1, c.max_batch, c.max_queue, "bm25", self._turns.search),
        }

    def close(self) -> None:
        """Refuse new searches, cancel waiting ones and let running ones end."""
        for workers in self.by_method.values():
            workers.close()

    @property
    def alive(self) -> bool:
        """Whether searches are answered."""
        return bool(self.by_method) and all(workers.alive for workers in self.by_method.values())

    @property
    def waiting(self) -> int:
        """Searches in the queues now."""
        return sum(workers.waiting for workers in self.by_method.values())

    @property
    def most_at_work(self) -> int:
        """How many searches to take on at a time.

        They fill the queue and the batches before it, but no more are taken on than the engine answers in half of the
        time that a search may take: later ones would be given up while they wait, and some be searched for nobody.
        """
        c = self._config
        in_time = max(2.0 * c.threads, self._pace * c.timeout_seconds / 2)
        return int(min(c.max_queue + c.threads * c.max_batch, in_time))

    def problems(self) -> list[str]:
        """Why some searches are not answered."""
        return [
            f"search: a {name} worker has died; restart the service"
            for name, workers in self.by_method.items()
            if not workers.alive
        ]

    async def answer(self, method: str, request: SearchRequest) -> Answer[SearchResults]:
        """What a worker answers, together with other searches that wait.

        Raises:
            SaturatedError: too many searches wait, or this one waited too long.
            RequestRefusedError: the engine does not accept the request.
        """
        try:
            future = asyncio.wrap_future(self.by_method[method].submit(request))
            answer = await asyncio.wait_for(future, self._config.timeout_seconds)
        except TimeoutError as error:  # the job is cancelled with its future, if no worker has it yet
            self._metrics.refused.inc()
            raise SaturatedError(f"no answer within {self._config.timeout_seconds:g} seconds") from error
        except SaturatedError:
            self._metrics.refused.inc()
            raise
        except ValueError as error:  # the engine's word for "the request is wrong"
            raise RequestRefusedError(str(error)) from error
        if method == "onesearch":
            # A mean of about the last ten answers; it begins with the first.
            pace = self._config.threads * answer.batch / max(answer.seconds, 1e-6)
            self._pace = pace if math.isinf(self._pace) else 0.9 * self._pace + 0.1 * pace
        self._metrics.search_seconds.labels(method).observe(answer.seconds)
        self._metrics.batch.observe(answer.batch)
        return answer

    def _lexical(self, requests: Sequence[SearchRequest]) -> list[SearchResults]:
        ranked = [
            self._engine.search_lexical(one.query, one.offset + one.k, one.filters, one.groups, one.rules)
            for one in requests
        ]
        return [SearchResults(hits[one.offset :]) for one, hits in zip(requests, ranked, strict=True)]
