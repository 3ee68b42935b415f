"""Streaming a table to Parquet: frames of any size in, full row groups out, memory bounded by one row group."""

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.data.dataset import ROW_GROUP


class ParquetWriter:
    """Writes frames of one schema to one file; :meth:`close` finishes it, also when nothing was written."""

    def __init__(self, path: Path, schema: pl.Schema, row_group: int = ROW_GROUP) -> None:
        self.rows = 0
        self._schema, self._row_group = schema, row_group
        self._waiting: list[pl.DataFrame] = []
        self._held = 0
        self._arrow: pa.Schema = self._table(pl.DataFrame(schema=schema)).schema
        self._file = pq.ParquetWriter(path, self._arrow, compression="zstd", compression_level=1)

    def write(self, frame: pl.DataFrame) -> None:
        """Append rows; the frame must have exactly the schema's columns and types."""
        if not len(frame):
            return
        self.rows += len(frame)
        self._waiting.append(frame)
        self._held += len(frame)
        if self._held >= self._row_group:
            self._flush()

    def close(self) -> None:
        """Write what is waiting and finish the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            frame = pl.concat(self._waiting)
            self._file.write_table(self._table(frame), row_group_size=self._row_group)
        self._waiting, self._held = [], 0

    def _table(self, frame: pl.DataFrame) -> pa.Table:
        # The oldest layout of texts and lists: the one that every reader of Parquet knows.
        return frame.select(pl.col(name).cast(kind) for name, kind in self._schema.items()).to_arrow(
            compat_level=pl.CompatLevel.oldest()
        )
