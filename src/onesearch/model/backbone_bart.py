"""BART encoder-decoder: the weights lie in transformers' modules, the forward passes here read them.

Three passes. ``encode`` reads prompts and leaves the cross-attention keys and values of every decoder layer; ``decode``
is teacher forcing over whole targets; ``step`` adds one token to every beam::

    cache = keys and values of the tokens decoded so far, gathered by ancestor       # at most a SID's length
    for each decoder layer:
        q, k, v = fused projection of x [B · A, d];  write k, v to the cache
        x = LayerNorm(x + self-attention of q over the beam's own few tokens)
        x = LayerNorm(x + cross-attention: all A beams of a prompt against its one set of keys and values)
        x = LayerNorm(x + feed-forward)

The prompt is never copied per beam: cross-attention is one product of [A, h] with [h, S] for each prompt and head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BartConfig, BartModel

from onesearch.model.attention import (
    FusedWeights,
    TargetGrid,
    attend,
    beam_attention,
    beam_self_scores,
    beam_self_values,
    dropout,
    shared_attention,
)
from onesearch.model.backbone_base import Backbone, BackboneSettings, DecodeState, PromptMemory, mask_bias


def _scratch(config: BackboneSettings) -> BartConfig:
    ffn = config.ffn or 4 * config.d_model
    return BartConfig(
        vocab_size=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
        forced_eos_token_id=None,
        d_model=config.d_model,
        dropout=config.dropout,
        max_position_embeddings=config.max_positions,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=ffn,
        decoder_ffn_dim=ffn,
    )


Affine = tuple[Tensor, Tensor]


@dataclass(slots=True)
class _LayerWeights:
    """A decoder layer's weights (matrix, bias) as ``step`` reads them: queries pre-scaled, projections fused."""

    qkv: Affine
    out: Affine
    norm_own: Affine
    cross_q: Affine
    cross_out: Affine
    norm_cross: Affine
    fc1: Affine
    fc2: Affine
    norm_last: Affine


@dataclass(slots=True)
class _Weights:
    """What inference reads instead of the modules: fused q, k, v of each encoder layer, fused cross-attention keys and
    values of all decoder layers, and the decoder layers.
    """

    encoder_qkv: list[Affine]
    memory: Affine
    decoder: list[_LayerWeights]


