from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from onesearch.data.ingest.column_mapping import ColumnMapping, PageViewsFromJudgments, load_mapping

ITEMS = {"file": "i.csv", "columns": {"item_id": "id", "title": "t"}}
SHIPPED = sorted((Path(__file__).parents[3] / "configs" / "mappings").glob("*.yaml"))


def write(where, **values):
    path = where / "m.yaml"
    path.write_text(yaml.safe_dump({"source": "x", "items": ITEMS, **values}))
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_mappings_are_valid(path, tmp_path):
    mapping = load_mapping(path, tmp_path)
    assert mapping.folder == str(tmp_path / path.stem)
    assert mapping.updated(source="y").page_views == mapping.page_views


def test_there_are_shipped_mappings():
    assert {path.stem for path in SHIPPED} >= {"homedepot", "bestbuy"}


def test_a_variable_that_is_not_set_is_named(tmp_path, monkeypatch):
    monkeypatch.delenv("ONESEARCH_DATA", raising=False)
    path = write(tmp_path, folder="${ONESEARCH_DATA}/shop")
    with pytest.raises(ValueError, match=r"ONESEARCH_DATA is not set.*--data-root"):
        load_mapping(path)
    monkeypatch.setenv("ONESEARCH_DATA", "/elsewhere")
    assert load_mapping(path).folder == "/elsewhere/shop"
    assert load_mapping(path, Path("/given")).folder == "/given/shop"
    assert load_mapping(write(tmp_path, folder="files")).folder == str(tmp_path / "files")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"item": ITEMS}, "nearest valid key is 'items'"),
        ({"items": {**ITEMS, "colums": {}}}, "unknown key 'colums' in Items; the nearest valid key is 'columns'"),
        ({"items": {"file": "i", "columns": {"item_id": "a", "titel": "b"}}}, "nearest valid key is 'title'"),
        ({"items": {**ITEMS, "attributes": {"Colour": "c"}}}, "unknown attribute type 'Colour'"),
        ({"items": {**ITEMS, "encoding": "utf-99"}}, "unknown encoding"),
        ({"items": {**ITEMS, "separator": ", "}}, "one character"),
        ({"page_views": {"from": "judgments", "clicked_at": 1}}, "needs a judgments table"),
        ({"page_views": {"file": "f", "columns": {"query": "q"}}}, "at least one of shown, clicked, ordered"),
        ({"page_views": {"file": "f", "rows": "clicks", "columns": {"query": "q"}}}, "needs columns.item_id"),
        ({"page_views": {"file": "f", "group_by": ["q"], "columns": {"query": "q", "clicked": "c"}}}, "rows: clicks"),
        ({"items": {**ITEMS, "separators": {"images": ""}}}, "an empty separator would cut texts into letters"),
        ({"items": {**ITEMS, "attributes": {"Color": {"column": "c", "separator": ""}}}}, "an empty separator"),
        (
            {"page_views": {"file": "f", "columns": {"query": "q", "shown": "c"}, "separators": {"shown": ""}}},
            "an empty separator",
        ),
        (
            {"judgments": {"file": "f", "columns": {"query": "q", "item_id": "i", "score": "s"}, "levels": [3, 2, 1]}},
            "levels must rise",
        ),
        (
            {"judgments": {"file": "f", "columns": {"query": "q", "item_id": "i", "score": "s"}, "levels": [1, 1, 2]}},
            "levels must rise",
        ),
    ],
)
def test_mistakes_are_explained(values, message):
    with pytest.raises(ValidationError) as error:
        ColumnMapping.model_validate({"source": "x", "items": ITEMS, **values})
    assert message in str(error.value)


def test_page_views_from_judgments():
    judgments = {"file": "f", "columns": {"query": "q", "item_id": "i", "score": "s"}}
    mapping = ColumnMapping.model_validate(
        {"source": "x", "items": ITEMS, "judgments": judgments, "page_views": {"from": "judgments", "clicked_at": 2}}
    )
    assert mapping.page_views == PageViewsFromJudgments(origin="judgments", clicked_at=2)


def test_not_a_mapping(tmp_path):
    (tmp_path / "m.yaml").write_text("- a")
    with pytest.raises(ValueError, match="YAML object with the keys source"):
        load_mapping(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("a: [")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_mapping(tmp_path / "m.yaml")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("  attributes:\n    Size: a\n    Size: b\n", r"key 'Size' is given twice(.|\n)*line 6"),
        ("  time: {origin: 2023-02-30}\n", r"'2023-02-30': day is out of range for month(.|\n)*line 4"),
        ("  ignore: [n/a, \udce4]\n", r"line 4 is not valid UTF-8 \(byte 0xe4\); save the file as UTF-8"),
        ("  ? [a, b]\n  : c\n", "not valid YAML"),
    ],
)
def test_what_yaml_would_pass_over_is_an_error_with_file_and_line(tmp_path, text, complaint):
    whole = "source: x\nitems:\n  file: i.csv\n" + text
    (tmp_path / "m.yaml").write_bytes(whole.encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=rf"m\.yaml: (.|\n)*{complaint}"):
        load_mapping(tmp_path / "m.yaml")
