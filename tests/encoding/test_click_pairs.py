import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from onesearch.common.ragged import Ragged
from onesearch.encoding import click_pairs
from onesearch.encoding.click_pairs import Edges, cooccurring_queries, mine_pairs, query_weights, ranked_triples, swing
from onesearch.encoding.pseudo_queries import pseudo_queries


def edges(left, right, weight):
    return Edges(np.array(left, np.int64), np.array(right, np.int64), np.array(weight, np.float32))


def plain_strongest(together: sp.coo_matrix, weight: np.ndarray, per_end: int) -> Edges:
    """Pairs left < right of a symmetric matrix that are among the strongest of either of their ends."""
    upper = together.row < together.col
    left, right = together.row[upper].astype(np.int64), together.col[upper].astype(np.int64)
    found = Edges(left, right, weight[upper].astype(np.float32))
    kept = np.zeros(len(found), bool)
    for ends in (found.left, found.right):
        order = np.lexsort((-found.weight, ends))
        sorted_ends = ends[order]
        rank = np.arange(len(order)) - np.searchsorted(sorted_ends, sorted_ends)
        kept[order[rank < per_end]] = True
    return found.select(kept)


def test_a_query_is_drawn_by_the_square_root_of_its_frequency():
    left, counts = np.array([0, 0, 1]), np.array([1.0, 3.0, 16.0], np.float32)
    np.testing.assert_allclose(query_weights(left, counts), [0.5, 1.5, 4.0])  # sums: sqrt(4), sqrt(16)


def test_swing_finds_items_of_common_baskets_only():
    found = swing(Ragged.from_lists([[0, 1], [0, 1], [2, 3], [0, 2]]), 4)
    pairs = dict(zip(zip(found.left.tolist(), found.right.tolist(), strict=True), found.weight.tolist(), strict=True))
    assert set(pairs) == {(0, 1), (2, 3), (0, 2)} and pairs[(0, 1)] > pairs[(0, 2)]


def test_swing_keeps_the_strongest_neighbours():
    baskets = [[0, i] for i in range(1, 9)] + [[0, 1]] * 3
    found = swing(Ragged.from_lists(baskets), 9, per_item=1)
    assert (0, 1) in set(zip(found.left.tolist(), found.right.tolist(), strict=True))


def test_queries_that_share_clicks_are_pairs():
    found = cooccurring_queries(edges([0, 1, 2], [5, 5, 6], [4, 1, 1]), 3, 7)
    assert (found.left.tolist(), found.right.tolist()) == ([0], [1]) and found.weight[0] == pytest.approx(1.0)


@pytest.mark.parametrize("at_once", [1, 300, 10**9])
def test_products_part_by_part_are_those_of_the_whole_matrix(at_once, monkeypatch):
    """In the same order, with the same bits; many ties, and queries without a click."""
    monkeypatch.setattr(click_pairs, "_PRODUCTS_AT_ONCE", at_once)
    rng = np.random.default_rng(2)
    query, item = np.nonzero(rng.random((60, 40)) < 0.15)
    clicked = edges(query * 2, item, rng.integers(1, 3, len(query)))
    given = []
    monkeypatch.setattr(
        click_pairs, "_strongest_products", lambda left, right, most: given.append((left, right, most)) or Edges()
    )
    cooccurring_queries(clicked, 120, 40, per_query=3)
    monkeypatch.undo()
    monkeypatch.setattr(click_pairs, "_PRODUCTS_AT_ONCE", at_once)
    ((left, right, most),) = given
    together = (left @ right).tocoo()
    expected = plain_strongest(together, together.data, most)
    found = click_pairs._strongest_products(left, right, most)
    assert len(expected) > 60
    for name in ("left", "right", "weight"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name


@pytest.mark.parametrize("at_once", [1, 200, 10**9])
def test_swing_part_by_part_is_that_of_the_whole_matrix(at_once, monkeypatch):
    monkeypatch.setattr(click_pairs, "_PRODUCTS_AT_ONCE", at_once)
    rng = np.random.default_rng(5)
    baskets = [rng.choice(50, rng.integers(0, 9), replace=False).tolist() for _ in range(80)]
    # All products at once, and whole.
    matrix = sp.lil_matrix((80, 50), dtype=np.float32)
    for basket, items in enumerate(baskets):
        matrix[basket, items] = 1
    matrix = matrix.tocsr()
    holders, size = np.asarray(matrix.sum(0)).ravel(), np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)
    weight = 1 / (1 + (matrix @ np.maximum(holders - 1, 0)) / 79) / np.sqrt(size)
    together = (matrix.T @ (sp.diags(weight.astype(np.float32)) @ matrix)).tocoo()
    together.data = together.data / np.sqrt(holders[together.row] * holders[together.col])
    expected, found = plain_strongest(together, together.data, 4), swing(Ragged.from_lists(baskets), 50, per_item=4)
    assert len(found) > 100
    for name in ("left", "right", "weight"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-6)


