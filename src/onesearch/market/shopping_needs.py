"""What a shopper wants, as far as an agent that shops for them is told or, as an educated reader, understands it.

An agent begins with less than the whole: a plain need without its attributes and brands ("boots" for "red waterproof
boots"). What was withheld can be said as words, or set as filters when the shop asks about them; words of a need that
stand in no title ("monsoon") it understands as the attribute values that serve them, as the stand-in language model
does (`stand_in_thinker`). Tastes, and which single item is relevant, it never knows: the shopper takes an item or not.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onesearch.market.click_truth import Truth
from onesearch.market.market_queries import PREDICATES

Wish = Mapping[str, frozenset[str]]
"""Attribute values that serve one part of a need, by type; one value of one type is enough."""


@dataclass(frozen=True)
class ShoppingNeed:
    """One need.

    Attributes:
        text: the whole of it in words.
        start: what is searched for first.
        more: words withheld at the start, in the order in which they are added.
        wishes: what its attributes, brands and traits mean.
        categories: paths of the leaf categories where it is served.
        banned: a type and a value that must not be; None for no ban.
    """

    text: str
    start: str
    more: tuple[str, ...]
    wishes: tuple[Wish, ...]
    categories: frozenset[str]
    banned: tuple[str, str] | None


def shopping_needs(truth: Truth, leaf_paths: Sequence[str], queries: NDArray[np.integer]) -> list[ShoppingNeed]:
    """The needs behind query rows [n]; ``leaf_paths`` names the leaf categories."""
    known: dict[int, ShoppingNeed] = {}
    for row in queries.tolist():
        if row not in known:
            known[row] = _need(truth, leaf_paths, row)
    return [known[row] for row in queries.tolist()]


def _need(truth: Truth, leaf_paths: Sequence[str], row: int) -> ShoppingNeed:
    table, catalogue = truth.queries, truth.catalogue
    names, types = catalogue.value_names, catalogue.value_type
    # Values the text names, and traits with the values that serve them.
    stated: list[int] = []
    wishes: list[Wish] = []
    for column in range(PREDICATES):
        predicate = int(table.predicates[row, column])
        if predicate < 0:
            continue
        if predicate < len(names):
            stated.append(predicate)
            wishes.append({types[predicate]: frozenset({names[predicate]})})
        else:
            wishes.append(_served(truth, predicate - len(names)))
    # A plain need begins without them, as long as that leaves a word.
    text = _spaced(table.texts[row])
    start, more = text, list[str]()
    if table.kind[row] == 0:
        for value in stated:
            name = _spaced(names[value])
            shorter = _spaced(re.sub(rf"\b{re.escape(name)}\b", " ", start))
            if shorter and shorter != start:
                start, more = shorter, [*more, name]
    leaves = np.unique(truth.type_leaf[truth.type_sets[table.type_set[row]]]).tolist()
    ban = int(table.ban[row])
    banned = (types[ban], names[ban]) if ban >= 0 else None
    return ShoppingNeed(text, start, tuple(more), tuple(wishes), frozenset(leaf_paths[leaf] for leaf in leaves), banned)


def _spaced(text: str) -> str:
    """Words with one blank between them."""
    return " ".join(text.split())


def _served(truth: Truth, trait: int) -> Wish:
    """The values that serve a trait word, by type."""
    found: dict[str, set[str]] = defaultdict(set)
    for value in np.flatnonzero(truth.trait_values[trait]).tolist():
        found[truth.catalogue.value_type[value]].add(truth.catalogue.value_names[value])
    return {kind: frozenset(values) for kind, values in found.items()}
