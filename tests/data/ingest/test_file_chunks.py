import csv
import gzip
import json
import zipfile
from decimal import Decimal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.data.ingest import file_chunks, text_blocks
from onesearch.data.ingest.column_mapping import File
from onesearch.data.ingest.dictionary_texts import _text_bytes
from onesearch.data.ingest.file_chunks import parquet_chunks, read_chunks, text_chunks
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


QUOTED = File(file="a.csv", format="csv", newlines_in_values=True)


@pytest.mark.parametrize("block", [16, 40, 1 << 20])
def test_a_quote_that_never_closes_costs_its_own_line(tmp_path, monkeypatch, block):
    """With line ends in values the lines after it could be part of it; they are rows of their own, counted as such."""
    monkeypatch.setattr(text_blocks, "BLOCK", block)
    path = tmp_path / "a.csv"
    lines = [
        "id,name",
        '1,"two',
        'lines"',
        '2,"never closed',
        '3,15" sleeve',
        '4,"a ""b"""',
        *(f"{n},x" for n in range(5, 25)),
    ]
    path.write_text("\n".join([*lines, '99,"at the end', "100,y"]) + "\n")
    rows, bad = read(path, ["id", "name"], QUOTED)
    assert [row["id"] for _, row in rows] == ["1", "3", "4", *map(str, range(5, 25)), "100"]
    assert dict(rows)[2] == {"id": "1", "name": "two\nlines"} and dict(rows)[5] == {"id": "3", "name": '15" sleeve'}
    assert dict(rows)[6]["name"] == 'a "b"'
    assert [(line, reason.split(":")[0]) for line, reason, _ in bad] == [(4, "broken CSV"), (27, "broken CSV")]


CELLS = st.text(st.sampled_from('ab";\n\r é'), max_size=6)


@quick
@given(
    st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=8), st.integers(10, 60), st.sampled_from(["utf-8", "cp1252"])
)
def test_quoted_values_are_those_of_pythons_csv(tmp_path_factory, cells, block, encoding):
    path = tmp_path_factory.mktemp("quoted") / "a.csv"
    with path.open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=";", quoting=csv.QUOTE_ALL).writerows([("x", "y"), *cells])
    size, text_blocks.BLOCK = text_blocks.BLOCK, block
    try:
        style = QUOTED.updated(separator=";", encoding=encoding)
        rows, bad = read(path, ["x", "y"], style)
    finally:
        text_blocks.BLOCK = size
    assert bad == []
    # A value of nothing is none; pyarrow reads "\r" within quotes as Python does.
    assert [tuple(row.values()) for _, row in rows] == [tuple(cell or None for cell in pair) for pair in cells]


def test_lone_surrogates_are_set_aside_and_pairs_are_not(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"t": "chair \\ud83e\\ude91"}\n{"t": "half \\ud83e"}\n{"t": "other \\ude91 half"}\n'
        '{"t": "ok", "x": "\\ud800"}\n'
    )
    rows, bad = read(path, ["t"])
    assert rows == [(1, {"t": "chair 🪑"}), (4, {"t": "ok"})]
    assert [(line, reason.split(":")[0]) for line, reason, _ in bad] == [(2, "lone surrogate"), (3, "lone surrogate")]
    # Of this one polars would make the character 0.
    path.write_text('{"t": "half \\ud83e"}\n')
    assert read(path, ["t"])[0] == []


NESTED = [
    {
        "sku": 1,
        "brand": {"name": "Acme", "id": 7},
        "pics": [{"url": "a"}, {"url": "b"}],
        "a.b": "flat",
        "stock": {"n": 0},
    },
    {"sku": 2, "brand": {"name": None}, "pics": [], "stock": None},
    {"sku": 3},
]
WANTED = ["sku", "brand.name", "pics.url", "a.b", "stock.n"]
VALUES_OF_NESTED = {"brand.name": ["Acme", None, None], "a.b": ["flat", None, None], "stock.n": [0, None, None]}


