import polars as pl

from onesearch.data.records import ITEMS
from onesearch.encoding.pseudo_queries import rewritten_queries, trait_queries

LAMP = {"item_id": "1", "title": "Desk lamp", "brand": "Acme", "category": ["home", "Lamps"]}
CORD = {"item_id": "2", "title": "Power cord", "attributes": [{"type": "colour", "value": "Red"}]}


def test_an_item_is_asked_for_by_what_it_is_made_of():
    items = pl.DataFrame([LAMP, CORD, {"item_id": "3"}] * 40, ITEMS)
    found = trait_queries(items, 0)
    assert set(found[0::3]) == {"acme lamps", "lamps acme"}
    assert set(found[1::3]) == {"red cord", "cord red"}  # no category: the last word of the title
    assert set(found[2::3]) == {""}
    assert found == trait_queries(items, 0) != trait_queries(items, 1)


def test_two_values_are_at_most_asked_for_together():
    item = {**LAMP, "attributes": [{"type": "a", "value": value} for value in ("red", "big")]}
    words = [set(query.split()) for query in trait_queries(pl.DataFrame([item] * 60, ITEMS), 0)]
    assert {len(one) for one in words} == {2, 3} and set().union(*words) == {"acme", "red", "big", "lamps"}


def test_queries_that_share_a_word_are_put_together_there():
    found = rewritten_queries(["red oak table", "oak chair leg"], 50, 0)
    # beginnings up to "oak" and ends from it on, or a query without one of its words; none that the log has
    spliced, shorter = {"red oak chair leg", "oak table"}, {"oak table", "red table", "red oak", "chair leg", "oak leg"}
    assert set(found) == spliced | shorter | {"oak chair"} and len(found) == len(set(found))
    assert rewritten_queries(["red", "oak"], 5, 0) == [] and len(rewritten_queries(["red oak table"], 2, 0)) == 2
