"""What is true of any page view and item: relevance, click and order probability, and what a ranking is worth.

How a click comes about (figures in ``market_settings.py``, section ``choice``; formulas in ``docs/concepts.md``)::

    level  = 0 .. 3, from the query's product types and predicates and the item's latent attributes
    u      = bias + b[level] + taste . item + price fit + quality + wrong audience + focus of the session
    click  = the item is examined  (depth[shopper, query] < rank ^ -exponent)
             and luck[shopper, query, item] < sigmoid(u)
    order  = the item is clicked and a second luck < sigmoid(its own u, without the focus)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.market import keyed_random as keyed
from onesearch.market.market_catalogue import MarketCatalogue
from onesearch.market.market_kinds import MarketKinds, asked_kinds
from onesearch.market.market_queries import GIFT, PREDICATES, RANKING, Queries
from onesearch.market.market_settings import ChoiceParameters, MarketSettings
from onesearch.market.market_shoppers import Shoppers
from onesearch.market.market_vocabulary import SLOTS
from onesearch.market.needs import TRAIT_SLOTS

_SLOTS_OF: Final[dict[str, tuple[int, ...]]] = {
    kind: tuple(slot for slot, other in enumerate(SLOTS) if other == kind) for kind in dict.fromkeys(SLOTS)
}
_AUDIENCE: Final = SLOTS.index("Audience")
_CHUNK: Final = 256
_DISCOUNT: Final = (1.0 / np.log2(np.arange(2, 12))).astype(np.float32)
_CLICK, _ORDER, _DEPTH = 1, 2, 3  # what a draw is for


@dataclass(frozen=True)
class Visits:
    """n page views: rows of shopper and query tables, focus leaf, microsecond."""

    user: NDArray[np.int32]
    query: NDArray[np.int32]
    focus: NDArray[np.int16]
    time: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    def select(self, rows: NDArray[np.integer] | slice) -> "Visits":
        """Those with these numbers."""
        return Visits(self.user[rows], self.query[rows], self.focus[rows], self.time[rows])


@dataclass(frozen=True)
class Reactions:
    """What shoppers did on pages of k items: bool [n, k] each."""

    examined: NDArray[np.bool_]
    clicked: NDArray[np.bool_]
    ordered: NDArray[np.bool_]


@dataclass(frozen=True)
class _Scored:
    """Pairs of a page view and an item that is relevant to it, each [m]."""

    owner: NDArray[np.int64]
    items: NDArray[np.int64]
    level: NDArray[np.int8]
    click: NDArray[np.float32]
    order: NDArray[np.float32]


def _sigmoid(x: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(1.0 / (1.0 + np.exp(-x)), np.float32)


@dataclass(frozen=True)
class Truth:
    """The model of relevance and choice over the tables of one market (S type sets, T product types, L leaves).

    ``type_sets`` is bool [S, T] (see :func:`~onesearch.market.market_queries.build_type_sets`), ``trait_values``
    bool [Q, V]; ``kinds`` are None in a market of products alone.
    """

    seed: int
    choice: ChoiceParameters
    catalogue: MarketCatalogue
    shoppers: Shoppers
    queries: Queries
    type_sets: NDArray[np.bool_]
    type_leaf: NDArray[np.int16]
    trait_values: NDArray[np.bool_]
    kinds: MarketKinds | None = None

    @cached_property
    def asked(self) -> NDArray[np.int8]:
        """The kind that each query asks for, int8 [Q]; 0 for none."""
        return asked_kinds(self.queries.texts)

    def is_shown(self, items: NDArray[np.integer], time: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether items are listed at a time, and have not ended, elementwise."""
        listed: NDArray[np.bool_] = np.less_equal(self.catalogue.listed[items], time)
        return listed if self.kinds is None else listed & self.kinds.is_on(items, time)

    # ---- relevance -------------------------------------------------------------------------------------------------

    @cached_property
    def _set_leaves(self) -> NDArray[np.bool_]:
        """Whether a type set touches a leaf, bool [S, L]."""
        leaves = np.zeros((len(self.type_sets), int(self.type_leaf.max()) + 1), np.bool_)
        np.logical_or.at(leaves.T, self.type_leaf, self.type_sets.T)
        return leaves

    @cached_property
    def _value_slots(self) -> NDArray[np.int8]:
        """The (at most two) slots a value can stand in, int8 [V, 2]."""
        return np.array([(_SLOTS_OF[kind] * 2)[:2] for kind in self.catalogue.value_type], np.int8)

    def _has_value(self, value: NDArray[np.int32], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether items have single values, elementwise over flat arrays."""
        slots = self._value_slots[value]
        values = self.catalogue.values
        return np.asarray((values[items, slots[:, 0]] == value) | (values[items, slots[:, 1]] == value))

    def has_trait(self, trait: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Whether items have a value of traits, elementwise over flat arrays."""
        out = np.zeros(len(items), np.bool_)
        for slot in TRAIT_SLOTS:
            value = self.catalogue.values[items, slot]
            out |= self.trait_values[trait, value] & (value >= 0)
        return out

    def levels(self, query: NDArray[np.integer], items: NDArray[np.integer]) -> NDArray[np.int8]:
        """Relevance level of query rows and item rows, elementwise over flat arrays: int8 [m] in 0..3."""
        q, catalogue = self.queries, self.catalogue
        sets = q.type_set[query]
        near = self._set_leaves[sets, catalogue.leaves[items]]
        exact = self.type_sets[sets, catalogue.types[items]]
        level = np.zeros(len(items), np.int8)
        # Everything else asks only about the items of the right leaves.
        at = np.flatnonzero(near)
        rows, here, exact = query[at], items[at], exact[at]
        # How many predicates the query has, and how many of them the item meets: single values, traits, the model.
        wanted = np.zeros(len(at), np.int8)
        met = np.zeros(len(at), np.int8)
        n_values = len(catalogue.value_names)
        for column in range(PREDICATES):
            predicate = q.predicates[rows, column]
            wanted += predicate >= 0
            part = np.flatnonzero((predicate >= 0) & (predicate < n_values))
            met[part] += self._has_value(predicate[part], here[part])
            part = np.flatnonzero(predicate >= n_values)
            met[part] += self.has_trait(predicate[part] - n_values, here[part])
        model = q.model[rows]
        wanted += model >= 0
        met += (model >= 0) & (model == catalogue.models[here])
        # The right type: all met 3, half of them 2, else 1. Another type of the leaf that meets all: 1.
        complete = met == wanted
        found = np.where(exact, np.where(complete, 3, np.where(2 * met >= wanted, 2, 1)), complete).astype(np.int8)
        # What has the value that the query rules out is 1 at most.
        ban = q.ban[rows]
        part = np.flatnonzero(ban >= 0)
        broken = self._has_value(ban[part], here[part])
        found[part] = np.where(broken, np.minimum(found[part], 1), found[part])
        level[at] = found
        return level

    # ---- choice ----------------------------------------------------------------------------------------------------

    def _choice_probabilities(
        self, visits: Visits, owner: NDArray[np.integer], items: NDArray[np.integer], level: NDArray[np.int8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """P(click | examined) and P(order | clicked) of page view row ``owner[m]`` and item row ``items[m]``."""
        c, catalogue, shoppers = self.choice, self.catalogue, self.shoppers
        user, query = visits.user[owner], visits.query[owner]
        kind = self.queries.kind[query]
        # Who buys a gift counts less with taste and purse; who asks for a ranking looks at quality.
        own = np.where(kind == GIFT, np.float32(c.gift_taste), np.float32(1.0))
        sharp = np.where(kind == RANKING, np.float32(c.ranking_quality), np.float32(0.0))
        taste = np.einsum("ij,ij->i", shoppers.taste[user], catalogue.taste[items]) * own
        gap = catalogue.price_level[items] - shoppers.price_level[user]
        price = np.clip(1.0 - 0.5 * gap * gap, -2.0, 1.0) * own
        quality = catalogue.quality[items]
        # An item for others than the shopper, unless the query says for whom it is.
        audience = catalogue.values[items, _AUDIENCE]
        fits = shoppers.audience_fit[user, np.maximum(audience - catalogue.first_audience, 0)]
        wrong = ((audience >= 0) & ~fits & ~self.queries.names_audience[query]).astype(np.float32)
        focus = (catalogue.leaves[items] == visits.focus[owner]).astype(np.float32)
        # Of the kind that is asked for; nobody orders a video.
        liking, product = np.zeros(len(items), np.float32), np.ones(len(items), np.float32)
        if self.kinds is not None:
            liking = self.kinds.liking(self.asked[query], items, MarketSettings.kinds)
            product = (self.kinds.kind_of(items) == 0).astype(np.float32)
        click = _sigmoid(
            np.float32(c.click_bias)
            + np.array(c.click_relevance, np.float32)[level]
            + np.float32(c.click_taste) * taste
            + np.float32(c.click_price) * price
            + (np.float32(c.click_quality) + sharp) * quality
            + np.float32(c.click_audience) * wrong
            + np.float32(c.click_focus) * focus
            + liking
        )
        order = _sigmoid(
            np.float32(c.order_bias)
            + np.array(c.order_relevance, np.float32)[level]
            + np.float32(c.order_taste) * taste
            + np.float32(c.order_price) * price
            + np.float32(c.order_quality) * quality
            + np.float32(c.order_audience) * wrong
        )
        return click, order * product

    def probabilities(
        self, visits: Visits, items: NDArray[np.integer]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """Level, P(click | examined) and P(order | clicked) of pages: items [n, k], each [n, k].

        All three are 0 where no item stands (-1) and where it is not yet listed.
        """
        flat = np.maximum(items.reshape(-1), 0)
        owner = np.repeat(np.arange(len(items)), items.shape[1])
        level = self.levels(visits.query[owner], flat)
        click, order = self._choice_probabilities(visits, owner, flat, level)
        there = (items >= 0).reshape(-1)
        there &= self.is_shown(flat, visits.time[owner])
        level, click, order = level * there, click * there, order * there
        return level.reshape(items.shape), click.reshape(items.shape), order.reshape(items.shape)

    def examination(self, k: int) -> NDArray[np.float32]:
        """P(rank is examined), float32 [k]."""
        return np.asarray(np.arange(1, k + 1) ** -self.choice.examination_exponent, np.float32)

    def react(self, visits: Visits, items: NDArray[np.integer]) -> Reactions:
        """What the shoppers do on pages ``items`` [n, k].

        A shopper reads down to a depth; a click or order happens where the probability exceeds the shopper's luck with
        that item. Depth is keyed by (seed, shopper, query), luck by (seed, shopper, query, item): two engines that
        show the same item meet the same fate.
        """
        who = keyed.key(self.seed, visits.user, self.queries.keys[visits.query])
        depth = keyed.uniform(keyed.mix(who + np.uint64(_DEPTH)))
        examined = depth[:, None] < self.examination(items.shape[1])[None, :]
        clicked, ordered = self.fates(visits, items)
        return Reactions(examined, examined & clicked, examined & ordered)

    def fates(self, visits: Visits, items: NDArray[np.integer]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Whether shoppers click and order items [n, k] that they look at, bool [n, k] each; who orders has clicked."""
        _, click, order = self.probabilities(visits, items)
        who = keyed.key(self.seed, visits.user, self.queries.keys[visits.query])
        item_key = keyed.mix(who[:, None] ^ keyed.mix(items.astype(np.int64).view(np.uint64)))
        clicked = keyed.uniform(keyed.mix(item_key + np.uint64(_CLICK))) < click
        return clicked, clicked & (keyed.uniform(keyed.mix(item_key + np.uint64(_ORDER))) < order)

    # ---- worth of rankings -----------------------------------------------------------------------------------------

    @cached_property
    def _by_leaf(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Items sorted by leaf, and the first position of each leaf, int64 [L + 1]."""
        order = np.argsort(self.catalogue.leaves, kind="stable")
        leaves = np.arange(self._set_leaves.shape[1] + 1)
        return order, np.searchsorted(self.catalogue.leaves[order], leaves).astype(np.int64)

    def candidates(self, visits: Visits) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """All listed items of the leaves that a query means: (owner [m], item rows [m]). Others have level 0."""
        order, first = self._by_leaf
        owner, leaf = np.nonzero(self._set_leaves[self.queries.type_set[visits.query]])
        length = first[leaf + 1] - first[leaf]
        owners = np.repeat(owner, length)
        within = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length, length)
        items = order[np.repeat(first[leaf], length) + within]
        keep = self.is_shown(items, visits.time[owners])
        return owners[keep], items[keep]

    def _relevant(self, visits: Visits) -> _Scored:
        """Every listed item of level >= 1 of each page view."""
        owner, items = self.candidates(visits)
        level = self.levels(visits.query[owner], items)
        keep = level > 0
        owner, items, level = owner[keep], items[keep], level[keep]
        return _Scored(owner, items, level, *self._choice_probabilities(visits, owner, items, level))

    def best(self, visits: Visits, k: int, by: str = "click") -> NDArray[np.int32]:
        """The oracle's ranking int32 [n, k] by true P(click), by P(click)·P(order) or by relevance level; -1 beyond."""
        out = np.full((len(visits), k), -1, np.int32)
        for start in range(0, len(visits), _CHUNK):
            found = self._relevant(visits.select(slice(start, start + _CHUNK)))
            score = {
                "click": found.click,
                "order": found.click * found.order,
                "relevance": found.level + 1e-3 * found.click,
            }[by]
            ranking = np.lexsort((found.items, -score, found.owner))
            owner, items = found.owner[ranking], found.items[ranking]
            place = np.arange(len(owner)) - np.searchsorted(owner, owner)
            top = place < k
            out[start + owner[top], place[top]] = items[top]
        return out

    def listed_totals(self, visits: Visits) -> Mapping[str, NDArray[np.float32]]:
        """Per page view, over the listed catalogue: click mass, order mass and the ideal DCG@10, float32 [n]."""
        n = len(visits)
        click_mass, order_mass, ideal = (np.zeros(n, np.float32) for _ in range(3))
        for start in range(0, n, _CHUNK):
            part = visits.select(slice(start, start + _CHUNK))
            rows = slice(start, start + len(part))
            found = self._relevant(part)
            click_mass[rows] = np.bincount(found.owner, found.click, len(part))
            order_mass[rows] = np.bincount(found.owner, found.click * found.order, len(part))
            # The best order has all items of level 3, then those of 2, then of 1: which places each level fills.
            counts = np.stack(
                [np.bincount(found.owner[found.level == one], minlength=len(part)) for one in (3, 2, 1)], 1
            )
            bounds = np.minimum(np.concatenate([np.zeros((len(part), 1), np.int64), np.cumsum(counts, 1)], 1), 10)
            reach = np.concatenate([[0.0], np.cumsum(_DISCOUNT)])[bounds]
            ideal[rows] = (np.diff(reach, axis=1) * np.array([7.0, 3.0, 1.0])).sum(1)
        return {"click_mass": click_mass, "order_mass": order_mass, "ideal": ideal}

    def true_metrics(
        self, visits: Visits, ranked: NDArray[np.integer], totals: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """The worth of rankings int [n, k] (-1 = none); float32 [n] each, nan where nothing relevant is listed.

        ``ndcg@10`` with gains 2^level - 1; ``ehr@10`` and ``order_ehr@10``, the shares of the true click and order
        mass of the listed catalogue (level >= 1) in the top ten; ``clicks@10`` and ``orders@10``, expected under the
        examination model (items of level 0 included: they are clicked, too, now and then).
        """
        totals = self.listed_totals(visits) if totals is None else totals
        top = ranked[:, :10]
        level, click, order = self.probabilities(visits, top)
        gain = (2.0 ** level.astype(np.float32) - 1.0) * _DISCOUNT[: top.shape[1]]
        relevant = level > 0
        seen = self.examination(top.shape[1])
        with np.errstate(invalid="ignore", divide="ignore"):
            out = {
                "ndcg@10": gain.sum(1) / totals["ideal"],
                "ehr@10": (click * relevant).sum(1) / totals["click_mass"],
                "order_ehr@10": (click * order * relevant).sum(1) / totals["order_mass"],
                "clicks@10": (click * seen).sum(1),
                "orders@10": (click * order * seen).sum(1),
            }
        return {name: value.astype(np.float32) for name, value in out.items()}
