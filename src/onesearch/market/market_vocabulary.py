"""The words of the catalogue as arrays: leaves, product types, nouns, attribute values and what each type may have."""

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.market import catalogue_words as words

# Latent attribute slots of an item. Entity is the product type, Model a column of its own; Marketing and Anchor are
# words of titles without a latent meaning.
SLOTS: Final[tuple[str, ...]] = (
    "Material",
    "Style",
    "Function",
    "Function",
    "Modifier",
    "Modifier",
    "Color",
    "Pattern",
    "Season",
    "Scene",
    "Location",
    "Specifications",
    "Audience",
    "Price",
    "Brand",
    "Series",
)
_HAS: Final[dict[str, str]] = {"Color": "ASEKHOTP", "Pattern": "ASHT", "Season": "ASHOP"}
_PER_TYPE: Final[dict[str, int]] = {
    "Material": 5,
    "Style": 6,
    "Function": 9,
    "Modifier": 8,
    "Color": 10,
    "Pattern": 6,
    "Season": 5,
    "Scene": 3,
    "Location": 3,
    "Specifications": 6,
}
_AUDIENCES: Final[dict[str, dict[str, float]]] = {
    "w": {"women": 0.85, "girls": 0.08, "teens": 0.07},
    "m": {"men": 0.9, "boys": 0.05, "teens": 0.05},
    "k": {"kids": 0.3, "girls": 0.15, "boys": 0.15, "toddlers": 0.3, "unisex": 0.1},
    "a": {"women": 0.36, "men": 0.28, "unisex": 0.16, "girls": 0.05, "boys": 0.05, "teens": 0.05, "seniors": 0.05},
}


@dataclass(frozen=True)
class MarketVocabulary:
    """Words and their structure, before brands exist.

    Attributes:
        leaf_names: category path of each leaf, [L].
        leaf_department: department number, int16 [L].
        leaf_audience: w, m, k, a or n, [L].
        type_nouns: nouns of each product type, most used first, [T].
        type_leaf: int16 [T].
        nouns: distinct noun phrases, [M].
        noun_types: whether a noun names a type (exactly, or as the head of its name), bool [M, T].
        type_noun: number of the nouns of each type, int32 [T, 3], -1 beyond.
        values: attribute values, [V]; value_type: slot type names, [V].
        allowed: for each slot type int32 [T, K] value numbers (-1 beyond) and float32 [T, K] cumulative shares.
    """

    leaf_names: list[tuple[str, ...]]
    leaf_department: NDArray[np.int16]
    leaf_audience: list[str]
    type_nouns: list[tuple[str, ...]]
    type_leaf: NDArray[np.int16]
    nouns: list[str]
    noun_types: NDArray[np.bool_]
    type_noun: NDArray[np.int32]
    values: list[str]
    value_type: list[str]
    allowed: dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]]

    def value_numbers(self, name: str) -> list[int]:
        """All values with this name (a word may be of several types)."""
        return [number for number, value in enumerate(self.values) if value == name]


def split_words(text: str) -> list[str]:
    """Comma-separated words of a table."""
    return [part.strip() for part in text.replace("\n", " ").split(",") if part.strip()]


def _lettered(text: str) -> dict[str, str]:
    """``word LETTERS`` entries: word to its department letters."""
    return {entry.rsplit(" ", 1)[0]: entry.rsplit(" ", 1)[1] for entry in split_words(text)}


def zipf_cumulative(widths: NDArray[np.int64], exponent: float) -> NDArray[np.float32]:
    """Cumulative Zipf shares over the first ``widths[i]`` columns, float32 [n, max width]; 1 beyond."""
    ranks = np.arange(1, int(widths.max()) + 1)
    weights = (ranks**-exponent)[None, :] * (ranks[None, :] <= widths[:, None])
    return np.asarray(np.cumsum(weights, 1) / weights.sum(1, keepdims=True), np.float32)


