"""The stages of a run that texts need, of forty items with an untrained encoder: made in a second."""

from pathlib import Path

import numpy as np
import polars as pl

from onesearch.common.artefact import write_json, write_manifest
from onesearch.data.text import item_texts
from onesearch.encoding.khqe import KHQE, KHQESettings, fuse_keywords
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings
from onesearch.understanding.keyword_lexicon import Lexicon
from small_engine import ITEMS, LOG

FIELDS = ("title", "brand", "category")


def small_run(folder: Path) -> Path:
    """Encoder, lexicon and quantizer, with vectors and SIDs of the items as a run has them."""
    texts = item_texts(ITEMS, FIELDS)
    encoder, khqe = folder / "encoder", folder / "khqe"
    for stage in (encoder, khqe):
        stage.mkdir(parents=True)
    # All items at once.
    trained = StaticEncoder.build(texts, StaticSettings(dimension=16, min_word=1, min_pair=1))
    trained.save(encoder / "encoder")
    write_json(encoder / "fields.json", list(FIELDS))
    # Keywords change what an item's vector is.
    views = LOG.with_columns(page_view_id=pl.Series(map(str, range(len(LOG)))), user_id=pl.lit("u"))
    lexicon = Lexicon.from_log(ITEMS, views, 20)
    lexicon.save(khqe / "lexicon")
    keywords = trained.encode(lexicon.texts)
    np.save(khqe / "keyword_vectors.npy", keywords, allow_pickle=False)
    plain = trained.encode(texts)
    vectors = fuse_keywords(plain, lexicon.match(texts), keywords)
    assert np.abs(vectors - plain).max() > 0.01
    quantizer = KHQE.fit(vectors, KHQESettings(layers=(4, 4, 4), opq_size=4, iterations=4))
    quantizer.save(khqe)
    np.save(khqe / "item_vectors.npy", vectors, allow_pickle=False)
    np.save(khqe / "item_sids.npy", quantizer.encode(vectors), allow_pickle=False)
    for stage in (encoder, khqe):
        write_manifest(stage, {"fingerprint": stage.name})
    return folder
