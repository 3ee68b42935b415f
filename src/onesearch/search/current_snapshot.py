"""The snapshot that searches read: one writer at a time puts another in its place, merges run in the background."""

import logging
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.search.boosts import Boost
from onesearch.search.catalogue_snapshot import Merged, Snapshot
from onesearch.search.linking_items import LinkingItems
from onesearch.search.rules import Rules

log = logging.getLogger("onesearch")
_AT_ONCE = 10_000  # items whose vectors are made together


class CurrentSnapshot:
    """Holds a snapshot that changes. Whoever has read ``value`` keeps that state, whatever is written meanwhile.

    Shards change together: they begin a merge at the same change, and put the new bases in place at the same call once
    all of them have theirs. Between calls each of them has what the others have.

    Args:
        value: to begin with.
        featurizer: of items that come in.

    Attributes:
        value: the catalogue and the model as searches see them now; assigned as a whole, by the writer.
    """

    def __init__(self, value: Snapshot, featurizer: Featurizer) -> None:
        self.value, self._featurizer = value, featurizer
        self._writing = threading.Lock()
        self._changes = 0
        self._changed_in: dict[str, int] = {}  # the number of each item's last change
        self._live: LiveClicks | None = None
        self._linking: LinkingItems | None = None  # made when something changes
        self._looking = threading.Lock()  # for links, at which a take-over looks beside the writer
        self._merging: set[int] | None = None  # rows that changed since a merge began; None while there is none
        self._made: Merged | None = None  # by the merge, where shards wait for those of the others
        self._gave_up = False  # likewise

    @property
    def merging(self) -> bool:
        """Whether new bases are being made."""
        return self._merging is not None

    def upsert(self, items: Sequence[Item]) -> None:
        """Add items or replace those with the same id; what links to them is drawn to what they are now."""
        self.settle()
        with self._writing:
            items = self._and_linking(items, self.value)
            self.value = self.value.upserted(items, self._featurizer)
            self._changed([item.item_id for item in items])

    def delete(self, item_ids: Sequence[str]) -> int:
        """Remove items; returns how many were known."""
        self.settle()
        with self._writing:
            known = {item_id for item_id in item_ids if item_id in self.value.number}
            self.value = self.value.deleted(item_ids)
            self._changed(known)
        return len(known)

    def count(self, live: LiveClicks) -> None:
        """Put other clicks since the log in the place of those before."""
        with self._writing:
            self.value = self.value.counting(live)
            self._live = live

    def adopt(self, generator: Generator, boosts: Sequence[Boost] | None) -> None:
        """Another generator, and with it other boosts, unless they are None: both at once."""
        with self._writing:
            snapshot = self.value if boosts is None else self.value.boosted(boosts)
            self.value = replace(snapshot, generator=generator)

    def take_over(self, value: Snapshot, featurizer: Featurizer) -> None:
        """A snapshot of the same run with other counts: items become what they are here, live clicks and rules stay.

        Searches see the old one until the new one has all that. What was changed before is done again beside them, so
        that changes wait only for those that came meanwhile.
        """
        with self._writing:
            then, early = self.value, dict(self._changed_in)
        value = self._with_items_of(then, early, value, featurizer)
        with self._writing:
            late = [item_id for item_id, number in self._changed_in.items() if early.get(item_id) != number]
            value = self._with_items_of(self.value, late, value, featurizer)
            value = value if self._live is None else value.counting(self._live)
            self.value, self._featurizer = replace(value, rules=self.value.rules), featurizer
            self._end_merge()  # bases of the old one are of no use any more

    def rule(self, rules: Rules | None) -> None:
        """Other rules, from the next search on."""
        with self._writing:
            self.value = replace(self.value, rules=rules)

    def _and_linking(self, items: Sequence[Item], there: Snapshot) -> Sequence[Item]:
        """Items that come, and those of a catalogue that link to one of them."""
        if not self._featurizer.linked:
            return items
        with self._looking:
            if self._linking is None:
                self._linking = LinkingItems(there.records)
            self._linking.note(items)
            linking = self._linking.to(items)
        coming = {item.item_id for item in items}
        known = [there.item(there.number[i]) for i in linking if i in there.number]
        return [*items, *(item for item in known if not coming.isdisjoint(item.linked))]

    def settle(self) -> None:
        """Put bases in place that all shards have made; nothing for an engine without shards, which need not wait."""
        shards = self.value.shards
        if shards.count == 1 or self._merging is None:
            return
        with self._writing:
            had = self._made, self._gave_up
        found = shards.arrays(np.array([had[0] is not None, had[1]], np.int64))
        with self._writing:
            if any(gave_up for _, gave_up in found):
                self._end_merge()
            elif all(is_made for is_made, _ in found) and had[0] is not None:
                self.value = self.value.onto(had[0], self._merging)
                self._end_merge()

    def _end_merge(self) -> None:
        self._merging, self._made, self._gave_up = None, None, False

    def _changed(self, item_ids: Collection[str]) -> None:
        """Note what changed, also for a merge that is under way; begin one where it is due. Called by the writer."""
        self._changes += 1
        self._changed_in |= dict.fromkeys(item_ids, self._changes)
        if self._merging is not None:
            self._merging |= {row for i in item_ids if (row := self.value.number.row_of(i)) is not None}
        elif self.value.shards.total(self.value.wants_merge):
            self._merging = set()
            about = (self.value, self._merging)
            threading.Thread(target=self._merge, args=about, name="merge", daemon=True).start()

    def _merge(self, snapshot: Snapshot, changed: set[int]) -> None:
        """Make new bases for a catalogue that goes on changing, then put what changed meanwhile on top of them."""
        try:
            merged = snapshot.merged()
            with self._writing:
                if self._merging is changed:
                    self._made = merged
                    if self.value.shards.count == 1:
                        self.value = self.value.onto(merged, changed)
                        self._end_merge()
        except Exception:  # searches and changes go on with what they have; the next change tries again
            log.exception("changes of the catalogue could not be merged")
            with self._writing:  # as a writer may be about to note a change
                if self._merging is changed:
                    self._gave_up = True
                    if self.value.shards.count == 1:
                        self._end_merge()

    def _with_items_of(
        self, source: Snapshot, item_ids: Collection[str], snapshot: Snapshot, featurizer: Featurizer
    ) -> Snapshot:
        """A snapshot in which some items are as they are in another one, ``source``: changed, new or gone."""
        there = [item_id for item_id in item_ids if item_id in source.number]
        for start in range(0, len(there), _AT_ONCE):
            rows = [source.number[item_id] for item_id in there[start : start + _AT_ONCE]]
            items = self._and_linking([source.item(row) for row in rows], source)
            snapshot = snapshot.upserted(items, featurizer)
        gone = [item_id for item_id in item_ids if item_id not in source.number and item_id in snapshot.number]
        return snapshot.deleted(gone) if gone else snapshot
