"""What items say to whoever types: gathered once, and the same from the file."""

import polars as pl
import pytest

from damaged_tensors import damaged
from onesearch.data.records import Item, items_frame
from onesearch.search.catalogue_words import BEGINNING_COLUMNS, FILE, WORD_COLUMNS, Beginnings, CatalogueWords
from onesearch.search.item_lines import ItemLines, save_item_lines
from onesearch.search.item_records import ItemFrame
from onesearch.search.spelling import Spelling, item_words
from small_engine import ITEMS

MORE = items_frame(
    [
        Item("a", "Crème 12-ga", ("home", "bath"), brand="Acme"),
        Item("b", "运动鞋", ("home",), seller="红色", attributes={"Color": ("blue", "blue")}),
        Item("c", "an apple"),
    ]
)


def same(one: Beginnings, other: Beginnings) -> bool:
    texts = all(list(getattr(one, name)) == list(getattr(other, name)) for name in ("keys", "categories"))
    return texts and all((getattr(one, name) == getattr(other, name)).all() for name in ("rows", "counts"))


def test_words_by_hand():
    found = CatalogueWords.of(MORE)
    begin, (words, runs) = found.beginnings, found.counted()
    assert list(begin.keys) == ["an apple", "creme 12 ga", "运 动 鞋"] and begin.rows.tolist() == [2, 0, 1]
    assert begin.categories == ["home", "bath"] and begin.counts.tolist() == [2, 1]
    assert words["blue"] == 2 and words["acme"] == 1 and runs == {"红色": 1}


def test_an_item_without_a_title_begins_with_nothing():
    items = MORE.with_columns(title=pl.when(pl.col("item_id") == "b").then(None).otherwise("title"))
    assert list(CatalogueWords.of(items).beginnings.keys) == ["", "an apple", "creme 12 ga"]


@pytest.mark.parametrize("items", [ITEMS, MORE, MORE.head(0)], ids=["shop", "scripts", "none"])
def test_the_file_says_what_the_table_says(tmp_path, items):
    words = CatalogueWords.of(items)
    words.save(tmp_path)
    made = (tmp_path / FILE).read_bytes()
    loaded = CatalogueWords.load(tmp_path, len(items))
    assert same(loaded.beginnings, words.beginnings) and loaded.counted() == words.counted() == item_words(items)
    loaded.save(tmp_path)
    assert (tmp_path / FILE).read_bytes() == made, "the same items make another file"
    log = (["red tents", "运动"], [3.0, 1.0])
    plain, saved = Spelling.from_items(items, *log), Spelling.of(*loaded.counted(), *log)
    assert plain._words.count == saved._words.count and plain._runs.count == saved._runs.count
    assert plain._in_log == saved._in_log and plain._neighbours == saved._neighbours


def test_a_run_says_them_from_its_file_and_one_of_an_earlier_version_from_its_table(tmp_path):
    read = []
    save_item_lines(MORE, tmp_path)

    def lines() -> ItemLines:
        return ItemLines.load(tmp_path, len(MORE), lambda *names: read.append(names) or MORE.select(names))

    earlier = lines()
    assert same(earlier.beginnings(), Beginnings.of(MORE)) and earlier.words() == item_words(MORE)
    assert read == [BEGINNING_COLUMNS, WORD_COLUMNS]
    CatalogueWords.of(MORE).save(tmp_path)
    assert same(lines().beginnings(), ItemFrame(MORE).beginnings()) and lines().words() == ItemFrame(MORE).words()
    assert len(read) == 2


def test_a_table_of_other_items_is_refused(tmp_path):
    save_item_lines(MORE, tmp_path)
    lines = ItemLines.load(tmp_path, len(MORE), lambda *names: MORE.head(2))
    for read in (lambda: lines.frame, lambda: lines.columns("title")):
        with pytest.raises(ValueError, match="others than when it was opened"):
            read()


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path):
    CatalogueWords.of(MORE).save(tmp_path)
    for way in damaged(tmp_path / FILE):
        with pytest.raises(ValueError, match=r"catalogue_words\.safetensors.*make the run's stage data again"):
            pytest.fail(f"{way}: {CatalogueWords.load(tmp_path, 3)}")
    with pytest.raises(ValueError, match="no words of 4 items"):
        CatalogueWords.load(tmp_path, 4)
