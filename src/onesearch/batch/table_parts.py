"""A table in Parquet files as a list of parts, each small enough for one process; nothing reads the whole table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

_READ_AT_ONCE: Final = 8192  # rows
_BUFFER: Final = 1 << 20  # bytes of a column's chunk that are in memory before they are decoded


@dataclass(frozen=True)
class Part:
    """Some rows of a row group: all of them, or a fixed range of a large one.

    Attributes:
        file: number of the file among those of the table.
        path: of the file.
        group: number of the row group in the file.
        start: first row in the row group.
        rows: how many.
    """

    file: int
    path: str
    group: int
    start: int
    rows: int

    @property
    def name(self) -> str:
        """Says which part of the input it is; in the order of the names parts are in the order of the table."""
        return f"part-{self.file:05d}-{self.group:05d}-{self.start:010d}"

    def __str__(self) -> str:
        rows = f"rows {self.start} to {self.start + self.rows - 1} of " if self.rows else ""
        return f"{self.name} ({rows}row group {self.group} of {self.path})"


def table_files(source: str | Path) -> list[Path]:
    """The files of a table: one Parquet file, or those of a folder in the order of their names.

    Raises:
        FileNotFoundError: there is none.
    """
    source = Path(source).absolute()
    if source.is_file():
        return [source]
    files = sorted(path for path in source.glob("*.parquet") if path.is_file())
    if not files:
        there = f"the folder {source} holds no *.parquet" if source.is_dir() else f"there is no {source}"
        raise FileNotFoundError(f"{there}: name a Parquet file, or a folder of them")
    return files


def parts_of(files: Sequence[Path], most_rows: int) -> list[Part]:
    """The parts of a table in order: one per row group, several of ``most_rows`` at most where it has more rows.

    Only the footers of the files are read.

    Raises:
        ValueError: a file is no Parquet file.
    """
    parts = []
    for number, path in enumerate(files):
        try:
            footer = pq.read_metadata(path)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} cannot be read as Parquet: {error}") from error
        for group in range(footer.num_row_groups):
            rows = footer.row_group(group).num_rows
            starts = range(0, max(rows, 1), most_rows)  # an empty row group is a part, too
            parts += [Part(number, str(path), group, start, min(most_rows, rows - start)) for start in starts]
    return parts


class PartReader:
    """Reads parts, with a row group's next part where the one before ended: who reads in order decodes a row once.

    Args:
        columns: that are read where the table has them; None for all.
    """

    def __init__(self, columns: Sequence[str] | None = None) -> None:
        self._columns = columns
        self._file: pq.ParquetFile | None = None
        self._at: tuple[str, int] | None = None  # the row group that is open
        self._row = 0  # in it, where `_batch` begins
        self._batch: pa.RecordBatch | None = None
        self._batches: Iterator[pa.RecordBatch] = iter(())

    def read(self, part: Part) -> pa.Table:
        """The rows of a part; memory holds them and a few thousand more.

        Raises:
            ValueError: the file is another one than when the parts were made.
        """
        if self._at != (part.path, part.group) or part.start < self._row:
            self._open(part)
        taken, end = [], part.start + part.rows
        while self._row < end:
            if self._batch is None or not len(self._batch):
                self._batch = next(self._batches, None)
                if self._batch is None:
                    raise ValueError(f"{part.path} has fewer rows than before: it changed meanwhile")
            # Rows before the part are passed over, those behind it are kept for the next one.
            count = min(len(self._batch), end - self._row)
            skipped = min(max(part.start - self._row, 0), count)
            if skipped < count:
                taken.append(self._batch.slice(skipped, count - skipped))
            self._batch = self._batch.slice(count)
            self._row += count
        return pa.Table.from_batches(taken, self._schema)

    def _open(self, part: Part) -> None:
        """Begin at the first row of the part's row group."""
        if self._file is not None:
            self._file.close()
        # A buffer of its own keeps whole chunks of columns out of memory.
        self._file = pq.ParquetFile(part.path, buffer_size=_BUFFER, pre_buffer=False)
        schema = self._file.schema_arrow
        names = [name for name in schema.names if self._columns is None or name in self._columns]
        self._schema = pa.schema([schema.field(name) for name in names])
        self._batches = self._file.iter_batches(_READ_AT_ONCE, [part.group], names, use_threads=False)
        self._at, self._row, self._batch = (part.path, part.group), 0, None