def test_of_an_item_that_many_queries_clicked_the_most_frequent_become_pairs(monkeypatch):
    """Item 0 has queries 0 to 4 with 1, 9, 4, 9 and 4 clicks; 3 are kept: 1, 3 and the first of those with 4.

    That query 3 clicked another item far more often makes no difference.
    """
    clicked = edges([0, 1, 2, 3, 4, 0, 4, 3], [0, 0, 0, 0, 0, 1, 1, 2], [1, 9, 4, 9, 4, 2, 2, 900])
    assert len(as_dict(cooccurring_queries(clicked, 5, 3))) == 10
    monkeypatch.setattr(click_pairs, "_MOST_QUERIES", 3)
    assert set(as_dict(cooccurring_queries(clicked, 5, 3))) == {(1, 2), (1, 3), (2, 3), (0, 4)}
    monkeypatch.setattr(click_pairs, "_MOST_QUERIES", 5)
    assert len(as_dict(cooccurring_queries(clicked, 5, 3))) == 10


def test_triples_are_ordered_above_clicked_above_shown():
    table = edges([0, 0, 0, 1], [1, 2, 3, 4], [1, 1, 1, 1])
    found = ranked_triples(table, np.array([0, 1, 2, 2]), 200, 0)
    seen = set(zip(found.query.tolist(), found.better.tolist(), found.worse.tolist(), strict=True))
    assert seen == {(0, 2, 1), (0, 3, 1), (0, 3, 2)}


def test_pairs_from_a_log():
    items = pl.DataFrame({"item_id": ["a", "b", "c"], "title": ["A", "B", "C"]})
    views = pl.DataFrame(
        {
            "user_id": ["u", "u", None],
            "query": ["Lamp", "light", "sofa"],
            "shown": [["a", "b"], ["a"], ["c", "b"]],
            "clicked": [["a"], ["a", "b"], ["c"]],
            "ordered": [[], ["b"], ["c"]],
        }
    )
    judged = pl.DataFrame({"query": ["LAMP", "test query"], "item_id": ["b", "a"], "level": [1, 3]})
    pairs = mine_pairs(views, items, ["A", "B", "C"], judged)
    lamp, light, sofa = (pairs.queries.index(q) for q in ("lamp", "light", "sofa"))
    clicks = set(zip(pairs.q2i.left.tolist(), pairs.q2i.right.tolist(), strict=True))
    assert clicks == {(lamp, 0), (light, 0), (light, 1), (sofa, 2)}
    assert {*pairs.q2q.left.tolist(), *pairs.q2q.right.tolist()} == {lamp, light}
    assert (pairs.i2i.left.tolist(), pairs.i2i.right.tolist()) == ([0], [1])
    ranked = set(zip(*(part.tolist() for part in (pairs.rank.query, pairs.rank.better, pairs.rank.worse)), strict=True))
    assert ranked == {(lamp, 0, 1), (light, 1, 0), (sofa, 2, 1)}
    # A judgment of a query outside the training log is not used.
    assert pairs.relevance.left.tolist() == [lamp] and pairs.relevance.weight.tolist() == [1.0]


