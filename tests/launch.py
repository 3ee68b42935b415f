"""Several processes of one job, as `torchrun` would start them, but none of them ends with the others."""

import os
import socket
import subprocess
import sys


def start(command: list[str], world: int, **more: str) -> list[subprocess.Popen]:
    """Start ``python COMMAND`` once per rank; standard output and error are one text."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = []
    for rank in range(world):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **more}
        if world > 1:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": port}
        processes.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    return processes


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[tuple[str, int]]:
    """What each process wrote, and its exit code; whatever still runs after ``seconds`` is killed, and an error."""
    try:
        return [(process.communicate(timeout=seconds)[0], process.returncode) for process in processes]
    finally:
        for process in processes:
            process.kill()


def launch(command: list[str], world: int, **more: str) -> list[tuple[str, int]]:
    """Start, and wait for all."""
    return finish(start(command, world, **more))
