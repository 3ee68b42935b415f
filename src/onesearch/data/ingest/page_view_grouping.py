"""Rows of a long log (one click or one item a row) to page views, in bounded memory.

Rows are first spread over temporary files by the hash of their group, so that all rows of a group are in one file; then
each file is grouped in memory. A file of up to two million rows needs no spreading, and keeps its order.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from onesearch.data.ingest.parquet_writer import ParquetWriter
from onesearch.data.records import PAGE_VIEWS

IN_MEMORY = 2_000_000
PARTITIONS = 32
STAGED = pl.Schema({**PAGE_VIEWS, "group": pl.UInt64()})


class Grouping:
    """Collects rows with a ``group`` column; :meth:`page_views` gives one page view per group.

    The lists of a group's rows are chained without repetitions; other fields are those of its first row, the time is
    the earliest.
    """

    def __init__(self, folder: Path, in_memory: int = IN_MEMORY) -> None:
        self._folder, self._in_memory = folder, in_memory
        self._held: list[pl.DataFrame] = []
        self._rows = 0
        self._files: list[ParquetWriter] = []
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def add(self, rows: pl.DataFrame) -> None:
        """Add rows with the columns of ``PAGE_VIEWS`` and ``group``."""
        rows = rows.select(STAGED.names())
        if self._files:
            self._spread(rows)
            return
        self._held.append(rows)
        self._rows += len(rows)
        # Too many: from now on rows go to the file of their group, those held first.
        if self._rows > self._in_memory:
            self._temporary = tempfile.TemporaryDirectory(dir=self._folder, prefix=".grouping.")
            folder = Path(self._temporary.name)
            # Row groups so small that all files together hold no more than memory did before.
            size = max(1, self._in_memory // (4 * PARTITIONS))
            self._files = [ParquetWriter(folder / f"{i}.parquet", STAGED, size) for i in range(PARTITIONS)]
            for held in self._held:
                self._spread(held)
            self._held = []

    def page_views(self) -> Iterator[pl.DataFrame]:
        """The page views, in the order of their first rows within each file; to be called once, at the end."""
        if not self._files:
            # All in memory: the order of first rows is that of the file.
            if self._held:
                yield _grouped(pl.concat(self._held))
            self._held = []
            return
        assert self._temporary is not None
        for file in self._files:
            file.close()
        # One file at a time: a group lies in one of them as a whole.
        for i in range(PARTITIONS):
            yield _grouped(pl.read_parquet(Path(self._temporary.name) / f"{i}.parquet"))
        self._temporary.cleanup()

    def _spread(self, rows: pl.DataFrame) -> None:
        """Write rows to the file that their group belongs to."""
        place = rows["group"] % PARTITIONS
        for (i,), part in rows.group_by(place.alias("place")):
            self._files[int(str(i))].write(part)


def _grouped(rows: pl.DataFrame) -> pl.DataFrame:
    """One page view per group of rows."""
    # A row without time has null, which `min` leaves out.
    lists = ("shown", "clicked", "ordered")
    first = [pl.col(name).first() for name in PAGE_VIEWS.names() if name not in (*lists, "time")]
    chained = [pl.col(name).explode(empty_as_null=False).unique(maintain_order=True) for name in lists]
    groups = rows.group_by("group", maintain_order=True).agg(*first, pl.col("time").min(), *chained)
    return groups.select(PAGE_VIEWS.names())
