import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from onesearch.data.dataset import Dataset
from onesearch.market import keyed_random as keyed
from onesearch.market.logging_engine import best_postings, first_distinct
from onesearch.market.market import Market
from onesearch.market.market_queries import PREDICATES
from onesearch.market.market_traffic import QUERY_TYPES
from onesearch.market.market_vocabulary import SLOTS


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=20))
def test_keyed_draws_depend_on_their_key_alone(seed, numbers):
    values = np.array(numbers, np.int64)
    together = keyed.uniform(keyed.key(seed, values, 7))
    alone = [keyed.uniform(keyed.key(seed, values[i : i + 1], 7))[0] for i in range(len(values))]
    assert together.tolist() == alone
    assert ((together >= 0) & (together < 1)).all()


def test_keyed_draws_are_uniform():
    draws = keyed.uniform(keyed.key(5, np.arange(100_000), 1))
    assert abs(draws.mean() - 0.5) < 0.005
    assert np.abs(np.histogram(draws, 20, (0, 1))[0] - 5_000).max() < 350
    assert abs(np.corrcoef(draws[1:], draws[:-1])[0, 1]) < 0.02


@given(st.lists(st.lists(st.integers(-1, 6), min_size=8, max_size=8), min_size=1, max_size=6))
def test_first_distinct(rows):
    found = first_distinct(np.array(rows, np.int32), 4)
    for row, got in zip(rows, found.tolist(), strict=True):
        expected = [value for value in dict.fromkeys(row) if value >= 0][:4]
        assert got == expected + [-1] * (4 - len(expected))


def _plain_level(market: Market, query: int, item: int) -> int:
    """The definition of docs/concepts.md, one pair at a time."""
    truth = market.truth
    catalogue, queries = truth.catalogue, truth.queries
    types = truth.type_sets[queries.type_set[query]]
    leaves = set(truth.type_leaf[types].tolist())
    if int(catalogue.leaves[item]) not in leaves:
        return 0
    have = {value for value in catalogue.values[item].tolist() if value >= 0}
    met = []
    for column in range(PREDICATES):
        predicate = int(queries.predicates[query, column])
        if predicate < 0:
            continue
        if predicate < len(catalogue.value_names):
            met.append(predicate in have)
        else:
            trait = truth.trait_values[predicate - len(catalogue.value_names)]
            kinds = ("Brand", "Series", "Specifications", "Scene")
            met.append(any(trait[v] for v in have if catalogue.value_type[v] not in kinds))
    if queries.model[query] >= 0:
        met.append(queries.model[query] == catalogue.models[item])
    of_type = 3 if all(met) else 2 if sum(met) * 2 >= len(met) else 1
    level = of_type if types[catalogue.types[item]] else int(all(met))
    return min(level, 1) if int(queries.ban[query]) in have else level


def test_levels_follow_their_definition(market: Market):
    rng = np.random.default_rng(0)
    visits = market.visits.select(rng.integers(0, len(market.visits), 300))
    owner, items = market.truth.candidates(visits)
    pick = rng.integers(0, len(owner), 3_000)
    query = np.concatenate([visits.query[owner[pick]], visits.query])
    item = np.concatenate([items[pick], rng.integers(0, len(market.truth.catalogue), len(visits))])
    levels = market.truth.levels(query, item)
    assert levels.tolist() == [_plain_level(market, q, i) for q, i in zip(query.tolist(), item.tolist(), strict=True)]
    assert set(levels.tolist()) == {0, 1, 2, 3}


def test_what_a_query_rules_out_is_hardly_relevant(market: Market):
    """Items of the meant types with the banned value, of which a random sample holds next to none."""
    truth = market.truth
    visits = market.visits.select(np.flatnonzero(truth.queries.ban[market.visits.query] >= 0)[:200])
    owner, items = truth.candidates(visits)
    query = visits.query[owner]
    banned = (truth.catalogue.values[items] == truth.queries.ban[query][:, None]).any(1)
    query, items = query[banned][:2_000], items[banned][:2_000]
    levels = truth.levels(query, items)
    assert levels.tolist() == [_plain_level(market, q, i) for q, i in zip(query.tolist(), items.tolist(), strict=True)]
    assert len(levels) > 200 and set(levels.tolist()) == {0, 1}


