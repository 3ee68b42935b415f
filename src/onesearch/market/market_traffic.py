"""Traffic: who searches when, in which session, and what is meant; texts come later."""

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.market.market_catalogue import US_PER_DAY, ItemsByType, MarketCatalogue
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_shoppers import Shoppers
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary
from onesearch.market.needs import Needs
from onesearch.market.word_tables import attribute_figures, read_words

# Each complex one has its templates in ``queries.yaml``.
COMPLEX_TYPES: Final = ("question", "recommendation", "ranking", "knowledge", "negation", "alternatives")
QUERY_TYPES: Final = ("plain", *COMPLEX_TYPES)
NOUN, ATTRIBUTE, TWO_ATTRIBUTES, BRAND_NOUN, BRAND, MODEL = range(6)
_REFINED: Final = np.array([0.24, 0.42, 0.11, 0.14, 0.05, 0.04])  # plain forms after the first query of a session
_BAN_SLOTS: Final = ("Material", "Style", "Color", "Function", "Pattern", "Modifier")
_HOURS: Final = np.array(
    [2, 1, 0.6, 0.4, 0.4, 0.6, 1.2, 2, 3, 3.6, 4, 4.2, 4.6, 4.4, 4, 4, 4.2, 4.6, 5.2, 6, 7, 7.4, 6, 3.6]
)
_MAX_STEPS: Final = 4


@dataclass
class Plans:
    """What each of n queries means; -1 where a part is absent.

    ``kind`` numbers QUERY_TYPES; ``form`` is the plain form or the template of a complex query; ``noun``,
    ``attribute``,
    ``second``, ``brand``, ``ban`` are noun and value numbers; ``model`` a model number; ``topic``, ``trait``,
    ``other_trait`` need words; ``typo`` 0 for none; ``variant`` is the word order.
    """

    kind: NDArray[np.int64]
    form: NDArray[np.int64]
    noun: NDArray[np.int64]
    attribute: NDArray[np.int64]
    second: NDArray[np.int64]
    brand: NDArray[np.int64]
    ban: NDArray[np.int64]
    model: NDArray[np.int64]
    topic: NDArray[np.int64]
    trait: NDArray[np.int64]
    other_trait: NDArray[np.int64]
    typo: NDArray[np.int64]
    variant: NDArray[np.int64]

    @classmethod
    def empty(cls, n: int) -> "Plans":
        """Plans of n queries without any part."""
        return cls(*(np.full(n, -1, np.int64) for _ in fields(cls)))

    def parts(self) -> list[NDArray[np.int64]]:
        """All parts, in order of definition."""
        return [getattr(self, field.name) for field in fields(self)]

    def select(self, rows: NDArray[np.integer]) -> "Plans":
        """The given plans."""
        return Plans(*(column[rows] for column in self.parts()))


@dataclass(frozen=True)
class Traffic:
    """n page views in order of time: shopper, session, microsecond, focus leaf and plan of the query."""

    user: NDArray[np.int32]
    session: NDArray[np.int64]
    time: NDArray[np.int64]
    focus: NDArray[np.int16]
    plans: Plans


