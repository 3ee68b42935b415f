"""A dataset: a folder of four Parquet files and ``dataset.json``, which is written last."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.common.text_numbers import TextNumbers
from onesearch.data.records import SCHEMAS, Item, conform, item_from_row, without_kinds

DESCRIPTION: Final = "dataset.json"
FORMAT: Final = 1
ROW_GROUP: Final = 100_000
_AT_ONCE: Final = 50_000


class Dataset:
    """Items, users, page views and judgments of one shop.

    The number of an item everywhere in the package is its row in :attr:`items`.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open a dataset folder; tables are read when first used.

        Raises:
            FileNotFoundError: no complete dataset there.
            ValueError: written by a version with another format.
        """
        self.folder = Path(folder)
        path = self.folder / DESCRIPTION
        if not path.is_file():
            raise FileNotFoundError(
                f"{self.folder}: no {DESCRIPTION}, so not a complete dataset; make one with `onesearch data import` "
                f"or `onesearch market make`"
            )
        self.description: dict[str, Any] = read_json(path)
        if self.description.get("format") != FORMAT:
            raise ValueError(
                f"{path}: format {self.description.get('format')!r}, but this version reads {FORMAT}; import it again"
            )

    @classmethod
    def load(cls, folder: str | Path) -> "Dataset":
        """Open a dataset folder."""
        return cls(folder)

    @classmethod
    def write(
        cls,
        folder: str | Path,
        items: pl.DataFrame,
        users: pl.DataFrame | None = None,
        page_views: pl.DataFrame | None = None,
        judgments: pl.DataFrame | None = None,
        source: str = "",
    ) -> "Dataset":
        """Write tables (columns of :mod:`onesearch.data.records`; missing ones become null) as a dataset folder."""
        folder = begin_dataset(folder)
        frames = {"items": items, "users": users, "page_views": page_views, "judgments": judgments}
        # All four files are there, empty ones too: a reader needs no special case.
        for name, frame in frames.items():
            table = pl.DataFrame(schema=SCHEMAS[name]) if frame is None else conform(name, frame)
            table = without_kinds(table) if name == "items" else table
            table.write_parquet(table_path(folder, name), row_group_size=ROW_GROUP)
        return finish_dataset(folder, source)

    @property
    def fingerprint(self) -> str:
        """A hash of the four tables' bytes."""
        return str(self.description["fingerprint"])

    @property
    def counts(self) -> dict[str, int]:
        """Rows per table."""
        return dict(self.description["rows"])

    @property
    def source(self) -> str:
        """Where the data came from."""
        return str(self.description["source"])

    @cached_property
    def items(self) -> pl.DataFrame:
        """The item table, schema ``ITEMS``."""
        return self._read("items")

    def item_columns(self, *names: str) -> pl.DataFrame:
        """Some columns of the item table, read anew; without names all of it."""
        if "items" in self.__dict__:
            return self.items.select(names or pl.all())
        return conform("items", read_parquet(table_path(self.folder, "items"), names)).select(names or pl.all())

    @cached_property
    def users(self) -> pl.DataFrame:
        """The user table, schema ``USERS``."""
        return self._read("users")

    @cached_property
    def page_views(self) -> pl.DataFrame:
        """The page view table, schema ``PAGE_VIEWS``."""
        return self._read("page_views")

    @cached_property
    def judgments(self) -> pl.DataFrame:
        """The judgment table, schema ``JUDGMENTS``."""
        return self._read("judgments")

    def scan_page_views(self) -> pl.LazyFrame:
        """The page views without reading them yet."""
        return pl.scan_parquet(table_path(self.folder, "page_views"))

    def item(self, row: int) -> Item:
        """One item as a record."""
        return item_from_row(self.items.row(row, named=True))

    @cached_property
    def item_rows(self) -> Mapping[str, int]:
        """Item id to item row."""
        # The ids alone, where the whole table was not asked for.
        known = "items" in self.__dict__
        ids = self.items["item_id"] if known else read_parquet(table_path(self.folder, "items"), ["item_id"])["item_id"]
        # A part after the other: all of them at once as Python's texts take more memory than their numbers.
        parts = (ids.slice(begin, _AT_ONCE).cast(pl.String) for begin in range(0, len(ids), _AT_ONCE))
        try:
            return TextNumbers(text for part in parts for text in part.to_list())
        except (TypeError, ValueError) as error:
            raise ValueError(f"{table_path(self.folder, 'items')}: item_id: {error}; import the data again") from None

    def rows_of(self, item_ids: pl.Series) -> pl.Series:
        """Item rows (Int32) of a column of item ids; -1 for unknown ones."""
        return rows_of(item_ids, self.items["item_id"])

    def ragged(self, lists: pl.Series) -> Ragged:
        """Item rows of a column of lists of item ids; unknown ones are left out."""
        return ragged_rows(lists, self.items["item_id"])

    def _read(self, table: str) -> pl.DataFrame:
        # A folder written before a column was thought of reads as if nothing were known of it.
        return conform(table, read_parquet(table_path(self.folder, table)))


