"""The small interface that every backbone offers, and the incremental decoding that all of them share.

A backbone maps embeddings to hidden states; token embeddings and output heads belong to the caller. The prompt's keys
and values are computed once in :meth:`Backbone.encode` and then shared by every target of the prompt: by all its
training targets and by all its beams, without a copy per target or beam.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from onesearch.common.settings import Settings

_T = TypeVar("_T")


class BackboneSettings(Settings):
    """Which transformer, how large. Sizes are ignored with ``pretrained``, and both with ``architecture``."""

    kind: Literal["bart", "gpt2", "qwen3"] = Field("bart", description="encoder-decoder, or one of two decoders")
    d_model: int = Field(256, ge=8, description="width d of the hidden states")
    heads: int = Field(4, ge=1, description="attention heads")
    kv_heads: int | None = Field(None, ge=1, description="key/value heads (qwen3 only; none: half of the heads)")
    encoder_layers: int = Field(3, ge=1, description="encoder layers (bart only)")
    decoder_layers: int = Field(3, ge=1, description="decoder layers; all layers of gpt2 and qwen3")
    ffn: int | None = Field(None, ge=1, description="width of the feed-forward layers (none: 4 d)")
    dropout: float = Field(0.1, ge=0.0, lt=1.0, description="in training")
    max_positions: int = Field(1024, ge=8, description="longest prompt or target, in tokens")
    pretrained: str | None = Field(None, description="name or path of pretrained weights, e.g. facebook/bart-base")
    architecture: dict[str, Any] | None = Field(
        None, description="a full transformers configuration; saved with a model so that loading needs no hub"
    )

    @model_validator(mode="after")
    def _check_heads(self) -> "BackboneSettings":
        if self.d_model % self.heads:
            raise ValueError(f"d_model {self.d_model} is not divisible by heads {self.heads}")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} is not divisible by kv_heads {self.kv_heads}")
        return self

    @model_validator(mode="after")
    def _check_family(self) -> "BackboneSettings":
        # A folder can be asked at once; a name is asked where it is fetched, stages later.
        if self.pretrained is not None and self.architecture is None and Path(self.pretrained).is_dir():
            check_family(self.kind, self.pretrained)
        return self


def check_family(kind: str, pretrained: str) -> None:
    """Whether pretrained weights, by name or path, fill the layers of a kind of backbone.

    Raises:
        ValueError: they are of another family: transformers would only warn and leave the layers at random.
    """
    from transformers import PretrainedConfig

    family = PretrainedConfig.get_config_dict(pretrained)[0].get("model_type")
    if family != kind:
        raise ValueError(
            f"{pretrained!r} is a model of the family {family!r}, but kind is {kind!r}; set kind to its "
            "family (bart, gpt2 or qwen3), or name another model"
        )


@dataclass
class PromptMemory:
    """What one pass over the prompts leaves for the decoder: the keys and values that all targets of a prompt share.

    Shapes: ``keys`` and ``values`` one [B, H_kv, S, h] per decoder layer; ``mask`` bool [B, S], true at real tokens.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    bias: Tensor | None = field(init=False)
    lengths: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.lengths = self.mask.sum(1)
        self.bias = mask_bias(self.mask, self.keys[0].dtype)

    def __len__(self) -> int:
        return len(self.mask)

    @classmethod
    def concatenate(cls, memories: Sequence["PromptMemory"]) -> "PromptMemory":
        """Several batches as one, padded to the longest prompt."""
        # keys and values are padded along the tokens, [B, H_kv, S, h]
        width = max(memory.mask.shape[1] for memory in memories)

        def together(parts: Sequence[Tensor]) -> Tensor:
            return torch.cat([functional.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts])

        masks = [functional.pad(memory.mask, (0, width - memory.mask.shape[1])) for memory in memories]
        return cls(
            tuple(together(layer) for layer in zip(*(memory.keys for memory in memories), strict=True)),
            tuple(together(layer) for layer in zip(*(memory.values for memory in memories), strict=True)),
            torch.cat(masks),
        )