def weighted(weights: NDArray[np.float64], shape: tuple[int, ...] | int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw numbers in proportion to weights."""
    cumulative = np.cumsum(weights) / weights.sum()
    return np.minimum(np.searchsorted(cumulative, rng.random(shape), side="right"), len(weights) - 1)


class TrafficPlanner:
    """Draws page views for a market's shoppers; a second planner with another seed continues the same market."""

    def __init__(
        self,
        config: MarketSettings,
        vocabulary: MarketVocabulary,
        catalogue: MarketCatalogue,
        needs: Needs,
        shoppers: Shoppers,
        type_weight: NDArray[np.float64],
    ) -> None:
        self.config, self.vocabulary, self.catalogue = config, vocabulary, catalogue
        self.needs, self.shoppers = needs, shoppers
        # Demand of leaves, and the range of types and of cumulative demand of each leaf.
        self.type_weight = type_weight
        n_leaves = len(vocabulary.leaf_names)
        self.leaf_weight = np.bincount(vocabulary.type_leaf, type_weight, n_leaves).astype(np.float64)
        self._type_ends = np.concatenate([[0.0], np.cumsum(type_weight)])
        self._leaf_first = np.searchsorted(vocabulary.type_leaf, np.arange(n_leaves + 1))
        self._items = ItemsByType(catalogue, len(type_weight), 0.6)
        # Shoppers ask for a type by its own few kinds of attribute: colour for dresses, size for memory cards.
        own = 1.3 * np.random.default_rng([config.seed, 12]).standard_normal((len(type_weight), len(SLOTS)))
        asked = attribute_figures("asked")
        self._slot_weight = np.log(np.array([asked[kind] for kind in SLOTS]) + 1e-9) + own
        # Alternatives to a type: others of its leaf. Traits that go with a topic, or with the alternatives to a type.
        same_leaf = vocabulary.type_leaf[:, None] == vocabulary.type_leaf[None, :]
        self.alternatives = same_leaf & ~vocabulary.noun_types[vocabulary.type_noun[:, 0]]
        self._topic_feasible = needs.feasible(needs.topic_types)
        self._alternative_feasible = needs.feasible(self.alternatives)
        department = vocabulary.leaf_department[vocabulary.type_leaf]
        self._topic_department = np.zeros((len(needs.topics), int(department.max()) + 1), np.bool_)
        np.logical_or.at(self._topic_department.T, department, needs.topic_types.T)

    def plan(self, n: int, rng: np.random.Generator, days: int | None = None) -> Traffic:
        """Plan n page views over the period of the config, or over its first ``days``."""
        config, settings = self.config, self.config.queries
        # Sessions of one to four page views, until there are n.
        steps = np.minimum(rng.geometric(1.0 - settings.session_continues, n), _MAX_STEPS)
        first = np.concatenate([[0], np.cumsum(steps)])
        sessions = int(np.searchsorted(first, n))
        starts = first[:sessions]
        session = np.repeat(np.arange(sessions), np.diff(np.append(starts, n)))
        step = np.arange(n) - starts[session]

        # Of each session: shopper, start, a leaf of interest (the shopper's own one, mostly), a type of it, a topic.
        user = weighted(self.shoppers.activity, sessions, rng)
        day = rng.integers(0, days or config.days, sessions)
        hour = weighted(_HOURS, sessions, rng)
        time = day * US_PER_DAY + ((hour + rng.random(sessions)) * 3600e6).astype(np.int64)
        interest = self.shoppers.interests[user, day // 7, rng.integers(0, self.shoppers.interests.shape[2], sessions)]
        focus = np.where(
            rng.random(sessions) < config.shoppers.session_in_interest,
            interest,
            weighted(self.leaf_weight, sessions, rng),
        )
        low, high = self._type_ends[self._leaf_first[focus]], self._type_ends[self._leaf_first[focus + 1]]
        types = np.searchsorted(self._type_ends, low + rng.random(sessions) * (high - low), side="right") - 1
        types = np.clip(types, self._leaf_first[focus], self._leaf_first[focus + 1] - 1)
        complex_session = rng.random(sessions) < settings.complex_share * 1.08  # some fall back to plain words
        topic = self._topics(focus, rng)

        # First page views are planned from their session, each further one from the page view before it.
        plans = Plans.empty(n)
        kinds = np.where(complex_session, 1 + weighted(np.array(settings.complex_forms), sessions, rng), 0)[session]
        types_of_view = types[session]
        for number in range(_MAX_STEPS):
            rows = np.flatnonzero(step == number)
            if number and len(rows):
                self._reformulate(plans, kinds, types_of_view, rows, rng)
            is_complex = kinds[rows] > 0
            self._plain(plans, rows[~is_complex], types_of_view, number > 0, rng)
            self._complex(plans, rows[is_complex], kinds, types_of_view, topic[session], rng)
        plans.kind[:] = kinds
        plans.typo[:] = np.where(rng.random(n) < settings.typo, rng.integers(1, 5, n), 0)
        plans.variant[:] = np.where(rng.random(n) < 0.92, 0, 1)
        # Pauses of 15 to 150 seconds within a session; then all page views in order of time.
        pause = np.where(step > 0, rng.integers(15_000_000, 150_000_000, n), 0)
        elapsed = np.cumsum(pause)
        time_of_view = time[session] + elapsed - elapsed[starts][session]
        start = int(np.datetime64(config.start, "us").astype(np.int64))
        order = np.lexsort((step, session, time_of_view))
        return Traffic(
            user[session][order].astype(np.int32),
            session[order],
            start + time_of_view[order],
            focus[session][order].astype(np.int16),
            plans.select(order),
        )

    def _topics(self, focus: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A topic word per session: by its weight, preferring those that touch the department of the focus."""
        drawn = weighted(self.needs.topic_weight, (len(focus), 4), rng)
        fits = self._topic_department[drawn, self.vocabulary.leaf_department[focus][:, None]]
        return np.asarray(drawn[np.arange(len(focus)), fits.argmax(1)], np.int64)

    def _item_in_mind(self, types: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """The kind of item that a shopper has in mind: one of each type, by popularity."""
        return self._items.draw(types, rng.random(len(types)))

    def _plain(
        self, plans: Plans, rows: NDArray[np.int64], types: NDArray[np.int64], refined: bool, rng: np.random.Generator
    ) -> None:
        n = len(rows)
        form = weighted(_REFINED if refined else np.array(self.config.queries.forms), n, rng)
        item = self._item_in_mind(types[rows], rng)
        values = self.catalogue.values[item].astype(np.int64)
        nouns = self.vocabulary.type_noun[self.catalogue.types[item]]
        synonyms = (nouns >= 0).sum(1)
        noun = nouns[np.arange(n), np.where(rng.random(n) < 0.9, 0, rng.integers(0, 3, n) % synonyms)]
        # Gumbel top-2 over the slots that the item has gives two different attributes.
        noise = (
            self._slot_weight[self.catalogue.types[item]]
            + rng.gumbel(size=(n, len(SLOTS)))
            + np.where(values >= 0, 0.0, -1e3)
        )
        best = np.argsort(-noise, 1)[:, :2]
        attribute, second = values[np.arange(n), best[:, 0]], values[np.arange(n), best[:, 1]]
        brand = values[:, SLOTS.index("Brand")]
        none = np.full(n, -1, np.int64)
        plans.form[rows] = form
        plans.noun[rows] = np.where(form <= BRAND_NOUN, noun, -1)
        plans.attribute[rows] = np.where((form == ATTRIBUTE) | (form == TWO_ATTRIBUTES), attribute, none)
        plans.second[rows] = np.where(form == TWO_ATTRIBUTES, second, none)
        plans.brand[rows] = np.where(form >= BRAND_NOUN, brand, none)
        plans.model[rows] = np.where(form == MODEL, self.catalogue.models[item], none)
        for part in (plans.ban, plans.topic, plans.trait, plans.other_trait):
            part[rows] = -1

    def _traits(
        self, allowed: NDArray[np.bool_], sets: NDArray[np.int64], rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """A trait word per query that goes with its set of types (row of ``allowed``)."""
        drawn = weighted(self.needs.trait_weight, (len(sets), 10), rng)
        return np.asarray(drawn[np.arange(len(sets)), allowed[sets[:, None], drawn].argmax(1)], np.int64)

    def _complex(
        self,
        plans: Plans,
        rows: NDArray[np.int64],
        kinds: NDArray[np.int64],
        types: NDArray[np.int64],
        topics: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> None:
        n, kind = len(rows), kinds[rows]
        # Templates and, for each [kind, form], which parts it has.
        names = [[], *(read_words("queries")["templates"][name] for name in COMPLEX_TYPES)]
        sizes = np.array([max(1, len(texts)) for texts in names])
        form = rng.integers(0, 1 << 30, n) % sizes[kind]
        holds = {
            part: np.array([[f"{{{part}}}" in text for text in texts] + [False] * (8 - len(texts)) for texts in names])
            for part in ("topic", "trait", "other", "ban", "noun")
        }
        has = {part: table[kind, form] for part, table in holds.items()}
        # Second traits are rare: most templates with {other} fall back to the first of their type.
        drop = has["other"] & (rng.random(n) >= self.config.queries.second_trait * 4)
        form = np.where(drop, 0, form)
        has = {part: table[kind, form] for part, table in holds.items()}
        # Need words that go together; a reformulated query often keeps its trait.
        topic = np.where(has["topic"], topics[rows], -1)
        trait = np.where(
            has["topic"],
            self._traits(self._topic_feasible, topics[rows], rng),
            self._traits(self._alternative_feasible, types[rows], rng),
        )
        kept = (plans.trait[rows] >= 0) & (rng.random(n) < 0.6)
        trait = np.where(kept, plans.trait[rows], trait)
        other = self._traits(self._topic_feasible, topics[rows], rng)
        # A ban is a value that an item of the topic really has, so that it rules something out.
        first_type = self.needs.topic_types[topics[rows]]
        some_type = (first_type * rng.random(first_type.shape)).argmax(1)
        item = self._item_in_mind(some_type, rng)
        slots = np.array([SLOTS.index(name) for name in _BAN_SLOTS])
        candidates = self.catalogue.values[item][:, slots].astype(np.int64)
        pick = (np.where(candidates >= 0, 1.0, 0.0) * rng.random(candidates.shape)).argmax(1)
        plans.form[rows] = form
        plans.topic[rows] = topic
        plans.trait[rows] = np.where(has["trait"], trait, -1)
        plans.other_trait[rows] = np.where(has["other"] & (other != trait), other, -1)
        plans.ban[rows] = np.where(has["ban"], candidates[np.arange(n), pick], -1)
        plans.noun[rows] = np.where(has["noun"], self.vocabulary.type_noun[types[rows], 0], -1)
        # A template with {other} whose second trait equals the first becomes the first template.
        plans.form[rows] = np.where(has["other"] & (other == trait), 0, form)

    def _reformulate(
        self,
        plans: Plans,
        kinds: NDArray[np.int64],
        types: NDArray[np.int64],
        rows: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> None:
        """Carry the intent of the page view before (the row above) over to ``rows``; some complex ones turn plain."""
        n = len(rows)
        before = kinds[rows - 1]
        new_kind = 1 + weighted(np.array(self.config.queries.complex_forms), n, rng)
        kind = np.where(before > 0, np.where(rng.random(n) < 0.5, before, new_kind), 0)
        gives_up = (before > 0) & (rng.random(n) < self.config.queries.gives_up_complex)
        kinds[rows] = np.where(gives_up, 0, kind)
        plans.trait[rows] = plans.trait[rows - 1]
        topic = plans.topic[rows - 1]
        from_topic = (self.needs.topic_types[topic] * rng.random((n, self.needs.topic_types.shape[1]))).argmax(1)
        types[rows] = np.where(gives_up & (topic >= 0), from_topic, types[rows - 1])