def rows_of(values: pl.Series, known: pl.Series) -> pl.Series:
    """For each value its row in ``known`` (distinct), Int32; -1 where it is not there or null."""
    # A join keeps to columns where a dict would make Python objects of millions of ids.
    table = pl.DataFrame({"key": known.cast(pl.String), "row": pl.int_range(len(known), dtype=pl.Int32, eager=True)})
    keys = pl.DataFrame({"key": values.cast(pl.String)})
    return keys.join(table, on="key", how="left", maintain_order="left")["row"].fill_null(-1).alias(values.name)


def read_parquet(path: Path, columns: Sequence[str] = ()) -> pl.DataFrame:
    """A Parquet file that a user names, or those of some columns that it has; all of it where it has none of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no Parquet file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        stored = [name for name in columns if name in pl.read_parquet_schema(path)] if columns else []
        return pl.read_parquet(path, columns=stored or None)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{path} cannot be read as Parquet: {error}") from error


def ragged_rows(lists: pl.Series, known: pl.Series) -> Ragged:
    """For each list of values their rows in ``known``; unknown values are left out, order is kept."""
    # All values in one column, their rows, and the list that each one was in.
    values, lengths = _flat(lists)
    rows = rows_of(values, known).to_numpy()
    keep = rows >= 0
    owners = np.repeat(np.arange(len(lists)), lengths)[keep]
    return Ragged.from_lengths(rows[keep], np.bincount(owners, minlength=len(lists)))


def _flat(lists: pl.Series) -> tuple[pl.Series, NDArray[np.int64]]:
    """All values of lists [n] one after another, and the length of each list, int64 [n]; null is an empty list."""
    filled = lists.fill_null(pl.Series([[]], dtype=lists.dtype)) if lists.null_count() else lists
    lengths = filled.list.len().cast(pl.Int64).to_numpy()
    return filled.filter(filled.list.len() > 0).explode(), lengths


def table_path(folder: Path, table: str) -> Path:
    """Where a table of a dataset lies."""
    return folder / f"{table}.parquet"


def begin_dataset(folder: str | Path) -> Path:
    """Make the folder and take away an old ``dataset.json``: unfinished until :func:`finish_dataset`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # First of all: whatever happens from here on, nobody takes the folder for complete.
    (folder / DESCRIPTION).unlink(missing_ok=True)
    return folder


def finish_dataset(folder: Path, source: str, **more: Any) -> Dataset:
    """Mark a folder with all four tables complete; ``more`` goes into ``dataset.json``."""
    # The hash of the tables' hashes, and their numbers of rows, which stand in the files' footers.
    digest = hashlib.sha256()
    rows: dict[str, int] = {}
    for name in SCHEMAS:
        path = table_path(folder, name)
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
        rows[name] = int(pq.ParquetFile(path).metadata.num_rows)
    description = {"format": FORMAT, "source": source, "rows": rows, "fingerprint": digest.hexdigest()[:16], **more}
    write_json(folder / DESCRIPTION, description)
    return Dataset(folder)
