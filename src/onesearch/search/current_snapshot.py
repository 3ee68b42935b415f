"""The snapshot that searches read: one writer at a time puts another in its place, merges run in the background."""

import logging
import threading
from collections.abc import Iterable, Sequence
from dataclasses import replace

from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.search.boosts import Boost
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.rules import Rules

log = logging.getLogger("onesearch")


class CurrentSnapshot:
    """Holds a snapshot that changes. Whoever has read ``value`` keeps that state, whatever is written meanwhile.

    Attributes:
        value: the catalogue and the model as searches see them now; assigned as a whole, by the writer.
    """

    def __init__(self, value: Snapshot) -> None:
        self.value = value
        self._writing = threading.Lock()
        self._merging: set[int] | None = None  # rows that changed since a merge began; None while there is none

    @property
    def merging(self) -> bool:
        """Whether new bases are being made."""
        return self._merging is not None

    def upsert(self, items: Sequence[Item], featurizer: Featurizer) -> None:
        """Add items or replace those with the same id."""
        with self._writing:
            self.value = self.value.upserted(items, featurizer)
            self._changed(item.item_id for item in items)

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many were known."""
        with self._writing:
            known = {item_id for item_id in item_ids if item_id in self.value.number}
            self.value = self.value.deleted(item_ids)
            self._changed(known)
        return len(known)

    def count(self, live: LiveClicks) -> None:
        """Put other clicks since the log in the place of those before."""
        with self._writing:
            self.value = self.value.counting(live)

    def adopt(self, generator: Generator, boosts: Sequence[Boost] | None) -> None:
        """Another generator, and with it other boosts, unless they are None: both at once."""
        with self._writing:
            snapshot = self.value if boosts is None else self.value.boosted(boosts)
            self.value = replace(snapshot, generator=generator)

    def rule(self, rules: Rules | None) -> None:
        """Other rules, from the next search on."""
        with self._writing:
            self.value = replace(self.value, rules=rules)

    def _changed(self, item_ids: Iterable[str]) -> None:
        """Note what changed while a merge is under way; begin one where it is due. Called by the writer."""
        if self._merging is not None:
            self._merging |= {row for i in item_ids if (row := self.value.number.row_of(i)) is not None}
        elif self.value.wants_merge:
            self._merging = set()
            threading.Thread(target=self._merge, args=(self.value,), name="merge", daemon=True).start()

    def _merge(self, snapshot: Snapshot) -> None:
        """Make new bases for a catalogue that goes on changing, then put what changed meanwhile on top of them."""
        try:
            merged = snapshot.merged()
            with self._writing:
                self.value = self.value.onto(merged, self._merging or ())
                self._merging = None
        except Exception:  # searches and changes go on with what they have; the next change tries again
            log.exception("changes of the catalogue could not be merged")
            with self._writing:  # as a writer may be about to note a change
                self._merging = None
