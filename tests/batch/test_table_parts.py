import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.batch.conftest import numbered

from onesearch.batch import table_parts
from onesearch.batch.table_parts import PartReader, parts_of, table_files


def test_parts_are_row_groups_and_ranges_of_large_ones(source):
    parts = parts_of(table_files(source), 4)
    assert [(part.file, part.group, part.start, part.rows) for part in parts] == [
        *[(0, 0, 0, 4), (0, 0, 4, 1), (0, 1, 0, 4), (0, 1, 4, 1), (0, 2, 0, 2)],
        *[(1, 0, 0, 4), (1, 0, 4, 1), (1, 1, 0, 4)],
    ]
    assert len(parts_of(table_files(source), 5)) == 5
    names = [part.name for part in parts]
    assert names == sorted(names) and names[4] == "part-00000-00002-0000000000"
    assert str(parts[1]).endswith(f"(rows 4 to 4 of row group 0 of {source / 'a.parquet'})")


def test_one_file_is_a_table_and_an_empty_one_has_no_parts(source, tmp_path):
    assert table_files(source / "b.parquet") == [source / "b.parquet"]
    pq.write_table(numbered(0), tmp_path / "empty.parquet")
    parts = parts_of([tmp_path / "empty.parquet"], 10)
    assert sum(part.rows for part in parts) == 0
    assert all(PartReader().read(part).schema == numbered(0).schema for part in parts)


def test_what_is_no_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        table_files(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no \*\.parquet"):
        table_files(tmp_path)
    (tmp_path / "x.parquet").write_text("no table")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read as Parquet"):
        parts_of(table_files(tmp_path), 10)


@pytest.mark.parametrize("most_rows", [1, 3, 4, 7, 100])
@pytest.mark.parametrize("at_once", [1, 3, 8])
def test_a_part_is_that_slice_of_the_table_in_any_order(tmp_path, monkeypatch, most_rows, at_once):
    """Ranges that begin and end within what is decoded at once, read in order, skipping, backwards and again."""
    monkeypatch.setattr(table_parts, "_READ_AT_ONCE", at_once)
    whole = numbered(29)
    pq.write_table(whole, tmp_path / "t.parquet", row_group_size=17)
    parts = parts_of([tmp_path / "t.parquet"], most_rows)
    assert sum(part.rows for part in parts) == 29
    rng = np.random.default_rng(0)
    for order in (parts, parts[::2], parts[::-1], [parts[0], parts[0]], list(rng.permutation(parts))):
        reader = PartReader()
        for part in order:
            assert reader.read(part) == whole.slice(17 * part.group + part.start, part.rows)


def test_only_the_columns_asked_for_are_read(source):
    (first, *_), reader = parts_of(table_files(source), 5), PartReader(["text", "not there"])
    assert reader.read(first).column_names == ["text"]


def test_rows_in_order_are_decoded_once(source, monkeypatch):
    opened = []
    original = PartReader._open
    monkeypatch.setattr(PartReader, "_open", lambda self, part: (opened.append(part), original(self, part)))
    reader = PartReader()
    for part in parts_of(table_files(source), 2):
        reader.read(part)
    assert [(part.file, part.group) for part in opened] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]


def test_a_file_that_lost_rows_is_named(source):
    (part, *_) = parts_of(table_files(source), 5)
    pq.write_table(numbered(3), source / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet has fewer rows than before"):
        PartReader().read(part)


@pytest.mark.parametrize("row_group", [2_000, 1_000_000])
def test_memory_holds_a_part_and_not_the_table(tmp_path, row_group):
    """Of 32 MB in row groups of any size, a reader of parts of 160 kB holds a few."""
    rows = 200_000
    vectors = pa.FixedSizeListArray.from_arrays(np.random.default_rng(0).random(rows * 20), 20)
    pq.write_table(pa.table({"v": vectors}), tmp_path / "t.parquet", row_group_size=row_group)
    del vectors
    pool, held = pa.default_memory_pool(), 0
    reader, start = PartReader(), pool.bytes_allocated()
    for part in parts_of([tmp_path / "t.parquet"], 1_000):
        table = reader.read(part)
        held = max(held, pool.bytes_allocated() - start)
        assert len(table) == 1_000
    assert 0 < held < 8e6
