"""The arithmetic a model decodes in: what is asked for, or what is faster and worth a measurement."""

import numpy as np
import pytest
import torch

from onesearch.model.model_settings import ModelSettings
from onesearch.search import decoding_precision
from onesearch.search.decoding_precision import decoding_dtype
from small_engine import small_engine

QUERIES = ("red tent", "azure", "lamp", "boots late", "")


def test_a_model_in_bfloat16_finds_nearly_the_same():
    plain, half = small_engine(), small_engine()
    assert half.use_precision("bfloat16") == torch.bfloat16 == half.generator.begin.dtype
    assert plain.use_precision("float32") == torch.float32 == plain.generator.begin.dtype
    for query in QUERIES:
        one, other = ({hit.item_id: hit.score for hit in engine.search(query, k=10)} for engine in (plain, half))
        both = one.keys() & other.keys()
        assert len(both) >= 8
        np.testing.assert_allclose([one[i] for i in both], [other[i] for i in both], atol=0.1)


def test_a_new_version_decodes_as_the_one_before():
    engine, adopted, taken = small_engine(), small_engine(), small_engine()
    engine.use_precision("bfloat16")
    engine.adopt(adopted.generator, "small@0001")
    assert engine.generator.begin.dtype == torch.bfloat16
    engine.take_over(taken)
    assert engine.generator.begin.dtype == torch.bfloat16 and engine.search("red tent", k=5)


@pytest.mark.parametrize(("large", "native"), [(False, True), (True, False)])
def test_auto_measures_only_what_is_large_where_the_machine_has_bfloat16(monkeypatch, large, native):
    def measured(*_):
        raise AssertionError("nothing is to be measured")

    monkeypatch.setattr(decoding_precision, "_seconds", measured)
    monkeypatch.setattr(decoding_precision, "_LARGE", 0 if large else 10**9)
    monkeypatch.setattr(decoding_precision, "has_native_bf16", lambda: native)
    assert decoding_dtype(small_engine().generator, "auto", 4) == torch.float32


@pytest.mark.parametrize(("half", "chosen"), [(0.5, torch.bfloat16), (0.95, torch.float32), (1.5, torch.float32)])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(monkeypatch, half, chosen):
    seen = []

    def measured(backbone, width):
        dtype = next(backbone.parameters()).dtype
        seen.append((dtype, width))
        return half if dtype == torch.bfloat16 else 1.0

    monkeypatch.setattr(decoding_precision, "_seconds", measured)
    monkeypatch.setattr(decoding_precision, "_LARGE", 0)
    monkeypatch.setattr(decoding_precision, "has_native_bf16", lambda: True)
    generator = small_engine().generator.float()
    assert decoding_dtype(generator, "auto", 7) == chosen
    assert seen == [(torch.float32, 7), (torch.bfloat16, 7)]
    assert {weight.dtype for weight in generator.parameters()} == {torch.float32}


@pytest.mark.parametrize("kind", ["bart", "gpt2", "qwen3"])
def test_every_backbone_is_measured(kind):
    sizes = {"kind": kind, "d_model": 32, "heads": 4, "encoder_layers": 1, "decoder_layers": 1}
    generator = small_engine(model=ModelSettings.model_validate({"backbone": sizes})).generator
    for dtype in (torch.float32, torch.bfloat16):
        assert 0 < decoding_precision._seconds(generator.backbone.to(dtype), 3) < 60