def mask_bias(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """Additive attention mask [B, 1, 1, S] of a bool mask [B, S]; None where every token is real."""
    if bool(mask.all()):
        return None
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    # Half of the lowest number: adding scores to it cannot overflow.
    return bias.masked_fill_(~mask, torch.finfo(dtype).min / 2)[:, None, None, :]


@dataclass
class DecodeState:
    """Keys and values of the tokens decoded so far; one per search.

    ``keys_values[s]`` [B * A_s, layers, 2, H_kv, h] belongs to the A_s beams alive at position ``s``;
    ``ancestors[s]`` int64 [B, A] tells which of them each of the latest beams descends from. Beams that die are dropped
    by index only. ``weights`` may hold what a backbone prepares once per search.
    """

    memory: PromptMemory
    keys_values: list[Tensor] = field(default_factory=list)
    ancestors: list[Tensor] = field(default_factory=list)
    weights: Any = None

    def extend(self, width: int, parents: Tensor | None, layers: int, heads: int, head_dim: int) -> Tensor:
        """The cache for one more token, [t + 1, B * A, layers, 2, H_kv, h]: its first t positions gathered by ancestor,
        the last one for the caller to write.
        """
        batch, like = len(self.memory), self.memory.keys[0]
        device = like.device
        t = len(self.keys_values)
        cache = torch.empty(t + 1, batch * width, layers, 2, heads, head_dim, dtype=like.dtype, device=device)
        if t:
            if parents is None:
                # Without parents every beam continues itself; the one begin token continues in every beam.
                before = len(self.keys_values[-1]) // batch
                if before not in (1, width):
                    raise ValueError(f"parents are needed to go from {before} to {width} beams")
                own = torch.arange(width, device=device) if before == width else torch.zeros(width, dtype=torch.long)
                parents = own.to(device).expand(batch, width)
            # who each beam descends from, position by position: parents of parents, then the parents themselves
            self.ancestors = [ancestor.gather(1, parents) for ancestor in self.ancestors] + [parents]
            # beams of all prompts lie in one axis: the number within the prompt plus the prompt's offset
            request = torch.arange(batch, device=device).unsqueeze(1)
            for s, (kv, ancestor) in enumerate(zip(self.keys_values, self.ancestors, strict=True)):
                flat = (ancestor + request * (len(kv) // batch)).flatten()
                torch.index_select(kv, 0, flat, out=cache[s])
        self.keys_values.append(cache[t])
        return cache


def _inside(layer: nn.Module, run: Callable[..., _T], *inputs: Any) -> _T:
    """Nothing is around a layer."""
    return run(layer, *inputs)


class Backbone(nn.Module, ABC):
    """Embeddings in, hidden states out.

    Attributes:
        config: what built it, ``architecture`` filled in: building from it again needs no hub and no file.
        d_model: width d of embeddings and hidden states.
        pretrained_embedding: [V, d] the pretrained weights' token embeddings, for the caller to start from, or None.
        recompute: layers keep their inputs alone and are computed again in the backward pass: less memory, more time,
            the same gradients.
        inside: ``(layer, run, *inputs)`` → ``run(layer, *inputs)``, inside of whatever must be around a layer while it
            computes in training: gathering its weights, where processes hold parts of them.
    """

    config: BackboneSettings
    d_model: int
    pretrained_embedding: Tensor | None = None
    recompute: bool = False
    inside: Callable[..., Any] = staticmethod(_inside)

    def _through(self, compute: Callable[..., _T], layer: nn.Module, *inputs: Any) -> _T:
        """What one layer makes of its inputs; with ``recompute`` without keeping what lies between."""
        again = self.recompute and torch.is_grad_enabled()
        run = partial(checkpoint, compute, use_reentrant=False) if again else compute
        made: _T = self.inside(layer, run, *inputs)
        return made

    def separate_layers(self) -> Sequence[nn.Module]:
        """The layers whose weights nothing but :meth:`encode`, :meth:`decode` and :meth:`step` reads, one at a time."""
        return []

    def forget(self) -> None:
        """Let go of what was derived from the weights, whose memory it may share; it is made anew when it is needed."""

    @property
    @abstractmethod
    def memory_width(self) -> int:
        """Width of a token's values in :class:`PromptMemory`: heads times their width."""

    @abstractmethod
    def encode(self, embeds: Tensor, mask: Tensor) -> PromptMemory:
        """Read prompts: ``embeds`` [B, S, d], ``mask`` bool [B, S], true at real tokens, padding on the right."""

    @abstractmethod
    def decode(self, memory: PromptMemory, embeds: Tensor, owner: Tensor) -> Tensor:
        """Teacher forcing: targets [M, T, d], each reading prompt ``owner`` [M]; causal; hidden states [M, T, d]."""

    def start(self, memory: PromptMemory, width: int) -> DecodeState:
        """Begin incremental decoding of at most ``width`` beams per prompt."""
        if width < 1:
            raise ValueError(f"width must be >= 1, got {width}")
        return DecodeState(memory)

    @abstractmethod
    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """One token for every beam, no gradients: embeds [B, A, d] to hidden states [B, A, d].

        ``parents`` int64 [B, A] numbers, among the beams of the last step, the one that each beam continues; None
        where beams continue themselves or the single first token. A may differ from step to step.
        """
