"""What the commands that several workers do share: how many, of which engine, where."""

from enum import StrEnum
from typing import Annotated

import typer


class EngineName(StrEnum):
    """Who does the work."""

    local = "local"
    ray = "ray"


WorkerCount = Annotated[int, typer.Option("--workers", min=1, help="Workers, each of them a process with one core.")]
Engine = Annotated[
    EngineName, typer.Option("--engine", help="local: processes of this machine; ray: a cluster (extra `ray`).")
]
Address = Annotated[
    str | None,
    typer.Option(help="Of the cluster, as ray://HOST:10001 or auto; default: RAY_ADDRESS, else one on this machine."),
]


def refuse_lone_address(address: str | None, engine: EngineName) -> None:
    """Look whether an address has a cluster to belong to.

    Raises:
        ValueError: it has not.
    """
    if address is not None and engine != EngineName.ray:
        raise ValueError("--address names a cluster of Ray: give --engine ray as well")
