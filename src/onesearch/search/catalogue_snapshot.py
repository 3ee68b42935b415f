"""One consistent state of the catalogue and the model that searches read; every change makes a new one.

Readers hold a snapshot for the length of a search, so they see the old state or the new one, never a half.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.data.item_pairs import ItemPairs
from onesearch.data.records import Item, item_from_row, items_frame
from onesearch.data.text import item_texts
from onesearch.index.item_filters import ItemFilters
from onesearch.index.sid_index import SidIndex
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator
from onesearch.model.prompt import PromptBuilder
from onesearch.search.boosts import Boost, log_times
from onesearch.search.click_features import ClickFeatures, ItemTraits
from onesearch.search.evidence_finder import EvidenceFinder, evidence_finder
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.results import FilterChoices

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Snapshot:
    """Items, their index, filters and the tables the model reads; and the model.

    Attributes:
        generator: the model, in eval mode.
        items: the item table; its row order gives the item rows. Deleted items keep their row but leave the index.
        sids: int32 [N, L]; item_head_rows: float32 [N, R]; popularity: float32 [N], training clicks.
        number: item id to its current row; deleted items are absent.
        click_features: of the log; traits: what they read of every item row.
        pairs: items taken together in the log, where prompts have such evidence.
        boosts: groups that pages show more; boost: float32 [N], what they add to the order, None without any.
        version: grows by one with every change.
    """

    generator: Generator
    items: pl.DataFrame
    index: SidIndex
    filters: ItemFilters
    builder: PromptBuilder
    sids: NDArray[np.int32]
    item_head_rows: torch.Tensor
    popularity: Floats
    number: dict[str, int]
    lexical: LexicalSearcher | None
    click_features: ClickFeatures
    traits: ItemTraits
    pairs: ItemPairs | None = None
    boosts: tuple[Boost, ...] = ()
    boost: Floats | None = None
    version: int = 0

    def on(self, device: torch.device) -> "Snapshot":
        """The same catalogue with its tensors on a device."""
        if self.index.device == device:
            return self
        index = self.index.to(device)
        filters = self.filters.updated(self.items, index, unchanged=len(self.items))
        return replace(self, index=index, item_head_rows=self.item_head_rows.to(device), filters=filters)

    @cached_property
    def evidence_finder(self) -> EvidenceFinder | None:
        """What finds the evidence of requests in this catalogue, made once for it; None where prompts have none."""
        log, config = self.click_features, self.builder.config
        rows, categories = self.item_head_rows, self.traits.categories
        return evidence_finder(
            config, log.statistics, self.pairs, self.lexical, self.index, rows, log.words, categories
        )

    def boosted(self, boosts: Sequence[Boost]) -> "Snapshot":
        """The same catalogue under other boosts."""
        return replace(self, boosts=tuple(boosts), boost=log_times(boosts, self.items) if boosts else None)

    def item(self, row: int) -> Item:
        """The item of a row."""
        return item_from_row(self.items.row(row, named=True))

    def choices(self) -> FilterChoices:
        """Values of the items' categories and brands with their numbers, and the price range."""
        # Deleted items keep their row in the table and are no choice.
        alive = self.items[sorted(self.number.values())]
        brands = alive["brand"].drop_nulls().value_counts(sort=True).head(200)
        paths = alive.select(pl.col("category").list.join(" > "))["category"]
        categories = paths.filter(paths != "").value_counts(sort=True).head(200)
        prices = alive["price"].drop_nulls()
        low, high = prices.min(), prices.max()
        return FilterChoices(
            tuple(categories.iter_rows()),
            tuple(brands.iter_rows()),
            (float(low), float(high)) if isinstance(low, float) and isinstance(high, float) else None,
        )

    def upserted(self, items: Sequence[Item], featurizer: Featurizer) -> "Snapshot":
        """A snapshot with the items added or replaced; the frozen quantizer gives their SIDs, nothing is learned."""
        # Of an item sent twice the last counts; its old row, if any, leaves index and BM25 and stays in the table.
        newest = {item.item_id: item for item in items}
        frame = items_frame(list(newest.values()))
        old = [self.number[i] for i in newest if i in self.number]
        rows = np.arange(len(self.items), len(self.items) + len(frame))
        sids, new_rows = featurizer.items(frame)
        # New items are merged into the sorted index.
        index = self.index.remove(np.asarray(old, np.int64)) if old else self.index
        popularity = np.zeros(len(frame), np.float32)
        index = index.add(sids, new_rows, rows, popularity)
        # Rows of the tables are appended, so that item rows of the log stay what they are.
        table = pl.concat([self.items, frame])
        return self._with(
            table,
            index,
            np.concatenate([self.sids, sids]),
            torch.cat([self.item_head_rows, torch.from_numpy(new_rows).to(self.item_head_rows)]),
            np.concatenate([self.popularity, popularity]),
            {**self.number, **dict(zip(newest, rows.tolist(), strict=True))},
            self._lexical_with(old, rows, frame),
        )

    def deleted(self, item_ids: Sequence[str]) -> "Snapshot":
        """A snapshot without the items; ids it does not know are ignored."""
        rows = [self.number[i] for i in dict.fromkeys(item_ids) if i in self.number]
        if not rows:
            return self
        number = {i: row for i, row in self.number.items() if i not in set(item_ids)}
        index = self.index.remove(np.asarray(rows, np.int64))
        lexical = self._lexical_with(rows, np.zeros(0, np.int64), self.items.head(0))
        return self._with(self.items, index, self.sids, self.item_head_rows, self.popularity, number, lexical)

    def _lexical_with(
        self, gone: Sequence[int], rows: NDArray[np.int64], added: pl.DataFrame
    ) -> LexicalSearcher | None:
        if self.lexical is None:
            return None
        kept = self.lexical.remove(np.asarray(gone, np.int64)) if gone else self.lexical
        return kept.add(rows, item_texts(added, kept.config.fields, distinct=False)) if len(rows) else kept

    def _with(
        self,
        items: pl.DataFrame,
        index: SidIndex,
        sids: NDArray[np.int32],
        item_head_rows: torch.Tensor,
        popularity: Floats,
        number: dict[str, int],
        lexical: LexicalSearcher | None,
    ) -> "Snapshot":
        builder = PromptBuilder(self.builder.vocabulary, self.builder.config, sids, item_head_rows)
        # What features read of each item, for the new rows as well.
        added = items[len(self.items) :]
        traits = self.traits.extended(self.click_features.item_traits(added)) if len(added) else self.traits
        boost = self.boost
        if boost is not None:
            boost = np.concatenate([boost, log_times(self.boosts, added)])
        return replace(
            self,
            items=items,
            index=index,
            builder=builder,
            sids=sids,
            item_head_rows=item_head_rows,
            popularity=popularity,
            filters=self.filters.updated(items, index, unchanged=len(self.items)),
            number=number,
            lexical=lexical,
            traits=traits,
            boost=boost,
            version=self.version + 1,
        )
