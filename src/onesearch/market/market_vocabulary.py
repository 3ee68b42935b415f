"""The words of the catalogue as arrays: leaves, product types, nouns, attribute values and what each type may have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.market.word_tables import attribute_figures, read_words

# Latent attribute slots of an item. Entity is the product type, Model a column of its own; Marketing and Anchor are
# words of titles without a latent meaning.
SLOTS: Final = tuple(kind for kind, number in attribute_figures("slots").items() for _ in range(int(number)))


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


def _departments_of(values: list[str] | dict[str, Any]) -> dict[str, str]:
    """A list of values of ``attributes.yaml``: value to the letters of its departments, "" where they do not decide."""
    if isinstance(values, list):
        return dict.fromkeys(values, "")
    out: dict[str, str] = {}
    for key, entry in values.items():
        # "value: departments" or "departments: [values]"; a size may stand in several lists.
        for name, letters in ((key, entry),) if isinstance(entry, str) else ((name, key) for name in entry):
            out[name] = out.get(name, "") + letters
    return out


def zipf_cumulative(widths: NDArray[np.int64], exponent: float) -> NDArray[np.float32]:
    """Cumulative Zipf shares over the first ``widths[i]`` columns, float32 [n, max width]; 1 beyond."""
    ranks = np.arange(1, int(widths.max()) + 1)
    weights = (ranks**-exponent)[None, :] * (ranks[None, :] <= widths[:, None])
    return np.asarray(np.cumsum(weights, 1) / weights.sum(1, keepdims=True), np.float32)


def build_vocabulary(seed: int) -> MarketVocabulary:
    """Compile the hand-written tables; the seed decides which values are frequent for which product type."""
    rng = np.random.default_rng([seed, 1])
    words, attributes = read_words("catalogue"), read_words("attributes")

    # Category tree: L leaves, T product types.
    leaf_names: list[tuple[str, ...]] = []
    leaf_department, leaf_audience, type_leaf = [], [], []
    type_nouns: list[tuple[str, ...]] = []
    letters = list(words["departments"])
    for letter, leaves in words["tree"].items():
        for head, types in leaves.items():
            path, _, audience = head.partition(" [")
            leaf_names.append((words["departments"][letter]["name"], *path.split(" > ")))
            leaf_department.append(letters.index(letter))
            leaf_audience.append(audience.removesuffix("]"))
            type_nouns += [tuple(nouns.split("/")) for nouns in types]
            type_leaf += [len(leaf_names) - 1] * len(types)
    n_types = len(type_nouns)

    # Attribute values, and which of them each department knows.
    values: list[str] = []
    value_type: list[str] = []
    by_department: dict[str, list[list[int]]] = {}
    for kind, entry in attributes.items():
        lists = by_department.setdefault(kind, [[] for _ in letters])
        for name, where in _departments_of(entry.get("values", [])).items():
            for letter in dict.fromkeys(where):
                lists[letters.index(letter)].append(len(values))
            values.append(name)
            value_type.append(kind)

    # What each type may have: a random few of its department's values, frequent ones first.
    allowed: dict[str, tuple[NDArray[np.int32], NDArray[np.float32]]] = {}
    for kind, entry in attributes.items():
        if "most_values" in entry:
            table = np.full((n_types, entry["most_values"]), -1, np.int32)
            for number in range(n_types):
                pool = by_department[kind][leaf_department[type_leaf[number]]]
                chosen = rng.permutation(pool)[: entry["most_values"]]
                table[number, : len(chosen)] = chosen
            allowed[kind] = (table, zipf_cumulative(np.maximum((table >= 0).sum(1), 1), 0.7))
    # The leaf decides for whom its items are.
    table = np.full((n_types, max(map(len, words["leaf_audiences"].values()))), -1, np.int32)
    shares = np.ones(table.shape, np.float32)
    for number in range(n_types):
        share = words["leaf_audiences"].get(leaf_audience[type_leaf[number]], {})
        table[number, : len(share)] = [values.index(name) for name in share]
        shares[number, : len(share)] = np.cumsum(list(share.values()), dtype=np.float32)
    allowed["Audience"] = (table, shares)

    # Nouns: M distinct ones, of which a type has up to three.
    all_nouns = list(dict.fromkeys(noun for nouns in type_nouns for noun in nouns))
    noun_types = np.zeros((len(all_nouns), n_types), np.bool_)
    type_noun = np.full((n_types, 3), -1, np.int32)
    for number, names in enumerate(type_nouns):
        type_noun[number, : len(names)] = [all_nouns.index(name) for name in names]
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


def names_of(names: Sequence[str], numbers: NDArray[np.integer]) -> pl.Series:
    """Names by number, a String column; -1 gives null."""
    return pl.Series(np.array([*names, None], object)[numbers].tolist(), dtype=pl.String)


def draw_column(
    cumulative: NDArray[np.float32], rows: NDArray[np.integer], rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each row number draw a column of its cumulative shares, int64 [n]."""
    u = rng.random(len(rows), np.float32)
    return np.asarray(np.minimum((cumulative[rows] <= u[:, None]).sum(1), cumulative.shape[1] - 1), np.int64)


def invent_names(count: int, taken: set[str], rng: np.random.Generator, suffix: Sequence[str] = ("",)) -> list[str]:
    """``count`` new pronounceable names of two or three syllables, none of them in ``taken`` (which grows)."""
    syllables = np.array(read_words("catalogue")["syllables"])
    names: list[str] = []
    while len(names) < count:
        # More than enough at once; names that are taken or too short are passed over.
        parts = syllables[rng.integers(0, len(syllables), (2 * count + 16, 3))]
        lengths = rng.integers(2, 4, len(parts))
        ends = rng.integers(0, len(suffix), len(parts))
        for row, length, end in zip(parts, lengths, ends, strict=True):
            name = "".join(row[:length]) + suffix[end]
            if len(names) < count and len(name) > 3 and name not in taken:
                taken.add(name)
                names.append(name)
    return names
