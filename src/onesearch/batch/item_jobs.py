"""Items → vectors → semantic IDs over tables of any size, by the encoder and the quantizer of a finished run.

Only what texts need is loaded, so that workers start quickly.
"""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from onesearch.batch.map_table import MOST_ROWS
from onesearch.batch.part_worker import Make, TableFunction
from onesearch.batch.run_jobs import Marks, RunJob, marks_of, need_columns, refuse_changed
from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json
from onesearch.data.dataset import ragged_rows, read_parquet, table_path
from onesearch.data.records import ITEMS, TEXTS
from onesearch.data.text import item_texts
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.khqe import KHQE, fuse_keywords
from onesearch.encoding.linked_items import drawn_to_linked, load_linked_weight
from onesearch.encoding.pictures.item_pictures import ItemPictures
from onesearch.encoding.pictures.item_towers import ItemTower
from onesearch.encoding.text_encoder import DESCRIPTION
from onesearch.search.run_versions import need, readable
from onesearch.understanding.keyword_lexicon import Lexicon

VECTOR: Final = "vector"
LINKED: Final = "linked"
_STAGES: Final = ("encoder", "khqe")
Floats = NDArray[np.float32]


def encode_job(run: Path) -> RunJob:
    """Items → their vectors, fused with keywords where the run does that: columns ``item_id`` and ``vector``.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
    """
    return _job(run, item_vectors, (), "encode")


def sids_job(run: Path) -> RunJob:
    """Items, or vectors of :func:`encode_job`, → semantic IDs: columns ``item_id`` and ``sid``.

    A SID is that of the item's text alone, as that of a new item. Where behaviour shapes the run's SIDs
    (``khqe.co_click``) those of its own catalogue differ.

    Raises:
        FileNotFoundError: a stage of the run is missing or unfinished.
    """
    return _job(run, item_sids, (VECTOR,), "SIDs")


def _job(run: Path, make: Make, more: Sequence[str], label: str) -> RunJob:
    run = run.absolute()
    marks = marks_of(run, _STAGES)
    columns = ["item_id", *_fields(run), *_picture_columns(run), LINKED, *more]
    return RunJob(make, {"run": str(run), "marks": marks}, {"run": marks}, columns, MOST_ROWS, label)


def item_vectors(run: str, marks: Marks) -> TableFunction:
    """Makes the function of :func:`encode_job`."""
    encode = _encoder(Path(run))
    refuse_changed(Path(run), marks)

    def function(table: pa.Table) -> pa.Table:
        return pa.table({"item_id": _ids(table), VECTOR: _lists(encode(table))})

    return function


def item_sids(run: str, marks: Marks) -> TableFunction:
    """Makes the function of :func:`sids_job`; vectors that are there are taken, texts are encoded."""
    encode = _encoder(Path(run))
    with readable(Path(run)):
        khqe = KHQE.load(need(Path(run), "khqe"))
    refuse_changed(Path(run), marks)

    def function(table: pa.Table) -> pa.Table:
        vectors = _vectors(table, khqe.dimension) if VECTOR in table.column_names else encode(table)
        return pa.table({"item_id": _ids(table), "sid": _lists(khqe.encode(vectors))})

    return function


def _fields(run: Path) -> list[str]:
    """Item columns that make an item's text."""
    return list(read_json(need(run, "encoder") / "fields.json"))


def _picture_columns(run: Path) -> list[str]:
    """The column of pictures, where the run's vectors know of them."""
    about = need(run, "encoder") / "encoder" / DESCRIPTION
    return ["images"] if read_json(about).get("kind") in ("unified", "concat") else []


def _encoder(run: Path) -> Callable[[pa.Table], Floats]:
    """Items → vectors float32 [n, d], as the run's stages make those of its catalogue."""
    with readable(run):
        fields, encoder, khqe = _fields(run), load_encoder(need(run, "encoder") / "encoder"), need(run, "khqe")
        lexicon, keywords = None, khqe / "keyword_vectors.npy"
        if keywords.is_file() and (khqe / "lexicon").is_dir():
            lexicon, keyword_vectors = Lexicon.load(khqe / "lexicon"), np.load(keywords, allow_pickle=False)
        columns = [*fields, *_picture_columns(run)]
        pictures = ItemPictures.load(need(run, "pictures"), need(run, "data")) if columns[len(fields) :] else None

    def encode(table: pa.Table) -> Floats:
        need_columns(table, columns)
        items = pl.DataFrame(table.select(columns)).cast({column: ITEMS[column] for column in columns})
        texts = item_texts(items, fields)
        if pictures is not None and isinstance(encoder, ItemTower):
            parts = list(pictures.in_parts(items["images"].to_list()))
            seen, there = (np.concatenate([getattr(part, name) for part in parts]) for name in ("vectors", "there"))
            plain = encoder.encode_items(texts, seen, there)
        else:
            plain = encoder.encode(texts)
        own = plain if lexicon is None else fuse_keywords(plain, lexicon.match(texts), keyword_vectors)
        linked = pl.Series(table[LINKED]).cast(TEXTS) if LINKED in table.column_names else pl.Series([], dtype=TEXTS)
        if not linked.list.len().sum():
            return own
        # Links lead to items of the run's catalogue, whose vectors are there.
        links = ragged_rows(linked, known_ids())
        return drawn_to_linked(own, links, map_array(khqe / "item_vectors.npy"), load_linked_weight(khqe))

    @cache
    def known_ids() -> pl.Series:
        return read_parquet(table_path(need(run, "data"), "items"), ["item_id"])["item_id"]

    return encode


def _ids(table: pa.Table) -> pa.ChunkedArray:
    """The column ``item_id`` as text."""
    need_columns(table, ["item_id"])
    return table["item_id"].cast(pa.string())


def _vectors(table: pa.Table, dimension: int) -> Floats:
    """The column ``vector``, float32 [n, d].

    Raises:
        ValueError: a vector is missing, of another length, or has what is no number that float32 holds.
    """
    column = table[VECTOR].combine_chunks()
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or column.null_count:
        raise ValueError(f"column '{VECTOR}' must hold lists of numbers without nulls, but is {kind}")
    lengths = np.unique(column.value_lengths().to_numpy(zero_copy_only=False)).tolist()
    if len(column) and lengths != [dimension]:
        raise ValueError(f"column '{VECTOR}' holds vectors of {lengths} numbers, but the run's have {dimension}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is told
        flat = np.asarray(column.flatten().to_numpy(zero_copy_only=False), np.float32)
    vectors = flat.reshape(len(column), dimension)
    if len(wrong := np.flatnonzero(~np.isfinite(vectors).all(1))):
        first = str(_ids(table)[int(wrong[0])])
        raise ValueError(
            f"column '{VECTOR}' has {len(wrong)} vectors of {len(vectors)} in this part with NaN, an infinite or a "
            f"missing number, the first of them of item {first[:200]!r}: leave these rows out, or encode the texts"
        )
    return vectors


def _lists(rows: NDArray[Any]) -> pa.FixedSizeListArray:
    """A column of rows [n, d], all of one length."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
