"""Which words of a query an item says, and where; which it does not say."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from onesearch.data.records import Item
from onesearch.data.text import word_spans

NumbersOf = Callable[[str], Sequence[int]]
_MOST_WORDS = 40  # of a query
_LONGEST_TEXT = 2000  # characters of a field that are read


class WordMatch(NamedTuple):
    """A word of a query and the fields of an item where it stands, as BM25 counts words; none: nowhere."""

    word: str
    fields: tuple[str, ...]


def query_words(query: str) -> list[str]:
    """The distinct words of a query in order, as they are written."""
    return list(dict.fromkeys(query[start:end] for start, end in word_spans(query)))[:_MOST_WORDS]


def word_matches(words: Sequence[str], item: Item, numbers_of: NumbersOf) -> tuple[WordMatch, ...]:
    """Where the words of a query stand in an item.

    Args:
        words: of the query.
        item: whose title, brand, category, attributes and description are read.
        numbers_of: the numbers of a text's terms; a word whose terms no item has gets none.
    """
    said = {name: frozenset(numbers_of(text[:_LONGEST_TEXT])) for name, text in _texts(item).items() if text}
    asked = ((word, frozenset(numbers_of(word))) for word in words)
    return tuple(
        WordMatch(word, tuple(name for name, terms in said.items() if not terms.isdisjoint(wanted)))
        for word, wanted in asked
    )


def _texts(item: Item) -> Mapping[str, str]:
    return {
        "title": item.title,
        "brand": item.brand or "",
        "category": " ".join(item.category),
        "attributes": " ".join(value for values in item.attributes.values() for value in values),
        "description": item.description or "",
    }
