"""Tiny random vision models as folders that the libraries open, made here, no download."""

from importlib import import_module
from pathlib import Path

import pytest


def make_tiny_vit(folder: Path) -> Path:
    """Write a ViT for pictures of 16 pixels and return its folder."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        initializer_range=0.5,
    )
    transformers.set_seed(0)
    transformers.ViTModel(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


def make_tiny_clip(folder: Path) -> Path:
    """Write a CLIP for pictures of 16 pixels in sentence-transformers' layout and return its folder."""
    transformers = pytest.importorskip("transformers")
    sentence_transformers = pytest.importorskip("sentence_transformers")
    tokenizers = pytest.importorskip("tokenizers")
    half = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "red", "blue"]
    config = transformers.CLIPConfig(
        text_config={
            **half,
            "vocab_size": len(words),
            "max_position_embeddings": 16,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        vision_config={**half, "image_size": 16, "patch_size": 8, "initializer_range": 0.5},
        projection_dim=12,
    )
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )
    pixels = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}
    processor = transformers.CLIPProcessor(transformers.CLIPImageProcessor(**pixels), tokenizer)
    transformers.set_seed(0)
    plain = folder.with_name(f"{folder.name}-plain")
    transformers.CLIPModel(config).save_pretrained(plain)
    processor.save_pretrained(plain)
    module = import_module("sentence_transformers.sentence_transformer.modules").Transformer(str(plain))
    sentence_transformers.SentenceTransformer(modules=[module], device="cpu").save(str(folder), create_model_card=False)
    return folder
