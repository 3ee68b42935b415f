"""What a run's model costs by arithmetic, before any machine is at hand: samples, tokens, operations, hours, memory.

::

    operations of a training   = samples x passes x (6 weights x tokens + attention), forward and backward
    operations of an inference = samples x (2 weights x tokens + attention)
    hours                      = operations / (devices x peak x share of it that is reached)
    memory of a device         = weights, gradients and moments (16 bytes a weight), what the backward pass keeps,
                                 the tables over items

Weights are those that every token passes: matrices of the layers and, where words are written, the vocabulary's.
Prompts are as long as the settings let them be; heads over items, a hundredth of small layers and a thousandth of large
ones, are left out. Stages without a model of layers (k-means, BM25, trees, static encoders) stand with no operations:
their time is a processor's, and a smaller run tells it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from onesearch.model.backbone_base import BackboneSettings
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt import longest_prompt
from onesearch.pipeline.plan import Size, samples_of
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.stages import stages_of

_LEVELS: Final = 5
_ENCODER_TOKENS: Final = 32  # of a query or a title, with what a tokenizer adds
_OPTIMISED: Final = 16  # bytes of a trained weight: float32 weight and gradient, two moments
_GATHERED: Final = 8  # bytes of one that is gathered from several devices for a step: float32 weight and gradient
_KEPT, _KEPT_ATTENTION, _RECOMPUTED = 34, 5, 2  # bytes a layer keeps in bfloat16 for its backward pass, see _kept
_PRECISION: Final = {"float32": 4, "bfloat16": 2, "int8": 1}
_NODES: Final = 1.3  # nodes of the trie, for each item

KNOWN: Final[Mapping[str, Mapping[str, int]]] = {
    "facebook/bart-base": {"d_model": 768, "encoder_layers": 6, "decoder_layers": 6, "ffn": 3072, "vocabulary": 50265},
    "facebook/bart-large": {
        "d_model": 1024,
        "encoder_layers": 12,
        "decoder_layers": 12,
        "ffn": 4096,
        "vocabulary": 50265,
    },
    "openai-community/gpt2": {"d_model": 768, "decoder_layers": 12, "ffn": 3072, "vocabulary": 50257},
}
"""Sizes of pretrained models that need not be fetched for them."""
ENCODERS: Final[Mapping[str, tuple[int, int, int]]] = {
    "BAAI/bge-small-en-v1.5": (12, 384, 1536),
    "BAAI/bge-base-en-v1.5": (12, 768, 3072),
    "sentence-transformers/all-MiniLM-L6-v2": (6, 384, 1536),
}
"""Layers, width and inner width of text encoders."""


@dataclass(frozen=True)
class Machine:
    """What computes.

    Attributes:
        devices: GPUs.
        peak: operations a second that one of them can do, as its maker says for dense bfloat16.
        share: of the peak that is reached, 0 to 1.
    """

    devices: int
    peak: float
    share: float

    def hours(self, operations: float) -> float:
        """That so many operations take."""
        return operations / (self.devices * self.peak * self.share) / 3600


@dataclass(frozen=True)
class Arithmetic:
    """Of one stage; None where there is no model of layers.

    Attributes:
        stage: its name.
        samples: examples that it learns, or texts or searches that it goes through.
        tokens: of one of them, read and written.
        operations: floating point, of all.
        device_gib: memory of each device.
    """

    stage: str
    samples: float | None
    tokens: float | None
    operations: float | None
    device_gib: float | None


@dataclass(frozen=True)
class _Layers:
    """A transformer: weights that a read and a written token pass, and what attention and memory need to know."""

    read: float
    written: float
    d: int
    layers: int
    heads: int
    vocabulary: int
    both: bool = False
    """Whether the same layers read and write."""

    @classmethod
    def of(cls, model: ModelSettings) -> "_Layers":
        """The backbone's.

        Raises:
            ValueError: it is a pretrained one of unknown sizes.
        """
        one = model.backbone
        sizes: dict[str, int] = {
            "d_model": one.d_model,
            "encoder_layers": one.encoder_layers,
            "decoder_layers": one.decoder_layers,
            "ffn": one.ffn or 4 * one.d_model,
            "vocabulary": model.text_vocabulary,
        }
        if one.pretrained is not None or one.architecture is not None:
            sizes |= _pretrained(one)
        d, ffn = sizes["d_model"], sizes["ffn"]
        block = 2 * d * ffn * (1.5 if one.kind == "qwen3" else 1)  # qwen3 has a gate beside
        if one.kind == "bart":
            read, written = sizes["encoder_layers"] * (4 * d * d + block), sizes["decoder_layers"] * (8 * d * d + block)
            layers = sizes["encoder_layers"] + sizes["decoder_layers"]
        else:
            read = written = sizes["decoder_layers"] * (4 * d * d + block)
            layers = sizes["decoder_layers"]
        return cls(read, written, d, layers, one.heads, sizes["vocabulary"], one.kind != "bart")

    @property
    def weights(self) -> float:
        """All that is trained of it, embeddings included."""
        return self.read + (0 if self.both else self.written) + self.vocabulary * self.d

    def forward(self, read: float, written: float, words: bool = False) -> float:
        """Operations of one sample's forward pass; ``words``: what is written are subwords."""
        vocabulary = self.vocabulary * self.d if words else 0.0
        attention = 4.0 * self.d * self.layers * (read * read + written * (read + written)) / 2
        return 2 * (self.read * read + (self.written + vocabulary) * written) + attention


