"""``onesearch nightly``: what a shop runs every night, with one log of it::

    items   the items of the shop's files against those that are served: what came, changed and went is written to the
            service's store, which all servers follow
    events  the searches that the service recorded since the last round, with their clicks and orders
    update  a round on them (:mod:`onesearch.pipeline.update_round`); the version is served if more is found with it

Each step stands for itself: one that fails hinders no other. A night that was killed is made up for by the next one.
Every step leaves a line in ``nightly/log.jsonl`` below the run.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from onesearch.common.artefact import refuse_links
from onesearch.common.run_lock import RunLock
from onesearch.data.dataset import Dataset
from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.importer import import_mapping
from onesearch.data.ingest.rejected_rows import REJECTED
from onesearch.pipeline.catalogue_difference import difference
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.update_round import Method, TooFewError, update
from onesearch.serving.recorded_page_views import recorded_page_views
from onesearch.serving.store import Store, StoreError
from onesearch.understanding.thought_table import Thoughts

log = logging.getLogger("onesearch")
FOLDER, LOG = "nightly", "log.jsonl"
_AT_ONCE = 1000  # items of one write to the store


@dataclass(frozen=True)
class Round:
    """How a night learns; as the arguments of :func:`onesearch.pipeline.update_round.update`."""

    method: Method = "tpma"
    steps: int = 50
    epochs: float | None = 1.0
    overrides: Sequence[str] = ()
    thoughts: Callable[[Sequence[str]], Thoughts] | None = None
    """Those known by now of queries."""


@dataclass
class Step:
    """How a step fared: done, left out with a reason, or failed with one; and what it found."""

    name: str
    outcome: Literal["done", "left out", "failed"] = "done"
    found: dict[str, Any] = field(default_factory=dict)


class LeftOutError(Exception):
    """A step has nothing to do; the message says why."""


def nightly(
    run: Path, store: Store, mapping: ColumnMapping | None, rounds: Round, most_deleted: float = 0.1
) -> Iterator[Step]:
    """The steps of a night, one after the other, each yielded when it is through.

    Args:
        run: a finished run with V2, which a service may be serving.
        store: the service's.
        mapping: of the shop's files; only its items are read. None leaves the catalogue as it is.
        rounds: how to learn.
        most_deleted: share of the catalogue that one night may delete; beyond it the step fails and changes nothing.

    Raises:
        ValueError: the run's folder holds a link.
        RunLockedError: another night is under way.
    """
    refuse_links(run)  # through one in the place of `nightly` a stranger's run would be written elsewhere
    with RunLock(run / FOLDER):
        # The catalogue as the shop's files have it.
        night = datetime.now(UTC)
        with _step(run, night, "items") as step:
            if mapping is None:
                raise LeftOutError("no mapping of the shop's files was given")
            step.found |= bring_in_items(run, store, mapping, most_deleted)
        yield step
        # What shoppers did since the last round that was done.
        path = run / FOLDER / "page_views.parquet"
        with _step(run, night, "events") as events:
            since = _learnt_until(run)
            page_views = recorded_page_views(store, since)
            page_views.write_parquet(path)
            clicked = int((page_views["clicked"].list.len() > 0).sum())
            events.found |= {"since": since and since.isoformat(), "page_views": len(page_views), "clicked": clicked}
        yield events
        # A round on it; what is too little for one is read again by a later night.
        with _step(run, night, "update") as step:
            if events.outcome == "failed":
                raise LeftOutError("the events could not be read")
            try:
                step.found |= _round(run, path, rounds)
            except TooFewError as error:
                raise LeftOutError(f"{error}; they are kept for a later night") from error
        yield step


def bring_in_items(run: Path, store: Store, mapping: ColumnMapping, most_deleted: float) -> dict[str, Any]:
    """Write to the store what differs between a shop's files and the catalogue as it is served; counts of it.

    Only an item of which the files have no row is deleted. One whose row was set aside stays as it is served; and while
    there is a row that does not tell whose it is, such as a broken line, every item stays that has no other.

    Raises:
        FileNotFoundError, ValueError: the files cannot be read, or more than the share ``most_deleted`` would go.
    """
    folder = run / FOLDER / "items"
    summary = import_mapping(mapping.updated(users=None, page_views=None, judgments=None), folder)
    # Against the catalogue as it is served: the run's items, and over them every change in the store.
    files = Dataset.load(folder)
    found = difference(RunData(run).dataset.items, store, files.items)
    gone = found.gone
    if not len(gone) <= most_deleted * found.items:  # nor where the share is NaN
        raise ValueError(
            f"{len(gone)} of {found.items} items are not in the files any more, or not so that they can be read, more "
            f"than the share {most_deleted:g} that one night may delete; nothing was changed: look at the files and "
            f"{folder / REJECTED}, or allow more"
        )
    ids, nameless = _set_aside(folder)
    kept = gone if nameless else [item_id for item_id in gone if item_id in ids]
    if kept:
        log.warning(
            "%d items that the files lack stay as they are served, such as %r: rows of the files could not be read, %d "
            "of them without telling whose they are: see %s and mend them",
            *(len(kept), kept[0], nameless, folder / REJECTED),
        )
    stay = set(kept)
    gone = [item_id for item_id in gone if item_id not in stay]
    better = [*found.new, *found.changed]
    for start in range(0, len(better), _AT_ONCE):
        store.change_items([files.item(row) for row in better[start : start + _AT_ONCE]], ())
    for start in range(0, len(gone), _AT_ONCE):
        store.change_items((), gone[start : start + _AT_ONCE])
    new, changed = len(found.new), len(found.changed)
    counts = {"items": len(files.items), "new": new, "changed": changed, "deleted": len(gone), "kept": len(kept)}
    counts["set_aside"] = sum(summary.rejected.get("items", {}).values())
    # What of the rows that were taken was not, or may have been meant otherwise: an item without a price, say.
    return counts | {"emptied": _most(summary.emptied), "suspicious": _most(summary.suspicious)}


def _set_aside(folder: Path) -> tuple[set[str], int]:
    """The ids of rows of items that an import set aside, and how many of its rows say something, but not whose."""
    rows = pl.read_parquet(folder / REJECTED).filter(table="items")
    nameless = rows["id"].is_null() & rows["text"].str.contains(r"[\p{L}\p{N}]")
    return set(rows["id"].drop_nulls()), int(nameless.sum())


def _most(counts: Mapping[str, Counter[str]]) -> dict[str, int]:
    """Counts of the items' values by column and reason, the most frequent first."""
    return dict(counts.get("items", Counter()).most_common())


