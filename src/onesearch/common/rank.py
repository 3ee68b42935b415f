"""Which process of a job this is, as `torchrun` and `accelerate launch` tell it; alone without them."""

import os


def rank() -> int:
    """Number of this process, from 0; process 0 is the one that writes."""
    return int(os.environ.get("RANK", "0")) if world() > 1 else 0


def world() -> int:
    """How many processes the job has."""
    return int(os.environ.get("WORLD_SIZE", "1"))
