"""Needs: words that stand for sets of product types (topics) or of attribute values (traits), and how often they are
used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onesearch.market.market_catalogue import MarketCatalogue, type_weights
from onesearch.market.market_settings import MarketSettings
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, invent_names
from onesearch.market.word_tables import read_words

TRAIN_SHARE = 0.8  # the part of the log that the strata of need words are stated for
TOPICS_PER_QUERY, TRAITS_PER_QUERY = 0.9, 1.1
TRAIT_SLOTS = tuple(
    slot for slot, kind in enumerate(SLOTS) if kind not in ("Brand", "Series", "Specifications", "Scene")
)
_SAMPLE = 10_000
_LEAST = 3


@dataclass(frozen=True)
class Needs:
    """Need words and their meaning (P topics, Q traits, T product types, V values).

    Attributes:
        topics: words, [P]; topic_types: bool [P, T]; topic_weight: expected page views in training, float64 [P].
        traits: words, [Q]; trait_values: bool [Q, V]; trait_weight: likewise, [Q]; trait_theme: theme names, [Q].
        type_items: number of sampled items of each type, float32 [T]; type_trait: those with a trait, float32 [T, Q].
    """

    topics: list[str]
    topic_types: NDArray[np.bool_]
    topic_weight: NDArray[np.float64]
    traits: list[str]
    trait_values: NDArray[np.bool_]
    trait_weight: NDArray[np.float64]
    trait_theme: list[str]
    type_items: NDArray[np.float32]
    type_trait: NDArray[np.float32]

    def feasible(self, type_sets: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which traits enough items of a set of types have, and not nearly all of them: bool [S, T] to bool [S, Q]."""
        # Sampled items of each set that have each trait, and all of them.
        matches = type_sets.astype(np.float32) @ self.type_trait
        total = type_sets.astype(np.float32) @ self.type_items
        return np.asarray((matches >= _LEAST) & (matches <= 0.6 * total[:, None]), np.bool_)


