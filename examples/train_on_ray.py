"""Train a run on a Ray cluster: Ray Train starts a process for each GPU, and starts all of them again when one dies.

    python examples/train_on_ray.py configs/demo.yaml runs/demo 2                  # two processes on CPUs
    python examples/train_on_ray.py configs/paper.yaml /shared/runs/paper 8 gpu    # eight GPUs of a cluster

Each process runs ``onesearch run`` as under torchrun, with a part of each batch; after a failure they go on from the
last checkpoint. All machines must have onesearch (extra ``train``), ``ray[train]``, and the same folders. The cluster
is the one that RAY_ADDRESS names, else this machine.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed


def work(job: dict[str, Any]) -> None:
    """What each of Ray's workers does: its process of the training, to the end."""
    from ray import train

    # The group that Ray has made tells the port of another one, which is the training's own.
    context, port = train.get_context(), torch.zeros(1, dtype=torch.int64)
    if context.get_world_rank() == 0:
        with socket.socket() as free:
            free.bind(("", 0))
            port[0] = free.getsockname()[1]
    distributed.broadcast(port, 0)
    place = {
        "RANK": context.get_world_rank(),
        "LOCAL_RANK": context.get_local_rank(),
        "WORLD_SIZE": context.get_world_size(),
        "MASTER_PORT": int(port),  # MASTER_ADDR is there already
    }
    environment = {**os.environ, **{name: str(value) for name, value in place.items()}}
    subprocess.run([sys.executable, "-m", "onesearch", "run", *job["arguments"]], env=environment, check=True)


def main(config: str, run: str, workers: int = 1, device: str = "cpu", *more: str) -> None:
    """Train ``config`` into ``run``; ``more`` are further arguments of ``onesearch run``."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    arguments = [str(Path(config).resolve()), "--out", str(Path(run).resolve()), *more]
    TorchTrainer(
        work,
        train_loop_config={"arguments": arguments},
        torch_config=TorchConfig(backend="gloo"),  # of Ray's own group; the training takes NCCL on GPUs
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=device == "gpu"),
        run_config=RunConfig(
            name=f"{Path(run).name}-ray",
            storage_path=str(Path(run).resolve().parent),
            failure_config=FailureConfig(max_failures=3),
        ),
    ).fit()


if __name__ == "__main__":
    asked, made, count, *others = sys.argv[1:]
    main(asked, made, int(count), *others)