def _pretrained(backbone: BackboneSettings) -> dict[str, int]:
    """Sizes of a pretrained backbone: known, or as its own configuration in a folder says."""
    values: Mapping[str, Any] | None = backbone.architecture
    if values is None and (known := KNOWN.get(str(backbone.pretrained))):
        return dict(known)
    if values is None:
        from transformers import PretrainedConfig

        try:
            values, _ = PretrainedConfig.get_config_dict(str(backbone.pretrained), local_files_only=True)
        except OSError as error:
            raise ValueError(
                f"the sizes of {backbone.pretrained!r} are not known here: give its folder, or one of "
                f"{', '.join(KNOWN)}, as model.backbone.pretrained"
            ) from error
    names = {
        "d_model": ("d_model", "n_embd", "hidden_size"),
        "encoder_layers": ("encoder_layers",),
        "decoder_layers": ("decoder_layers", "n_layer", "num_hidden_layers"),
        "ffn": ("decoder_ffn_dim", "n_inner", "intermediate_size"),
        "vocabulary": ("vocab_size",),
    }
    found = {to: next((values[name] for name in of if values.get(name)), None) for to, of in names.items()}
    sizes = {name: int(value) for name, value in found.items() if value is not None}
    return {"ffn": 4 * sizes["d_model"], **sizes}


def arithmetic(config: RunSettings, size: Size, devices: int = 1) -> list[Arithmetic]:
    """Every stage of a run, in order.

    Args:
        config: the run to come.
        size: of its data.
        devices: that share a training's batches.

    Raises:
        ValueError: a pretrained model's sizes are not known.
    """
    layers = _Layers.of(config.model)
    long = config.model.long_vectors if config.model.prompt.long else 0
    prompt = longest_prompt(config.model.prompt, _LEVELS) + long
    return [_stage(stage.name, config, size, layers, float(prompt), devices) for stage in stages_of(config)]


def _stage(name: str, config: RunSettings, size: Size, layers: _Layers, prompt: float, devices: int) -> Arithmetic:
    if name == "encoder":
        return _encoder(config, size, devices)
    learnt = samples_of(name, config, size)
    if learnt is not None:
        return _training(name, config, learnt, layers, prompt, size, devices)
    # Engines and report: searches, whose beams write five tokens each.
    searches = {"engine": config.evaluation.fit_requests, "engine_v2": config.evaluation.fit_requests}
    searches["report"] = config.evaluation.test_requests * (2 if config.has_v2 else 1)
    if name not in searches:
        return Arithmetic(name, None, None, None, None)
    # The prompt is read once; each beam writes its tokens and attends to it.
    read = layers.forward(prompt, 0)
    one = read + config.search.width * (layers.forward(prompt, _LEVELS) - read)
    memory = 4 * layers.weights + _tables(config, size)
    return Arithmetic(
        name, searches[name], prompt + _LEVELS * config.search.width, searches[name] * one, memory / 2**30
    )