def test_no_relevant_item_lies_outside_the_candidates(market: Market):
    visits = market.visits.select(np.arange(0, len(market.visits), 400))
    n_items = len(market.truth.catalogue)
    owner, items = market.truth.candidates(visits)
    inside = np.zeros((len(visits), n_items), bool)
    inside[owner, items] = True
    every = np.tile(np.arange(n_items), (len(visits), 1))
    level, _, _ = market.truth.probabilities(visits, every)
    assert (level[~inside] == 0).all()


def test_worth_is_what_it_says(market: Market, dataset: Dataset):
    """NDCG, EHR and expected clicks against sums over the whole catalogue, item by item."""
    views = dataset.page_views[-40:]
    n_items = len(dataset.items)
    visits = market.visits.select(market.page_view_rows(views))
    every = np.tile(np.arange(n_items), (len(views), 1))
    level, click, order = market.truth.probabilities(visits, every)
    ranked = np.stack([np.random.default_rng(i).permutation(n_items)[:12] for i in range(len(views))])
    ranked[:, :4] = market.oracle(views, 10)[:, 3:7]
    worth = market.evaluate(views, ranked)
    discount = 1 / np.log2(np.arange(2, 12))
    for row in range(len(views)):
        top = [item for item in ranked[row, :10].tolist() if item >= 0]
        places = [place for place, item in enumerate(ranked[row, :10].tolist()) if item >= 0]
        ideal = (np.sort(2.0 ** level[row] - 1)[::-1][:10] * discount).sum()
        gain = ((2.0 ** level[row, top] - 1) * discount[places]).sum()
        mass = (click[row] * (level[row] > 0)).sum()
        if mass == 0:
            assert np.isnan(worth["ehr@10"][row])
            continue
        assert worth["ndcg@10"][row] == pytest.approx(gain / ideal, abs=1e-5)
        assert worth["ehr@10"][row] == pytest.approx((click[row] * (level[row] > 0))[top].sum() / mass, abs=1e-4)
        seen = market.truth.examination(10)[places]
        assert worth["clicks@10"][row] == pytest.approx((seen * click[row, top]).sum(), abs=1e-5)
        assert worth["orders@10"][row] == pytest.approx((seen * click[row, top] * order[row, top]).sum(), abs=1e-5)


def test_clicks_happen_as_often_as_expected(market: Market, dataset: Dataset):
    views = dataset.page_views
    shown = dataset.ragged(views["shown"]).padded(10, newest=False)
    reactions = market.react(views, shown)
    expected = market.evaluate(views, shown)
    error = 4 * np.sqrt(reactions.clicked.sum(1).var() / len(views))
    assert abs(reactions.clicked.sum(1).mean() - expected["clicks@10"].mean()) < error
    assert abs(reactions.ordered.sum(1).mean() - expected["orders@10"].mean()) < error


def test_two_engines_meet_the_same_fate(market: Market, dataset: Dataset):
    """Showing the same item at the same rank gives the same reaction, whatever stands around it; so does the log."""
    views = dataset.page_views[:500]
    shown = dataset.ragged(views["shown"]).padded(20, newest=False)
    first = market.react(views, shown)
    clicked = dataset.ragged(views["clicked"])
    assert first.clicked.sum() == len(clicked.values)
    other = shown.copy()
    other[:, 1::2] = np.random.default_rng(0).integers(0, len(dataset.items), other[:, 1::2].shape)
    second = market.react(views, other)
    assert (first.clicked[:, ::2] == second.clicked[:, ::2]).all()
    assert (first.ordered[:, ::2] == second.ordered[:, ::2]).all()
    # An item the shopper would click is clicked wherever it is seen.
    swapped = market.react(views, shown[:, ::-1].copy())
    both = first.examined & swapped.examined[:, ::-1]
    assert (first.clicked[both] == swapped.clicked[:, ::-1][both]).all()


def test_what_is_not_listed_is_worth_nothing(market: Market, dataset: Dataset):
    last = int(np.argmax(market.truth.catalogue.listed))
    early = dataset.page_views[:50]
    items = np.full((50, 1), last)
    assert (market.click_probability(early, items) == 0).all()
    assert (market.levels(early, items) == 0).all()