@pytest.mark.parametrize("form", ["jsonl", "mixed jsonl", "parquet", "csv"])
def test_keys_within_objects_are_columns(tmp_path, form):
    table = File(file=f"a.{form.split()[-1]}")
    path = tmp_path / table.file
    if form == "parquet":
        pl.DataFrame(NESTED).write_parquet(path)
    elif form == "csv":
        cells = [{key: json.dumps(value) for key, value in row.items()} for row in NESTED]
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["sku", "brand", "pics", "a.b", "stock"])
            writer.writeheader()
            writer.writerows(cells)
    else:
        # A number where others have texts makes the block be read record by record.
        more = [{"sku": "x", "brand": {"name": ["a", 7]}}] if form == "mixed jsonl" else []
        path.write_text("\n".join(map(json.dumps, [*NESTED, *more])))
    (chunk,) = read_chunks(tmp_path, table, "items", WANTED, Rejects(None))
    frame = chunk.frame[:3]
    assert frame.columns == WANTED
    for name, values in VALUES_OF_NESTED.items():
        found = [value[0] if isinstance(value, list) and value else value for value in frame[name].to_list()]
        expected = values if form != "csv" or name != "a.b" else ['"flat"', None, None]
        assert [None if v is None else str(v) for v in found] == [None if v is None else str(v) for v in expected]
    assert [value or [] for value in frame["pics.url"].to_list()] == [["a", "b"], [], []]


@pytest.mark.parametrize(
    ("records", "wanted", "complaint"),
    [
        (
            [{"brand": {"name": "A", "id": 1}}],
            "brand",
            r"'brand' holds objects; map one of their keys: brand\.name, brand\.id",
        ),
        ([{"brand": [{"name": "A"}]}, {"brand": []}], "brand", r"'brand' holds objects; .* brand\.name$"),
        ([{"brand": [["A"]]}], "brand", "'brand' holds lists of lists"),
        ([{"brand": "A"}, {"brand": "B"}], "brnad", "none of the first 2 lines has the key 'brnad'; it has 'brand'"),
        ([{"brand": {"name": "A"}}], "brand.title", "has the key 'brand.title'"),
        ([[{"brand": "A"}]], "brand", r"a JSON array; JSON lines have one object a line, e\.g\. by jq"),
    ],
)
def test_mistakes_with_keys_are_named(tmp_path, records, wanted, complaint):
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(ValueError, match=rf"a\.jsonl: .*{complaint}"):
        read(tmp_path / "a.jsonl", [wanted])


def test_an_object_among_texts_is_a_row_set_aside(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"b": "Acme"}\n{"b": {"name": "Zet"}}\n{"b": "[New]"}\n{"b": ["x"]}\n')
    rows, bad = read(tmp_path / "a.jsonl", ["b"])
    assert rows == [(1, {"b": ["Acme"]}), (3, {"b": ["[New]"]}), (4, {"b": ["x"]})]
    assert [(line, reason) for line, reason, _ in bad] == [
        (2, "the column 'b' holds objects; map one of their keys: b.name")
    ]


def test_columns_of_parquet_that_text_files_do_not_have(tmp_path):
    frame = pl.DataFrame(
        {
            "bytes": [b"a", b"\xff"],
            "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
            "price": pl.Series(["1.050", "2.5"]).cast(pl.Decimal(10, 3)),
            "nothing": [None, None],
            "listed": pl.Series([[1, 2], [3, 4]], dtype=pl.Array(pl.Int64, 2)),
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    (chunk,) = parquet_chunks(tmp_path / "a.parquet", frame.columns)
    assert chunk.frame.to_dict(as_series=False) == {
        "bytes": ["a", None],
        "kind": ["x", "y"],
        "price": [Decimal("1.050"), Decimal("2.500")],
        "nothing": [None, None],
        "listed": [[1, 2], [3, 4]],
    }
    with pytest.raises(ValueError, match=r"a\.parquet: no column 'prise'; it has 'bytes'"):
        list(parquet_chunks(tmp_path / "a.parquet", ["prise"]))
    pl.DataFrame({"b": [{"n": 1}]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet: the column 'b' holds objects; map one of their keys: b\.n"):
        list(parquet_chunks(tmp_path / "a.parquet", ["b"]))
    (tmp_path / "a.parquet").write_bytes(b"sku,name\n1,x\n")
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read as Parquet"):
        list(parquet_chunks(tmp_path / "a.parquet", ["b"]))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"sku;name\n1;x\n", "no column 'sku', 'name'; it has 'sku;name'; set separator: ';'"),
        (b"sku,name,name\n1,x,y\n", "the column 'name' is there twice"),
        (b'sku,"name\n1,x\n', "the header line is broken CSV"),
        (
            "sku,näme\n1,x\n".encode("cp1252"),
            "the header line is not valid utf-8: .*; set encoding, for example cp1252",
        ),
    ],
)
def test_headers_that_do_not_fit_are_explained(tmp_path, content, complaint):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=complaint):
        read(tmp_path / "a.csv", ["sku", "name"])


