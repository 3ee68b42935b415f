"""One consistent state of the catalogue and the model that searches read; every change makes a new one.

Readers hold a snapshot for the length of a search, so they see the old state or the new one, never a half. An item's
row is its own for good, whatever is sent of it and also while it is deleted: what the log knows of it stays with it.
A change costs what it changes: tables, index, filters and BM25 keep what does not change and put a layer on top, which
:meth:`Snapshot.merged` folds into new bases from time to time, in the background.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.layered_table import LayeredTable
from onesearch.data.item_pairs import ItemPairs
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.records import Item, items_frame
from onesearch.data.text import item_texts
from onesearch.index.changed_index import ChangedIndex
from onesearch.index.item_filters import ItemFilters, ItemMask
from onesearch.index.sid_index import SidIndex
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.model.prompt import PromptBuilder
from onesearch.search.boosts import Boost, log_times
from onesearch.search.click_features import ClickFeatures, ItemTraits
from onesearch.search.evidence_finder import EvidenceFinder, evidence_finder
from onesearch.search.item_records import ItemNumbers, ItemRecords, ItemTable
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.results import FilterChoices
from onesearch.search.rules import Rules
from onesearch.search.shards import WHOLE, Shards, shard_of_codes

Floats = NDArray[np.float32]
_MOST_CHOICES = 200  # values of a filter that a page may offer
_MOST_CHANGES, _CHANGED_SHARE = 4096, 64  # a merge is due from so many changes on, or one in so many items
_MOST_NODES = 1 << 20  # or so many nodes of the index written, or as many as there are items


@dataclass(frozen=True)
class Merged:
    """New bases of a snapshot, without layers; tables as there."""

    index: SidIndex
    filters: ItemFilters
    lexical: LexicalSearcher | None
    records: ItemRecords
    number: ItemNumbers
    sids: LayeredTable
    item_head_rows: LayeredTable
    traits: ItemTraits


@dataclass(frozen=True)
class Snapshot:
    """Items, their index, filters and the tables the model reads; and the model.

    Attributes:
        generator: the model, in eval mode.
        records: the item of every row. Deleted items keep their row but leave the index.
        number: item id to row; deleted items are absent.
        sids: int32 [N, L]; item_head_rows: float32 [N, R]; popularity: float32 [N], clicks.
        click_features: of the log, with the clicks since; traits: what they read of every item row.
        pairs: items taken together in the log, where prompts have such evidence.
        boosts: groups that pages show more; boost: float32 [N], what they add to the order, None without any.
        rules: of the shop's merchandisers, whose boosts count instead; None where there never were any.
        version: grows by one with every change.
        shards: the engines that search together; ``index``, ``filters`` and ``lexical`` hold the items of this one.
        owners: int32 [K], the shard of every first code of a SID; None where there is one shard.
    """

    generator: Generator
    records: ItemRecords
    number: ItemNumbers
    index: SidIndex
    filters: ItemFilters
    builder: PromptBuilder
    sids: LayeredTable
    item_head_rows: LayeredTable
    popularity: LayeredTable
    lexical: LexicalSearcher | None
    click_features: ClickFeatures
    traits: ItemTraits
    pairs: ItemPairs | None = None
    boosts: tuple[Boost, ...] = ()
    boost: LayeredTable | None = None
    rules: Rules | None = None
    version: int = 0
    shards: Shards = WHOLE
    owners: NDArray[np.int32] | None = None

    @classmethod
    def over(
        cls,
        generator: Generator,
        items: ItemTable,
        index: SidIndex,
        filters: ItemFilters,
        builder: PromptBuilder,
        sids: NDArray[np.int32],
        item_head_rows: torch.Tensor,
        popularity: Floats,
        number: Mapping[str, int],
        lexical: LexicalSearcher | None,
        click_features: ClickFeatures,
        traits: ItemTraits,
        pairs: ItemPairs | None = None,
    ) -> "Snapshot":
        """The catalogue as a run left it; tables as the attributes of their names, ``number`` of every item id."""
        # Every part is a base without a layer on top.
        return cls(
            generator,
            ItemRecords.over(items),
            ItemNumbers(number),
            index,
            filters,
            builder,
            LayeredTable.over(torch.from_numpy(np.ascontiguousarray(sids))),
            LayeredTable.over(item_head_rows),
            LayeredTable.over(torch.from_numpy(np.asarray(popularity, np.float32))),
            lexical,
            click_features,
            traits,
            pairs,
        )

    def on(self, device: torch.device) -> "Snapshot":
        """The same catalogue with its tensors on a device."""
        if self.index.device == device:
            return self
        index = self.index.to(device)
        return replace(
            self, index=index, item_head_rows=self.item_head_rows.to(device), filters=self.filters.rebased(index)
        )

    @cached_property
    def evidence_finder(self) -> EvidenceFinder | None:
        """What finds the evidence of requests in this catalogue, made once for it; None where prompts have none."""
        log, config = self.click_features, self.builder.config
        rows, categories = self.item_head_rows, self.traits.categories
        return evidence_finder(
            config, log.statistics, self.pairs, self.lexical, self.index, rows, log.words, categories, self.shards
        )

    def part_of(self, shards: Shards) -> "Snapshot":
        """The catalogue as one of several shards searches it: index, filters and BM25 of its own items alone.

        Raises:
            ValueError: there are more shards than first codes; or this is a shard already.
        """
        if self.owners is not None:
            raise ValueError("this engine is a shard already; make shards of the whole engine")
        there = self.number.rows()
        first, codes = self.sids.take(there)[:, 0], self.index.codebook_sizes[0]
        owners = shard_of_codes(np.bincount(first, minlength=codes), shards.count)
        mine = owners[first] == shards.number
        own = there[mine]
        rows = torch.from_numpy(own).to(self.item_head_rows.device)
        index = SidIndex.build(
            self.sids.take(own),
            self.item_head_rows[rows],
            self.index.codebook_sizes,
            self.popularity.take(own),
            own,
            self.index.precision,
        )
        lexical = None if self.lexical is None else self.lexical.remove(there[~mine]).merged()
        filters = self.filters.rebased(index)
        return replace(self, index=index, filters=filters, lexical=lexical, shards=shards, owners=owners)

    @cached_property
    def below(self) -> dict[tuple[int, int], tuple[int, str]]:
        """What explanations found out of nodes of this catalogue, by level and node: items, commonest category."""
        return {}

    def boosted(self, boosts: Sequence[Boost]) -> "Snapshot":
        """The same catalogue under other boosts."""
        if not boosts:
            return replace(self, boosts=(), boost=None)
        boost = torch.from_numpy(log_times(boosts, self.records.columns(*sorted({boost.column for boost in boosts}))))
        # Layered as all tables are, so that they keep changing together.
        return replace(self, boosts=tuple(boosts), boost=LayeredTable.layered_as(self.sids, boost))

    def counting(self, live: LiveClicks) -> "Snapshot":
        """The same catalogue with other clicks since the log; those on items that were never in it are left out."""
        found = [self.number.row_of(item_id) for item_id in live.item_ids]
        rows = np.array([-1 if row is None else row for row in found], np.int64)
        features = self.click_features.with_live(live, rows, len(self.records))
        clicked = np.zeros(len(self.records), np.float32)
        clicked[: len(features.statistics.clicked)] = features.statistics.clicked
        if features.live is not None:
            clicked += features.live.clicked
        popularity = LayeredTable.layered_as(self.sids, torch.from_numpy(clicked))
        return replace(self, click_features=features, popularity=popularity)

    def item(self, row: int) -> Item:
        """The item of a row."""
        return self.records.item(row)

    def sid(self, row: int) -> tuple[int, ...]:
        """The SID of the item of a row, as level-local codes."""
        return tuple(int(code) for code in self.sids.take(np.array([row]))[0])

    def there(self, rows: NDArray[np.integer] | Sequence[int], mask: ItemMask | None = None) -> NDArray[np.bool_]:
        """Which of some item rows, [m], are in the catalogue, that of all shards, and allowed by the mask: bool [m]."""
        asked = torch.from_numpy(np.asarray(rows, np.int64)).to(self.index.device)
        here = self.index.position_of(asked) >= 0 if mask is None else mask.rows_allowed(asked)
        found: NDArray[np.bool_] = self.shards.gathered(here).any(0).cpu().numpy()
        return found

    def choices(self, mask: ItemMask | None = None) -> FilterChoices:
        """Values of categories and brands with their numbers, the price range, types of attributes.

        Of all items, or of those that a mask allows; of all shards.
        """
        of_all = self.shards.arrays
        if mask is None:
            columns = self.filters.columns()
        else:
            rows = torch.arange(len(self.records), device=self.index.device)
            columns = self.filters.columns_of(rows[mask.rows_allowed(rows)].cpu().numpy())
        prices = np.concatenate(of_all(columns.price[~np.isnan(columns.price)]))
        return FilterChoices(
            tuple(columns.paths.counted(_MOST_CHOICES, of_all)),
            tuple(columns.brand.counted(_MOST_CHOICES, of_all)),
            (float(prices.min()), float(prices.max())) if len(prices) else None,
            tuple(columns.tags.counted_types(_MOST_CHOICES, of_all)),
        )

    # -- changes -------------------------------------------------------------------------------------------------

    def upserted(self, items: Iterable[Item], featurizer: Featurizer) -> "Snapshot":
        """A snapshot with the items added or replaced; the frozen quantizer gives their SIDs, nothing is learned.

        An item that is known keeps its row with its clicks; its SID and vector change only with its text, and with
        those of the items that it links to, if these come, too.
        """
        # Of an item sent twice the last counts. Rows: known ones, also of deleted items, or new ones at the end.
        newest = list({item.item_id: item for item in items}.values())
        known = [self.number.row_of(item.item_id) for item in newest]
        fresh = iter(range(len(self.records), len(self.records) + known.count(None)))
        rows = np.array([next(fresh) if row is None else row for row in known], np.int64)
        was_known = np.array([row is not None for row in known], bool)
        frame = items_frame(newest)
        before = items_frame([self.item(row) for row in rows[was_known].tolist()])

        # SIDs [k, L] and head rows [k, R]: as they were where what they are made of is the same.
        linked = self._linked_by(newest)
        sids, head_rows = self._features(frame, before, rows, was_known, featurizer, linked)
        popularity = np.zeros(len(rows), np.float32)
        popularity[was_known] = self.popularity.take(rows[was_known])

        # The tables get a layer for these rows; all of them have as many layers.
        changed = self.sids.changed.with_rows(rows, self.sids.used)
        boost = self.boost
        if boost is not None:
            boost = boost.with_rows(changed, torch.from_numpy(log_times(self.boosts, frame)))
        tables = (
            self.sids.with_rows(changed, torch.from_numpy(sids)),
            self.item_head_rows.with_rows(changed, torch.from_numpy(head_rows)),
        )
        mine = self._mine(sids)
        index = _growing(self.index)
        if len(moved := self.indexed(rows[~mine])):  # another text may belong to another shard
            index = index.remove(moved)
        if mine.any():
            index = index.upsert(sids[mine], head_rows[mine], rows[mine], popularity[mine])
        lexical = self._lexical_with(rows, frame, before, was_known)
        if lexical is not None and not mine.all():  # which knows the words of all items
            lexical = lexical.remove(rows[~mine])
        numbers = {item.item_id: int(row) for item, row in zip(newest, rows, strict=True)}
        return replace(
            self,
            records=self.records.with_items(rows, newest),
            number=self.number.with_items(numbers),
            index=index,
            filters=self.filters.changed(rows, newest, index),
            builder=PromptBuilder(self.builder.vocabulary, self.builder.config, *tables),
            sids=tables[0],
            item_head_rows=tables[1],
            popularity=self.popularity.with_rows(changed, torch.from_numpy(popularity)),
            lexical=lexical,
            traits=self.traits.with_rows(changed, *self.click_features.traits_of(frame)),
            boost=boost,
            version=self.version + 1,
        )

    def deleted(self, item_ids: Iterable[str]) -> "Snapshot":
        """A snapshot without the items; ids it does not know are ignored."""
        known = [item_id for item_id in dict.fromkeys(item_ids) if item_id in self.number]
        if not known:
            return self
        rows = np.array([self.number[item_id] for item_id in known], np.int64)
        index = _growing(self.index).remove(self.indexed(rows))
        return replace(
            self,
            number=self.number.without(known),
            index=index,
            filters=self.filters.changed([], [], index),
            lexical=None if self.lexical is None else self.lexical.remove(rows),
            version=self.version + 1,
        )

    def _mine(self, sids: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Which items [k] with these SIDs [k, L] this shard has."""
        if self.owners is None:
            return np.ones(len(sids), bool)
        return np.asarray(self.owners[sids[:, 0]] == self.shards.number)

    def indexed(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some item rows [k] that are in this index, which of a shard has its own items."""
        position = self.index.position_of(torch.from_numpy(rows).to(self.index.device))
        there: NDArray[np.bool_] = (position >= 0).cpu().numpy()
        return rows[there]

    @property
    def wants_merge(self) -> bool:
        """Whether so much stands on top of the bases that new ones are worth their while."""
        changes, written = self.sids.used, 0
        if isinstance(self.index, ChangedIndex):
            changes, written = max(changes, self.index.changes), self.index.written
        if self.lexical is not None:
            changes = max(changes, self.lexical.changes)
        many = max(_MOST_CHANGES, len(self.number) // _CHANGED_SHARE)
        return changes >= many or written >= max(_MOST_NODES, len(self.number))

    def merged(self) -> Merged:
        """New bases, as long as it takes; the catalogue may change meanwhile."""
        index = self.index.merged() if isinstance(self.index, ChangedIndex) else self.index
        return Merged(
            index,
            self.filters.rebased(index),
            None if self.lexical is None else self.lexical.merged(),
            self.records.flat(),
            self.number.flat(),
            LayeredTable.over(self.sids.flat()),
            LayeredTable.over(self.item_head_rows.flat()),
            self.traits.flat(len(self.records)),
        )

    def onto(self, merged: Merged, rows: Iterable[int]) -> "Snapshot":
        """The same catalogue on new bases, on top of which stand the ``rows`` that changed since they were begun."""
        index, filters, lexical = _growing(merged.index), merged.filters, merged.lexical
        changed = np.array(sorted(set(rows)), np.int64)
        items = [self.item(row) for row in changed.tolist()]
        # Tables: these rows as they are now.
        layer = merged.sids.changed.with_rows(changed, 0)
        sids, head_rows = (
            base.with_rows(layer, now[torch.from_numpy(changed).to(now.device)])
            for base, now in zip((merged.sids, merged.item_head_rows), (self.sids, self.item_head_rows), strict=True)
        )
        traits = merged.traits.with_rows(layer, *self.traits.of_rows(changed))
        # Who is there: index, filters and BM25.
        at = torch.from_numpy(changed).to(self.index.device)
        here = (self.index.position_of(at) >= 0).cpu().numpy()
        there = (index.position_of(at) >= 0).cpu().numpy()
        stay, gone = changed[here], changed[there & ~here]
        staying = [item for item, is_here in zip(items, here.tolist(), strict=True) if is_here]
        index = index.remove(gone) if len(gone) else index
        if len(stay):
            vectors = self.item_head_rows[torch.from_numpy(stay).to(self.item_head_rows.device)]
            index = index.upsert(self.sids.take(stay), vectors, stay, self.popularity.take(stay))
        filters = filters.changed(stay, staying, index)
        if lexical is not None and len(changed):
            # It knows the words of all items, also of those of other shards.
            alive = np.array([item.item_id in self.number for item in items], bool)
            frame = items_frame([item for item, is_alive in zip(items, alive.tolist(), strict=True) if is_alive])
            texts = item_texts(frame, lexical.config.fields, distinct=False)
            lexical = lexical.remove(changed).add(changed[alive], texts).remove(changed[~here])
        numbers = {item.item_id: int(row) for item, row in zip(items, changed, strict=True)}
        number = merged.number.with_items(numbers)
        return replace(
            self,
            index=index,
            filters=filters,
            lexical=lexical,
            records=merged.records.with_items(changed, items),
            number=number.without([item_id for item_id in numbers if item_id not in self.number]),
            builder=PromptBuilder(self.builder.vocabulary, self.builder.config, sids, head_rows),
            sids=sids,
            item_head_rows=head_rows,
            popularity=LayeredTable.layered_as(sids, self.popularity.flat()),
            traits=traits,
            boost=None if self.boost is None else LayeredTable.layered_as(sids, self.boost.flat()),
        )

    def _features(
        self,
        frame: pl.DataFrame,
        before: pl.DataFrame,
        rows: NDArray[np.int64],
        was_known: NDArray[np.bool_],
        featurizer: Featurizer,
        linked: pl.DataFrame | None,
    ) -> tuple[NDArray[np.int32], Floats]:
        """SIDs [k, L] and head rows [k, R] of items in their ``rows``; ``before`` are those that were known.

        ``linked`` are the items that they link to.
        """
        sids = np.zeros((len(rows), self.sids.base.shape[1]), np.int32)
        head_rows = np.zeros((len(rows), self.item_head_rows.base.shape[1]), np.float32)
        sids[was_known] = self.sids.take(rows[was_known])
        head_rows[was_known] = self.item_head_rows.take(rows[was_known])
        # Another text has another SID and vector; so have other links, and another picture where vectors know of it.
        now = frame.filter(was_known)
        same = _same(item_texts(now, featurizer.fields), item_texts(before, featurizer.fields))
        same &= _same(now["linked"].to_list(), before["linked"].to_list())
        if featurizer.pictures is not None:
            same &= _same(now["images"].to_list(), before["images"].to_list())
        written = ~was_known
        written[was_known] = ~same
        # So has what links to one of those.
        if linked is not None:
            other = set(frame["item_id"].filter(written).to_list())
            written |= np.array([not other.isdisjoint(one) for one in frame["linked"].to_list()], bool)
        if written.any():
            numbers = featurizer.head_row_projection.features
            text = head_rows.shape[1] - numbers
            found = featurizer.items(frame.filter(written), linked)
            sids[written], head_rows[written, :text] = found[0], found[1][:, :text]
            new = ~was_known
            head_rows[new, text:] = found[1][new[written], text:]
        # Another price changes the numbers that say so; what the log says stays.
        priced = was_known.copy()
        price = [frame.filter(was_known).select("price", "category"), before.select("price", "category")]
        priced[was_known] = ~_same(*(one.rows() for one in price))
        if priced.any():
            featurizer.set_price(head_rows, np.flatnonzero(priced), frame.filter(priced))
        return sids, head_rows

    def _linked_by(self, items: Sequence[Item]) -> pl.DataFrame | None:
        """The items of the catalogue, and of these, that some items link to; None where they link to none."""
        coming = {item.item_id: item for item in items}
        ids = dict.fromkeys(one for item in items for one in item.linked)
        known = [coming.get(i) or self.item(self.number[i]) for i in ids if i in coming or i in self.number]
        return items_frame(known) if known else None

    def _lexical_with(
        self, rows: NDArray[np.int64], frame: pl.DataFrame, before: pl.DataFrame, was_known: NDArray[np.bool_]
    ) -> LexicalSearcher | None:
        """BM25 with the texts of items; those whose text stays, and that were there, are left alone."""
        if self.lexical is None:
            return None
        fields = self.lexical.config.fields
        texts = item_texts(frame, fields, distinct=False)
        here = (self.index.position_of(torch.from_numpy(rows).to(self.index.device)) >= 0).cpu().numpy()
        stays = np.zeros(len(rows), bool)
        known = [text for text, is_known in zip(texts, was_known.tolist(), strict=True) if is_known]
        stays[was_known] = _same(known, item_texts(before, fields, distinct=False)) & here[was_known]
        other = np.flatnonzero(~stays)
        return self.lexical.add(rows[other], [texts[i] for i in other.tolist()]) if len(other) else self.lexical


def _growing(index: SidIndex) -> ChangedIndex:
    return index if isinstance(index, ChangedIndex) else ChangedIndex.over(index)


def _same(one: Sequence[object], other: Sequence[object]) -> NDArray[np.bool_]:
    return np.array([a == b for a, b in zip(one, other, strict=True)], bool)
