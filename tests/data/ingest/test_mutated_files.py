"""Files that no shop would write, changed by structure and by bytes: the import ends, or says in a sentence why not."""

import bz2
import csv
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.importer import import_mapping

VALUES = [
    "1",
    "",
    None,
    True,
    -1,
    9.5,
    1e308,
    "1.050",
    "2024-05-01",
    "\ud800",
    "x" * 3000,
    ["a"],
    {"a": {"b": [1]}},
    10**30,
]
NAMES = ["sku", "name", "price", "when", "pics"]
SIGNS = [b'"', b"\n", b"\r", b"{", b"]", b"\\ud800", b"\xff\xfe", b"\x00", b"[[", b"9" * 40, b""]
PACKERS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def written(kind: str, rows: list[dict[str, Any]]) -> bytes:
    """Rows as a file of a kind."""
    if kind == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    out = io.BytesIO()
    if kind == "csv":
        cells = [
            {name: json.dumps(cell) if isinstance(cell, list | dict) else cell for name, cell in row.items()}
            for row in rows
        ]
        text = io.TextIOWrapper(out, "utf-8", "surrogatepass", newline="", write_through=True)
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)))
        writer.writeheader()
        writer.writerows(cells)
        return out.getvalue()
    # A column of Parquet has one type; mixed values are texts.
    names = dict.fromkeys(name for row in rows for name in row)
    columns = {}
    for name in names:
        cells = [row.get(name) for row in rows]
        kinds = {type(cell) for cell in cells if cell is not None}
        plain = len(kinds) == 1 and not any(isinstance(cell, int) and abs(cell) > 2**63 for cell in cells)
        columns[name] = pa.array(cells if plain else [None if c is None else repr(c)[:99] for c in cells])
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def mutated_file(data: st.DataObject) -> tuple[str, bytes]:
    """A file of items, changed by structure: values of other types, keys gone or added, rows of other lengths; then
    packed, and perhaps with bytes changed or cut off."""
    kind = data.draw(st.sampled_from(["csv", "jsonl", "parquet"]))
    rows = [dict(zip(NAMES, ["1", "Chair, red", "9.50", "2024-05-01", ["a"]], strict=True)) for _ in range(3)]
    for number, row in enumerate(rows):
        row["sku"] = str(number)
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=3)):
            row[name] = data.draw(st.sampled_from(VALUES))
        for name in data.draw(st.lists(st.sampled_from(NAMES), max_size=1)):
            row.pop(name, None)
    if data.draw(st.booleans()):
        rows[-1]["sku.name"] = data.draw(st.sampled_from(VALUES))
    try:
        whole = bytearray(written(kind, rows))
    except (UnicodeEncodeError, pa.ArrowException):  # what such a file cannot hold
        whole = bytearray(written("jsonl", rows))
    packing = data.draw(st.sampled_from([*PACKERS])) if kind != "parquet" else ""
    inside = data.draw(st.booleans())
    whole = whole if inside else bytearray(PACKERS[packing](bytes(whole)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, max(0, len(whole) - 1)))
        whole[at : at + data.draw(st.integers(0, 6))] = data.draw(st.sampled_from(SIGNS))
    if data.draw(st.integers(0, 9)) == 0:
        del whole[data.draw(st.integers(0, len(whole))) :]
    return f"items.{kind}{packing}", PACKERS[packing](bytes(whole)) if inside else bytes(whole)


def import_mutated(tmp_path: Path, data: st.DataObject) -> None:
    """The import ends, or says in a sentence why not."""
    name, content = mutated_file(data)
    (tmp_path / name).write_bytes(content)
    columns = {"item_id": "sku", "title": "name", "price": "price", "listed_at": "when", "images": "pics"}
    style = {
        "newlines_in_values": data.draw(st.booleans()),
        "encoding": data.draw(st.sampled_from(["utf-8", "cp1252"])),
    }
    mapping = {"source": "x", "folder": str(tmp_path), "items": {"file": name, "columns": columns, **style}}
    try:
        import_mapping(ColumnMapping.model_validate(mapping), tmp_path / "out")
    except ValueError as error:
        assert str(tmp_path) in str(error) and "\n" not in str(error)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_file_of_data_is_a_traceback(tmp_path, data):
    import_mutated(tmp_path, data)


@pytest.mark.hours
@pytest.mark.timeout(7200)
@settings(max_examples=10_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(st.data())
def test_none_of_ten_thousand_files_of_data_is_a_traceback(tmp_path, data):
    import_mutated(tmp_path, data)