def _training(
    name: str, config: RunSettings, samples: float, layers: _Layers, prompt: float, size: Size, devices: int
) -> Arithmetic:
    """A training: how often each sample goes forward and backward, what it reads and writes."""
    semantic = {"sft1": config.sft1, "sft2": config.sft2, "cot": config.cot}
    if name in semantic:
        stage = semantic[name]
        read, written, words = float(config.model.prompt.query_tokens), float(stage.text_tokens), True
        passes, batch, loop = 3.0, stage.batch_size, stage.loop
    else:
        read, written, words = prompt, float(_LEVELS + 1), False
        passes, batch, loop = {
            "dpo": (3.0 + 1.0, config.dpo.batch_size, config.dpo.loop),  # beside the pass of the reference
            # The rollouts are drawn, then scored by the policy that learns, and by those that do not.
            "grpo": (3.0 + 2.0, config.grpo.prompts, config.grpo.loop),
            "distill": (3.0 * _copies(config), config.sft3.batch_size, config.sft3.loop),
        }.get(name, (3.0, config.sft3.batch_size, config.sft3.loop))
        targets = {"dpo": config.dpo.chosen * (1 + config.dpo.shown), "grpo": config.grpo.rollouts}
        written *= targets.get(name, 1)
    one = passes * layers.forward(read, written, words)
    share = batch / devices * (_copies(config) if name == "distill" else 1)
    kept = share * _kept(layers, read + written, loop.recompute)
    weights = layers.weights + (size.items * config.model.row_dim if config.model.item_memory else 0)
    memory = _OPTIMISED * weights + kept
    if loop.shard and devices > 1:
        # Each device has its part, and what is gathered at a time: all but the layers and one of these, or everything.
        # Of layers autocast keeps a copy in bfloat16 until the backward pass. A validation gathers all weights.
        distilled = name in ("distill", "final") and config.has_v2 and config.distill.keywords == "teacher"
        by_layer = layers.read if layers.both and not distilled else 0.0
        gathered = _GATHERED * (weights - by_layer * (1 - 1 / layers.layers)) + (0 if loop.recompute else 2 * by_layer)
        memory = _OPTIMISED * weights / devices + max(gathered + kept, 4 * weights)
    memory += _tables(config, size)
    return Arithmetic(name, samples, read + written, samples * one, memory / 2**30)


def _copies(config: RunSettings) -> float:
    """Passes of a sample in self-distillation: the student's, its copy's, the teacher's, the adversarial one."""
    one = config.distill
    teacher = 1.0 if one.keywords == "teacher" else 0.0
    return 1.0 + (one.r_drop > 0) + (one.fgm > 0) + teacher


def _kept(layers: _Layers, tokens: float, recompute: bool) -> float:
    """Bytes that a sample's backward pass needs: 34 s d + 5 a s² of each layer (arXiv 2205.05198), or its input."""
    if recompute:
        return layers.layers * _RECOMPUTED * tokens * layers.d
    return layers.layers * (_KEPT * tokens * layers.d + _KEPT_ATTENTION * layers.heads * tokens * tokens)


def _tables(config: RunSettings, size: Size) -> float:
    """Bytes of what a device holds of the items: rows of the trie's nodes, and head rows of the items."""
    each = config.model.row_dim * _PRECISION[config.model.row_precision]
    return size.items * (_NODES * each + 4 * config.model.row_dim)


def _encoder(config: RunSettings, size: Size, devices: int) -> Arithmetic:
    """Alignment of a transformer on query-item pairs, one for each fold and one for all; then all texts once."""
    name, align = config.encoder.transformer, config.encoder.align
    if name is None or name not in ENCODERS:
        return Arithmetic("encoder", None, None, None, None)
    depth, d, inner = ENCODERS[name]
    weights, tokens = depth * (4 * d * d + 2 * d * inner), float(_ENCODER_TOKENS)
    text = 2 * weights * tokens + 2 * depth * d * tokens * tokens
    encoders = 1 + (config.encoder.folds if config.encoder.folds >= 2 else 0)
    pairs = align.epochs * size.page_views
    if align.max_steps is not None:
        pairs = min(pairs, align.max_steps * align.batch_size)
    # A pair is two texts, forward and backward; co-clicked ones and pseudo-queries come beside.
    learnt = encoders * pairs * 2 * 3 * text
    embeddings = 30_522 * d  # of its vocabulary
    layers = _Layers(weights, weights, d, depth, max(d // 64, 1), 0)
    kept = 2 * align.batch_size / devices * _kept(layers, tokens, False)
    memory = _OPTIMISED * (weights + embeddings) + kept
    return Arithmetic("encoder", encoders * pairs, 2 * tokens, learnt + size.items * encoders * text, memory / 2**30)
