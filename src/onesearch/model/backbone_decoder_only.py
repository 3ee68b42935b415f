"""Decoder-only backbones, GPT-2 and Qwen3: the prompt's keys and values are the memory that all its targets share.

A target token attends to its whole prompt and, causally, to the target's own earlier tokens, under one softmax.
Positions continue after the prompt's last real token. The outputs of the prompt's last layer are never needed, so they
are not computed.
"""

from abc import abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2Model, Qwen3Config, Qwen3Model

from onesearch.model.attention import (
    TargetGrid,
    attend,
    beam_self_scores,
    beam_self_values,
    dropout,
    group_heads,
    ungroup_heads,
)
from onesearch.model.backbone_base import Backbone, BackboneSettings, DecodeState, PromptMemory

Heads = tuple[Tensor, Tensor, Tensor]


class DecoderOnlyBackbone(Backbone):
    """The passes both share; subclasses say how a layer projects, normalises and counts positions."""

    heads: int
    kv_heads: int
    head_dim: int
    attention_dropout: float
    layers: list[nn.Module]

    @abstractmethod
    def _enter(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """Before the first layer: embeds [..., T, d], positions int64 broadcastable to [..., T]."""

    @abstractmethod
    def _project(self, layer: nn.Module, x: Tensor, positions: Tensor) -> Heads:
        """Normalise [..., d] and project to scaled queries [..., H, h], keys and values [..., H_kv, h]."""

    @abstractmethod
    def _merge(self, layer: nn.Module, x: Tensor, read: Tensor) -> Tensor:
        """Add what attention read, [..., H * h], then the feed-forward part."""

    @abstractmethod
    def _leave(self, x: Tensor) -> Tensor:
        """After the last layer."""

    def separate_layers(self) -> list[nn.Module]:
        """All of them: prompts and targets go through the same layers."""
        return self.layers

    @property
    def memory_width(self) -> int:
        """Values of the key-value heads."""
        return self.kv_heads * self.head_dim

    def encode(self, embeds: Tensor, mask: Tensor) -> PromptMemory:
        """Keys and values of every layer over the prompt; padding on the right, so causality alone hides it."""
        # causal self-attention over the prompts, [B, S, d]; the last layer's outputs are not needed
        batch, length = embeds.shape[:2]
        positions = torch.arange(length, device=embeds.device).expand(batch, length)
        x = self._enter(embeds, positions)
        keys, values = [], []
        for i, layer in enumerate(self.layers):
            last = i + 1 == len(self.layers)
            k, v, x = self._through(self._prompt_layer, layer, x, positions, last)
            keys.append(k)
            values.append(v)
        return PromptMemory(tuple(keys), tuple(values), mask)

    def decode(self, memory: PromptMemory, embeds: Tensor, owner: Tensor) -> Tensor:
        """Teacher forcing over [M, T, d]."""
        # positions continue behind the last real token of each target's prompt
        t = embeds.shape[1]
        positions = memory.lengths[owner].unsqueeze(1) + torch.arange(t, device=embeds.device)
        x = self._enter(embeds, positions)
        grid = TargetGrid(owner, len(memory))
        bias = None if memory.bias is None else grid.prompts(memory.bias)
        # One row per token and query head of a group, as group_heads lays them out.
        token = torch.arange(t, device=x.device).repeat_interleave(self.heads // self.kv_heads)
        later = token.unsqueeze(1) < torch.arange(t, device=x.device)
        for i, layer in enumerate(self.layers):
            heads = (memory.keys[i], memory.values[i])
            x = self._through(self._target_layer, layer, x, positions, heads, bias, grid, token, later)
        return self._leave(x)

    def _prompt_layer(self, layer: nn.Module, x: Tensor, positions: Tensor, last: bool) -> Heads:
        """Keys and values [B, H_kv, S, h] of one layer over prompts [B, S, d], and what the next layer reads."""
        q, k, v = self._project(layer, x, positions)
        k, v = k.transpose(1, 2), v.transpose(1, 2)
        if not last:
            read = attend(q.transpose(1, 2), self._repeat(k), self._repeat(v), None, self._p, causal=True, scale=1.0)
            x = self._merge(layer, x, read.transpose(1, 2).flatten(2))
        return k, v, x

    def _target_layer(
        self,
        layer: nn.Module,
        x: Tensor,
        positions: Tensor,
        prompts: tuple[Tensor, Tensor],
        bias: Tensor | None,
        grid: TargetGrid,
        token: Tensor,
        later: Tensor,
    ) -> Tensor:
        """One layer over targets [M, T, d], which read the prompts' keys and values [B, H_kv, S, h] and their own.

        ``token`` int64 [T · G] is the token of each row that :func:`group_heads` makes, ``later`` bool [T · G, T] what
        it must not read.
        """
        t = x.shape[1]
        # scores against the prompt, n targets of a prompt side by side: [M, H_kv, T · G, S]
        q, k, v = self._project(layer, x, positions)
        prompt_k, prompt_v = (grid.prompts(part) for part in prompts)
        prompt = torch.matmul(group_heads(grid.group(q).flatten(1, 2), self.kv_heads), prompt_k.transpose(2, 3))
        prompt = prompt if bias is None else prompt + bias
        n, s = prompt.shape[2] // len(token), prompt.shape[3]
        prompt = grid.ungroup(prompt.unflatten(2, (n, -1)).transpose(1, 2))
        # scores against the target's own earlier tokens, [M, H_kv, T · G, T], under the same softmax
        own = torch.matmul(group_heads(q, self.kv_heads), k.transpose(1, 2).transpose(2, 3))
        p = torch.cat([prompt, own.masked_fill(later, float("-inf"))], -1).softmax(-1)
        p = dropout(p, self.attention_dropout, self.training)
        # both parts of the weights read their values
        grouped = grid.group(p[..., :s]).transpose(1, 2).flatten(2, 3)
        read = grid.ungroup(ungroup_heads(torch.matmul(grouped, prompt_v), n * t).unflatten(1, (n, t)))
        read = read + ungroup_heads(torch.matmul(p[..., s:], v.transpose(1, 2)), t)
        return self._merge(layer, x, read)

    @torch.no_grad()
    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """One token for every beam."""
        # as `decode`, a single token for each of the A beams of B prompts
        memory = state.memory
        batch, width = embeds.shape[:2]
        rows, t = batch * width, len(state.keys_values)
        cache = state.extend(width, parents, len(self.layers), self.kv_heads, self.head_dim)
        positions = (memory.lengths + t).unsqueeze(1).expand(batch, width)
        x = self._enter(embeds, positions)
        for i, layer in enumerate(self.layers):
            q, k, v = self._project(layer, x, positions)
            cache[t, :, i, 0] = k.flatten(0, 1)
            cache[t, :, i, 1] = v.flatten(0, 1)
            # scores against the prompt [B, H_kv, A · G, S] and the beam's own tokens [.., t + 1], one softmax
            prompt = torch.matmul(group_heads(q, self.kv_heads), memory.keys[i].transpose(2, 3))
            prompt = prompt if memory.bias is None else prompt + memory.bias
            own = beam_self_scores(q.reshape(rows, self.heads, -1), cache[:, :, i, 0])
            own = own.unflatten(1, (batch, width)).permute(1, 3, 2, 4, 0).flatten(2, 3)
            p = torch.cat([prompt, own], -1).softmax(-1)
            s = prompt.shape[3]
            read = ungroup_heads(torch.matmul(p[..., :s], memory.values[i]), width)
            own = p[..., s:].unflatten(2, (width, -1)).permute(4, 0, 2, 1, 3).flatten(1, 2)
            read = read + beam_self_values(own, cache[:, :, i, 1]).view(batch, width, -1)
            x = self._merge(layer, x, read)
        return self._leave(x)

    @property
    def _p(self) -> float:
        return self.attention_dropout if self.training else 0.0

    def _repeat(self, x: Tensor) -> Tensor:
        groups = self.heads // self.kv_heads
        return x if groups == 1 else x.repeat_interleave(groups, 1)


class GPT2Backbone(DecoderOnlyBackbone):
    """Pre-layernorm, learned positions, fused query/key/value projection."""

    def __init__(self, config: BackboneSettings) -> None:
        super().__init__()
        model = cast(Any, _model(config, GPT2Model, GPT2Config, _gpt2))
        if config.pretrained is not None and config.architecture is None:
            self.pretrained_embedding = model.wte.weight.detach().clone()
        model.wte = nn.Identity()
        self.model = model
        self.config = config.updated(architecture=model.config.to_diff_dict())
        self.d_model = int(model.config.hidden_size)
        self.heads = self.kv_heads = int(model.config.num_attention_heads)
        self.head_dim = self.d_model // self.heads
        self.attention_dropout = float(model.config.attn_pdrop)
        self.layers = list(model.h)

    def _enter(self, embeds: Tensor, positions: Tensor) -> Tensor:
        table = self.model.wpe.weight
        if positions.numel() and int(positions.max()) >= len(table):
            raise ValueError(f"prompt and target do not fit the {len(table)} positions of the backbone")
        return dropout(embeds + functional.embedding(positions, table), self.model.drop.p, self.training)

    def _project(self, layer: nn.Module, x: Tensor, positions: Tensor) -> Heads:
        attention = cast(Any, layer).attn
        # [..., d] to queries, keys and values [..., H, h] in one product
        qkv = _conv1d(cast(Any, layer).ln_1(x), attention.c_attn).unflatten(-1, (3, self.heads, self.head_dim))
        q, k, v = qkv.unbind(-3)
        return q * attention.scaling, k, v

    def _merge(self, layer: nn.Module, x: Tensor, read: Tensor) -> Tensor:
        part = cast(Any, layer)
        x = x + dropout(_conv1d(read, part.attn.c_proj), part.attn.resid_dropout.p, self.training)
        inner = part.mlp.act(_conv1d(part.ln_2(x), part.mlp.c_fc))
        out: Tensor = x + dropout(_conv1d(inner, part.mlp.c_proj), part.mlp.dropout.p, self.training)
        return out

    def _leave(self, x: Tensor) -> Tensor:
        out: Tensor = self.model.ln_f(x)
        return out


class Qwen3Backbone(DecoderOnlyBackbone):
    """Pre-RMSNorm, rotary positions, grouped queries, normalised queries and keys.

    Transformers' Qwen3 has no residual dropout; here ``dropout`` is one, since R-Drop needs two different passes.
    """

    def __init__(self, config: BackboneSettings) -> None:
        super().__init__()
        model = cast(Any, _model(config, Qwen3Model, Qwen3Config, _qwen3))
        if config.pretrained is not None and config.architecture is None:
            self.pretrained_embedding = model.embed_tokens.weight.detach().clone()
        model.embed_tokens = nn.Identity()
        if model.has_sliding_layers or model.rotary_emb.rope_type != "default":
            raise ValueError("Qwen3 models with sliding windows or scaled rotary positions are not supported")
        self.model = model
        self.config = config.updated(architecture=model.config.to_diff_dict())
        self.d_model = int(model.config.hidden_size)
        self.heads = int(model.config.num_attention_heads)
        self.kv_heads = int(model.config.num_key_value_heads)
        self.head_dim = int(model.layers[0].self_attn.head_dim)
        self.attention_dropout = float(model.config.attention_dropout)
        self.layers = list(model.layers)
        self._theta = float(model.config.rope_parameters["rope_theta"])

    def _enter(self, embeds: Tensor, positions: Tensor) -> Tensor:
        return embeds

    def _project(self, layer: nn.Module, x: Tensor, positions: Tensor) -> Heads:
        attention = cast(Any, layer).self_attn
        x = rms_norm(x, cast(Any, layer).input_layernorm)
        # queries and keys are normalised per head before they are rotated
        q = rms_norm(attention.q_proj(x).unflatten(-1, (self.heads, self.head_dim)), attention.q_norm)
        k = rms_norm(attention.k_proj(x).unflatten(-1, (self.kv_heads, self.head_dim)), attention.k_norm)
        v = attention.v_proj(x).unflatten(-1, (self.kv_heads, self.head_dim))
        cos, sin = self._angles(positions, q.dtype)
        return rotate(q, cos, sin) * attention.scaling, rotate(k, cos, sin), v

    def _angles(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines [..., 1, h] in at least float32: positions in bfloat16 would collide."""
        # rotary angle of each pair of dimensions: position / θ^(2j / h)
        steps = torch.arange(0, self.head_dim, 2, dtype=torch.float32, device=positions.device) / self.head_dim
        angles = positions.unsqueeze(-1).float() / self._theta**steps
        angles = torch.cat([angles, angles], -1).unsqueeze(-2)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def _merge(self, layer: nn.Module, x: Tensor, read: Tensor) -> Tensor:
        part = cast(Any, layer)
        x = x + dropout(part.self_attn.o_proj(read), self.config.dropout, self.training)
        inner = rms_norm(x, part.post_attention_layernorm)
        update = part.mlp.down_proj(part.mlp.act_fn(part.mlp.gate_proj(inner)) * part.mlp.up_proj(inner))
        return x + dropout(update, self.config.dropout, self.training)

    def _leave(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.model.norm)


def rms_norm(x: Tensor, layer: Any) -> Tensor:
    """Root-mean-square norm, computed in at least float32."""
    wide = x if x.dtype == torch.float64 else x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + layer.variance_epsilon)
    out: Tensor = layer.weight * wide.to(x.dtype)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on [..., H, h] with cosines and sines [..., 1, h]."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def _conv1d(x: Tensor, layer: Any) -> Tensor:
    """GPT-2's linear layer, whose weight is stored [in, out]."""
    return functional.linear(x, layer.weight.t(), layer.bias)


def _model(config: BackboneSettings, model: Any, architecture: Any, scratch: Any) -> nn.Module:
    if config.architecture is not None:
        return cast(nn.Module, model(architecture(**config.architecture)))
    if config.pretrained is not None:
        # In float32, as the rest of a generator is in training, whatever the file has.
        return cast(nn.Module, model.from_pretrained(config.pretrained).float())
    return cast(nn.Module, model(scratch(config)))


def _gpt2(config: BackboneSettings) -> GPT2Config:
    return GPT2Config(
        vocab_size=1,
        bos_token_id=0,
        eos_token_id=0,
        n_positions=config.max_positions,
        n_embd=config.d_model,
        n_layer=config.decoder_layers,
        n_head=config.heads,
        n_inner=config.ffn,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=0.0,
    )


def _qwen3(config: BackboneSettings) -> Qwen3Config:
    kv_heads = config.kv_heads or max(1, config.heads // 2)
    if config.heads % kv_heads:
        raise ValueError(f"heads {config.heads} is not divisible by kv_heads {kv_heads}; set kv_heads")
    return Qwen3Config(
        vocab_size=1,
        pad_token_id=None,
        hidden_size=config.d_model,
        head_dim=config.d_model // config.heads,
        intermediate_size=config.ffn or 4 * config.d_model,
        num_hidden_layers=config.decoder_layers,
        num_attention_heads=config.heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=config.max_positions,
    )
