"""What a shown item is worth: ``R_item = R_C&O + R_CTR + R_Rel`` (docs/method.md, 7.1 to 7.4), as columns over pairs.

Weights and boosts come from a small YAML file that is read again before every round of alignment, so that what the shop
wants can change between rounds and while one is running.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from onesearch.common.settings import Settings
from onesearch.index.sid_index import SidIndex
from onesearch.search.boosts import Boost
from onesearch.search.path_scoring import ragged_ranges
from onesearch.training.click_rates import ClickRates
from onesearch.training.relevance import PairFeatures, Relevance

Floats = NDArray[np.float32]
TERMS: Final = ("behaviour", "click_rate", "relevance")
"""``R_C&O``, ``R_CTR`` and ``R_Rel``."""


class RewardSettings(Settings):
    """Weights of the terms and boosts."""

    behaviour: float = Field(1.0, ge=0, description="weight of R_C&O")
    click_rate: float = Field(1.0, ge=0, description="weight of R_CTR")
    relevance: float = Field(1.0, ge=0, description="weight of R_Rel")
    order: float = Field(4.0, ge=0, description="R_C&O of an ordered item")
    click: float = Field(3.0, ge=0, description="R_C&O of a clicked item; at most that of an ordered one")
    low: float = Field(0.01, ge=0, lt=1, description="least R_CTR, so that bait cannot dominate")
    high: float = Field(0.99, gt=0, le=1, description="highest R_CTR")
    boosts: tuple[Boost, ...] = Field(
        (), description="groups of items for which terms of the reward are multiplied, and which pages show more"
    )

    @model_validator(mode="after")
    def _in_order(self) -> "RewardSettings":
        if self.click > self.order:
            raise ValueError(f"click {self.click} is above order {self.order}; an order is worth at least a click")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        return self


def behaviour_reward(
    clicked: NDArray[np.bool_], ordered: NDArray[np.bool_], click: float = 3.0, order: float = 4.0
) -> Floats:
    """``R_C&O``: ``order`` where ordered, else ``click`` where clicked, else 0."""
    return np.where(ordered, order, np.where(clicked, click, 0.0)).astype(np.float32)


@dataclass(frozen=True)
class Boosts:
    """The factor of every item for every term, float32 [N] by name of the term."""

    factor: Mapping[str, Floats]
    members: Mapping[str, int]

    @cached_property
    def raised(self) -> NDArray[np.bool_] | None:
        """Items of which a term counts more than without boosts, bool [N]; None where there is none."""
        found = np.stack(list(self.factor.values())).max(0) > 1
        return found if found.any() else None

    @classmethod
    def from_settings(cls, boosts: Sequence[Boost], items: pl.DataFrame) -> "Boosts":
        """Look the groups up in the item table.

        Raises:
            ValueError: a group has no item.
        """
        factor = {term: np.ones(len(items), np.float32) for term in TERMS}
        members = {}
        for boost in boosts:
            inside = boost.members(items)
            members[boost.name] = int(inside.sum())
            for term in TERMS if boost.term == "all" else (boost.term,):
                factor[term][inside] *= boost.times
        return cls(factor, members)


class Rewards:
    """Rewards of (query, item) pairs.

    Args:
        config: weights and boosts.
        items: the item table, N rows.
        rates: for ``R_CTR``; None leaves it out.
        pairs: features for ``R_Rel``; None leaves it out.
        relevance: the trees that read them.
        judged: level by (number of the query in ``pairs``, item row), which goes before what the trees say.
    """

    def __init__(
        self,
        config: RewardSettings,
        items: pl.DataFrame,
        rates: ClickRates | None = None,
        pairs: PairFeatures | None = None,
        relevance: Relevance | None = None,
        judged: Mapping[tuple[int, int], int] | None = None,
    ) -> None:
        self.config, self.rates, self.pairs, self.relevance = config, rates, pairs, relevance
        self.n_items = len(items)
        self.boosts = Boosts.from_settings(config.boosts, items)
        # Judged pairs as sorted keys, to be found by binary search.
        keys = [query * self.n_items + item for query, item in judged or {}]
        order = np.argsort(np.asarray(keys, np.int64))
        self._judged = np.asarray(keys, np.int64)[order]
        self._levels = np.asarray(list((judged or {}).values()), np.float32)[order]

    def compute(
        self,
        queries: NDArray[np.integer],
        items: NDArray[np.integer],
        clicked: NDArray[np.bool_],
        ordered: NDArray[np.bool_],
    ) -> dict[str, Floats]:
        """Each term of n pairs, weighted and boosted, and their sum ``total``; float32 [n] each."""
        config = self.config
        # Terms as they are, zero where nothing says them; then each times its weight and the boosts of its items.
        parts = {term: np.zeros(len(items), np.float32) for term in TERMS}
        parts["behaviour"] = behaviour_reward(clicked, ordered, config.click, config.order)
        if self.rates is not None and config.click_rate > 0:
            parts["click_rate"] = self.rates.rate(items, config.low, config.high).astype(np.float32)
        if config.relevance > 0:
            parts["relevance"] = self.levels(queries, items)
        out = {
            term: (getattr(config, term) * value * self.boosts.factor[term][items]).astype(np.float32)
            for term, value in parts.items()
        }
        return {**out, "total": np.sum(list(out.values()), 0, dtype=np.float32)}

    def levels(self, queries: NDArray[np.integer], items: NDArray[np.integer]) -> Floats:
        """``R_Rel`` of n pairs: the judged level, else the most probable one; float32 [n], 0 where nothing can say."""
        out = np.zeros(len(items), np.float32)
        if self.pairs is not None and self.relevance is not None and len(items):
            out = self.relevance.levels(self.pairs.compute(queries, items)).astype(np.float32)
        if len(self._judged):
            # A key that is not there is compared with its neighbour, and differs.
            keys = queries.astype(np.int64) * self.n_items + items
            at = np.minimum(np.searchsorted(self._judged, keys), len(self._judged) - 1)
            out = np.where(self._judged[at] == keys, self._levels[at], out)
        return out


def items_of_sids(index: SidIndex, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """All items of SIDs, given as nodes int64 [n] of the last level: item rows int64 [m] and the SID of each, [m]."""
    first, last = index.positions(index.levels - 1, nodes)
    positions, owner = ragged_ranges(first, last - first)
    return index.item_rows(positions), owner


def best_of_sids(values: Tensor, owner: Tensor, n: int) -> Tensor:
    """The best value [m] among the items of each of n SIDs: "a SID shared by several items takes the best"; [n]."""
    out = torch.full((n,), float("-inf"), dtype=values.dtype, device=values.device)
    return out.scatter_reduce(0, owner, values, "amax")
