"""Vectors drawn towards linked items, and what SIDs of kinds have in common, by hand."""

import numpy as np
import polars as pl
import pytest

from onesearch.common.ragged import Ragged
from onesearch.data.records import Item, items_frame
from onesearch.encoding.kind_quality import kind_figures
from onesearch.encoding.linked_items import FILE, drawn_to_linked, load_linked_weight, save_linked_weight

VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8], [-1, 0]], np.float32)


def unit(vector):
    return np.asarray(vector) / np.linalg.norm(vector)


def test_an_item_is_drawn_towards_the_mean_of_what_it_links_to():
    linked = Ragged.from_lists([[], [0, 2], [], [0]])
    out = drawn_to_linked(VECTORS, linked, VECTORS, 0.25)
    np.testing.assert_array_equal(out[[0, 2]], VECTORS[[0, 2]])
    mean = unit(VECTORS[0] + VECTORS[2])
    np.testing.assert_allclose(out[1], unit(0.75 * VECTORS[1] + 0.25 * mean), rtol=1e-6)
    # By their own texts: item 1 is drawn to where item 0 stands, not to where others were drawn.
    np.testing.assert_allclose(out[3], unit(0.75 * VECTORS[3] + 0.25 * VECTORS[0]), rtol=1e-6)
    assert drawn_to_linked(VECTORS, linked, VECTORS, 0.0) is VECTORS
    assert drawn_to_linked(VECTORS, Ragged.from_lists([[]] * 4), VECTORS, 0.5) is VECTORS


def test_the_weight_is_written_where_it_matters_alone(tmp_path):
    save_linked_weight(0.5, False, tmp_path)
    assert not (tmp_path / FILE).exists()
    assert load_linked_weight(tmp_path) == 0.5
    save_linked_weight(0.5, True, tmp_path)
    assert (tmp_path / FILE).exists()
    save_linked_weight(0.0, False, tmp_path)
    assert load_linked_weight(tmp_path) == 0.0


def test_figures_of_kinds_by_hand():
    items = items_frame(
        [
            Item("p0", "a", ("x",)),
            Item("p1", "b", ("x",)),
            Item("p2", "c", ("y",)),
            Item("v", "d", ("x",), kind="video", linked=("p0", "p2")),
            Item("l", "e", kind="live"),
        ]
    )
    codes = np.array([[0, 0], [0, 1], [1, 1], [0, 0], [1, 0]], np.int32)
    found = kind_figures(codes, (2, 2), items, Ragged.from_lists([[], [], [], [0, 2], []]), 0)
    # p0 and the video share a SID.
    assert found["icr"] == {"product": pytest.approx(2 / 3), "video": 0.0, "live": 1.0}
    assert kind_figures(codes, (2, 2), items.with_columns(kind=pl.lit("product")), Ragged.from_lists([[]] * 5), 0) == {}


def test_random_pairs_are_of_the_linked_items_category_and_not_linked():
    products = [Item(f"p{i}", "t", ("x",) if i < 4 else ("y",)) for i in range(8)]
    items = items_frame([*products, Item("v", "t", ("z",), kind="video", linked=("p0", "p5"))])
    # Products of x begin with 0, those of y with 1, each with a second code of its own; the video is p0's twin.
    codes = np.array([*([int(i >= 4), i] for i in range(8)), [0, 0]], np.int32)
    linked = Ragged.from_lists([*[[]] * 8, [0, 5] * 100])
    found = kind_figures(codes, (2, 8), items, linked, 1)
    # One in four draws is the linked item itself and left out, of both.
    assert 110 < found["pairs"] < 185
    assert found["linked"][0] == found["same_category"][0] == pytest.approx(0.5, abs=0.1)
    assert found["linked"][1] == found["linked"][0]
    assert found["same_category"][1] == 0
