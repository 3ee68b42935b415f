"""Backbones behind one small interface: BART (encoder-decoder), GPT-2 and Qwen3 (decoder-only)."""

from transformers import PretrainedConfig

from onesearch.model.backbone_bart import BartBackbone
from onesearch.model.backbone_base import Backbone, BackboneSettings, DecodeState, PromptMemory
from onesearch.model.backbone_decoder_only import GPT2Backbone, Qwen3Backbone

__all__ = ["Backbone", "BackboneSettings", "DecodeState", "PromptMemory", "build_backbone"]


def build_backbone(config: BackboneSettings) -> Backbone:
    """Build from ``architecture`` if given (random weights, to be loaded), else pretrained weights, else from sizes.

    Raises:
        ValueError: the pretrained weights are of another family than ``kind``, whose layers they would not fill.
    """
    if config.pretrained is not None and config.architecture is None:
        family = PretrainedConfig.get_config_dict(config.pretrained)[0].get("model_type")
        if family != config.kind:
            raise ValueError(
                f"model.backbone: {config.pretrained!r} is a model of the family {family!r}, but kind is "
                f"{config.kind!r}; set kind to its family (bart, gpt2 or qwen3), or name another model"
            )
    match config.kind:
        case "bart":
            return BartBackbone(config)
        case "gpt2":
            return GPT2Backbone(config)
        case "qwen3":
            return Qwen3Backbone(config)
