"""A stand-in for a large language model: it knows what words mean in the world of a market, and nothing else.

It knows which product types and attribute values satisfy a need word and what a product type may have. It never knows
tastes, sessions, popularity, the log, the list of queries, or which single item is relevant.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

import numpy as np

from onesearch.common.artefact import read_json
from onesearch.data.text import normalise_query
from onesearch.market import keyed_random as keyed
from onesearch.market.market_vocabulary import SLOTS, MarketVocabulary, build_vocabulary
from onesearch.market.needs import TRAIT_SLOTS
from onesearch.market.query_reading import Entry, Kind, Reader, Reading
from onesearch.market.world_files import FOLDER, load_array, load_config

MOST_KEYWORDS: Final = 8
MOST_NOUNS: Final = 4
MOST_TOPICS: Final = 16
MOST_ATTRIBUTES: Final = 16
_CACHED: Final = 65_536
_TRAIT_KINDS: Final = frozenset(SLOTS[slot] for slot in TRAIT_SLOTS)
_CHANCE, _OTHER_WORD = 0, 1  # what a draw is for
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Knowledge:
    """World knowledge of a market: T product types, P topic words, Q trait words, V values, B brands.

    Attributes:
        vocabulary: nouns, types, leaves, and the values that a type may have.
        topics: words, [P]; topic_types: the types each stands for, [P].
        traits: words, [Q]; trait_values: the value numbers that satisfy each, [Q].
        values: names of the values as they are written in queries, [V].
        brands: likewise, [B]. What a brand makes is not known.
    """

    vocabulary: MarketVocabulary
    topics: list[str]
    topic_types: list[Numbers]
    traits: list[str]
    trait_values: list[frozenset[int]]
    values: list[str]
    brands: list[str]

    @classmethod
    def load(cls, dataset_folder: str | Path) -> "Knowledge":
        """What a market's folder says about words; catalogue, shoppers, queries and log stay closed.

        Raises:
            FileNotFoundError: no truth of a market there, or an unfinished one.
            ValueError: written by a version with another format.
        """
        folder = Path(dataset_folder) / FOLDER
        vocabulary = build_vocabulary(load_config(folder).seed)
        needs, names = read_json(folder / "needs.json"), read_json(folder / "catalogue.json")
        # A value of a kind that traits do not ask for (a scene, say) satisfies none: see ``Truth.levels``.
        asked = np.array([kind in _TRAIT_KINDS for kind in names["value_type"]])
        topic_types = [tuple(np.flatnonzero(row).tolist()) for row in load_array(folder, "needs.topic_types")]
        trait_values = [
            frozenset(np.flatnonzero(row & asked).tolist()) for row in load_array(folder, "needs.trait_values")
        ]
        pairs = zip(names["value_names"], names["value_type"], strict=True)
        brands = [normalise_query(name) for name, kind in pairs if kind == "Brand"]
        values = [normalise_query(name) for name in vocabulary.values]
        return cls(vocabulary, needs["topics"], topic_types, needs["traits"], trait_values, values, brands)

    def allowed(self) -> list[frozenset[int]]:
        """The value numbers that each product type may have, [T]. Price bands exist for every type."""
        prices = {number for number, kind in enumerate(self.vocabulary.value_type) if kind == "Price"}
        tables = [table for table, _ in self.vocabulary.allowed.values()]
        return [
            frozenset(prices.union(*(table[row][table[row] >= 0].tolist() for table in tables)))
            for row in range(len(self.vocabulary.type_nouns))
        ]

    def phrases(self) -> dict[str, tuple[Entry, ...]]:
        """Every phrase that names something, and what it may name."""
        out: dict[str, tuple[Entry, ...]] = {}
        kinds: tuple[tuple[Kind, list[str]], ...] = (
            ("noun", self.vocabulary.nouns),
            ("topic", self.topics),
            ("trait", self.traits),
            ("value", self.values),
            ("brand", self.brands),
        )
        for kind, names in kinds:
            for number, name in enumerate(names):
                out[name] = (*out.get(name, ()), (kind, number))
        return out


class Thinker:
    """Answers what a query is about, from its text. The same text always gets the same answer.

    ``error`` is the chance that a need word of a query is misunderstood, that is read as another need word of its
    kind: drawn once per (query, word, seed). With a larger ``error`` the same readings are wrong and further ones.

    Raises:
        ValueError: ``error`` is not in [0, 1].
    """

    def __init__(self, knowledge: Knowledge, error: float = 0.15, seed: int = 0) -> None:
        if not 0.0 <= error <= 1.0:
            raise ValueError(f"error {error} is not a probability")
        self.knowledge, self.error, self.seed = knowledge, error, seed
        words = knowledge.vocabulary
        self._reader = Reader(knowledge.phrases())
        self._allowed = knowledge.allowed()
        self._leaf = words.type_leaf.tolist()
        self._noun_types = [tuple(np.flatnonzero(row).tolist()) for row in words.noun_types]
        self._first_type: dict[int, int] = {}
        # Whoever says "tent" means the type whose first name it is; a synonym, the first type that has it at all.
        for column in range(words.type_noun.shape[1]):
            for row, noun in enumerate(words.type_noun[:, column].tolist()):
                if noun >= 0:
                    self._first_type.setdefault(noun, row)
        self._best = lru_cache(_CACHED)(self._rank)

    @classmethod
    def load(cls, folder: str | Path, error: float = 0.15, seed: int = 0) -> "Thinker":
        """The thinker of a dataset made by ``onesearch market make``; raises like :meth:`Knowledge.load`."""
        return cls(Knowledge.load(folder), error, seed)

    def think(self, query: str) -> dict[str, Any]:
        """What a query is about.

        Returns: ``intent``, ``query_type``, ``category`` (path), ``attributes`` (``type``, ``value``, ``negated``),
        ``topics`` (nouns, at most 16) and ``keywords`` (at most 8).
        """
        text = normalise_query(query)
        reading = self._reader.read(text)
        nouns = reading.phrases("noun")
        topics, traits = self._understood(text, reading)
        types = self._meant(reading.form, nouns, topics)
        banned = frozenset(number for _, number in reading.banned)
        topic_nouns, values = self._best(types, traits, banned)
        category = self._category(types)
        # What the text says itself goes before what is inferred.
        stated = [phrase for phrase, number in reading.phrases("value") if number not in banned]
        stated += [phrase for phrase, _ in (*reading.phrases("brand"), *reading.phrases("model"))]
        if reading.form == "plain" and not topics and not traits:
            keywords = [phrase for phrase, _ in nouns] + stated + list(category[-1:])
        else:
            keywords = _alternate(topic_nouns[:MOST_NOUNS], (*stated, *values))
        return {
            "intent": "merchandise",
            "query_type": reading.form,
            "category": list(category),
            "attributes": self._attributes(reading),
            "topics": list(topic_nouns[:MOST_TOPICS]),
            "keywords": list(dict.fromkeys(keywords))[:MOST_KEYWORDS],
        }

    def calibrate(
        self,
        query: str,
        keywords: Sequence[str],
        history_queries: Sequence[str],
        history_items: Sequence[str],
        profile: str = "",
    ) -> list[str]:
        """The keywords, those sharing words with the history first (the more words the earlier), without repetitions
        and without what the query rules out.
        """
        banned = {phrase for phrase, _ in self._reader.read(normalise_query(query)).banned}
        known = set(normalise_query(" ".join((*history_queries, *history_items, profile))).split())
        kept = [word for word in dict.fromkeys(keywords) if normalise_query(word) not in banned]
        return sorted(kept, key=lambda keyword: -len(known.intersection(normalise_query(keyword).split())))

    def need_words(self, query: str) -> list[tuple[str, str]]:
        """The need words of a query and what each is read as: the same word unless it is misunderstood."""
        text = normalise_query(query)
        reading = self._reader.read(text)
        topics, traits = self._understood(text, reading)
        read_as = [self.knowledge.topics[number] for number in topics]
        read_as += [self.knowledge.traits[number] for number in traits]
        said = [phrase for phrase, _ in (*reading.phrases("topic"), *reading.phrases("trait"))]
        return list(zip(said, read_as, strict=True))

    def _understood(self, text: str, reading: Reading) -> tuple[Numbers, Numbers]:
        """Topic and trait numbers as this thinker reads them."""
        topics, traits = reading.phrases("topic"), reading.phrases("trait")
        numbers = [number for _, number in (*topics, *traits)]
        if self.error > 0.0 and numbers:
            # A draw per (query, word, seed), so that the answer does not depend on what was asked before.
            keys = keyed.text_key([text, *(phrase for phrase, _ in (*topics, *traits))])
            state = keyed.key(self.seed, keys[:1], keys[1:])
            wrong = keyed.uniform(keyed.key(_CHANCE, state)) < self.error
            if wrong.any():
                others = keyed.key(_OTHER_WORD, state)
                for place in np.flatnonzero(wrong).tolist():
                    words = self.knowledge.topics if place < len(topics) else self.knowledge.traits
                    if len(words) > 1:
                        # One of the others: a step of 1 .. n - 1 around the list never comes back to the word.
                        step = 1 + int(others[place]) % (len(words) - 1)
                        numbers[place] = (numbers[place] + step) % len(words)
        return tuple(numbers[: len(topics)]), tuple(numbers[len(topics) :])

    def _meant(self, form: str, nouns: list[tuple[str, int]], topics: Numbers) -> Numbers:
        """The product types that are meant, in order of their numbers."""
        if form == "alternatives" and nouns:
            named = self._first_type[nouns[0][1]]
            first_noun = int(self.knowledge.vocabulary.type_noun[named, 0])
            excluded = {*self._noun_types[first_noun], *self._noun_types[nouns[0][1]]}
            leaf = self._leaf[named]
            return tuple(row for row, other in enumerate(self._leaf) if other == leaf and row not in excluded)
        if nouns:
            # The last noun is the head: what stands before it describes it. It says more than an occasion does.
            return self._noun_types[nouns[-1][1]]
        return tuple(sorted({number for topic in topics for number in self.knowledge.topic_types[topic]}))

    def _rank(self, types: Numbers, traits: Numbers, banned: frozenset[int]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """First nouns of the types that can have the traits, and names of values that satisfy them; best first.

        A type is supported by the number of satisfying values that it may have (of the trait it serves least), a value
        by the number of types that may have it. If no type can have the traits, all types are named.
        """
        # Values that serve each trait, without those that the query rules out.
        wanted = [self.knowledge.trait_values[trait] - banned for trait in traits]
        support = {t: min((len(self._allowed[t] & values) for values in wanted), default=1) for t in types}
        supported = [t for t in types if support[t] > 0] or list(types)
        nouns = [self.knowledge.vocabulary.type_nouns[t][0] for t in sorted(supported, key=lambda t: -support[t])]
        lists: list[list[int]] = []
        for values in wanted:
            count = {value: sum(value in self._allowed[t] for t in types) for value in sorted(values)}
            lists.append(sorted((value for value in count if count[value]), key=lambda value: -count[value]))
        # Two traits take turns, so that neither is crowded out of the few keywords.
        turns = (value for group in zip_longest(*lists) for value in group if value is not None)
        return tuple(dict.fromkeys(nouns)), tuple(self.knowledge.values[v] for v in dict.fromkeys(turns))

    def _category(self, types: Numbers) -> tuple[str, ...]:
        """The common beginning of the category paths of types."""
        paths = [self.knowledge.vocabulary.leaf_names[leaf] for leaf in {self._leaf[t] for t in types}]
        prefix: list[str] = []
        for level in zip(*paths, strict=False):
            if any(name != level[0] for name in level):
                break
            prefix.append(level[0])
        return tuple(prefix)

    def _attributes(self, reading: Reading) -> list[dict[str, Any]]:
        """What the text states, in the 18 attribute types."""
        types = self.knowledge.vocabulary.value_type
        out: list[dict[str, Any]] = []
        for phrase, (kind, number) in dict.fromkeys(reading.found):
            if kind in ("value", "brand", "model"):
                name = types[number] if kind == "value" else kind.title()
                out.append({"type": name, "value": phrase, "negated": False})
        out += [{"type": types[number], "value": phrase, "negated": True} for phrase, number in reading.banned]
        return out[:MOST_ATTRIBUTES]


def _alternate(nouns: Iterable[str], values: Iterable[str]) -> list[str]:
    return [word for pair in zip_longest(nouns, values) for word in pair if word is not None]
