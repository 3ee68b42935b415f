"""What to ask a shopper next: the filter whose answer is expected to narrow the found items down most.

::

    N items found, c_v of them have value v of a filter;  they tell each other apart by sum of c_v, but no better than N
    P(answer is v) = c_v / max(N, sum of c)                an item of unknown value answers nothing, so the rest is lost
    gain = sum over v of P(v) · log2(N / c_v)              bits: the expected logarithm of how many times fewer are left

For a filter of which every item has exactly one value this is the entropy of its values (information gain of a split,
Quinlan 1986).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from onesearch.index.filter_values import PATH_SEPARATOR

_MOST_VALUES = 10  # of a question that are told; its gain counts all
_LEAST_BITS = 0.05


class Question(NamedTuple):
    """A filter worth asking for.

    Attributes:
        facet: the filter's key, as ``brand`` or ``attributes.Color``.
        bits: expected information gain of the answer.
        values: answers with how many of the found items are left under each, most items first; at most ten.
        others: answers beyond these.
    """

    facet: str
    bits: float
    values: tuple[tuple[Any, int], ...]
    others: int


def information_gain(counts: Sequence[int], total: int) -> float:
    """Expected bits that an answer tells of ``total`` items, of which ``counts`` have each value; 0 for no items.

    >>> information_gain([2, 2], 4), information_gain([4], 4), information_gain([1, 1], 4)
    (1.0, 0.0, 1.0)
    """
    if total <= 0:
        return 0.0
    answers = max(total, sum(counts))
    return sum(count / answers * math.log2(total / count) for count in counts if 0 < count <= total)


def questions(
    facets: Mapping[str, Sequence[tuple[Any, int]]], total: int, answered: Collection[str] = (), most: int = 3
) -> tuple[Question, ...]:
    """The ``most`` best questions about ``total`` found items, best first.

    Args:
        facets: values of filters with how many of the items have each.
        total: items found.
        answered: filters that the search has already; a path of categories may still be narrowed down.
        most: questions, at most.
    """
    found = []
    for facet, values in facets.items():
        if facet in answered and facet != "category":
            continue
        # Paths hold those below them: each depth is a question of its own, and the best of them counts.
        depths = _by_depth(values) if facet == "category" else [list(values)]
        asked = [_question(facet, one, total) for one in depths]
        found += [max(asked, key=lambda one: one.bits)] if asked else []
    worth = [one for one in found if one.bits >= _LEAST_BITS]
    return tuple(sorted(worth, key=lambda one: (-one.bits, one.facet))[:most])


def _question(facet: str, values: Sequence[tuple[Any, int]], total: int) -> Question:
    # A value that every item has narrows nothing down.
    splitting = sorted((one for one in values if one[1] < total), key=lambda one: -one[1])
    gain = information_gain([count for _, count in values], total)
    return Question(facet, gain, tuple(splitting[:_MOST_VALUES]), max(0, len(splitting) - _MOST_VALUES))


def _by_depth(paths: Sequence[tuple[Any, int]]) -> list[list[tuple[Any, int]]]:
    depths: dict[int, list[tuple[Any, int]]] = defaultdict(list)
    for path, count in paths:
        depths[str(path).count(PATH_SEPARATOR)].append((path, count))
    return list(depths.values())
