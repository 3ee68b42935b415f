"""Importing: rows from a source, checked against each other, streamed into a data set folder.

Memory holds one chunk of rows, one row group per table and eight bytes per known id
(:mod:`onesearch.data.ingest.id_set`), whatever the size of the files.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from onesearch.common.progress import track
from onesearch.data.dataset import begin_dataset, finish_dataset, table_path
from onesearch.data.ingest import table_source as tables
from onesearch.data.ingest.column_mapping import ColumnMapping, PageViews, PageViewsFromJudgments
from onesearch.data.ingest.id_set import Hashes, IdSet, combined, hashes
from onesearch.data.ingest.import_summary import ImportSummary
from onesearch.data.ingest.page_view_grouping import Grouping
from onesearch.data.ingest.parquet_writer import ParquetWriter
from onesearch.data.ingest.rejected_rows import Rejects
from onesearch.data.ingest.table_source import Part
from onesearch.data.records import KIND_COLUMNS, PAGE_VIEWS, SCHEMAS, TEXT, conform, servable_ids, written_schema

LISTS: Final = ("shown", "clicked", "ordered")
# Raised when the same files give other values: runs that import them then do so again.
IMPORT_VERSION: Final = 4


class Importer:
    """Takes parts of tables (items first, then users, page views, judgments) and writes a data set.

    Every part goes the same way: rows that refer to nothing or repeat an earlier one get a reason; those with a reason
    are set aside; the others are written. Users, and items if wished, are made for ids that have none.

    Use it as a context manager; :meth:`finish` completes the folder.

    Args:
        out: the folder.
        source: name of the data.
        unknown_items: what becomes of ids that are not in the items.
        kinds: whether items may be more than products; a file of products alone has no columns of kinds.
    """

    def __init__(
        self, out: Path, source: str, unknown_items: Literal["drop", "create"] = "drop", kinds: bool = False
    ) -> None:
        self.out = begin_dataset(out)
        self.summary = ImportSummary(source)
        self.rejects = Rejects(self.out)
        self._create = unknown_items == "create"
        self._kinds = kinds
        columns = KIND_COLUMNS if kinds else ()
        self._writers = {
            name: ParquetWriter(table_path(self.out, name), written_schema(name, columns)) for name in SCHEMAS
        }
        self.item_ids, self.user_ids = IdSet(), IdSet()
        self._page_view_ids, self._judged = IdSet(), IdSet()
        self._start = time.perf_counter()

    def items(self, part: Part) -> pl.DataFrame:
        """Add items; gives those taken."""
        ids = hashes(part.frame["item_id"])
        part = self._first_ones(part, self.item_ids, ids, "duplicate item_id, the first one is kept")
        # Shops export a row for every size or picture, and the title in the first of them only.
        variant = (part.reason == "no title") & pl.Series(self.item_ids.contains(ids))
        named = "variant without a title, of: " + part.frame["item_id"]
        return self._take("items", replace(part, reason=part.reason.zip_with(~variant.fill_null(False), named)))

    def users(self, part: Part) -> pl.DataFrame:
        """Add users; gives those taken."""
        ids = hashes(part.frame["user_id"])
        return self._take(
            "users", self._first_ones(part, self.user_ids, ids, "duplicate user_id, the first one is kept")
        )

    def page_views(self, part: Part, generated_ids: bool, grouping: Grouping | None = None) -> None:
        """Add page views (or, with a ``grouping``, rows to be grouped)."""
        good = part.reason.is_null()
        # Lists without unknown items; a page view that has lost all of them is of no use.
        lists = [self._known_items(part.frame[name], f"page_views.{name}", good) for name in LISTS]
        had, frame = _any_item(part.frame), part.frame.with_columns(lists)
        none_left = ~_any_item(frame)
        part = replace(part, frame=frame).refusing({"no known item left": none_left & had, "no item at all": none_left})
        if grouping is not None:
            grouping.add(self._set_aside("page_views", part))
            return
        if not generated_ids:
            ids = hashes(frame["page_view_id"])
            part = self._first_ones(part, self._page_view_ids, ids, "duplicate page_view_id")
        self._new_users(self._take("page_views", part)["user_id"])

    def grouped_page_views(self, grouping: Grouping) -> None:
        """Add the page views of a finished grouping."""
        for frame in grouping.page_views():
            self._new_users(frame["user_id"])
            self._writers["page_views"].write(frame)

    def judgments(self, part: Part) -> pl.DataFrame:
        """Add judgments; gives those taken, with ``score``."""
        good = part.reason.is_null()
        ids = part.frame["item_id"]
        # Unknown items become items if wished, else they refuse the judgment.
        known = pl.Series(self.item_ids.contains(hashes(ids)))
        self.summary.join("judgments.item_id -> items", int(good.sum()), int((known & good).sum()))
        if self._create:
            part = part.refusing({tables.UNFIT_ID: ~known & ~servable_ids(ids)})
            self._new_items(ids.filter(part.reason.is_null() & ~known))
        else:
            part = part.refusing({"item_id is not in the items": ~known})
        pairs = combined(part.frame.select("query", "item_id"))
        reason = "duplicate query and item_id, the first one is kept"
        return self._take("judgments", self._first_ones(part, self._judged, pairs, reason))

    def finish(self) -> ImportSummary:
        """Complete the folder."""
        self._close()
        if self._kinds:
            self._drop_unknown_links()
        summary = self.summary
        # What was written, and what was set aside: the most frequent reasons first.
        summary.rows = {name: writer.rows for name, writer in self._writers.items()}
        for (table, reason), count in sorted(self.rejects.counts.items(), key=lambda pair: -pair[1]):
            summary.rejected.setdefault(table, {})[reason] = count
        if not summary.rows["items"]:
            worst = next(iter(summary.rejected.get("items", {})), "the item file has no rows")
            raise ValueError(f"no item could be imported ({worst}); the rows are in {self.out / 'rejected.parquet'}")
        finish_dataset(self.out, summary.source, **{"import": summary.as_dict()})
        summary.seconds = time.perf_counter() - self._start
        return summary

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._close()

    def _close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self.rejects.close()

    def _first_ones(self, part: Part, known: IdSet, ids: Hashes, reason: str) -> Part:
        """The part with good rows refused whose id [n] is in ``known`` or in an earlier good row; the others go in."""
        good = part.reason.is_null().to_numpy()
        repeated = np.zeros(len(good), bool)
        repeated[good] = ~known.add(ids[good])
        return part.refusing({reason: pl.Series(repeated)})

    def _take(self, table: str, part: Part) -> pl.DataFrame:
        """Write the good rows of a part; gives them, with the part's other columns."""
        taken = self._set_aside(table, part)
        self._writers[table].write(
            conform(table, taken.select(name for name in taken.columns if name in SCHEMAS[table]))
        )
        return taken

    def _set_aside(self, table: str, part: Part) -> pl.DataFrame:
        """The good rows of a part; the others go to ``rejects``."""
        self.summary.values(table, part.emptied, part.repaired, part.suspicious)
        index = np.flatnonzero(part.reason.is_not_null().to_numpy())
        if len(index):
            rows, texts = part.chunk.rows[index].tolist(), part.chunk.texts(index)
            ids = part.frame["item_id"].gather(index).to_list() if table == "items" else None
            self.rejects.add(table, part.chunk.file, rows, part.reason.gather(index).to_list(), texts, ids)
        return part.frame.filter(part.reason.is_null())

    def _known_items(self, lists: pl.Series, name: str, good: pl.Series) -> pl.Series:
        """The lists without unknown ids, or with items made for them; counted for ``good`` rows."""
        lengths = lists.list.len().to_numpy().astype(np.int64)
        flat = lists.filter(lists.list.len() > 0).explode()
        if not len(flat):
            return lists
        # All ids in one array: known or not, and of a row that counts or not, bool [total].
        known = self.item_ids.contains(hashes(flat))
        owner = np.repeat(np.arange(len(lists)), lengths)
        counted = good.to_numpy()[owner]
        self.summary.join(f"{name} -> items", int(counted.sum()), int((known & counted).sum()))
        if known.all():
            return lists
        if self._create:
            made = servable_ids(flat).fill_null(False)
            self._new_items(flat.filter(pl.Series(~known & counted) & made))
            known |= made.to_numpy()
            if known.all():
                return lists
        self.summary.dropped[name] += int((~known & counted).sum())
        # The known ids, gathered again by the list that they were in.
        kept = pl.DataFrame(
            {"row": owner[known], name: flat.filter(pl.Series(known))}, schema={"row": pl.Int64, name: TEXT}
        )
        rows = pl.DataFrame({"row": np.arange(len(lists))}, schema={"row": pl.Int64})
        grouped = rows.join(kept.group_by("row").agg(name), on="row", how="left", maintain_order="left")
        return grouped[name].fill_null(pl.Series([[]], dtype=lists.dtype)).alias(lists.name)

    def _drop_unknown_links(self) -> None:
        """Write the items again without links to ids that no item has, which all items together tell."""
        path = table_path(self.out, "items")
        all_links = path.with_suffix(".links.parquet")
        path.replace(all_links)
        writer = self._writers["items"] = ParquetWriter(path, written_schema("items", KIND_COLUMNS))
        self._create = False
        with pq.ParquetFile(all_links) as file:
            for group in range(file.num_row_groups):
                frame = conform("items", pl.DataFrame(file.read_row_group(group)))
                good = pl.repeat(True, len(frame), dtype=pl.Boolean, eager=True)
                writer.write(frame.with_columns(self._known_items(frame["linked"], "items.linked", good)))
        writer.close()
        all_links.unlink()

    def _new_items(self, ids: pl.Series) -> None:
        """Make items of ids that have none; the id is the title."""
        new = ids.unique(maintain_order=True)
        new = new.filter(pl.Series(self.item_ids.add(hashes(new))))
        self.summary.created["items"] += len(new)
        self._writers["items"].write(conform("items", pl.DataFrame({"item_id": new, "title": new})))

    def _new_users(self, ids: pl.Series) -> None:
        """Make users of the ids of page views that have none."""
        ids = ids.drop_nulls()
        # The user table was read before: whoever is not in it gets a row of their own, once.
        known = self.user_ids.contains(hashes(ids))
        self.summary.join("page_views.user_id -> users", len(ids), int(known.sum()))
        new = ids.filter(pl.Series(~known)).unique(maintain_order=True)
        new = new.filter(pl.Series(self.user_ids.add(hashes(new))))
        self.summary.created["users"] += len(new)
        self._writers["users"].write(conform("users", pl.DataFrame({"user_id": new}, schema={"user_id": TEXT})))