@pytest.mark.parametrize("ending", ["csv.gz", "csv.zst", "csv.bz2", "zip", "CSV"])
def test_the_format_is_that_of_the_name_within_the_packing(tmp_path, ending):
    data = b"sku,name\n1,x\n"
    if ending == "zip":
        with zipfile.ZipFile(tmp_path / "shop.zip", "w") as archive:
            archive.writestr("inside.csv", data)
    else:
        (tmp_path / f"shop.{ending}").write_bytes(gzip.compress(data))
    (chunk,) = read_chunks(tmp_path, File(file=f"shop.{ending}"), "items", ["sku"], Rejects(None))
    assert chunk.frame["sku"].to_list() == ["1"]


def test_deep_nesting_is_one_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"t": "one"}\n{"t": ' + "[" * 200_000 + "]" * 200_000 + '}\n{"t": "two"}\n')
    rows, bad = read(tmp_path / "a.jsonl", ["t"])
    assert [row["t"] for _, row in rows] == ["one", "two"]
    assert [(line, reason.split(":")[0]) for line, reason, _ in bad] == [(2, "broken JSON")]


@pytest.mark.parametrize("large", [False, True])
def test_long_texts_that_a_dictionary_repeats_come_in_parts(tmp_path, monkeypatch, large):
    """Each row is as it was written, in as many parts as its texts ask for; few rows of a file are repeated."""
    monkeypatch.setattr("onesearch.data.ingest.dictionary_texts._PART", 1000)
    text = pa.large_string() if large else pa.string()
    lists = pa.large_list if large else pa.list_
    long, rows = "x" * 400, 20
    columns = {
        "id": pa.array([str(row) for row in range(rows)], text),
        "title": pa.array([None if row == 3 else long for row in range(rows)], text),
        "tags": pa.array([None if row == 4 else [long, None, "b"] * (row % 3) for row in range(rows)], lists(text)),
        "brand": pa.array([{"name": long, "n": row} for row in range(rows)]),
        "bytes": pa.array([b"ab"] * rows),
    }
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=8)
    monkeypatch.setattr("onesearch.data.ingest.file_chunks.PARQUET_ROWS", 6)
    parts = list(parquet_chunks(tmp_path / "a.parquet", ["id", "title", "tags", "brand.name", "bytes"]))
    assert [row for part in parts for row in part.rows] == list(range(1, rows + 1)) and len(parts) > 6
    whole = pl.concat(part.frame for part in parts)
    plain = pl.DataFrame(table).with_columns(pl.col("brand").struct.field("name").alias("brand.name"))
    assert whole["id"].to_list() == plain["id"].to_list() and whole["bytes"].to_list() == ["ab"] * rows
    for name in ("title", "tags", "brand.name"):
        assert whole[name].to_list() == plain[name].to_list()
    # A column of texts alone is measured, too.
    assert len(list(parquet_chunks(tmp_path / "a.parquet", ["title"]))) > 6


@pytest.mark.parametrize("numbers", [[0, 2, 1], [-1, 0]])
def test_a_row_that_is_not_in_its_dictionary_is_no_text(numbers):
    """pyarrow takes what lies behind the texts in memory for one."""
    damaged = pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), pa.array(["a", "bcd"]), safe=False)
    with pytest.raises(pa.ArrowInvalid, match="of a dictionary of 2"):
        _text_bytes(damaged)
    whole = pa.DictionaryArray.from_arrays(pa.array([0, None, 1], pa.int32()), pa.array(["a", "bcd"]))
    assert _text_bytes(whole).tolist() == [1, 0, 3]
    assert _text_bytes(whole.slice(0, 0)).tolist() == []


