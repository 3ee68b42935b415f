"""What items say to whoever types: gathered once, and the same from the file."""

import pytest

from damaged_tensors import damaged
from onesearch.data.records import Item, items_frame
from onesearch.search.catalogue_words import COLUMNS, FILE, CatalogueWords
from onesearch.search.item_lines import ItemLines, save_item_lines
from onesearch.search.item_records import ItemFrame
from onesearch.search.spelling import Spelling
from small_engine import ITEMS

MORE = items_frame(
    [
        Item("a", "Crème 12-ga", ("home", "bath"), brand="Acme"),
        Item("b", "运动鞋", ("home",), seller="红色", attributes={"Color": ("blue", "blue")}),
        Item("c", "an apple"),
    ]
)


def same(one: CatalogueWords, other: CatalogueWords) -> bool:
    texts = all(list(getattr(one, name)) == list(getattr(other, name)) for name in ("keys", "categories"))
    numbers = all((getattr(one, name) == getattr(other, name)).all() for name in ("rows", "items"))
    return texts and numbers and dict(one.words) == dict(other.words) and dict(one.runs) == dict(other.runs)


def test_words_by_hand():
    found = CatalogueWords.of(MORE)
    assert list(found.keys) == ["an apple", "creme 12 ga", "运 动 鞋"] and found.rows.tolist() == [2, 0, 1]
    assert found.categories == ["home", "bath"] and found.items.tolist() == [2, 1]
    assert found.words["blue"] == 2 and found.words["acme"] == 1 and dict(found.runs) == {"红色": 1}


@pytest.mark.parametrize("items", [ITEMS, MORE, MORE.head(0)], ids=["shop", "scripts", "none"])
def test_the_file_says_what_the_table_says(tmp_path, items):
    words = CatalogueWords.of(items.select(COLUMNS))
    words.save(tmp_path)
    loaded = CatalogueWords.load(tmp_path, len(items))
    assert same(loaded, words)
    log = (["red tents", "运动"], [3.0, 1.0])
    plain, saved = Spelling.from_items(items, *log), Spelling.of(loaded.words, loaded.runs, *log)
    assert plain._words.count == saved._words.count and plain._runs.count == saved._runs.count
    assert plain._in_log == saved._in_log and plain._neighbours == saved._neighbours


def test_a_run_says_them_from_its_file_and_one_of_an_earlier_version_from_its_table(tmp_path):
    read = []
    save_item_lines(MORE, tmp_path)
    lines = ItemLines.load(tmp_path, len(MORE), lambda *names: read.append(names) or MORE.select(names))
    assert same(lines.words(), CatalogueWords.of(MORE)) and read == [COLUMNS]
    CatalogueWords.of(MORE).save(tmp_path)
    assert same(lines.words(), ItemFrame(MORE).words()) and read == [COLUMNS]


def test_a_damaged_file_is_refused_with_a_sentence(tmp_path):
    CatalogueWords.of(MORE).save(tmp_path)
    for way in damaged(tmp_path / FILE):
        with pytest.raises(ValueError, match=r"catalogue_words\.safetensors.*make the run's stage data again"):
            pytest.fail(f"{way}: {CatalogueWords.load(tmp_path, 3)}")
    with pytest.raises(ValueError, match="no words of 4 items"):
        CatalogueWords.load(tmp_path, 4)
