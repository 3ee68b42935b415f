"""Items in lines of JSON: those of the table, whatever their texts hold; a damaged line says so."""

import json
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from damaged_tensors import damaged
from onesearch.data.records import Item, check_attribute_type, items_frame
from onesearch.search.item_lines import FILE, ItemLines, save_item_lines
from onesearch.search.item_records import ItemFrame

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
name = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)


def is_attribute_type(name: str) -> bool:
    """Whether an item may have it; drawn texts are now and then one of the code's own, such as MODE, near to Model."""
    try:
        check_attribute_type(name)
    except ValueError:
        return False
    return True


types = name.filter(is_attribute_type)
items = st.builds(
    Item,
    name,
    text,
    st.lists(text, max_size=3).map(tuple),
    st.none() | text,
    st.none() | st.floats(0, 1e12),
    st.dictionaries(types, st.lists(name, min_size=1, max_size=2).map(tuple), max_size=2),
    st.none() | text,
    st.lists(text, max_size=2).map(tuple),
    st.none() | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    st.booleans(),
    st.none() | text,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(items, max_size=6))
def test_items_come_out_as_the_table_has_them(tmp_path_factory, some):
    folder, frame = tmp_path_factory.mktemp("lines"), items_frame(some)
    save_item_lines(frame, folder)
    found = ItemLines.load(folder, len(some), lambda *names: frame.select(names or pl.all()))
    assert len(found) == len(some) and found.frame.equals(frame)
    assert found.columns("title", "item_id").equals(frame.select("title", "item_id"))
    assert [found.item(row) for row in range(len(some))] == [ItemFrame(frame).item(row) for row in range(len(some))]


def test_the_table_is_not_read_for_an_item(tmp_path):
    save_item_lines(items_frame([Item("a", "lamp")]), tmp_path)
    found = ItemLines.load(tmp_path, 1, lambda: pytest.fail("the table was read"))
    assert found.item(0).title == "lamp"


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path):
    save_item_lines(items_frame([Item("a", "lamp"), Item("b", "sofa")]), tmp_path)
    for way in damaged(tmp_path / FILE):
        with pytest.raises(ValueError, match=r"item_lines\.safetensors.*make the run's stage data again"):
            pytest.fail(f"{way}: {ItemLines.load(tmp_path, 2, pl.DataFrame)}")
    for number in (1, 3):
        with pytest.raises(ValueError, match=f"{number} items"):
            ItemLines.load(tmp_path, number, pl.DataFrame)


@pytest.mark.parametrize(
    "line",
    [b"", b"\xff", b"[" * 5000, b"5", {}, {"item_id": 5}, {"title": None}, {"price": "9"}, {"in_stock": None},
     {"listed_at": "soon"}, {"listed_at": 9}, {"category": "Home"}, {"attributes": [5]}, {"attributes": [{}]}],
)  # fmt: skip
def test_a_damaged_line_says_which_item_it_is(tmp_path, line):
    save_item_lines(items_frame([Item("a", "lamp")]), tmp_path)
    whole = bytes(load_file(tmp_path / FILE)["letters"].tolist())
    if isinstance(line, dict):
        about = json.loads(whole) | line
        line = json.dumps(about if line else {"item_id": "a"}).encode()
    letters = torch.from_numpy(np.frombuffer(line, np.uint8).copy())
    save_file({"letters": letters, "offsets": torch.tensor([0, len(letters)])}, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"item_lines\.safetensors: item 0 is damaged \(.*stage data again"):
        ItemLines.load(tmp_path, 1, pl.DataFrame).item(0)
