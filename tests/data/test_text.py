import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from tests.data.logs import quick

from onesearch.data.text import normalise_queries, normalise_query


def test_by_hand():
    assert normalise_query("  Straße\t ２ ") == "strasse 2"
    assert normalise_query("XBOX  360") == "xbox 360"
    assert normalise_query("情侣　DIY") == "情侣 diy"


@quick
@given(st.text())
def test_normalising_twice_changes_nothing(text):
    once = normalise_query(text)
    assert normalise_query(once) == once


@quick
@given(st.lists(st.one_of(st.none(), st.text(alphabet=st.characters(exclude_categories=["Cs"])))))
def test_a_column_is_its_texts_one_by_one(texts):
    column = normalise_queries(pl.Series("query", texts, dtype=pl.String))
    assert column.to_list() == [normalise_query(text or "") for text in texts]