def _any_item(frame: pl.DataFrame) -> pl.Series:
    """Whether a row has an item at all, bool [n]."""
    return frame.select(pl.any_horizontal(pl.col(name).list.len() > 0 for name in LISTS)).to_series()


@contextmanager
def readable_errors(folder: Path | str) -> Iterator[None]:
    """What polars and Arrow raise of files in a folder, as one sentence. No file should come so far."""
    try:
        yield
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, pa.ArrowException) as error:
        first_line = str(error).partition("\n")[0]
        raise ValueError(f"{folder}: the files hold something that cannot be read: {first_line}") from error


def import_mapping(mapping: ColumnMapping, out: Path) -> ImportSummary:
    """Import the files of a mapping into the data set folder ``out``.

    Raises:
        FileNotFoundError, ValueError: a file or column is not there, a file cannot be read, or no item could be.
    """
    with readable_errors(mapping.folder):
        return _import_mapping(mapping, out)


def _import_mapping(mapping: ColumnMapping, out: Path) -> ImportSummary:
    folder = Path(mapping.folder)
    given = mapping.page_views
    with Importer(out, mapping.source, mapping.unknown_items, mapping.items.has_kinds) as importer:
        # Items and users come first: page views and judgments refer to them.
        rejects = importer.rejects
        for part in track(tables.items(folder, mapping.items, rejects), "items", unit="chunks"):
            importer.items(part)
        if mapping.users is not None:
            for part in track(tables.users(folder, mapping.users, rejects), "users", unit="chunks"):
                importer.users(part)
        # Page views of a log, each a row of the file or grouped from several.
        if isinstance(given, PageViews):
            grouping = Grouping(importer.out) if given.group_by else None
            generated = given.columns.page_view_id is None
            for part in track(tables.page_views(folder, given, rejects), "page views", unit="chunks"):
                importer.page_views(part, generated, grouping)
            if grouping is not None:
                importer.grouped_page_views(grouping)
        # Judgments, and the page views made of them if wished.
        if mapping.judgments is not None:
            clicked_at = given.clicked_at if isinstance(given, PageViewsFromJudgments) else None
            grouping = Grouping(importer.out)
            for part in track(tables.judgments(folder, mapping.judgments, rejects), "judgments", unit="chunks"):
                taken = importer.judgments(part)
                if clicked_at is not None:
                    grouping.add(_judged_rows(taken, clicked_at))
            importer.grouped_page_views(grouping)
        return importer.finish()


def _judged_rows(judgments: pl.DataFrame, clicked_at: float) -> pl.DataFrame:
    """Judgments as rows of page views, one per query: the item as shown and, from the threshold on, as clicked."""
    item = pl.concat_list("item_id")
    keys = combined(judgments.select("query"))
    rows = judgments.select(
        page_view_id="query",
        query="query",
        shown=item,
        clicked=pl.when(pl.col("score") >= clicked_at).then(item).otherwise(pl.lit([], pl.List(TEXT))),
    )
    rows = conform("page_views", rows)
    return rows.with_columns(group=pl.Series(keys, dtype=pl.UInt64)).select(*PAGE_VIEWS.names(), "group")