def test_of_a_long_log_whole_queries_are_drawn(monkeypatch):
    """Forty queries with four items shown each, one clicked and one ordered: of those drawn, every pair is there."""
    n = 40
    items = pl.DataFrame({"item_id": list("abcd"), "title": list("ABCD")})
    views = pl.DataFrame(
        {
            "user_id": [f"u{i % 7}" for i in range(2 * n)],
            "query": [f"q{i % n}" for i in range(2 * n)],
            "shown": [["a", "b"], ["c", "d"]] * n,
            "clicked": [["a"], ["c"]] * n,
            "ordered": [["a"], []] * n,
        }
    )
    queries = pl.Series(sorted({f"q{i}" for i in range(n)}))
    whole, levels = click_pairs._levels(views, items, queries, 0)
    every = {(query, item): level for query, item, level in zip(whole.left, whole.right, levels, strict=True)}
    assert len(every) == 2 * n and sorted(set(every.values())) == [0, 1, 2]
    monkeypatch.setattr(click_pairs, "_MOST_EVENTS", 80)  # of 160
    some, of_some = click_pairs._levels(views, items, queries, 0)
    drawn = {(query, item): level for query, item, level in zip(some.left, some.right, of_some, strict=True)}
    kept = {query for query, _ in drawn}
    assert len(kept) == 20 and drawn == {pair: level for pair, level in every.items() if pair[0] in kept}
    other, _ = click_pairs._levels(views, items, queries, 1)
    assert set(other.left.tolist()) != set(some.left.tolist())


def test_dropping_queries_drops_all_their_pairs():
    views = pl.DataFrame(
        {
            "user_id": ["u", "v"],
            "query": ["lamp", "light"],
            "shown": [["a", "b"], ["a"]],
            "clicked": [["a"], ["a"]],
            "ordered": [["a"], []],
        }
    )
    pairs = mine_pairs(views, pl.DataFrame({"item_id": ["a", "b"], "title": ["A", "B"]}), ["A", "B"])
    kept = np.array([query != "lamp" for query in pairs.queries])
    left = pairs.with_queries(kept)
    assert len(left.q2i) == 1 and len(left.q2q) == 0 and len(left.rank) == 0 and len(pairs.rank) > 0


def test_pseudo_queries_are_parts_of_their_title():
    titles = ["Red Steel Lamp 60 watt", "红色大衣", ""]
    found = pseudo_queries(titles * 50, 0, typos=0.0)
    assert found == pseudo_queries(titles * 50, 0, typos=0.0) != pseudo_queries(titles * 50, 1, typos=0.0)
    for title, text in zip(titles * 50, found, strict=True):
        words = [*title] if title.startswith("红") else title.lower().split()
        rest = iter(words)
        assert all(part in rest for part in ([*text] if title.startswith("红") else text.split()))
    assert any(len(text.split()) == 1 for text in found) and any(len(text.split()) > 3 for text in found)


def test_pseudo_queries_can_hold_typos():
    words = set(["red", "steel", "lamp", "stand"])
    wrong = [t for t in pseudo_queries(["red steel lamp stand"] * 300, 0, typos=1.0) if set(t.split()) - words]
    assert len(wrong) > 100


def plain_swing(baskets, n_items, alpha=1.0):
    """The mean-field form, one pair of items after another."""
    sets = [set(basket) for basket in baskets]
    holders = [sum(i in basket for basket in sets) for i in range(n_items)]
    weight = [
        1
        / (alpha + sum(len(one & other) for j, other in enumerate(sets) if j != i) / (len(sets) - 1))
        / len(one) ** 0.5
        for i, one in enumerate(sets)
    ]
    found = {}
    for i in range(n_items):
        for j in range(i + 1, n_items):
            total = sum(w for w, basket in zip(weight, sets, strict=True) if i in basket and j in basket)
            if total:
                found[i, j] = total / (holders[i] * holders[j]) ** 0.5
    return found


def as_dict(found):
    ends = zip(found.left.tolist(), found.right.tolist(), strict=True)
    return dict(zip(ends, found.weight.tolist(), strict=True))


def test_swing_is_the_plain_sum_over_baskets():
    rng = np.random.default_rng(0)
    baskets = [rng.choice(7, rng.integers(1, 6)).tolist() for _ in range(12)]  # some hold an item twice
    assert as_dict(swing(Ragged.from_lists(baskets), 7)) == pytest.approx(plain_swing(baskets, 7), rel=1e-5)


def test_similarity_of_queries_is_the_cosine_of_damped_click_vectors():
    rng = np.random.default_rng(1)
    clicks = rng.integers(0, 4, (5, 6))
    query, item = np.nonzero(clicks)
    found = as_dict(cooccurring_queries(edges(query, item, clicks[query, item]), 5, 6))
    vectors = np.sqrt(clicks) / np.sqrt(np.maximum((clicks > 0).sum(0), 1))
    cosine = vectors @ vectors.T / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    expected = {(i, j): cosine[i, j] for i in range(5) for j in range(i + 1, 5) if cosine[i, j] > 0}
    assert found == pytest.approx(expected, rel=1e-5)
