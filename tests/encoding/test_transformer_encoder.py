"""A sentence-transformers model behind the encoder's protocol."""

import json

import numpy as np
import pytest

from onesearch.encoding.click_pairs import Edges, Pairs
from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings, align_encoder
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.transformer_encoder import TransformerEncoder
from tiny_bert import make_tiny_bert

WORDS = ["red", "blue", "lamp", "table", "zlamp", "ztable"]
ITEMS, QUERIES = ["red lamp", "blue lamp", "red table", "blue table"], ["zlamp", "ztable red"]


@pytest.fixture
def folder(tmp_path):
    return make_tiny_bert(tmp_path / "bert", WORDS)


def test_encode_align_save_load(folder, tmp_path):
    encoder = TransformerEncoder.open(str(folder), learning_rate=3e-3)
    assert encoder.dimension == 32 and encoder.encode([]).shape == (0, 32)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(ITEMS), axis=1), 1, atol=1e-5)
    ones = np.ones(4, np.float32)
    pairs = Pairs(QUERIES, ITEMS, Edges(np.array([0, 0, 1, 1]), np.array([0, 1, 2, 3]), ones))
    align_encoder(encoder, pairs, EncoderAlignmentSettings(epochs=1000, max_steps=40, batch_size=8, nested=()))
    scores = encoder.encode(QUERIES) @ encoder.encode(ITEMS).T
    assert min(scores[0, :2]) > max(scores[0, 2:]) and min(scores[1, 2:]) > max(scores[1, :2])
    encoder.save(tmp_path / "saved")
    loaded = load_encoder(tmp_path / "saved")
    np.testing.assert_allclose(loaded.encode(ITEMS), encoder.encode(ITEMS), atol=1e-6)
    assert not [path for path in (tmp_path / "saved").rglob("*") if path.suffix in (".bin", ".pkl", ".pt")]


@pytest.mark.parametrize("guarded", ["here", "by the library"])
def test_the_code_of_a_strangers_encoder_is_not_run(tmp_path, monkeypatch, guarded):
    """A module of its own, a file beside the weights: refused here, and by every version that may be installed."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "stranger.Module"}]')
    (model / "stranger.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Module: pass\n")
    (tmp_path / "encoder.json").write_text('{"kind": "transformer", "learning_rate": 1e-5, "batch_size": 8}')
    if guarded == "by the library":
        monkeypatch.setattr(
            "onesearch.encoding.transformer_encoder.read_json",
            lambda path: {} if path.parent == model else json.loads(path.read_text()),
        )
    words = "foreign code" if guarded == "here" else "third-party code"
    with pytest.raises(ValueError, match=rf"stranger\.Module.*{words}"):
        load_encoder(tmp_path)
    assert not (tmp_path / "ran").exists()
    import sentence_transformers

    assert int(sentence_transformers.__version__.split(".")[0]) >= 6, "older ones run it"
