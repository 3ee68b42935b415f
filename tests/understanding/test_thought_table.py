import pytest

from onesearch.understanding.thought import Analysis, Attribute, Thought
from onesearch.understanding.thought_table import Thoughts


def thought(query, *keywords, query_type="plain", version="1"):
    analysis = Analysis(
        intent="merchandise",
        query_type=query_type,
        category=("Shoes",),
        attributes=(Attribute(type="Color", value="red", negated=True),),
    )
    return Thought(query=query, analysis=analysis, keywords=keywords, producer="p", version=version)


@pytest.fixture
def table():
    return Thoughts.from_thoughts(
        [
            thought("gift for a hiker", "boots", "tent", query_type="recommendation"),
            thought("boots", "boots"),
            thought("why", query_type="knowledge"),
            thought("boots", "other", version="2"),
        ]
    )


QUERIES = ["Boots ", "gift for a hiker", "unseen", "why"]


def test_queries_are_found_as_normalised_and_the_first_thought_counts(table):
    assert len(table) == 3
    assert table.keywords(QUERIES) == [("boots",), ("boots", "tent"), (), ()]


def test_only_complex_queries_with_keywords_have_a_teacher(table):
    assert table.is_complex(QUERIES).tolist() == [False, True, False, True]
    assert table.taught(QUERIES, "complex").tolist() == [False, True, False, False]
    assert table.taught(QUERIES, "all").tolist() == [True, True, False, False]
    assert table.taught_keywords(QUERIES, "complex") == [(), ("boots", "tent"), (), ()]


def test_other_thoughts_only_fill_gaps(table):
    more = Thoughts.from_thoughts([thought("boots", "worse"), thought("unseen", "hat")])
    assert table.plus(more).keywords(["boots", "unseen"]) == [("boots",), ("hat",)]
    assert not Thoughts.from_thoughts([]).is_complex(["boots"]).any()


def test_a_thought_survives_the_table_and_a_file(table, tmp_path):
    table.save(tmp_path)
    again = Thoughts.load(tmp_path)
    kept = [again.thought(row) for row in range(len(again))]
    assert kept == [table.thought(row) for row in range(len(table))]
    assert thought("gift for a hiker", "boots", "tent", query_type="recommendation") in kept