def test_a_dictionary_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("onesearch.data.ingest.file_opening.ALWAYS_UNPACKED", 1 << 20)
    many = pa.table({"id": list(map(str, range(100))), "title": ["x" * 100_000] * 100})
    pq.write_table(many, tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(ValueError, match=r"a\.parquet: its [\d,]+ bytes hold more than [\d,]+ bytes of values"):
        list(parquet_chunks(tmp_path / "a.parquet", ["id", "title"]))


def test_a_column_of_parquet_whose_name_is_no_text_is_one_error(tmp_path):
    pl.DataFrame({"brand_x": ["a"]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes().replace(b"brand_x", b"bra\xaad_x"))
    with pytest.raises(ValueError, match=r"a\.parquet: "):
        list(parquet_chunks(tmp_path / "a.parquet", ["brand_x"]))


def nested(depth, sign="{"):
    """A value so many objects or lists deep."""
    return '{"n":' * depth + "1" + "}" * depth if sign == "{" else "[" * depth + "]" * depth


@pytest.mark.parametrize("sign", ["{", "["])
def test_a_record_nested_deep_under_a_key_nobody_asked_for_is_read_by_itself(tmp_path, monkeypatch, sign):
    """All keys of a block in one table of polars: the time for them grows with the power of their depth."""
    asked = []
    monkeypatch.setattr(pl, "read_ndjson", lambda *_, **__: asked.append(1) or pytest.fail("all keys were read"))
    lines = ['{"t": "[one]"}', f'{{"t": "two", "extra": {nested(51, sign)}}}', '{"t": "three {"}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows, bad = read(tmp_path / "a.jsonl", ["t"])
    assert [row["t"] for _, row in rows] == ["[one]", "two", "three {"] and bad == [] and not asked


@pytest.mark.parametrize("spread", ["over records", "in one record"])
def test_keys_that_grow_with_the_records_are_no_columns(tmp_path, monkeypatch, spread):
    """Ids as keys: a table of all keys has as many cells as the square of the records."""
    monkeypatch.setattr(pl, "read_ndjson", lambda *_, **__: pytest.fail("all keys were read"))
    keys = [[str(n)] for n in range(20_000)] if spread == "over records" else [["a"], map(str, range(1500)), ["a"]]
    lines = [json.dumps({"t": str(n), "stock": dict.fromkeys(k, 1)}) for n, k in enumerate(keys)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows, bad = read(tmp_path / "a.jsonl", ["t"])
    assert [row["t"] for _, row in rows] == [str(n) for n in range(len(keys))] and bad == []


def test_usual_records_are_read_at_once(tmp_path, monkeypatch):
    """Many brackets, braces in texts, a few sparse keys: none of this is a reason to go record by record."""
    monkeypatch.setattr("onesearch.data.ingest.record_parsing._jsonl_by_record", lambda *_: pytest.fail("one by one"))
    lines = [
        json.dumps({"t": "{[" * 60, "pics": [{"u": 1}] * 60, f"key {n % 70}": n, "price": 9.5, "id": 2**53 - 1})
        for n in range(3000)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows, _ = read(tmp_path / "a.jsonl", ["id", "price", "pics.u"])
    assert len(rows) == 3000 and rows[0][1]["id"] == 2**53 - 1


def test_whole_numbers_keep_all_their_digits_beside_fractions(tmp_path):
    """A fraction in the same key must not make floats of them, which would be ids of other things."""
    large = 2**53 + 1
    lines = [f'{{"i": {large}, "l": [{large}, 2.0]}}', '{"i": 5.0, "l": [1.5]}', f'{{"i": -{large}.0}}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    rows, _ = read(tmp_path / "a.jsonl", ["i", "l"])
    assert [row["i"] for _, row in rows] == [str(large), "5", f"-{large}.0"]
    assert [row["l"] for _, row in rows] == [[str(large), "2"], ["1.5"], None]


@pytest.mark.parametrize("key", ["p", "price.amount"])
def test_numbers_are_told_from_texts_where_a_key_has_both(tmp_path, key):
    first, _, rest = key.partition(".")
    values = [98.765, "98.765", [1.125], None, True]
    lines = [json.dumps({first: {rest: value} if rest else value, "id": "x"}) for value in values]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (chunk,) = read_chunks(tmp_path, File(file="a.jsonl"), "items", [key, "id"], Rejects(None))
    assert chunk.numbers[key].to_list() == [True, False, True, False, False]
    assert chunk.numbers["id"].to_list() == [False] * 5
    # The same without a list, where polars would read the block at once and make texts of the numbers.
    (tmp_path / "a.jsonl").write_text("\n".join(lines[:2]))
    (chunk,) = read_chunks(tmp_path, File(file="a.jsonl"), "items", [key], Rejects(None))
    assert chunk.numbers[key].to_list() == [True, False]


def test_files_of_one_name_in_several_folders_are_told_apart(tmp_path):
    for folder in ("north", "south"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.csv").write_text("id,t\n1,x\n2\n")
        (tmp_path / folder / "a.jsonl").write_text('{"id": 1}\nnone\n')
        pl.DataFrame({"id": [1]}).write_parquet(tmp_path / folder / "a.parquet")
    rejects = Rejects(tmp_path)
    for kind in ("csv", "jsonl", "parquet"):
        chunks = list(read_chunks(tmp_path, File(file=f"*/a.{kind}"), "items", ["id"], rejects))
        assert [chunk.file for chunk in chunks] == [f"north/a.{kind}", f"south/a.{kind}"]
    rejects.close()
    aside = pl.read_parquet(tmp_path / REJECTED)
    assert aside["file"].to_list() == ["north/a.csv", "south/a.csv", "north/a.jsonl", "south/a.jsonl"]


def as_type(kind, *numbers):
    """Numbers as the same bits of another type."""
    return pa.array(numbers, pa.int32() if kind == pa.date32() else pa.int64()).view(kind)


@pytest.mark.parametrize(
    ("kind", "good", "wrong"),
    [
        (pa.timestamp("ms"), 1_700_000_000_000, -(2**62)),
        (pa.timestamp("us", "Asia/Tokyo"), 1_700_000_000_000_000, 2**63 - 1),
        (pa.timestamp("us"), 1_700_000_000_000_000, 10**18),
        (pa.date32(), 19_000, -(2**31)),
    ],
)
def test_moments_outside_the_calendar_are_none_and_counted(tmp_path, kind, good, wrong):
    times = as_type(kind, good, wrong)
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 2], pa.int32()), times)
    pq.write_table(pa.table({"t": times, "l": lists}), tmp_path / "a.parquet")
    (chunk,) = parquet_chunks(tmp_path / "a.parquet", ["t", "l"])
    assert chunk.frame["t"].null_count() == 1 and chunk.frame["t"][0].year > 2020
    assert [len(found) for found in chunk.frame["l"].to_list()] == [1, 0]
    assert chunk.lost == {("t", "outside the calendar"): 1, ("l", "outside the calendar"): 1}


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (pa.array([1], pa.decimal256(60, 1)), r"'x' has the type decimal256\(60, 1\)"),
        (pa.array([[1]], pa.list_(pa.decimal256(50, 0))), "'x' has the type decimal256"),
        (as_type(pa.duration("us"), 5), "'x' holds Duration"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), "'x' holds"),
    ],
)
def test_a_type_that_cannot_be_read_is_named_with_its_column(tmp_path, array, said):
    pq.write_table(pa.table({"x": array}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=rf"a\.parquet: the column {said}"):
        list(parquet_chunks(tmp_path / "a.parquet", ["x"]))


def test_what_cells_and_bytes_lose_is_counted(tmp_path):
    rows = [
        ['{"name": "Acme"}'],
        ["{'name': 'Acme'}"],
        ["Acme"],
        [""],
        ["null"],
        ['{"name": {"de": "A"}}'],
        ["{}"],
        ["7"],
    ]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["brand"], *rows])
    (chunk,) = read_chunks(tmp_path, File(file="a.csv"), "items", ["brand.name"], Rejects(None))
    assert chunk.frame["brand.name"].drop_nulls().to_list() == ["Acme"]
    assert chunk.lost == {
        ("brand.name", "a cell that holds no JSON object"): 3,
        ("brand.name", "an object, or a list of lists"): 1,
    }
    pl.DataFrame({"b": [b"\xe4", b"a"], "l": [[b"x", b"\xff"], [b"\xfe"]]}).write_parquet(tmp_path / "a.parquet")
    (chunk,) = parquet_chunks(tmp_path / "a.parquet", ["b", "l"])
    assert chunk.lost == {("b", "bytes that are not UTF-8"): 1, ("l", "bytes that are not UTF-8"): 2}