class BartBackbone(Backbone):
    """Post-layernorm encoder-decoder with learned positions."""

    def __init__(self, config: BackboneSettings) -> None:
        super().__init__()
        if config.architecture is not None:
            model = BartModel(BartConfig(**config.architecture))
        elif config.pretrained is not None:
            model = BartModel.from_pretrained(config.pretrained).float()  # as the rest of a generator is, in training
            scale = model.encoder.embed_tokens.embed_scale
            self.pretrained_embedding = model.shared.weight.detach().clone() * scale
        else:
            model = BartModel(_scratch(config))
        # The caller embeds tokens; without these tables no two names of the state dict share a storage.
        for part in (model.encoder, model.decoder):
            part.embed_tokens = nn.Identity()
        model.shared = nn.Identity()
        self.model = model
        self.config = config.updated(architecture=model.config.to_diff_dict())
        self.d_model = int(model.config.d_model)
        self.heads = int(model.config.decoder_attention_heads)
        self._fused: FusedWeights[_Weights] = FusedWeights(self._fuse)

    def forget(self) -> None:
        """The fused weights."""
        self._fused.forget()

    @property
    def memory_width(self) -> int:
        """As many values as the decoder is wide."""
        return self.d_model

    # -- the two passes of training ----------------------------------------------------------------------------------

    def encode(self, embeds: Tensor, mask: Tensor) -> PromptMemory:
        """Encoder pass and the cross-attention keys and values of every decoder layer."""
        # encoder layers over [B, S, d]; without gradients each reads one fused projection for q, k, v
        encoder = self.model.encoder
        x = self._enter(encoder, embeds)
        bias = mask_bias(mask, x.dtype)
        fused = None if torch.is_grad_enabled() else self._fused.current(self.model)
        for i, layer in enumerate(encoder.layers):
            x = self._through(self._encoder_layer, layer, x, bias, None if fused is None else fused.encoder_qkv[i])
        # cross-attention keys and values of every decoder layer, [B, H, S, h] each
        if fused is not None:
            every = functional.linear(x, *fused.memory).unflatten(-1, (-1, 2, self.heads, self.d_model // self.heads))
            keys_values = every.permute(2, 3, 0, 4, 1, 5).unbind(0)
            return PromptMemory(tuple(kv[0] for kv in keys_values), tuple(kv[1] for kv in keys_values), mask)
        keys, values = [], []
        for layer in self.model.decoder.layers:
            keys.append(self._split(linear(x, layer.encoder_attn.k_proj), self.heads).transpose(1, 2))
            values.append(self._split(linear(x, layer.encoder_attn.v_proj), self.heads).transpose(1, 2))
        return PromptMemory(tuple(keys), tuple(values), mask)

    def decode(self, memory: PromptMemory, embeds: Tensor, owner: Tensor) -> Tensor:
        """Teacher forcing over [M, T, d]."""
        # decoder layers over [M, T, d]; targets are grouped by prompt where they read it
        decoder = self.model.decoder
        x = self._enter(decoder, embeds)
        grid = TargetGrid(owner, len(memory))
        bias = None if memory.bias is None else grid.prompts(memory.bias)
        for i, layer in enumerate(decoder.layers):
            x = self._through(self._decoder_layer, layer, x, memory.keys[i], memory.values[i], bias, grid)
        return x

    def _encoder_layer(self, layer: Any, x: Tensor, bias: Tensor | None, qkv: Affine | None) -> Tensor:
        """One layer over prompts [B, S, d]; ``qkv`` is its fused projection, where there is one."""
        heads = layer.self_attn.num_heads
        if qkv is not None:
            q, k, v = functional.linear(x, *qkv).unflatten(-1, (3, heads, -1)).unbind(2)
        else:
            q, k, v = (self._split(linear(x, part), heads) for part in _projections(layer.self_attn))
        read = shared_attention(q, k.transpose(1, 2), v.transpose(1, 2), bias, self._p(layer.self_attn.dropout))
        x = self._add(layer, x, linear(read, layer.self_attn.out_proj), layer.self_attn_layer_norm)
        return self._feed_forward(layer, x)

    def _decoder_layer(
        self, layer: Any, x: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, grid: TargetGrid
    ) -> Tensor:
        """One layer over targets [M, T, d], which read the prompts' keys and values [B, H, S, h]."""
        m, t = x.shape[:2]
        q, k, v = (self._split(linear(x, p), self.heads).transpose(1, 2) for p in _projections(layer.self_attn))
        read = attend(q, k, v, None, self._p(layer.self_attn.dropout), causal=True)
        read = read.transpose(1, 2).reshape(m, t, -1)
        x = self._add(layer, x, linear(read, layer.self_attn.out_proj), layer.self_attn_layer_norm)
        # cross-attention: [M, T, H, h] to [B, n · T, H, h], n targets of a prompt side by side
        cross = layer.encoder_attn
        q = grid.group(self._split(linear(x, cross.q_proj), self.heads)).flatten(1, 2)
        read = shared_attention(q, grid.prompts(keys), grid.prompts(values), bias, self._p(cross.dropout))
        read = grid.ungroup(read.unflatten(1, (-1, t)))
        x = self._add(layer, x, linear(read, cross.out_proj), layer.encoder_attn_layer_norm)
        return self._feed_forward(layer, x)

    # -- incremental decoding ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """One token for every beam."""
        decoder, memory = self.model.decoder, state.memory
        batch, width = embeds.shape[:2]
        rows = batch * width  # all beams of all prompts, [B · A, d] below
        t = len(state.keys_values)
        cache = state.extend(width, parents, len(decoder.layers), self.heads, self.d_model // self.heads)
        if state.weights is None:
            state.weights = self._fused.current(self.model)
        position = decoder.embed_positions.weight[t + decoder.embed_positions.offset]
        x = norm((embeds + position).reshape(rows, -1), decoder.layernorm_embedding)
        shape, epsilon, activation = (self.d_model,), decoder.layernorm_embedding.eps, decoder.layers[0].activation_fn
        weights: _LayerWeights
        for i, weights in enumerate(state.weights.decoder):
            q, kv = functional.linear(x, *weights.qkv).split((self.d_model, 2 * self.d_model), 1)
            cache[t, :, i] = kv.view(rows, 2, self.heads, -1)
            if t:
                p = beam_self_scores(q.reshape(rows, self.heads, -1), cache[:, :, i, 0]).softmax(0)
                read = beam_self_values(p, cache[:, :, i, 1])
            else:  # a lone token reads itself
                read = kv[:, self.d_model :]
            x = functional.layer_norm(x + functional.linear(read, *weights.out), shape, *weights.norm_own, epsilon)
            # the A beams of a prompt against its keys and values
            q = functional.linear(x, *weights.cross_q).view(batch, width, self.heads, -1)
            read = beam_attention(q, memory.keys[i], memory.values[i], memory.bias).view(rows, -1)
            update = functional.linear(read, *weights.cross_out)
            x = functional.layer_norm(x + update, shape, *weights.norm_cross, epsilon)
            update = functional.linear(activation(functional.linear(x, *weights.fc1)), *weights.fc2)
            x = functional.layer_norm(x + update, shape, *weights.norm_last, epsilon)
        return x.view(batch, width, -1)

    def _fuse(self) -> _Weights:
        """Projections that read the same input as one matrix; queries carry the 1/√h of their attention."""
        layers = []
        for layer in self.model.decoder.layers:
            # 1/√h moves from the scores into the query projection
            own, cross = layer.self_attn, layer.encoder_attn
            q_own, k_own, v_own = (_affine(part) for part in _projections(own))
            layers.append(
                _LayerWeights(
                    qkv=_stack([_scaled(q_own, own.scaling), k_own, v_own]),
                    out=_affine(own.out_proj),
                    norm_own=_affine(layer.self_attn_layer_norm),
                    cross_q=_scaled(_affine(cross.q_proj), cross.scaling),
                    cross_out=_affine(cross.out_proj),
                    norm_cross=_affine(layer.encoder_attn_layer_norm),
                    fc1=_affine(layer.fc1),
                    fc2=_affine(layer.fc2),
                    norm_last=_affine(layer.final_layer_norm),
                )
            )
        encoder = [_stack([_affine(p) for p in _projections(layer.self_attn)]) for layer in self.model.encoder.layers]
        # keys and values of all decoder layers read the same encoder states: one product for all
        attentions = [layer.encoder_attn for layer in self.model.decoder.layers]
        memory = _stack([_affine(part) for each in attentions for part in (each.k_proj, each.v_proj)])
        return _Weights(encoder, memory, layers)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _p(self, rate: float) -> float:
        return rate if self.training else 0.0

    def _enter(self, half: Any, embeds: Tensor) -> Tensor:
        """Positions, layernorm and dropout before the first layer."""
        table = half.embed_positions
        length, longest = embeds.shape[1], table.weight.shape[0] - table.offset
        if length > longest:
            raise ValueError(f"{length} tokens do not fit the {longest} positions of the backbone; raise max_positions")
        x = norm(embeds + table.weight[table.offset : table.offset + length], half.layernorm_embedding)
        return dropout(x, half.dropout, self.training)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        out: Tensor = x.unflatten(-1, (heads, -1))
        return out

    def _add(self, layer: Any, x: Tensor, update: Tensor, layer_norm: nn.LayerNorm) -> Tensor:
        return norm(x + dropout(update, layer.dropout, self.training), layer_norm)

    def _feed_forward(self, layer: Any, x: Tensor) -> Tensor:
        inner = dropout(layer.activation_fn(linear(x, layer.fc1)), layer.activation_dropout, self.training)
        return self._add(layer, x, linear(inner, layer.fc2), layer.final_layer_norm)


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear module without the module call's overhead."""
    return functional.linear(x, layer.weight, layer.bias)


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Apply a layernorm module."""
    return functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _projections(attention: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attention.q_proj, attention.k_proj, attention.v_proj


def _affine(layer: nn.Linear | nn.LayerNorm) -> Affine:
    return layer.weight.detach(), layer.bias.detach()


def _scaled(part: Affine, factor: float) -> Affine:
    return part[0] * factor, part[1] * factor


def _stack(parts: list[Affine]) -> Affine:
    return torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
