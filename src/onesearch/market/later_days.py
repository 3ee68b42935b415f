"""Days after a market's log: the same shoppers go on, and what they meet and ask for may change.

Nothing of the log is touched by these settings: they are of the simulation of days after it alone::

    drift      each week a quarter of the interests is drawn anew, as within the log; what is asked for, how popular and
               how good items are wander along a direction of their own, evenly, until the last day
    new items  mixtures of two items of a type, listed in the morning of a day
    new needs  invented words that are said from a day on
    repeated   some complex searches ask for what was asked before, the r-th of all for one of them by Zipf's law

Without them the days are alike, but for luck: a shopper who searches for the same on another day has another fate.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from onesearch.common.artefact import read_manifest
from onesearch.common.settings import Settings
from onesearch.data.dataset import Dataset
from onesearch.market.click_truth import Truth, Visits
from onesearch.market.make_market import items_table, save_truth, searches_table, users_table
from onesearch.market.market_catalogue import US_PER_DAY, ItemsByType, MarketCatalogue
from onesearch.market.market_queries import build_queries, build_type_sets
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import Shoppers, next_week
from onesearch.market.market_traffic import Plans, Traffic, TrafficPlanner
from onesearch.market.market_vocabulary import SLOTS
from onesearch.market.needs import Needs, with_new_words
from onesearch.market.word_tables import read_words
from onesearch.market.world import World
from onesearch.market.world_files import FOLDER, save_config

_STREAM: Final = 13  # of random numbers, beside those of the log
_ITEMS, _NEEDS, _DIRECTIONS, _INTERESTS, _TRAFFIC, _REPEATED = range(6)  # what a draw is for
_OF_PARENT: Final = ("Brand", "Series", "Price")
_UNSEEN: Final = np.float32(-30.0)  # log popularity of an item that is not listed yet: nobody has it in mind


class LaterSettings(Settings):
    """What changes on the days after the log; with the defaults nothing does."""

    days: int = Field(30, ge=1, le=366, description="days after the log")
    page_views: int = Field(12_000, ge=10, description="of each day")
    drift: float = Field(
        0.0,
        ge=0,
        description="how far demand, popularity and quality wander until the last day, in standard deviations",
    )
    new_items: float = Field(0.0, ge=0, le=1, description="items listed on these days, as a share of the catalogue")
    new_needs: float = Field(0.0, ge=0, le=1, description="need words first said then, as a share of those of the log")
    repeated: float = Field(0.0, ge=0, le=1, description="share of complex searches that ask what was asked before")
    seed: int = Field(0, ge=0, description="of everything that is drawn beside the market's own seed")


@dataclass(frozen=True)
class LaterDay:
    """One day.

    Attributes:
        number: from 0, the first day after the log.
        truth: of that day.
        visits: n page views in order of time.
        page_views: the table of them, without what was shown.
        new_words: whether a query has a need word that the log does not know, bool [n].
    """

    number: int
    truth: Truth
    visits: Visits
    page_views: pl.DataFrame
    new_words: NDArray[np.bool_]


class LaterDays:
    """All days after the log of a market: the same ones every time.

    Args:
        config: of the market.
        later: what changes.

    Attributes:
        items: the table of all items, those that are listed on these days behind the others, [N + M].
        logged: number of items of the log's catalogue, N.
    """

    def __init__(self, config: MarketSettings, later: LaterSettings) -> None:
        self.config, self.later, world = config, later, World.build(config)
        self.logged, self._start = len(world.catalogue), _end_of_log(config)
        # New items behind the old ones, in a table of their own, so that old titles stay.
        more = _mixed_items(world, round(later.new_items * self.logged), later.days, self._start, self._rng(_ITEMS))
        catalogue = _joined(world.catalogue, more)
        # Names of models are drawn for all of them: one old item of the last model makes them the same.
        last = _select(world.catalogue, np.array([int(world.catalogue.models.argmax())]))
        new = items_table(replace(world, catalogue=_joined(more, last)))[: len(more)]
        ids = [f"i{row}" for row in range(self.logged, len(catalogue))]
        self.items = pl.concat([items_table(world), new.with_columns(item_id=pl.Series(ids, dtype=pl.String))])
        # New words behind the old ones, and the day from which each is said.
        many = len(world.needs.topics), len(world.needs.traits)
        needs, rng = world.needs, self._rng(_NEEDS)
        if later.new_needs:
            words = {
                word
                for text in (*self.items["title"], *catalogue.value_names)
                for word in text.lower().replace("-", " ").split()
            }
            reserved = words | set(world.vocabulary.nouns) | set(read_words("titles")["marketing"])
            needs = with_new_words(needs, later.new_needs, config, world.vocabulary, catalogue, reserved, rng)
        self._said = [
            np.concatenate([np.zeros(old, np.int64), rng.integers(0, later.days, len(words) - old)])
            for old, words in zip(many, (needs.topics, needs.traits), strict=True)
        ]
        self._world = replace(world, catalogue=catalogue, needs=needs)
        self._type_sets = build_type_sets(world.vocabulary, needs, catalogue, world.planner)
        self._known_words = many
        # Directions of the drift: of each item and of each product type.
        rng = self._rng(_DIRECTIONS)
        self._of_items = rng.standard_normal(len(catalogue)).astype(np.float32)
        self._of_types = rng.standard_normal(len(world.planner.type_weight))
        self._traffic = self._all_traffic()
        plans = Plans(
            *(np.concatenate(parts) for parts in zip(*(one.plans.parts() for one in self._traffic), strict=True))
        )
        # Texts of all days together, so that a text means the same on each of them.
        self._queries, number = build_queries(plans, world.vocabulary, needs, catalogue, config.seed)
        self._number = np.split(number, np.cumsum([len(one.user) for one in self._traffic])[:-1])

    def day(self, number: int) -> LaterDay:
        """A day, from 0.

        Raises:
            IndexError: there are fewer days.
        """
        traffic, query = self._traffic[number], self._number[number]
        visits = Visits(traffic.user, query, traffic.focus, traffic.time)
        catalogue, world = self._catalogue(number), self._world
        truth = Truth(
            # Fates are of a shopper, a query and a day.
            self.config.seed + 1_000_003 * (number + 1),
            self.config.choice,
            catalogue,
            world.shoppers,
            self._queries,
            self._type_sets,
            world.vocabulary.type_leaf,
            world.needs.trait_values,
            world.kinds,
        )
        name = f"m{number}-"
        page_views = searches_table(visits, traffic.session, self._queries, (name, name))
        return LaterDay(number, truth, visits, page_views, self._new_words()[query])

    def new_items(self, number: int) -> pl.DataFrame:
        """The items that are listed in the morning of a day, as rows of :attr:`items`."""
        listed, morning = self._world.catalogue.listed[self.logged :], self._start + number * US_PER_DAY
        return self.items[self.logged + np.flatnonzero((listed >= morning) & (listed < morning + US_PER_DAY))]

    def save(self, folder: Path) -> None:
        """Write all items and shoppers as a dataset without page views, and what is true of their words beside it.

        The stand-in for a language model thinks over it: it knows the new words, as a model knows a fashion.
        """
        truth_folder, nothing = folder / FOLDER, np.zeros(0, np.int64)
        if read_manifest(truth_folder) is not None:
            return
        shutil.rmtree(truth_folder, ignore_errors=True)
        Dataset.write(folder, self.items, users_table(self._world), source="market")
        visits = Visits(nothing.astype(np.int32), nothing.astype(np.int32), nothing.astype(np.int16), nothing)
        save_truth(truth_folder, self._world, self.day(0).truth, visits)
        save_config(truth_folder, self.config, {})

    # ---- one day --------------------------------------------------------------------------------------------------

    def _rng(self, *what: int) -> np.random.Generator:
        return np.random.default_rng([self.config.seed, _STREAM, self.later.seed, *what])

    def _progress(self, number: int) -> float:
        """How far things have drifted on a day, in standard deviations."""
        return self.later.drift * (number + 1) / self.later.days

    def _catalogue(self, number: int) -> MarketCatalogue:
        """All items as they are on a day; those that are not listed yet included."""
        catalogue, moved = self._world.catalogue, np.float32(self._progress(number)) * self._of_items
        popularity = catalogue.log_popularity + np.float32(self.config.catalogue.popularity_sigma) * moved
        return replace(catalogue, quality=catalogue.quality + moved, log_popularity=popularity)

    def _all_traffic(self) -> list[Traffic]:
        """Page views of every day, planned by what is wanted, listed and said on it."""
        world, found = self._world, []
        shoppers: Shoppers = replace(world.shoppers, interests=world.shoppers.interests[:, -1:])
        for number in range(self.later.days):
            weight = world.planner.type_weight * np.exp(0.5 * self._progress(number) * self._of_types)
            weight /= weight.sum()
            if self.later.drift and number % 7 == 0:
                leaf = np.bincount(world.vocabulary.type_leaf, weight, len(world.vocabulary.leaf_names))
                rng = self._rng(_INTERESTS, number)
                shoppers = next_week(shoppers, self.config, world.vocabulary, leaf.astype(np.float64), rng)
            morning = self._start + number * US_PER_DAY
            today = self.config.updated(start=str(np.datetime64(morning, "us")))
            known = self._in_mind(number, morning), self._words(number), shoppers
            planner = TrafficPlanner(today, world.vocabulary, *known, weight)
            found.append(planner.plan(self.later.page_views, self._rng(_TRAFFIC, number), days=1))
        return self._with_repeated(found) if self.later.repeated else found

    def _with_repeated(self, days: Sequence[Traffic]) -> list[Traffic]:
        """The same page views, some of which ask for what one before them, of that day or an earlier one, asks for.

        Equal plans are one query; with the plan goes the leaf that the shopper has in mind.
        """
        hard = [np.flatnonzero(one.plans.kind > 0) for one in days]
        plans = Plans(*(np.concatenate(parts) for parts in zip(*(one.plans.parts() for one in days), strict=True)))
        focus = np.concatenate([one.focus for one in days])
        starts = np.cumsum([0, *(len(one.user) for one in days[:-1])])
        asked = np.concatenate([start + rows for start, rows in zip(starts, hard, strict=True)])
        # The r-th complex page view of all: another one's plan, of rank 1 to r, by Zipf's law (log-uniform ranks).
        rng = self._rng(_REPEATED)
        again = rng.random(len(asked)) < self.later.repeated
        ranks = np.exp(rng.random(len(asked)) * np.log(np.arange(1, len(asked) + 1))).astype(np.int64)
        source = np.arange(len(focus))
        source[asked[again]] = asked[np.maximum(ranks - 1, 0)][again]
        found = zip(days, np.split(source, starts[1:]), strict=True)
        return [replace(one, plans=plans.select(rows), focus=focus[rows]) for one, rows in found]

    def _in_mind(self, number: int, morning: int) -> MarketCatalogue:
        """The catalogue as shoppers know it: nobody has an item in mind that is not listed."""
        catalogue = self._catalogue(number)
        listed = catalogue.listed <= morning
        return replace(catalogue, log_popularity=np.where(listed, catalogue.log_popularity, _UNSEEN))

    def _words(self, number: int) -> Needs:
        """The need words with their use on a day: none before a word is first said."""
        needs, (topics, traits) = self._world.needs, (said <= number for said in self._said)
        return replace(needs, topic_weight=needs.topic_weight * topics, trait_weight=needs.trait_weight * traits)

    def _new_words(self) -> NDArray[np.bool_]:
        """Whether a query has a word that the log does not know, bool [Q]."""
        queries, (topics, traits) = self._queries, self._known_words
        first = len(self._world.catalogue.value_names) + traits
        return np.asarray((queries.topic >= topics) | (queries.predicates >= first).any(1))


def _end_of_log(config: MarketSettings) -> int:
    return int(np.datetime64(config.start, "us").astype(np.int64)) + config.days * US_PER_DAY


def _mixed_items(world: World, many: int, days: int, start: int, rng: np.random.Generator) -> MarketCatalogue:
    """New items: each has attributes of two items of a type, brand, seller and price level of the first."""
    old, settings = world.catalogue, world.config.catalogue
    first = rng.integers(0, len(old), many)
    second = ItemsByType(old, len(world.planner.type_weight), 0.0).draw(old.types[first], rng.random(many))
    values = old.values[first].copy()
    # Both slots of a kind come from the same parent, so that two colours still differ.
    for kind in dict.fromkeys(SLOTS):
        if kind not in _OF_PARENT:
            of_second = rng.random(many) < 0.5
            for slot in (number for number, other in enumerate(SLOTS) if other == kind):
                values[of_second, slot] = old.values[second[of_second], slot]
    quality = rng.standard_normal(many).astype(np.float32)
    taste = old.taste[first] + 0.5 * rng.standard_normal((many, old.taste.shape[1])).astype(np.float32)
    popularity = settings.popularity_sigma * (0.7 * rng.standard_normal(many) + 0.7 * quality)
    listed = np.sort(start + rng.integers(0, days, many) * US_PER_DAY)
    return MarketCatalogue(
        old.types[first],
        old.leaves[first],
        values,
        old.models[first],
        old.sellers[first],
        old.seller_emerging,
        np.round(old.price[first] * np.exp(0.1 * rng.standard_normal(many)), 2),
        old.price_level[first],
        quality,
        (taste / np.linalg.norm(taste, axis=1, keepdims=True)).astype(np.float32),
        popularity.astype(np.float32),
        listed.astype(np.int64),
        old.value_names,
        old.value_type,
    )


_BY_ITEM: Final = (
    "types",
    "leaves",
    "values",
    "models",
    "sellers",
    "price",
    "price_level",
    "quality",
    "taste",
    "log_popularity",
    "listed",
)


def _joined(old: MarketCatalogue, more: MarketCatalogue) -> MarketCatalogue:
    """The items of both, in order; names of values and sellers are shared."""
    arrays: dict[str, Any] = {name: np.concatenate([getattr(old, name), getattr(more, name)]) for name in _BY_ITEM}
    return replace(old, **arrays)


def _select(catalogue: MarketCatalogue, rows: NDArray[np.integer]) -> MarketCatalogue:
    """Some of the items."""
    arrays: dict[str, Any] = {name: getattr(catalogue, name)[rows] for name in _BY_ITEM}
    return replace(catalogue, **arrays)
