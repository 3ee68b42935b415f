"""Workers as Ray's actors, on the machines of a cluster.

Plain actors over our own parts, not Ray Data's ``read_parquet → map_batches → write_parquet``: that cuts the table into
blocks as it likes and names its files by the block, so that a part of the output belongs to no part of the input and a
job that was stopped starts again from nothing. And an actor pool beside a ``repartition`` can wait for each other's
cores for ever; here an actor that finds no core is one that nobody waits for.
"""

import os
from typing import Any

from onesearch.batch.part_schedule import Event
from onesearch.batch.part_worker import PartWorker, Task
from onesearch.batch.table_parts import Part
from onesearch.common.extras import from_extra


class RayWorkers:
    """Actors, one process each.

    Args:
        task: of every worker; files and packages must be found under the same names on every machine.
        count: workers that there will be at a time.
        address: of the cluster; None for that of ``RAY_ADDRESS``, or else one on this machine for the time being.

    Raises:
        MissingExtraError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """

    def __init__(self, task: Task, count: int, address: str | None = None) -> None:
        with from_extra("ray"):
            import ray
        self._ray, self._task = ray, task
        self._started_ray = not ray.is_initialized()
        if self._started_ray:
            here: dict[str, Any] = {}
            if address is None and not os.environ.get("RAY_ADDRESS"):
                # Each worker its core, also where there are fewer: the system shares them out.
                cores = max(count * task.threads, os.cpu_count() or 1)
                here = {"num_cpus": cores, "include_dashboard": False}
                os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster of ours reports to nobody
            ray.init(address=address, log_to_driver=False, **here)
        options = {"num_cpus": task.threads, "max_restarts": 0, "max_task_retries": 0}
        self._actor = ray.remote(**options)(PartWorker)
        self._actors: dict[int, Any] = {}
        self._answers: dict[Any, int] = {}  # what is waited for, and from whom
        self._number = -1

    def start(self) -> int:
        """Start one more."""
        self._number += 1
        actor = self._actor.remote(self._task)
        self._actors[self._number] = actor
        self._answers[actor.start.remote()] = self._number
        return self._number

    def give(self, worker: int, part: Part) -> None:
        """Let a worker do a part."""
        self._answers[self._actors[worker].do.remote(part)] = worker

    def wait(self) -> Event:
        """The next thing that happens; an idle actor's death is not noticed before it gets a part."""
        (first,), _ = self._ray.wait(list(self._answers), num_returns=1)
        worker = self._answers.pop(first)
        try:
            kind, text = self._ray.get(first)
        except self._ray.exceptions.RayError as error:
            # Out of reach is as good as dead: should it still write its part, it writes the same bytes.
            self._ray.kill(self._actors.pop(worker))
            return Event(worker, "died", f" ({str(error).splitlines()[0]})")
        return Event(worker, kind, text)

    def close(self) -> None:
        """Kill all of them, and the cluster if it is ours."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()
        if self._started_ray:
            self._ray.shutdown()
