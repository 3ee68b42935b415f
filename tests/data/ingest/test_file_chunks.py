import gzip
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.data.ingest import file_chunks, text_blocks
from onesearch.data.ingest.column_mapping import File
from onesearch.data.ingest.file_chunks import parquet_chunks, text_chunks
from onesearch.data.ingest.rejected_rows import REJECTED, Rejects


def read(path, columns, style=None, folder=None):
    """All rows as dictionaries with their line numbers, and the rows set aside."""
    folder = folder or path.parent
    style = style or File(file=path.name, format="jsonl" if ".jsonl" in path.name else "csv")
    rejects = Rejects(folder)
    parts = list(text_chunks(path, style, "items", columns, rejects))
    rejects.close()
    rows = [(int(line), row) for part in parts for line, row in zip(part.rows, part.frame.to_dicts(), strict=True)]
    return rows, pl.read_parquet(folder / REJECTED).select("row", "reason", "text").rows()


def test_good_csv(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes('\ufeffid,name,x\r\n1,"Shoe, red",\r\n\r\n2,"12"" nail",9\r\n3,last,'.encode())
    rows, bad = read(path, ["name", "id"])
    assert rows == [
        (2, {"name": "Shoe, red", "id": "1"}),
        (4, {"name": '12" nail', "id": "2"}),
        (5, {"name": "last", "id": "3"}),
    ]
    assert bad == []


def test_broken_csv_lines_cost_only_themselves(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,name\n1,one\n2,"never closed\n3,three,extra\n4\n5,caf\xe9\n6,six\n')
    rows, bad = read(path, ["id", "name"])
    assert rows == [(2, {"id": "1", "name": "one"}), (7, {"id": "6", "name": "six"})]
    assert [(line, reason.split(":")[0]) for line, reason, _ in sorted(bad)] == [
        (3, "broken CSV"),
        (4, "wrong number of columns"),
        (5, "wrong number of columns"),
        (6, "not valid utf-8"),
    ]
    assert sorted(bad)[3] == (6, "not valid utf-8: byte 0xe9 at position 6", "5,caf\\xe9")


def test_broken_json_lines_cost_only_themselves(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1, "tags": ["a"]}\n{"id": 2\n\n[3]\n{"id": "x4", "tags": null, "other": {"a": 1}}\n')
    rows, bad = read(path, ["id", "tags"])
    assert rows == [(1, {"id": "1", "tags": ["a"]}), (5, {"id": "x4", "tags": None})]
    assert [(line, reason.split(":")[0]) for line, reason, _ in bad] == [(2, "broken JSON"), (4, "not a JSON object")]


def test_newlines_in_values(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,name\n1,"two\nlines"\n2,one\n')
    rows, bad = read(path, ["id", "name"], File(file="a.csv", format="csv", newlines_in_values=True))
    assert rows == [(2, {"id": "1", "name": "two\nlines"}), (4, {"id": "2", "name": "one"})]
    assert bad == []
    rows, bad = read(path, ["id", "name"])
    assert [row["id"] for _, row in rows] == ["2"]
    assert [line for line, _, _ in bad] == [2, 3]


def test_other_encodings_and_gzip(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("id;name\n1;情侣\n".encode("gb18030")))
    rows, _ = read(path, ["name"], File(file="a.csv.gz", format="csv", separator=";", encoding="gb18030"))
    assert rows == [(2, {"name": "情侣"})]


def test_missing_columns_are_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("id,name\n1,x\n")
    with pytest.raises(ValueError, match="no column 'title'; it has 'id', 'name'"):
        read(path, ["id", "title"])
    path.write_text("")
    with pytest.raises(ValueError, match="not even a header"):
        read(path, ["id"])


def test_parquet_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(file_chunks, "PARQUET_ROWS", 2)
    frame = pl.DataFrame({"id": [1, 2, 3], "tags": [["a"], [], None], "x": [0, 0, 0]})
    frame.write_parquet(tmp_path / "a.parquet")
    parts = list(parquet_chunks(tmp_path / "a.parquet", ["id", "tags"]))
    assert [part.rows.tolist() for part in parts] == [[1, 2], [3]]
    assert pl.concat(part.frame for part in parts).equals(frame.drop("x"))


VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
LINES = st.lists(st.one_of(st.tuples(VALUES, VALUES), st.sampled_from([b'{"a": 1', b"\xff{}", b"7", b""])), max_size=12)


@quick
@given(LINES, st.integers(20, 60))
def test_any_mix_of_good_and_bad_lines_in_blocks_of_any_size(tmp_path_factory, lines, block):
    """Every good line is read, every bad one set aside, each under its own number, wherever the blocks are cut."""
    folder = tmp_path_factory.mktemp("lines")
    good = {n: {"a": x[0], "b": x[1]} for n, x in enumerate(lines, 1) if isinstance(x, tuple)}
    bad = [n for n, x in enumerate(lines, 1) if isinstance(x, bytes) and x]
    written = [json.dumps(good[n], ensure_ascii=False).encode() if n in good else x for n, x in enumerate(lines, 1)]
    (folder / "a.jsonl").write_bytes(b"\n".join(written))
    size, text_blocks.BLOCK = text_blocks.BLOCK, block
    try:
        rows, aside = read(folder / "a.jsonl", ["a", "b"])
    finally:
        text_blocks.BLOCK = size
    assert dict(rows) == good and len(rows) == len(good)
    assert sorted(line for line, _, _ in aside) == bad


def test_lines_keep_their_numbers_in_other_encodings(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("id;name\n\n1;情侣\n".encode("gb18030") + b"2;\xff\n3;x\n")
    rows, bad = read(path, ["id"], File(file="a.csv", format="csv", separator=";", encoding="gb18030"))
    assert rows == [(3, {"id": "1"}), (5, {"id": "3"})]
    assert [(line, reason.split(":")[0]) for line, reason, _ in bad] == [(4, "not valid gb18030")]
