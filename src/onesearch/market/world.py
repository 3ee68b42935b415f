"""A whole market in memory, built from its config alone."""

from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.market.click_truth import Truth, Visits
from onesearch.market.market_catalogue import MarketCatalogue, build_catalogue, type_weights
from onesearch.market.market_kinds import MarketKinds, asking_for_kinds, with_kinds
from onesearch.market.market_listings import build_listings
from onesearch.market.market_queries import Queries, build_queries, build_type_sets
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import Shoppers, build_shoppers
from onesearch.market.market_traffic import Traffic, TrafficPlanner
from onesearch.market.market_vocabulary import MarketVocabulary, build_vocabulary
from onesearch.market.needs import Needs, build_needs
from onesearch.market.word_tables import read_words


@dataclass(frozen=True)
class World:
    """Vocabulary, catalogue, needs and shoppers of a market, before anybody searches."""

    config: MarketSettings
    vocabulary: MarketVocabulary
    catalogue: MarketCatalogue
    needs: Needs
    shoppers: Shoppers
    planner: TrafficPlanner
    type_sets: NDArray[np.bool_]
    kinds: MarketKinds | None = None

    @classmethod
    def build(cls, config: MarketSettings) -> "World":
        """The world of a config: the same one every time."""
        vocabulary = build_vocabulary(config.seed)
        start = int(np.datetime64(config.start, "us").astype(np.int64))
        reserved = _words(vocabulary.values + vocabulary.nouns + read_words("titles")["marketing"])
        catalogue, kinds = build_catalogue(config, vocabulary, start, reserved), None
        if config.has_kinds:
            catalogue, kinds = with_kinds(config, catalogue, start)
        needs = build_needs(config, vocabulary, catalogue, reserved | _words(catalogue.value_names))
        weights = type_weights(vocabulary, np.random.default_rng([config.seed, 3]))
        leaf_weight = np.bincount(vocabulary.type_leaf, weights, len(vocabulary.leaf_names)).astype(np.float64)
        shoppers = build_shoppers(config, vocabulary, leaf_weight)
        planner = TrafficPlanner(config, vocabulary, catalogue, needs, shoppers, weights)
        return cls(
            config,
            vocabulary,
            catalogue,
            needs,
            shoppers,
            planner,
            build_type_sets(vocabulary, needs, catalogue, planner),
            kinds,
        )

    def with_newcomers(self, count: int) -> "World":
        """The same world with so many more shoppers behind the known ones; a shop has never seen them."""
        if not count:
            return self
        weights = self.planner.type_weight
        leaf_weight = np.bincount(self.vocabulary.type_leaf, weights, len(self.vocabulary.leaf_names))
        new = build_shoppers(self.config.updated(users=count), self.vocabulary, leaf_weight.astype(np.float64))
        shoppers = self.shoppers.joined(new)
        parts = (self.config, self.vocabulary, self.catalogue, self.needs)
        return replace(self, shoppers=shoppers, planner=TrafficPlanner(*parts, shoppers, weights))

    def listings(self) -> tuple[pl.Series, pl.Series]:
        """Titles and structured attributes."""
        return build_listings(self.config, self.vocabulary, self.catalogue)

    def traffic(self, n: int, stream: int = 0) -> tuple[Traffic, Queries, Visits]:
        """Plan n page views of the period; another ``stream`` gives other page views of the same shoppers."""
        traffic = self.planner.plan(n, np.random.default_rng([self.config.seed, 9, stream]))
        queries, number = build_queries(traffic.plans, self.vocabulary, self.needs, self.catalogue, self.config.seed)
        if self.kinds is not None:
            leaves = (traffic.focus, traffic.time)
            queries, number = asking_for_kinds(self.config, self.kinds, self.catalogue, queries, number, *leaves)
        return traffic, queries, Visits(traffic.user, number, traffic.focus, traffic.time)

    def truth(self, queries: Queries) -> Truth:
        """The truth about a set of queries."""
        return Truth(
            self.config.seed,
            self.config.choice,
            self.catalogue,
            self.shoppers,
            queries,
            self.type_sets,
            self.vocabulary.type_leaf,
            self.needs.trait_values,
            self.kinds,
        )


def _words(texts: list[str]) -> set[str]:
    return {word for text in texts for word in text.lower().replace("-", " ").split()}
