"""What a service does by itself: it follows what this and other servers store, learns from clicks, forgets what is old.

A look that fails is counted, told by the log and `/healthz`, and made again: nothing ends the following but its stop.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from datetime import timedelta

from onesearch.common.extras import from_extra
from onesearch.serving.click_learner import ClickLearner
from onesearch.serving.http_bodies import now
from onesearch.serving.live_catalogue import LiveCatalogue
from onesearch.serving.live_rules import LOOK_SECONDS, LiveRules
from onesearch.serving.service_metrics import Metrics
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.store import Store, StoreError

with from_extra("serve"):
    from fastapi.concurrency import run_in_threadpool

log = logging.getLogger("onesearch.serving")
_FORGET_SECONDS = 3600.0


class StoreFollower:
    """Tasks that look at the store, each again and again.

    Args:
        store: what is followed, and forgets.
        catalogue: follows item changes.
        rules: follows rules.
        learner: follows clicks, if the settings say so.
        metrics: count failures.
        config: how often to look, and how long the store remembers.
    """

    def __init__(
        self,
        store: Store,
        catalogue: LiveCatalogue,
        rules: LiveRules,
        learner: ClickLearner,
        metrics: Metrics,
        config: ServingSettings,
    ) -> None:
        self._store, self._catalogue, self._rules, self._learner = store, catalogue, rules, learner
        self._metrics, self._config = metrics, config
        self._tasks: list[asyncio.Task[None]] = []

    def follow_items(self) -> None:
        """Apply item changes."""
        self._looked("item_changes", self._catalogue.follow, "item changes could not be applied")

    async def start(self) -> None:
        """Follow rules and clicks, and go on with these and item changes."""
        await run_in_threadpool(self._follow_rules)
        self._tasks = [asyncio.create_task(task) for task in (self._keep_following(), self._keep_following_rules())]
        if self._config.learn_seconds:
            await run_in_threadpool(self._learn)
            self._tasks.append(asyncio.create_task(self._keep_learning()))

    def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()

    def _looked(self, call: str, action: Callable[[], object], failed: str) -> None:
        """One look; whatever goes wrong, the next one comes."""
        try:
            self._metrics.of_store(call, action)
        except StoreError:
            pass  # counted; the next look catches up
        except Exception:  # a change that cannot be read, say: `/healthz` tells, and what comes later is still followed
            log.exception(failed)

    def _follow_rules(self) -> None:
        self._looked("rules", self._rules.follow, "rules could not be followed")

    def _learn(self) -> None:
        self._looked("clicks", self._learner.learn, "clicks could not be counted")

    def _forget(self) -> None:
        days = self._config.keep_days
        self._looked(
            "forget", lambda: self._store.forget(now() - timedelta(days=days)), "what is old could not be forgotten"
        )

    async def _keep_following(self) -> None:
        forgotten = -math.inf
        while True:
            if time.monotonic() - forgotten > _FORGET_SECONDS:
                await run_in_threadpool(self._forget)
                forgotten = time.monotonic()
            await asyncio.sleep(self._config.follow_seconds)
            await run_in_threadpool(self.follow_items)

    async def _keep_following_rules(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_SECONDS, self._config.follow_seconds))
            await run_in_threadpool(self._follow_rules)

    async def _keep_learning(self) -> None:
        while True:
            await asyncio.sleep(self._config.learn_seconds)
            await run_in_threadpool(self._learn)
