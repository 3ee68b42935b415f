"""Settings and outcome of a training run."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.training.optimizer import Schedule
from onesearch.training.precision import Precision


class LoopSettings(Settings):
    """How to train; what to train on comes with the batches."""

    learning_rate: float = Field(5e-4, gt=0, description="peak learning rate of AdamW")
    learning_rates: dict[str, float] = Field(
        default_factory=dict, description="parameter name prefix → multiple of learning_rate; the longest prefix counts"
    )
    weight_decay: float = Field(0.01, ge=0, description="of matrices; vectors, norms and embeddings have none")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    schedule: Schedule = Field("linear", description="linear or cosine fall after the warm-up, or constant")
    floor: float = Field(0.0, ge=0, le=1, description="share of the peak learning rate left at the end")
    clip_norm: float = Field(1.0, ge=0, description="largest gradient norm; 0 switches clipping off")
    accumulate: int = Field(1, ge=1, description="batches per optimizer step")
    average: float = Field(0.0, ge=0, lt=1, description="decay of averaged weights, e.g. 0.999; 0 = off")
    precision: Precision = Field("auto", description="bf16 where the hardware multiplies it, or always / never")
    prefetch: int = Field(2, ge=0, description="batches made ahead in another thread")
    curves: bool = Field(True, description="draw curves.png at the end")
    log_steps: int = Field(20, ge=1, description="steps averaged into one line of the log")
    checkpoint_steps: int = Field(0, ge=0, description="steps between checkpoints; 0 = by time only")
    checkpoint_seconds: float = Field(60.0, ge=0, description="seconds between checkpoints; 0 = by steps only")
    validate_steps: int = Field(0, ge=0, description="steps between validations; 0 = only at the end")
    best: str = Field("", description="validation figure whose highest value chooses the weights; '' = the last ones")

    recompute: bool = Field(
        False, description="the backbone's layers are computed again in the backward pass: less memory, more time"
    )

    shard: bool = Field(
        False, description="each of several processes holds a part of weights, gradients and moments alone (FSDP)"
    )

    def marking(self) -> dict[str, Any]:
        """Without what changes no weight, so that a training goes on after it was changed: say, out of memory."""
        return {name: value for name, value in super().marking().items() if name not in ("recompute", "shard")}

    def decisive(self) -> dict[str, Any]:
        """The settings that change the resulting weights."""
        ways = {"curves", "log_steps", "checkpoint_steps", "checkpoint_seconds", "prefetch", "recompute", "shard"}
        return self.model_dump(exclude=ways, mode="json")


class PreferenceLoopSettings(LoopSettings):
    """The loop of preference alignment: small steps, and validation HR@10 decides which weights are kept."""

    learning_rate: float = Field(1e-4, gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the learning rate rises")
    validate_steps: int = Field(25, ge=0, description="steps between validations; 0 = only at the end")
    best: str = Field("hr10", description="validation figure whose highest value chooses the weights; '' = the last")
    shard: Literal[False] = Field(False, description="rollouts and references need the whole model in each process")


@dataclass(frozen=True)
class FitReport:
    """How a training run went.

    ``metrics`` are the figures of the weights the model ended with; ``shares`` the samples that each process trained
    on, which add up to ``samples``; ``start_mib`` what the first process held in memory before its first step.
    """

    steps: int
    samples: int
    seconds: float
    samples_per_second: float
    loss: float
    precision: str
    metrics: dict[str, float] = field(default_factory=dict)
    chosen_step: int = 0
    shares: list[int] = field(default_factory=list)
    start_mib: float = 0.0
