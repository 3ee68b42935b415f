"""Parquet batches whose texts stay within bounds: a dictionary holds a text once, however many rows have it.

Columns with a long text in a dictionary are read as numbers into it, as they stand in the file, so that the length of
their rows is known before the texts are written out.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onesearch.data.ingest.file_opening import most_unpacked

_PART = 64 << 20  # bytes of texts in a batch, or one row


def parquet_batches(path: Path, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Batches of at most so many rows, their texts written out.

    Raises:
        ValueError: the texts are longer in all than a file of this size can mean.
        pyarrow.ArrowException: it is no Parquet file, or damaged.
    """
    bound, total = most_unpacked(path), 0
    with pq.ParquetFile(path) as file:
        metadata = file.metadata
        paths = [file.schema.column(number).path for number in range(len(file.schema))]
        texts = [name for number, name in enumerate(paths) if file.schema.column(number).physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(path, metadata=metadata, read_dictionary=texts) as file:
        long = [_long_columns(file, group, columns, rows) for group in range(metadata.num_row_groups)]
    # Row groups are read in one go; one with long columns, whose dictionaries are its own, by itself.
    keys = [(names, group if names else -1) for group, names in enumerate(long)]
    for (names, _), groups in itertools.groupby(range(len(keys)), keys.__getitem__):
        as_numbers = [leaf for leaf in texts if any(leaf == name or leaf.startswith(f"{name}.") for name in names)]
        with pq.ParquetFile(path, metadata=metadata, read_dictionary=as_numbers) as file:
            for batch in file.iter_batches(batch_size=rows, columns=columns, row_groups=list(groups)):
                lengths = sum((_text_bytes(column) for column in batch.columns), np.zeros(len(batch), np.int64))
                total += int(lengths.sum()) + batch.nbytes
                if total > bound:
                    raise ValueError(
                        f"{path}: its {path.stat().st_size:,} bytes hold more than {bound:,} bytes of values, which"
                        " looks like an archive bomb; if it is data, write it anew in several files"
                    )
                yield from _parts(batch, lengths)


def _long_columns(file: pq.ParquetFile, group: int, columns: Sequence[str], rows: int) -> frozenset[str]:
    """Columns of a row group whose dictionary has a text too long to stand in every row, and lists of texts."""
    first = next(file.iter_batches(batch_size=1, row_groups=[group], columns=columns), None)
    found = set()
    for name, column in zip(first.schema.names, first.columns, strict=True) if first is not None else ():
        if pa.types.is_dictionary(column.type):
            longest = pc.max(pc.binary_length(column.dictionary)).as_py() or 0
            if longest * rows > _PART:
                found.add(name)
        elif _written_out(column.type) != column.type:
            found.add(name)
    return frozenset(found)


def _parts(batch: pa.RecordBatch, lengths: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """A batch without dictionaries; it ends where its texts would be too many, but has at least one row."""
    begun = (np.cumsum(lengths) - lengths) // _PART
    starts = np.flatnonzero(np.diff(begun, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(batch)], strict=True):
        part = batch.slice(start, end - start)
        written = [column.cast(_written_out(column.type)) for column in part.columns]
        yield pa.RecordBatch.from_arrays(written, names=part.schema.names)


def _text_bytes(column: Any) -> NDArray[np.int64]:
    """The bytes of the texts of each row, int64 [n], where they are in a dictionary; else 0.

    Raises:
        pyarrow.ArrowInvalid: a row names a text that its dictionary does not have.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        lengths = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy(zero_copy_only=False)
        # pyarrow reads on behind the dictionary's end.
        first, last = pc.min_max(column.indices).as_py().values()
        if first is not None and not 0 <= first <= last < len(lengths):
            raise pa.ArrowInvalid(f"values {first} to {last} of a dictionary of {len(lengths)}")
        numbers = pc.fill_null(column.indices, len(lengths)).to_numpy(zero_copy_only=False)
        return np.asarray(np.append(lengths, 0)[numbers], np.int64)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = np.concatenate([[0], np.cumsum(_text_bytes(column.values))])
        return np.asarray(np.diff(ends[column.offsets.to_numpy()]), np.int64)
    if pa.types.is_struct(kind):
        fields = (_text_bytes(column.field(number)) for number in range(kind.num_fields))
        return sum(fields, np.zeros(len(column), np.int64))
    return np.zeros(len(column), np.int64)


def _written_out(kind: Any) -> Any:
    """The type without dictionaries."""
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_written_out(kind.value_type)))
    if pa.types.is_large_list(kind):
        return pa.large_list(kind.value_field.with_type(_written_out(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_written_out(field.type)) for field in kind])
    return kind
