"""What a shop's files have otherwise than the catalogue that is served, with 16 bytes held in memory for each item."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC

import polars as pl

from onesearch.data.records import Item, item_from_row
from onesearch.serving.store import Store, all_item_changes


@dataclass(frozen=True)
class Difference:
    """Of a shop's files from what is served.

    Attributes:
        items: how many are served.
        new: rows of the files' items that are not served.
        changed: rows of those that are, otherwise.
        gone: ids of served items that the files have not, in the order in which they came.
    """

    items: int
    new: list[int]
    changed: list[int]
    gone: list[str]


def difference(served: pl.DataFrame, store: Store, files: pl.DataFrame) -> Difference:
    """Compare the item table of a shop's files with that of a run as the changes in the store left it.

    What the store has and cannot read is served as the run has it, if it has it; it differs from everything.
    """
    # A mark of each served item, None for one that was deleted; b"" is no item's mark.
    marks: dict[str, bytes | None] = {item.item_id: _mark(item) for item in _items(served)}
    unreadable: set[str] = set()
    for changes in all_item_changes(store):
        for change in changes:
            if change.problem:
                unreadable.add(change.item_id)
            else:
                marks[change.item_id] = None if change.item is None else _mark(change.item)
    for item_id in unreadable:
        if marks.get(item_id) is not None:
            marks[item_id] = b""
    lost = {item_id for item_id in unreadable if marks.get(item_id) is None}
    # The files' items against them; what is left then is gone.
    new, changed, found = [], [], set()
    for row, item in enumerate(_items(files)):
        mark = marks.get(item.item_id)
        found.add(item.item_id)
        if mark is None:
            new.append(row)
        elif mark != _mark(item):
            changed.append(row)
    there = [item_id for item_id, mark in marks.items() if mark is not None] + sorted(lost)
    return Difference(len(there), new, changed, [item_id for item_id in there if item_id not in found])


def _items(table: pl.DataFrame) -> Iterator[Item]:
    return (item_from_row(row) for row in table.iter_rows(named=True))


def _mark(item: Item) -> bytes:
    """The same for equal items: whatever the order of attributes and the zone of a time."""
    times = {name: getattr(item, name) for name in ("listed_at", "start", "end")}
    same = {
        **vars(item),
        "attributes": sorted((name, list(values)) for name, values in item.attributes.items()),
        **{name: None if time is None else time.astimezone(UTC).isoformat() for name, time in times.items()},
    }
    return hashlib.blake2b(json.dumps(same).encode(), digest_size=16).digest()