def build_vocabulary(seed: int) -> MarketVocabulary:
    """Compile the hand-written tables; the seed decides which values are frequent for which product type."""
    rng = np.random.default_rng([seed, 1])
    leaf_names: list[tuple[str, ...]] = []
    leaf_department, leaf_audience, type_leaf = [], [], []
    type_nouns: list[tuple[str, ...]] = []
    letters = list(words.DEPARTMENTS)
    for letter, block in words.TREE.items():
        # A line without a colon continues the one before.
        lines = re.sub(r"\n\s*(?=[^:\n]*$)", " ", block.strip(), flags=re.MULTILINE).splitlines()
        for line in lines:
            head, _, types = line.strip().partition(":")
            path, _, audience = head.partition("[")
            leaf_names.append((words.DEPARTMENTS[letter], *(part.strip() for part in path.split(">"))))
            leaf_department.append(letters.index(letter))
            leaf_audience.append(audience.strip("] "))
            for nouns in split_words(types):
                type_nouns.append(tuple(nouns.split("/")))
                type_leaf.append(len(leaf_names) - 1)
    n_types = len(type_nouns)

    values: list[str] = []
    value_type: list[str] = []
    by_department: dict[str, list[list[int]]] = {}

    def add(kind: str, entries: dict[str, str]) -> None:
        lists = by_department.setdefault(kind, [[] for _ in letters])
        for name, where in entries.items():
            values.append(name)
            value_type.append(kind)
            for letter in dict.fromkeys(where):
                lists[letters.index(letter)].append(len(values) - 1)

    add("Material", _lettered(words.MATERIAL))
    add("Style", _lettered(words.STYLE))
    add("Function", _lettered(words.FUNCTION))
    add("Modifier", _lettered(words.MODIFIER))
    add("Color", dict.fromkeys(split_words(words.COLOR), _HAS["Color"]))
    add("Pattern", dict.fromkeys(split_words(words.PATTERN), _HAS["Pattern"]))
    add("Season", dict.fromkeys(split_words(words.SEASON), _HAS["Season"]))
    add("Scene", _lettered(words.SCENE))
    add("Location", _lettered(words.LOCATION))
    sizes: dict[str, str] = {}
    for letter, text in words.SPECIFICATIONS.items():
        for name in split_words(text):
            sizes[name] = sizes.get(name, "") + letter
    add("Specifications", sizes)
    add("Audience", dict.fromkeys(words.AUDIENCE, ""))
    add("Price", dict.fromkeys(words.PRICE, ""))

    allowed: dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
    for kind, size in _PER_TYPE.items():
        table = np.full((n_types, size), -1, np.int32)
        for number in range(n_types):
            pool = by_department[kind][leaf_department[type_leaf[number]]]
            chosen = rng.permutation(pool)[:size]
            table[number, : len(chosen)] = chosen
        allowed[kind] = (table, zipf_cumulative(np.maximum((table >= 0).sum(1), 1), 0.7))
    first_audience = values.index("women")
    table = np.full((n_types, 7), -1, np.int32)
    shares = np.ones((n_types, 7), np.float32)
    for number in range(n_types):
        share = _AUDIENCES.get(leaf_audience[type_leaf[number]], {})
        for column, name in enumerate(share):
            table[number, column] = first_audience + words.AUDIENCE.index(name)
        shares[number, : len(share)] = np.cumsum(list(share.values()), dtype=np.float32)
    allowed["Audience"] = (table, shares)

    all_nouns = list(dict.fromkeys(noun for nouns in type_nouns for noun in nouns))
    noun_types = np.zeros((len(all_nouns), n_types), np.bool_)
    type_noun = np.full((n_types, 3), -1, np.int32)
    for number, names in enumerate(type_nouns):
        for column, name in enumerate(names):
            type_noun[number, column] = all_nouns.index(name)
        for row, noun in enumerate(all_nouns):
            noun_types[row, number] = any(name == noun or name.endswith(" " + noun) for name in names)
    return MarketVocabulary(
        leaf_names,
        np.array(leaf_department, np.int16),
        leaf_audience,
        type_nouns,
        np.array(type_leaf, np.int16),
        all_nouns,
        noun_types,
        type_noun,
        values,
        value_type,
        allowed,
    )


def draw_column(
    cumulative: NDArray[np.float32], rows: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each row number draw a column of its cumulative shares, int64 [n]."""
    u = rng.random(len(rows), np.float32)
    return np.asarray(np.minimum((cumulative[rows] <= u[:, None]).sum(1), cumulative.shape[1] - 1), np.int64)


def invent_names(count: int, taken: set[str], rng: np.random.Generator, suffix: tuple[str, ...] = ("",)) -> list[str]:
    """``count`` new pronounceable names of two or three syllables, none of them in ``taken`` (which grows)."""
    syllables = np.array(words.SYLLABLES.split())
    names: list[str] = []
    while len(names) < count:
        parts = syllables[rng.integers(0, len(syllables), (2 * count + 16, 3))]
        lengths = rng.integers(2, 4, len(parts))
        ends = rng.integers(0, len(suffix), len(parts))
        for row, length, end in zip(parts, lengths, ends, strict=True):
            name = "".join(row[:length]) + suffix[end]
            if len(names) < count and len(name) > 3 and name not in taken:
                taken.add(name)
                names.append(name)
    return names