def test_relevance_by_text_and_by_page_view_agree(market: Market, dataset: Dataset):
    views = dataset.page_views[-200:]
    items = np.random.default_rng(1).integers(0, len(dataset.items), (200, 30))
    by_view, by_text = market.levels(views, items), market.relevance(views["query"].to_list(), items)
    listed = market.truth.catalogue.listed[items] <= market.visits.time[-200:, None]
    assert (by_view[listed] == by_text[listed]).all()
    assert market.relevance(views["query"].to_list(), np.full((200, 2), -1)).max() == 0


def test_oracle_is_best_and_personal_taste_matters(market: Market, dataset: Dataset):
    views = dataset.page_views[-800:]
    by_click = market.evaluate(views, market.oracle(views, 10))
    by_level = market.evaluate(views, market.oracle(views, 10, by="relevance"))
    assert np.nanmin(by_level["ndcg@10"]) == pytest.approx(1.0, abs=1e-5)
    assert (by_click["ehr@10"] >= by_level["ehr@10"] - 1e-5)[~np.isnan(by_click["ehr@10"])].all()
    stranger = market.visits.select(market.page_view_rows(views))
    other = type(stranger)(np.roll(stranger.user, 1), stranger.query, stranger.focus, stranger.time)
    for_others = market.evaluate(views, market.truth.best(other, 10))
    assert np.nanmean(for_others["ehr@10"]) < np.nanmean(by_click["ehr@10"]) - 0.03


def test_complex_queries_defeat_word_overlap_but_not_the_oracle(market: Market, dataset: Dataset):
    """Ranking by shared words finds plain queries' items and hardly any of complex queries' without named products."""
    views = dataset.page_views[-1_500:]
    words = [set(title.lower().replace("-", " ").split()) for title in dataset.items["title"].to_list()]
    vocabulary = {word: number for number, word in enumerate(sorted(set().union(*words)))}
    has = np.zeros((len(words), len(vocabulary)), np.float32)
    for row, line in enumerate(words):
        has[row, [vocabulary[word] for word in line]] = 1.0
    rare = np.log(len(words) / has.sum(0))
    asked = np.zeros((len(views), len(vocabulary)), np.float32)
    for row, query in enumerate(views["query"].to_list()):
        asked[row, [vocabulary[word] for word in query.replace("-", " ").split() if word in vocabulary]] = 1.0
    ranked = np.argsort(-(asked * rare) @ has.T, 1, kind="stable")[:, :10]
    worth, best = market.evaluate(views, ranked), market.evaluate(views, market.oracle(views))
    plain = (views["query_type"] == "plain").to_numpy()
    assert np.nanmean(worth["ndcg@10"][plain]) > 0.45
    assert np.nanmean(worth["ehr@10"][~plain]) < 0.1
    assert np.nanmean(best["ehr@10"][~plain]) > np.nanmean(worth["ehr@10"][~plain]) + 0.3


def test_every_query_type_occurs_and_has_relevant_clicks(market: Market, dataset: Dataset):
    views = dataset.page_views
    assert set(views["query_type"].unique()) == set(QUERY_TYPES)
    clicked = dataset.ragged(views["clicked"])
    level = market.truth.levels(market.visits.query[clicked.owners], clicked.values)
    is_complex = market.truth.queries.kind[market.visits.query[clicked.owners]] > 0
    assert (level[is_complex] == 3).mean() > 0.4
    assert "Audience" in SLOTS


def test_a_word_keeps_its_best_items_by_words_and_popularity():
    """Word 0 is in four items and keeps two; words 1 and 2 have no more than two."""
    weights = csr_matrix(np.array([[4, 2, 1, 3], [0, 5, 0, 0], [1, 0, 0, 1]], np.float32))
    # 4 x (1, .5, .25, .75) + popularity: 4, 5, 1, 3.2.
    popularity = np.array([0, 3, 0, 0.2], np.float32)
    kept = best_postings(weights, popularity, 2)
    np.testing.assert_array_equal(kept.toarray(), [[4, 2, 0, 0], [0, 5, 0, 0], [1, 0, 0, 1]])
    np.testing.assert_array_equal(best_postings(weights, popularity * 0, 2).toarray()[0], [4, 0, 0, 3])
    np.testing.assert_array_equal(best_postings(weights, popularity, 4).toarray(), weights.toarray())