def test_nan_is_no_value(tmp_path):
    pl.DataFrame({"x": [1.5, float("nan")], "l": [[float("nan"), 2.0], []]}).write_parquet(tmp_path / "a.parquet")
    (chunk,) = parquet_chunks(tmp_path / "a.parquet", ["x", "l"])
    assert chunk.frame.to_dict(as_series=False) == {"x": [1.5, None], "l": [[2.0], []]}
    # As Python writes it, which is no JSON.
    (tmp_path / "a.jsonl").write_text('{"x": NaN, "i": 1}\n{"x": 3, "i": 2}\n')
    rows, bad = read(tmp_path / "a.jsonl", ["x", "i"])
    assert [row["x"] for _, row in rows] == [None, "3"] and bad == []


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize(
    "wrong", [r'1,"Pipe 3/4\" brass",5', r'1,"\"A\" pipe",5', r'1,"5\"",6', '1,"a,"b,8', '1,"a" ,8']
)
def test_a_quote_behind_a_backslash_is_broken_csv_whatever_stands_beside_it(tmp_path, wrong, broken):
    """As MySQL exports them: read leniently, the title would have a backslash and a quote too many."""
    lines = ["id,t,n", wrong, '2,"Pipe ""A""",5', '3,Pipe 1" long,5', '4,"",5', *(['5,"x'] if broken else [])]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    rows, bad = read(tmp_path / "a.csv", ["id", "t"])
    good = [{"id": "2", "t": 'Pipe "A"'}, {"id": "3", "t": 'Pipe 1" long'}, {"id": "4", "t": None}]
    assert [row for _, row in rows] == good
    assert [line for line, _, _ in bad] == [2, *([6] if broken else [])]
    advised = bad[0][1].endswith('; write "" for a quote in a quoted value, not \\"')
    assert bad[0][1].startswith("broken CSV: ") and advised == ("\\" in wrong)


