"""What explanations say, against the engine that they explain."""

import numpy as np
import pytest

from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import RankingWeights, times
from onesearch.search.results import Explanation, Part, SearchRequest, Step
from onesearch.search.search_settings import SearchSettings
from small_engine import EVIDENCE, small_engine


@pytest.fixture(scope="module", params=[None, EVIDENCE], ids=["plain", "evidence"])
def engine(request) -> SearchEngine:
    return small_engine(model=request.param)


def explained(engine: SearchEngine, query: str, k: int = 10, **asked):
    return engine.search_batch([SearchRequest(query, k=k, explain=True, **asked)])[0]


@pytest.mark.parametrize("filters", [None, {"category": "tent"}])
@pytest.mark.parametrize("query", ["red tent", "", "lamp"])
def test_parts_sum_to_the_score_and_change_no_result(engine: SearchEngine, query, filters):
    hits = explained(engine, query, user="ann", filters=filters)
    plain = engine.search(query, "ann", filters=filters)
    assert [hit.item_id for hit in hits] == [hit.item_id for hit in plain] and hits
    assert all(hit.why is None for hit in plain)
    for hit in (hit for hit in hits if hit.why.parts):
        assert hit.why.score == pytest.approx(hit.score, abs=1e-4)
        sizes = [abs(part.product) for part in hit.why.parts]
        assert sizes == sorted(sizes, reverse=True) and all(sizes)


def test_parts_hold_what_a_context_adds_to_a_weight(engine: SearchEngine):
    more = RankingWeights({**engine.weights.values, times("text", "words"): 0.7})
    for hit in explained(engine.with_settings(engine.config, more), "red tent", 5):
        assert hit.why.parts and hit.why.score == pytest.approx(hit.score, abs=1e-4)
        assert "text" in {part.feature for part in hit.why.parts}


def test_the_path_has_the_models_probabilities_and_what_its_prefixes_stand_for(engine: SearchEngine):
    hits = explained(engine, "red tent", 40)
    found = engine.candidates(Requests.anonymous(["red tent"]))
    by_row = dict(zip(found.items[0].tolist(), found.features["log_prob"][0].tolist(), strict=True))
    everything = [engine.snapshot.item(row) for row in engine.snapshot.number.values()]
    assert len({engine.snapshot.number[hit.item_id] for hit in hits} & set(by_row)) > 2
    for hit in hits:
        row, path = engine.snapshot.number[hit.item_id], hit.why.path
        if row in by_row:
            assert np.prod([step.probability for step in path]) == pytest.approx(np.exp(by_row[row]), rel=1e-3)
        for level, step in enumerate(path):
            below = [item for item in everything if engine.sid(item.item_id)[: level + 1] == hit.sid[: level + 1]]
            assert step.items == len(below)
            names = [" > ".join(item.category) for item in below]
            assert names.count(step.category) == max(names.count(name) for name in names)


@pytest.mark.parametrize("joined", [True, False])
def test_searches_that_are_answered_together_are_explained_as_alone(engine: SearchEngine, joined):
    """Also where few candidates were joined by the nearest items, and are therefore looked for again."""
    engine = engine if joined else engine.with_settings(engine.config.model_copy(update={"nearest": 0}), engine.weights)
    asked = [SearchRequest(query, k=8, explain=True) for query in ("lamp", "red tent", "", "no such thing")]
    for request, together in zip(asked, engine.search_batch(asked), strict=True):
        alone = engine.search_batch([request])[0]
        assert [hit.item_id for hit in together] == [hit.item_id for hit in alone]
        for one, other in zip(together, alone, strict=True):
            assert one.why.found_by == other.why.found_by and one.why.score == pytest.approx(other.why.score, abs=1e-4)
            parts = {part.feature: part.product for part in other.why.parts}
            assert {part.feature: part.product for part in one.why.parts} == pytest.approx(parts, abs=1e-4)


def test_channels_are_named(engine: SearchEngine):
    hits = {hit.item_id: hit.why.found_by for hit in explained(engine, "red tent", k=40)}
    assert "most clicked" in hits["red-tent-0"] and "BM25" in hits["red-tent-0"]
    assert all(set(by) <= {"beams", "most clicked", "evidence", "BM25", "nearest"} for by in hits.values())
    assert any("beams" in by for by in hits.values())
    alone = engine.with_settings(SearchSettings(generator=False, lexical=True), engine.weights)
    for hit in explained(alone, "red tent"):
        assert "beams" not in hit.why.found_by and all(step.probability is None for step in hit.why.path)


def test_an_item_named_by_its_id_and_items_behind_the_candidates_have_no_parts(engine: SearchEngine):
    first = explained(engine, "black-stove-1", k=3)[0]
    assert first.item_id == "black-stove-1" and first.why.parts == () and len(first.why.path) == 5
    behind = [hit for hit in explained(engine, "red tent", k=40) if not hit.why.parts]
    assert behind and all(hit.why.found_by == () for hit in behind)
    assert "the order of the item score" in str(behind[0].why)


def test_it_reads_as_a_text():
    why = Explanation(
        (Part("clicks", 2.0, 0.5), Part("text", 0.5, -0.2)),
        ("beams", "BM25"),
        (Step("a_3", 0.25, 12, "Shop > tent"), Step("b_1", None, 1, "")),
    )
    assert why.score == pytest.approx(0.9)
    assert str(why).splitlines() == [
        "0.900, found by beams, BM25",
        "  +1.000  clicks 2.000 × 0.500",
        "  -0.100  text 0.500 × -0.200",
        "  a_3  25.0% 12 items, mostly Shop > tent",
        "  b_1  1 items, mostly of no category",
    ]


def test_explanations_follow_the_catalogue(engine: SearchEngine):
    engine.upsert([Item("new", "red tent no 0", ("Shop", "tent"))])
    try:
        hit = next(hit for hit in explained(engine, "red tent", k=41) if hit.item_id == "new")
        assert hit.why.path[-1].items >= 1 and hit.why.found_by
    finally:
        engine.delete(["new"])
