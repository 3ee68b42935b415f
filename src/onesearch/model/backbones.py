"""Backbones behind one small interface: BART (encoder-decoder), GPT-2 and Qwen3 (decoder-only)."""

from onesearch.model.backbone_bart import BartBackbone
from onesearch.model.backbone_base import Backbone, BackboneSettings, DecodeState, PromptMemory, check_family
from onesearch.model.backbone_decoder_only import GPT2Backbone, Qwen3Backbone

__all__ = ["Backbone", "BackboneSettings", "DecodeState", "PromptMemory", "build_backbone"]


def build_backbone(config: BackboneSettings) -> Backbone:
    """Build from ``architecture`` if given (random weights, to be loaded), else pretrained weights, else from sizes.

    Raises:
        ValueError: the pretrained weights are of another family than ``kind``, whose layers they would not fill.
    """
    if config.pretrained is not None and config.architecture is None:
        check_family(config.kind, config.pretrained)
    match config.kind:
        case "bart":
            return BartBackbone(config)
        case "gpt2":
            return GPT2Backbone(config)
        case "qwen3":
            return Qwen3Backbone(config)
