from collections.abc import Iterator
from typing import Any

from onesearch.market.market_traffic import COMPLEX_TYPES
from onesearch.market.market_vocabulary import SLOTS, build_vocabulary
from onesearch.market.word_tables import read_words


def _leaves(table: Any) -> Iterator[Any]:
    if isinstance(table, dict):
        for key, value in table.items():
            yield key
            yield from _leaves(value)
    elif isinstance(table, list):
        for value in table:
            yield from _leaves(value)
    else:
        yield table


def test_no_word_is_read_as_something_else():
    """YAML takes a bare ``no`` for false and ``12`` for a number."""
    for table in ("titles", "needs", "queries"):
        assert all(isinstance(leaf, str) for leaf in _leaves(read_words(table))), table
    catalogue = read_words("catalogue")
    assert all(isinstance(leaf, str) for part in ("tree", "syllables") for leaf in _leaves(catalogue[part]))
    values = [entry.get("values", []) for entry in read_words("attributes").values()]
    assert all(isinstance(leaf, str) for leaf in _leaves(values))


def test_what_needs_name_is_in_the_catalogue():
    vocabulary, needs = build_vocabulary(0), read_words("needs")
    assert list(read_words("attributes")) == list(dict.fromkeys(SLOTS))
    first_nouns = {nouns[0] for nouns in vocabulary.type_nouns}
    assert {noun for nouns in needs["topics"].values() for noun in nouns} <= first_nouns
    meant = {value for theme in needs["themes"].values() for value in theme["values"]}
    # The two fabrics with blanks behind their names, see attributes.yaml.
    assert meant - set(vocabulary.values) == {"polyester", "jute"}
    assert {value for value in vocabulary.values if value != value.strip()} == {"polyester    ", "jute    "}


def test_every_complex_form_has_templates_and_cues():
    queries = read_words("queries")
    assert tuple(queries["templates"]) == COMPLEX_TYPES
    assert set(queries["cues"]) == set(COMPLEX_TYPES)
