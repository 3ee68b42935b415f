"""BART encoder-decoder: the weights lie in transformers' modules, the forward passes here read them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import BartConfig, BartModel

from onesearch.model.attention import Grid, beam_attention, own_mix, own_scores, shared_attention
from onesearch.model.backbone_base import Backbone, BackboneConfig, DecodeState, Memory, mask_bias
from onesearch.model.fused import Fused


def _scratch(config: BackboneConfig) -> BartConfig:
    ffn = config.ffn or 4 * config.d_model
    return BartConfig(
        vocab_size=1, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0,
        forced_eos_token_id=None, d_model=config.d_model, dropout=config.dropout,
        max_position_embeddings=config.max_positions, encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers, encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads, encoder_ffn_dim=ffn, decoder_ffn_dim=ffn,
    )  # fmt: skip


@dataclass
class _LayerWeights:
    """A decoder layer's weights as the incremental pass reads them: queries pre-scaled, projections fused."""

    qkv: tuple[Tensor, Tensor]
    cross_q: tuple[Tensor, Tensor]


class BartBackbone(Backbone):
    """Post-layernorm encoder-decoder with learned positions."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        if config.architecture is not None:
            model = BartModel(BartConfig(**config.architecture))
        elif config.pretrained is not None:
            model = BartModel.from_pretrained(config.pretrained)
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
        self._fused: Fused[list[_LayerWeights]] = Fused(self._fuse)

    # -- the two passes of training ----------------------------------------------------------------------------------

    def encode(self, embeds: Tensor, mask: Tensor) -> Memory:
        """Encoder pass and the cross-attention keys and values of every decoder layer."""
        encoder = self.model.encoder
        x = self._enter(encoder, embeds)
        bias = mask_bias(mask, x.dtype)
        for layer in encoder.layers:
            heads = layer.self_attn.num_heads
            q, k, v = (self._split(linear(x, part), heads) for part in _projections(layer.self_attn))
            read = shared_attention(q, k.transpose(1, 2), v.transpose(1, 2), bias, self._p(layer.self_attn.dropout))
            x = self._add(layer, x, linear(read, layer.self_attn.out_proj), layer.self_attn_layer_norm)
            x = self._feed_forward(layer, x)
        keys, values = [], []
        for layer in self.model.decoder.layers:
            keys.append(self._split(linear(x, layer.encoder_attn.k_proj), self.heads).transpose(1, 2))
            values.append(self._split(linear(x, layer.encoder_attn.v_proj), self.heads).transpose(1, 2))
        return Memory(tuple(keys), tuple(values), mask)

    def decode(self, memory: Memory, embeds: Tensor, owner: Tensor) -> Tensor:
        """Teacher forcing over [M, T, d]."""
        decoder = self.model.decoder
        x = self._enter(decoder, embeds)
        m, t = x.shape[:2]
        grid = Grid(owner, len(memory))
        bias = None if memory.bias is None else grid.memory(memory.bias)
        for i, layer in enumerate(decoder.layers):
            q, k, v = (self._split(linear(x, p), self.heads).transpose(1, 2) for p in _projections(layer.self_attn))
            read = functional.scaled_dot_product_attention(
                q, k, v, is_causal=True, dropout_p=self._p(layer.self_attn.dropout)
            )
            read = read.transpose(1, 2).reshape(m, t, -1)
            x = self._add(layer, x, linear(read, layer.self_attn.out_proj), layer.self_attn_layer_norm)
            cross = layer.encoder_attn
            q = grid.spread(self._split(linear(x, cross.q_proj), self.heads)).flatten(1, 2)
            read = shared_attention(q, grid.memory(memory.keys[i]), grid.memory(memory.values[i]), bias,
                                    self._p(cross.dropout))  # fmt: skip
            read = grid.collect(read.unflatten(1, (-1, t)))
            x = self._add(layer, x, linear(read, cross.out_proj), layer.encoder_attn_layer_norm)
            x = self._feed_forward(layer, x)
        return x

    # -- incremental decoding ----------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, state: DecodeState, embeds: Tensor, parents: Tensor | None) -> Tensor:
        """One token for every beam."""
        decoder, memory = self.model.decoder, state.memory
        batch, width = embeds.shape[:2]
        rows = batch * width
        t = len(state.past)
        room = state.open(width, parents, len(decoder.layers), self.heads, self.d_model // self.heads)
        position = decoder.embed_positions.weight[t + decoder.embed_positions.offset]
        x = norm((embeds + position).reshape(rows, -1), decoder.layernorm_embedding)
        for i, (layer, weights) in enumerate(zip(decoder.layers, self._fused.of(self.model), strict=True)):
            q, kv = functional.linear(x, *weights.qkv).split((self.d_model, 2 * self.d_model), 1)
            room[t, :, i] = kv.view(rows, 2, self.heads, -1)
            p = own_scores(q.reshape(rows, self.heads, -1), room[:, :, i, 0]).softmax(0)
            read = own_mix(p, room[:, :, i, 1])
            x = norm(x + linear(read, layer.self_attn.out_proj), layer.self_attn_layer_norm)
            q = functional.linear(x, *weights.cross_q).view(batch, width, self.heads, -1)
            read = beam_attention(q, memory.keys[i], memory.values[i], memory.bias).view(rows, -1)
            x = norm(x + linear(read, layer.encoder_attn.out_proj), layer.encoder_attn_layer_norm)
            x = norm(x + linear(layer.activation_fn(linear(x, layer.fc1)), layer.fc2), layer.final_layer_norm)
        return x.view(batch, width, -1)

    def _fuse(self) -> list[_LayerWeights]:
        out = []
        for layer in self.model.decoder.layers:
            own, cross = layer.self_attn, layer.encoder_attn
            qkv = [own.q_proj.weight * own.scaling, own.k_proj.weight, own.v_proj.weight]
            bias = [own.q_proj.bias * own.scaling, own.k_proj.bias, own.v_proj.bias]
            cross_q = (cross.q_proj.weight * cross.scaling, cross.q_proj.bias * cross.scaling)
            out.append(_LayerWeights((torch.cat(qkv), torch.cat(bias)), cross_q))
        return out

    # -- parts -------------------------------------------------------------------------------------------------------

    def _p(self, rate: float) -> float:
        return rate if self.training else 0.0

    def _enter(self, half: nn.Module, embeds: Tensor) -> Tensor:
        """Positions, layernorm and dropout before the first layer."""
        table = half.embed_positions
        length, longest = embeds.shape[1], table.weight.shape[0] - table.offset
        if length > longest:
            raise ValueError(f"{length} tokens do not fit the {longest} positions of the backbone; raise max_positions")
        x = norm(embeds + table.weight[table.offset : table.offset + length], half.layernorm_embedding)
        return functional.dropout(x, half.dropout, self.training)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        return x.unflatten(-1, (heads, -1))

    def _add(self, layer: nn.Module, x: Tensor, update: Tensor, layer_norm: nn.LayerNorm) -> Tensor:
        return norm(x + functional.dropout(update, layer.dropout, self.training), layer_norm)

    def _feed_forward(self, layer: nn.Module, x: Tensor) -> Tensor:
        inner = functional.dropout(layer.activation_fn(linear(x, layer.fc1)), layer.activation_dropout, self.training)
        return self._add(layer, x, linear(inner, layer.fc2), layer.final_layer_norm)


def linear(x: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear module without the module call's overhead."""
    return functional.linear(x, layer.weight, layer.bias)


def norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    """Apply a layernorm module."""
    return functional.layer_norm(x, layer.normalized_shape, layer.weight, layer.bias, layer.eps)


def _projections(attention: nn.Module) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return attention.q_proj, attention.k_proj, attention.v_proj