def _round(run: Path, events: Path, rounds: Round) -> Mapping[str, Any]:
    thoughts = None
    if rounds.thoughts is not None:
        thoughts = rounds.thoughts(pl.read_parquet(events)["query"].drop_nulls().unique().to_list())
    return vars(update(run, events, rounds.method, rounds.steps, rounds.overrides, thoughts, rounds.epochs))


@contextmanager
def _step(run: Path, night: datetime, name: str) -> Iterator[Step]:
    """A step, whose errors end it alone, and its line in the log."""
    step, start = Step(name), time.monotonic()
    try:
        yield step
    except LeftOutError as reason:
        step.outcome, step.found = "left out", {"reason": str(reason)}
    except Exception as error:
        # Where the message says what is wrong and what to do, a traceback would hide it.
        told = isinstance(error, ValueError | OSError | StoreError)
        log.error("the night's step %s failed: %s", name, error, exc_info=None if told else error)
        step.outcome, step.found = "failed", {"reason": f"{type(error).__name__}: {error}"}
    line: dict[str, Any] = {"night": night.isoformat(), "step": name, "outcome": step.outcome}
    line |= {"seconds": round(time.monotonic() - start, 1), **step.found}
    with (run / FOLDER / LOG).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _learnt_until(run: Path) -> datetime | None:
    """When the last night began whose round was done; a line that a full disk cut off counts for nothing."""
    path, until = run / FOLDER / LOG, None
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            found = json.loads(line)
            if found["step"] == "update" and found["outcome"] == "done":
                until = datetime.fromisoformat(found["night"])
        except (ValueError, KeyError, TypeError):
            log.warning("%s: a line that cannot be read: %.80s", path, line)
    return until