def _usage(
    expected: float, strata: tuple[tuple[float, float, float], ...], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Expected uses in training of as many words as ``expected`` uses in total call for: log-uniform within strata."""
    # So many words that their expected uses add up.
    mean = sum(share * (high - low) / np.log(high / low) for share, low, high in strata)
    count = max(12, round(expected / mean))
    shares = np.array([share for share, _, _ in strata])
    # Exact shares of words per stratum: with few words a random assignment would move the strata between seeds.
    stratum = rng.permutation(
        np.searchsorted(np.cumsum(shares) * count, np.arange(count) + 0.5).clip(0, len(strata) - 1)
    )
    low = np.array([low for _, low, _ in strata])[stratum]
    high = np.array([high for _, _, high in strata])[stratum]
    return np.asarray(low * (high / low) ** rng.random(count), np.float64)


def _extend(
    own: list[str], count: int, stems: Mapping[str, list[str]], taken: set[str], rng: np.random.Generator
) -> list[str]:
    """``count`` words: hand-written ones first, then compounds of the stems, then invented ones."""
    compounds = ["".join(pair) for pair in product(stems["first"], stems["second"])]
    order = rng.permutation(len(compounds))
    names = ([own[i] for i in rng.permutation(len(own))] + [compounds[i] for i in order])[:count]
    taken.update(names)
    return names + invent_names(count - len(names), taken, rng, stems["suffixes"])


def build_needs(
    config: MarketSettings, vocabulary: MarketVocabulary, catalogue: MarketCatalogue, reserved: set[str]
) -> Needs:
    """Draw the need words; ``reserved`` are words of titles, which no need word may be."""
    rng = np.random.default_rng([config.seed, 6])
    uses = config.n_page_views * TRAIN_SHARE * config.queries.complex_share
    topic_weight = _usage(uses * TOPICS_PER_QUERY, config.queries.need_strata, rng)
    trait_weight = _usage(uses * TRAITS_PER_QUERY, config.queries.need_strata, rng)
    taken = set(reserved)
    words = read_words("needs")
    theme_of = {trait: theme for theme, entry in words["themes"].items() for trait in entry["traits"]}
    topics = _extend(list(words["topics"]), len(topic_weight), words["stems"]["topics"], taken, rng)
    traits = _extend(list(theme_of), len(trait_weight), words["stems"]["traits"], taken, rng)

    # Topics: hand-written ones name their types; others take one by demand and up to three near it in the tree.
    first_noun = {nouns[0]: number for number, nouns in enumerate(vocabulary.type_nouns)}
    topic_types = np.zeros((len(topics), len(vocabulary.type_nouns)), np.bool_)
    weights = type_weights(vocabulary, np.random.default_rng([config.seed, 3]))
    for row, word in enumerate(topics):
        if word in words["topics"]:
            topic_types[row, [first_noun[name] for name in words["topics"][word]]] = True
        else:
            topic_types[row, _draw_types(vocabulary, weights, rng)] = True
    trait_values, trait_theme = _draw_traits([theme_of.get(word) for word in traits], vocabulary, catalogue, rng)
    type_items, type_trait = _sampled(config, vocabulary, catalogue, trait_values)
    return Needs(
        topics,
        topic_types,
        topic_weight,
        traits,
        trait_values,
        trait_weight,
        trait_theme,
        type_items,
        type_trait,
    )


def with_new_words(
    needs: Needs,
    share: float,
    config: MarketSettings,
    vocabulary: MarketVocabulary,
    catalogue: MarketCatalogue,
    reserved: set[str],
    rng: np.random.Generator,
) -> Needs:
    """The same needs, and behind them invented words: a share of as many, used as often as those."""
    # The words, then what each stands for, drawn as for invented words of the log.
    taken = {*reserved, *needs.topics, *needs.traits}
    stems = read_words("needs")["stems"]
    weights = type_weights(vocabulary, np.random.default_rng([config.seed, 3]))
    many = [round(share * len(words)) for words in (needs.topics, needs.traits)]
    topics = invent_names(many[0], taken, rng, stems["topics"]["suffixes"])
    traits = invent_names(many[1], taken, rng, stems["traits"]["suffixes"])
    topic_types = np.zeros((len(topics), len(vocabulary.type_nouns)), np.bool_)
    for row in range(len(topics)):
        topic_types[row, _draw_types(vocabulary, weights, rng)] = True
    values, theme = _draw_traits([None] * len(traits), vocabulary, catalogue, rng)
    # Used as often as some word of the log.
    trait_values = np.concatenate([needs.trait_values, values])
    return Needs(
        needs.topics + topics,
        np.concatenate([needs.topic_types, topic_types]),
        np.concatenate([needs.topic_weight, rng.choice(needs.topic_weight, len(topics))]),
        needs.traits + traits,
        trait_values,
        np.concatenate([needs.trait_weight, rng.choice(needs.trait_weight, len(traits))]),
        needs.trait_theme + theme,
        *_sampled(config, vocabulary, catalogue, trait_values),
    )


def _draw_types(vocabulary: MarketVocabulary, weights: NDArray[np.float64], rng: np.random.Generator) -> list[int]:
    """Product types of an invented topic: one by demand, and up to three near it in the tree."""
    department = vocabulary.leaf_department[vocabulary.type_leaf]
    anchor = int(rng.choice(len(weights), p=weights))
    near = vocabulary.type_leaf == vocabulary.type_leaf[anchor]
    nearness = np.where(near, 6.0, np.where(department == department[anchor], 1.0, 0.08))
    nearness[anchor] = 0.0
    more = rng.choice(len(weights), int(rng.integers(1, 4)), replace=False, p=nearness / nearness.sum())
    return [anchor, *more.tolist()]


def _draw_traits(
    given: list[str | None], vocabulary: MarketVocabulary, catalogue: MarketCatalogue, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], list[str]]:
    """Values of traits, bool [Q, V], and their themes: the given ones, or drawn ones for None."""
    # Most values of a theme, sometimes one from anywhere.
    themes = {
        theme: np.array([number for number, name in enumerate(vocabulary.values) if name in entry["values"]])
        for theme, entry in read_words("needs")["themes"].items()
    }
    names = list(themes)
    trait_values = np.zeros((len(given), len(catalogue.value_names)), np.bool_)
    usable = np.unique(catalogue.values[:, list(TRAIT_SLOTS)])
    usable = usable[usable >= 0]
    trait_theme = []
    for row, known in enumerate(given):
        theme = known or names[int(rng.integers(len(names)))]
        members = themes[theme]
        kept = members[rng.random(len(members)) < 0.7]
        trait_values[row, kept if len(kept) >= 3 else members] = True
        if rng.random() < 0.3:
            trait_values[row, int(rng.choice(usable))] = True
        trait_theme.append(theme)
    return trait_values, trait_theme


def _sampled(
    config: MarketSettings, vocabulary: MarketVocabulary, catalogue: MarketCatalogue, trait_values: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How many sampled items of each type there are, [T], and how many of them have each trait, [T, Q]."""
    sample = np.random.default_rng([config.seed, 7]).permutation(len(catalogue))[:_SAMPLE]
    values = catalogue.values[sample][:, list(TRAIT_SLOTS)]
    there = values >= 0
    item_values = csr_matrix(
        (np.ones(int(there.sum()), np.float32), (np.nonzero(there)[0], values[there])),
        shape=(len(sample), len(catalogue.value_names)),
    )
    has = csr_matrix(item_values @ trait_values.T.astype(np.float32) > 0, dtype=np.float32)
    of_type = csr_matrix(
        (np.ones(len(sample), np.float32), (catalogue.types[sample], np.arange(len(sample)))),
        shape=(len(vocabulary.type_nouns), len(sample)),
    )
    type_items = np.asarray(of_type.sum(1), np.float32).reshape(-1)
    return type_items, np.asarray((of_type @ has).todense(), np.float32)
