"""Where the words of a query stand in the texts of a result."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from onesearch.data.records import Item
from onesearch.data.text import word_spans

Span = tuple[int, int]
NumbersOf = Callable[[str], Sequence[int]]
_FIELDS = ("title", "brand", "description")
LONGEST_TEXT: Final = 10_000
"""Characters of a field that are read: what a shop lists must not hold up the searches of all."""


def matched_spans(text: str, wanted: frozenset[int], numbers_of: NumbersOf) -> tuple[Span, ...]:
    """Words of a text that BM25 counts as words of the query: [start, end) in characters, in order.

    Characters of scripts without spaces that follow each other are one span. Only the first :data:`LONGEST_TEXT`
    characters are read.

    Args:
        text: of an item, as it is shown.
        wanted: the numbers of the query's terms.
        numbers_of: the numbers of a word's terms.
    """
    spans: list[Span] = []
    for start, end in word_spans(text[:LONGEST_TEXT]):
        if wanted.isdisjoint(numbers_of(text[start:end])):
            continue
        if spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return tuple(spans)


def highlights(item: Item, wanted: frozenset[int], numbers_of: NumbersOf) -> Mapping[str, tuple[Span, ...]]:
    """:func:`matched_spans` of an item's title, brand and description; fields without any are left out."""
    texts = {name: getattr(item, name) or "" for name in _FIELDS}
    found = {name: matched_spans(text, wanted, numbers_of) for name, text in texts.items()}
    return {name: spans for name, spans in found.items() if spans}
