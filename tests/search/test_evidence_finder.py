"""Which items become evidence, and what is said of each: by hand on a small catalogue."""

import numpy as np
import pytest
import torch

from onesearch.common.layered_table import LayeredTable
from onesearch.common.ragged import Ragged
from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.index.sid_index import SidIndex
from onesearch.model.evidence import EVIDENCE_NUMBERS, Evidence
from onesearch.model.model_settings import EvidenceSettings
from onesearch.search import evidence_finder
from onesearch.search.engine import SearchEngine
from onesearch.search.evidence_finder import EvidenceFinder, EvidenceRequests
from onesearch.search.nearest_items import nearest_items
from small_engine import EVIDENCE, ITEMS, small_engine

IDS = ITEMS["item_id"].to_list()
ROW = {item: row for row, item in enumerate(IDS)}


@pytest.fixture(scope="module")
def engine() -> SearchEngine:
    return small_engine(model=EVIDENCE)


def finder(engine: SearchEngine, **settings: int) -> EvidenceFinder:
    snapshot = engine.snapshot
    statistics = engine.snapshot.click_features.statistics
    return EvidenceFinder(
        EvidenceSettings(**settings),
        statistics,
        snapshot.pairs,
        snapshot.lexical,
        snapshot.index,
        snapshot.item_head_rows,
        engine.snapshot.click_features.words,
        snapshot.traits.categories,
    )


def asked(engine: SearchEngine, queries: list[str], history: list[list[str]], **own: Ragged) -> EvidenceRequests:
    facts = engine.snapshot.click_features.query_facts(queries)
    rows = engine.prompt_inputs(Requests.anonymous(queries), engine.snapshot).query_head_rows()
    items = Ragged.from_lists([[ROW[item] for item in taken] for taken in history]).padded(4)
    return EvidenceRequests(facts.texts, facts.terms, facts.click_rows, facts.words, rows, items, **own)


def names(found: Evidence, row: int = 0) -> list[str]:
    return [IDS[item] for item in found.items[row] if item >= 0]


def number(found: Evidence, item: str, name: str, row: int = 0) -> float:
    column = found.items[row].tolist().index(ROW[item])
    return float(found.numbers[row, column, EVIDENCE_NUMBERS.index(name)])


def test_each_search_gives_its_items_and_its_numbers(engine: SearchEngine):
    requests = asked(engine, ["red tent", "", "red tent"], [[], ["red-tent-0"], ["red-tent-1"]])
    first = np.array([0])

    found = finder(engine, clicked=2).prepare(requests)(first)
    assert names(found) == ["red-tent-0", "red-tent-1"], "both clicked once; the first has more clicks in all"
    assert number(found, "red-tent-0", "clicks") == pytest.approx(np.log(2) / 3)
    assert number(found, "red-tent-0", "click_share") == pytest.approx(1 / 2)
    assert number(found, "red-tent-0", "popularity") == pytest.approx(np.log(3) / 5)
    lifts = engine.snapshot.click_features.features(
        engine.snapshot.click_features.query_facts(["red tent"]),
        np.array([[ROW["red-tent-0"]]]),
        engine.snapshot.traits,
    )
    assert number(found, "red-tent-0", "word_item") == pytest.approx(lifts["word_item"][0, 0] / 3)
    assert number(found, "red-tent-0", "word_category") == pytest.approx(lifts["word_category"][0, 0] / 3)

    found = finder(engine, lexical=3).prepare(requests)(first)
    assert set(names(found)[:2]) == {"red-tent-0", "red-tent-1"}
    assert number(found, names(found)[0], "lexical_share") == 1
    assert [number(found, item, "lexical_place") for item in names(found)] == pytest.approx([1, 1 / 2, 1 / 3])

    found = finder(engine, nearest=40).prepare(requests)(first)
    similar = [number(found, item, "similarity") for item in names(found)]
    assert len(similar) == len(IDS) and similar == sorted(similar, reverse=True)
    assert number(found, "red-tent-0", "clicks") > 0, "an item has all its numbers, whoever found it"

    # Ann and Bob took the lamp after the tent, Bob another lamp later: 3 shoppers of the tent, 2 and 1 of the lamps.
    found = finder(engine, together=3).prepare(requests)(np.array([1]))
    assert names(found) == ["blue-lamp-0", "red-lamp-1"]
    assert number(found, "blue-lamp-0", "together") == pytest.approx(2 / 6**0.5)
    assert number(found, "blue-lamp-0", "following") == pytest.approx(2 / 3)
    assert number(found, "red-lamp-1", "following") == 0