@quick
@given(st.lists(st.text(st.sampled_from('ab"",\\ '), min_size=1, max_size=14).filter(str.strip), max_size=6))
def test_a_csv_record_is_read_the_same_whatever_stands_beside_it(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("beside")
    found = []
    for more in ([], ["too,many,values"]):
        (folder / "a.csv").write_text("\n".join(["x,y", *lines, *more]) + "\n")
        rows, bad = read(folder / "a.csv", ["x", "y"])
        found.append((rows, [line for line in sorted(line for line, _, _ in bad) if line <= len(lines) + 1]))
    assert found[0] == found[1]


@pytest.mark.parametrize("depth", [60, 900])
def test_lists_nested_deep_on_the_way_to_a_key_are_one_bad_value(tmp_path, depth):
    """As deep as Python reads JSON, and deeper than its calls go."""
    deep = "[" * depth + '{"b": 1}' + "]" * depth
    (tmp_path / "a.jsonl").write_text(f'{{"a": {{"b": "x"}}}}\n{{"a": {deep}}}\n{{"a": [{{"b": "y"}}]}}\n')
    rows, bad = read(tmp_path / "a.jsonl", ["a.b"])
    assert rows == [(1, {"a.b": ["x"]}), (3, {"a.b": ["y"]})]
    assert [(line, reason) for line, reason, _ in bad] == [
        (2, "the column 'a.b' holds lists of lists; map a column of values or of lists")
    ]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["a"], ['{"b": "x"}'], [deep]])
    (chunk,) = read_chunks(tmp_path, File(file="a.csv"), "items", ["a.b"], Rejects(None))
    assert chunk.frame["a.b"].to_list() == ["x", None] and sum(chunk.lost.values()) == 1


def test_a_misspelt_key_of_objects_in_cells_is_named(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,b\n1,"{""name"": ""Acme"", ""x"": {""y"": null}}"\n2,\n3,"[{""name"": ""Zet""}]"\n')
    with pytest.raises(ValueError, match=r"none of the first 3 rows has the key 'b\.nam'; it has 'b\.name', 'b\.x'"):
        read(path, ["id", "b.nam"])
    with pytest.raises(ValueError, match=r"the key 'b\.x\.z'"):
        read(path, ["id", "b.x.z"])
    # A key without a value is there; so is one that no object speaks of, as there is none.
    assert [row["b.x.y"] for _, row in read(path, ["id", "b.x.y"])[0]] == [None, None, []]
    (tmp_path / "b.csv").write_text("id,b\n1,\n")
    assert read(tmp_path / "b.csv", ["b.name"])[0] == [(2, {"b.name": None})]
