"""What an item is beside a product: its kind, what is said in it, the items that it shows, and when it is shown."""

from collections import Counter
from dataclasses import dataclass

import polars as pl

from onesearch.data.ingest.column_mapping import Items
from onesearch.data.ingest.text_values import identifier, text, texts
from onesearch.data.ingest.time_values import parse_times
from onesearch.data.records import KIND_COLUMNS, KINDS, PRODUCT, TEXT, TEXTS, TIME

UNKNOWN_KIND = f"kind is none of {', '.join(KINDS)}; see kind_words"


@dataclass(frozen=True)
class KindValues:
    """The columns of n items, and what is wrong with them.

    Attributes:
        columns: :data:`~onesearch.data.records.KIND_COLUMNS`, each [n].
        refused: reasons -> rows that are to be set aside, Boolean [n].
        emptied: values left out, by column and reason.
    """

    columns: dict[str, pl.Series]
    refused: dict[str, pl.Series]
    emptied: Counter[str]


def kind_values(raw: pl.DataFrame, lists: pl.DataFrame, table: Items) -> KindValues:
    """Read them from rows of a file: ``raw`` with single values, ``lists`` with lists, each [n].

    An item of no known kind, or with times that cannot be, is set aside: shown as something else, or at another time,
    it would do harm. A link to itself is left out; those to unknown items are known when all items are.
    """
    columns = table.columns
    said = text(columns.kind).str.to_lowercase()
    known = said.replace({word.lower(): kind for word, kind in table.kind_words.items()})
    times, wrong = {}, {}
    for name in ("start", "end"):
        column = getattr(columns, name)
        given = pl.repeat(None, len(raw), dtype=TEXT, eager=True) if column is None else raw[column]
        times[name], problem = parse_times(given, table.time)
        wrong[f"{name} is not a time, or lies outside of the years that the mapping allows"] = problem.is_not_null()
    own = lists if columns.linked else raw
    frame = raw.select(
        kind=known.fill_null(table.constants.kind or PRODUCT),
        transcript=text(columns.transcript, table.ignore),
        host=text(columns.host, table.ignore),
        linked=own.select(x=texts(own, columns.linked, table.separators.linked))["x"]
        if columns.linked
        else pl.lit([], TEXTS),
        start=times["start"].cast(TIME),
        end=times["end"].cast(TIME),
        own=identifier(raw, columns.item_id),
    )
    # Each link once, and none of an item to itself: its own id goes before them, and away again.
    frame = frame.with_columns(
        itself=pl.col("linked").list.contains(pl.col("own")).fill_null(False),
        linked=pl.concat_list("own", "linked").list.unique(maintain_order=True).list.slice(1),
        unknown=~pl.col("kind").is_in(KINDS),
        ends_first=(pl.col("end") <= pl.col("start")).fill_null(False),
    )
    refused = {UNKNOWN_KIND: frame["unknown"], **wrong, "end is not after start": frame["ends_first"]}
    emptied = +Counter({"linked: to the item itself": int(frame["itself"].sum())})
    return KindValues({name: frame[name] for name in KIND_COLUMNS}, refused, emptied)