def test_an_item_found_twice_is_one_and_the_list_has_an_end(engine: SearchEngine):
    requests = asked(engine, ["red tent", "lamp"], [["red-tent-1"], []])
    found = finder(engine, clicked=2, lexical=4, most=5).prepare(requests)(np.arange(2))
    assert len(names(found)) == len(set(names(found))) == 4 and len(names(found, 1)) == 4
    both = "red-tent-0"
    assert number(found, both, "clicks") > 0 and number(found, both, "lexical_share") > 0
    assert number(found, "red-tent-1", "in_history") == 1 and number(found, both, "in_history") == 0
    short = finder(engine, clicked=2, lexical=4, most=3).prepare(requests)(np.arange(2))
    assert names(short) == names(found)[:3]
    assert not found.numbers[found.items < 0].any()


def test_a_training_page_view_is_not_told_of_its_own_click(engine: SearchEngine):
    own = Ragged.from_lists([[ROW["red-tent-1"]]])
    requests = asked(engine, ["red tent"], [[]], own=own)
    found = finder(engine, clicked=2, lexical=4).prepare(requests)(np.array([0]))
    assert names(found)[0] == "red-tent-0"
    assert number(found, "red-tent-1", "clicks") == 0 and number(found, "red-tent-1", "popularity") == 0
    assert number(found, "red-tent-0", "click_share") == 1, "the one click that is left"
    log, rows = engine.snapshot.click_features, np.array([[ROW["red-tent-1"]]])
    lifts = log.words.lifts(log.query_facts(["red tent"]).words, rows, engine.snapshot.traits.categories, own)
    assert number(found, "red-tent-1", "word_item") == pytest.approx(lifts[0][0, 0] / 3)
    assert number(found, "red-tent-1", "word_category") == pytest.approx(lifts[1][0, 0] / 3)
    # Ann's own pairs alone spoke for the lamp's place right after the tent, apart from Bob's.
    pairs = Ragged.from_lists([[ROW["red-tent-0"], ROW["blue-lamp-0"]]])
    requests = asked(engine, [""], [["red-tent-0"]], own_pairs=pairs)
    found = finder(engine, together=3).prepare(requests)(np.array([0]))
    assert number(found, "blue-lamp-0", "following") == pytest.approx(1 / 3)


def test_dropout_leaves_searches_out_and_depends_on_the_rows_alone(engine: SearchEngine):
    n = 400
    requests = asked(engine, ["red tent"] * n, [["red-tent-0"]] * n)
    find = finder(engine, clicked=2, lexical=4).prepare(requests, dropout=0.25, seed=1)
    found, again = find(np.arange(n)), find(np.arange(n))
    np.testing.assert_array_equal(found.items, again.items)
    with_clicks = (found.numbers[..., EVIDENCE_NUMBERS.index("clicks")] > 0).any(1)
    with_words = (found.numbers[..., EVIDENCE_NUMBERS.index("lexical_share")] > 0).any(1)
    assert 0.15 < 1 - with_clicks.mean() < 0.35 and 0.15 < 1 - with_words.mean() < 0.35
    assert 0.45 < (with_clicks & with_words).mean() < 0.68, "each search has a draw of its own"


def test_a_short_training_on_a_large_log_searches_for_what_it_draws_alone(engine: SearchEngine, monkeypatch):
    things = ("tent", "lamp", "boots", "tent")
    queries = [f"{colour} {thing}" for colour in ("red", "blue", "green") for thing in things]
    requests = asked(engine, queries, [[] for _ in queries])
    settings = {"clicked": 2, "lexical": 4, "nearest": 3, "together": 2}
    whole = finder(engine, **settings).prepare(requests, dropout=0.2, seed=3)
    searched: list[int] = []
    found = EvidenceFinder._searched

    def counted(self: EvidenceFinder, requests: EvidenceRequests, first: np.ndarray):
        searched.append(len(first))
        return found(self, requests, first)

    monkeypatch.setattr(EvidenceFinder, "_searched", counted)
    finder(engine, **settings).prepare(requests, drawn=0.4)
    assert searched == [9], "all at once where there are few"
    monkeypatch.setattr(evidence_finder, "_MANY", 5)
    finder(engine, **settings).prepare(requests, drawn=0.6)
    assert searched == [9, 9], "and where more than half will be drawn"
    searched.clear()
    few = finder(engine, **settings).prepare(requests, dropout=0.2, seed=3, drawn=0.4)
    assert searched == [1], "one, for the shapes"
    for rows in ([3, 0, 4], [4, 3], [0, 7, 3], list(range(12))):
        one, other = whole(np.array(rows)), few(np.array(rows))
        np.testing.assert_array_equal(one.items, other.items)
        np.testing.assert_allclose(one.numbers, other.numbers, atol=1e-6)
    assert searched == [1, 2, 7], "rows 3 and 0 ask for the same, as do 4 and 7; what was searched for is there"


