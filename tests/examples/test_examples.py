"""Each example runs as it stands, on the tiny run where it needs one."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from onesearch.search.run_parts import RunParts

FOLDER = Path(__file__).parents[2] / "examples"


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'example("{path.stem}")' in text for path in FOLDER.glob("*.py"))


def test_a_run_is_searched(tiny_run, capsys):
    example("search_a_run").main(tiny_run, "boots")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("400 items") and len(lines) == 1 + 5 + 1 + 2


def test_vectors_are_quantized(capsys):
    example("quantizer_only").main(400, 16)
    assert "codebooks (64, 32, 16, 64, 64)" in capsys.readouterr().out


@pytest.mark.slow
def test_files_become_an_engine(capsys):
    example("own_data").main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 4 and all("boot" in line or "red" in line for line in lines[-3:])


@pytest.mark.slow
def test_two_engines_are_compared(tiny_run, capsys):
    example("ab_test").main(f"{tiny_run}:v1", f"{tiny_run}:v2", 100)
    shown = capsys.readouterr().out
    assert "100 page views" in shown and "item CTR" in shown


def test_the_encoder_becomes_a_sentence_transformer(tiny_run, tmp_path):
    encoder = RunParts(tiny_run).encoder
    model = example("sentence_export").as_sentence_transformer(encoder)
    texts = ["red boots", "blue lamp"]
    np.testing.assert_allclose(model.encode(texts), encoder.encode(texts), atol=1e-5)
