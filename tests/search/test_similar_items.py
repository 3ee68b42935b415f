"""Items like one, from two lists by hand."""

from dataclasses import replace

import numpy as np
import pytest

from onesearch.data.records import Item
from onesearch.search.engine import SearchEngine
from small_engine import EVIDENCE, small_engine


def without_pairs() -> SearchEngine:
    engine = small_engine()
    engine.current.value = replace(engine.snapshot, pairs=None)
    return engine


def test_texts_alone_rank_by_likeness():
    engine = without_pairs()
    numbers = engine.featurizer.head_row_projection.features
    rows = engine.snapshot.item_head_rows.flat().numpy()[:, : -numbers or None]
    own = engine.snapshot.number["red-tent-0"]
    order = sorted((row for row in range(len(rows)) if row != own), key=lambda row: -float(rows[row] @ rows[own]))
    found = engine.similar("red-tent-0", 5)
    likeness = [float(rows[engine.snapshot.number[hit.item_id]] @ rows[own]) for hit in found]
    np.testing.assert_allclose(likeness, [float(rows[row] @ rows[own]) for row in order[:5]], atol=1e-5)
    np.testing.assert_allclose([hit.score for hit in found], [1 / (60 + place) for place in range(1, 6)], rtol=1e-5)


def test_what_was_taken_together_moves_up():
    engine = small_engine(model=EVIDENCE)
    beside = engine.snapshot.pairs.beside(np.array([[engine.snapshot.number["red-tent-0"]]], np.int32)).together
    together = [engine.snapshot.item(row).item_id for row in beside.getrow(0).indices]
    assert "blue-lamp-0" in together
    plain = [hit.item_id for hit in without_pairs().similar("red-tent-0", 40)]
    found = [hit.item_id for hit in engine.similar("red-tent-0", 40)]
    assert found.index("blue-lamp-0") < plain.index("blue-lamp-0") and set(found) == set(plain)


def test_filters_hold_and_what_is_gone_is_not_found():
    engine = small_engine(model=EVIDENCE)
    engine.upsert([Item("new", "red tent no 0", ("Shop", "tent"), price=3.0)])
    assert engine.similar("new", 1)[0].item.title == "red tent no 0"
    assert {hit.item_id for hit in engine.similar("red-tent-0", 9, {"price": [None, 4]})} == {"new"}
    assert all(hit.item.category[1] == "lamp" for hit in engine.similar("red-tent-0", 9, {"category": "lamp"}))
    engine.delete(["blue-lamp-0", "new"])
    assert not {"blue-lamp-0", "new", "red-tent-0"} & {hit.item_id for hit in engine.similar("red-tent-0", 40)}
    for gone in ("new", "nobody"):
        with pytest.raises(KeyError):
            engine.similar(gone)