def test_the_nearest_of_a_large_catalogue_are_those_of_the_nearest_nodes(monkeypatch: pytest.MonkeyPatch):
    engine = small_engine(model=EVIDENCE)
    queries = ["red tent", "blue lamp", "stove", ""]
    requests = asked(engine, queries, [[]] * 4)
    rows = engine.snapshot.item_head_rows.flat().numpy()
    index, products = engine.snapshot.index, requests.head_rows @ rows.T
    exact = finder(engine, nearest=5).prepare(requests)(np.arange(4)).items
    for row in range(3):
        assert exact[row].tolist() == np.argsort(-products[row], kind="stable")[:5].tolist()
    assert (exact[3] < 0).all(), "a query without a vector is near to nothing"
    # As if forty items were many: of each query's nearest first-level node, for several queries at a time.
    monkeypatch.setattr(evidence_finder, "_EXACT", len(index) - 1)
    monkeypatch.setattr(evidence_finder, "_COMPARED", len(index) // index.size(0))
    monkeypatch.setattr(evidence_finder, "_CELLS", 2 * len(index) // index.size(0))
    some = finder(engine, nearest=40).prepare(requests)(np.arange(4)).items
    expected = nearest_items(torch.from_numpy(requests.head_rows), index, 40, probes=1).numpy()[:, : some.shape[1]]
    np.testing.assert_array_equal(some[:3], expected[:3])
    assert (some[3] < 0).all() and (some < 0)[:3].any(), "there are fewer than forty in a node"
    # What has left the catalogue is not near to anything, whichever way it is looked for.
    gone = IDS[exact[0, 0]]
    engine.delete([gone])
    for most in (len(index) - 2, len(index)):
        monkeypatch.setattr(evidence_finder, "_EXACT", most)
        found = finder(engine, nearest=5).prepare(requests)(np.arange(4))
        assert gone not in names(found) and len(names(found)) == 5


def test_of_equal_items_a_plain_and_a_changed_catalogue_have_the_same_as_evidence(engine: SearchEngine):
    """Thirty items with one vector: the first ones of the index, by their clicks, and not whichever come first."""
    vectors = np.zeros((40, 4), np.float32)
    vectors[:, 0], vectors[:5, 0], vectors[35:, 0] = 1.0, 2.0, 0.5
    clicks = np.random.default_rng(0).permutation(40).astype(np.float32)
    index = SidIndex.build(np.zeros((40, 3), int), vectors, (4, 4, 4), clicks)
    rows, snapshot = LayeredTable.over(torch.from_numpy(vectors)), engine.snapshot
    log = snapshot.click_features
    one = EvidenceFinder(
        EvidenceSettings(nearest=9), log.statistics, None, None, index, rows, log.words, snapshot.traits.categories
    )
    query = np.array([[3, 0, 0, 0], [1, 0, 0, 0]], np.float32)
    found = one._nearest(query)
    expected = [*np.argsort(-clicks[:5]), *(5 + np.argsort(-clicks[5:35])[:4])]
    assert found.tolist() == [expected, expected]
    np.testing.assert_array_equal(found, nearest_items(torch.from_numpy(query), index, 9, 4).numpy())


def test_a_changed_catalogue_has_evidence_of_its_own(engine: SearchEngine):
    changed = engine.with_settings(engine.config, engine.weights)
    assert engine.snapshot.evidence_finder is engine.snapshot.evidence_finder
    changed.upsert([Item("green-tent-9", "green tent no 9", ("Shop", "tent"))])
    found = changed.prompt_inputs(Requests.anonymous(["green tent"]), changed.snapshot).evidence(np.array([0]))
    assert len(IDS) in found.items[0].tolist(), "the new item is near to its words"
