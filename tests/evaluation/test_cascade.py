from datetime import UTC, datetime

import numpy as np
import pytest

from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.requests import Requests
from onesearch.evaluation import cascade as cascades
from onesearch.evaluation.baselines import Baselines, tuning_score
from onesearch.evaluation.cascade import (
    Cascade,
    CascadeSettings,
    Recall,
    judged_table,
    page_view_lags,
    ranking_table,
)
from onesearch.evaluation.cascade_features import FEATURES, CascadeFeatures
from onesearch.search.dense_search import DenseSearcher
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.popularity_search import PopularitySearcher

CONFIG = CascadeSettings(trees=40, min_leaf=5, leaves=7, threads=1, negatives=20)


def features_of(shop, page_views=None, requests=None, targets=None):
    page_views = shop.parts.train if page_views is None else page_views
    return CascadeFeatures(
        shop.items,
        ClickStatistics.from_page_views(page_views, shop.items),
        LexicalSearcher.build(shop.items),
        DenseSearcher(shop.vectors, shop.encode),
        requests or shop.requests["train"],
        targets or shop.targets["train"],
        now=page_views["time"].max(),
    )


@pytest.fixture(scope="module")
def features(shop):
    return features_of(shop)


@pytest.fixture(scope="module")
def cascade(shop, features):
    return Cascade.train(
        features,
        shop.requests["train"],
        shop.targets["train"],
        shop.requests["valid"],
        shop.targets["valid"],
        CONFIG,
        page_view_lags(shop.parts.train),
        grid=({},),
    )


def test_the_cascade_learns_the_taste_that_single_searchers_cannot_see(shop, cascade):
    clicked = shop.targets["test"].clicked
    reached = tuning_score(cascade.rank(shop.requests["test"], 10).items, clicked)
    single = Baselines(shop.items, shop.statistics, shop.vectors, shop.encode).methods()
    best = max(tuning_score(one.rank(shop.requests["test"], 10).items, clicked) for one in single.values())
    assert reached > best + 0.1
    assert "same brand" in list(cascade.importances())[:3]


def test_hits_do_not_depend_on_the_batch_and_strangers_are_served(shop, cascade):
    requests = shop.requests["test"].select(np.arange(9))
    together = cascade.rank(requests, 5).items
    alone = np.concatenate([cascade.rank(requests.select(np.array([i])), 5).items for i in range(9)])
    np.testing.assert_array_equal(together, alone)
    stranger = cascade.rank(Requests.anonymous(["hammer", "no such word"]), 5).items
    assert (stranger[0] % 4 == 0).all() and (stranger[1] >= 0).all()  # nothing matches: popular items


def test_leave_one_out_equals_counting_without_the_page_view(shop, features):
    """Features of a training page view must equal those of a log that does not hold it."""
    for number in (3, 200):
        rows = np.array([number])
        others = np.delete(np.arange(len(shop.parts.train)), number)
        without = features_of(
            shop,
            shop.parts.train[others.tolist()],
            shop.requests["train"].select(others),
            shop.targets["train"].select(others),
        )
        # Rates at large, which smooth those of items, are left as they are: counts and rates must agree exactly. The
        # lifts of words and profiles are smoothed by totals that move a little.
        without._click_rate, without._order_rate = features._click_rate, features._order_rate
        asked = shop.requests["train"].select(rows)
        items = np.arange(60, dtype=np.int32)[None]
        left_out = features.compute(asked, items, shop.targets["train"].select(rows))
        expected = without.compute(asked, items)
        differs = [
            name
            for i, name in enumerate(FEATURES)
            if not np.allclose(
                left_out[..., i],
                expected[..., i],
                rtol=0.02 if name.startswith(("profile", "word")) else 1e-5,
                atol=0.02 if name.startswith(("profile", "word")) else 1e-6,
                equal_nan=True,
            )
        ]
        assert differs == []
        counted = features.compute(asked, items)[..., FEATURES.index("query clicks")]
        assert (counted != left_out[..., FEATURES.index("query clicks")]).sum() == 1


def test_features_of_taste_by_hand(shop, features):
    """Brand, category and price of the shopper's clicks against those of every item of the shop."""
    requests = shop.requests["test"].select(np.array([5]))
    history = requests.clicked[0][requests.clicked[0] >= 0].tolist()
    items = np.arange(60, dtype=np.int32)
    found = dict(zip(FEATURES, np.moveaxis(features.compute(requests, items[None])[0], -1, 0), strict=True))
    brands, prices = shop.items["brand"].to_list(), np.log1p(shop.items["price"].to_numpy())
    assert len(history) > 3 and found["history"] == pytest.approx(np.log1p(len(history)))
    share = [np.mean([brands[past] == brand for past in history]) for brand in brands]
    assert found["same brand"] == pytest.approx(share, abs=1e-6)
    assert found["clicked before"] == pytest.approx([history.count(item) for item in items.tolist()])
    assert found["price in page"] == pytest.approx(prices - prices.mean(), abs=1e-5)
    assert found["price to taste"] == pytest.approx(prices - prices[history].mean(), abs=1e-5)
    likeness = shop.vectors @ shop.vectors[history[-10:]].T
    assert found["last click similarity"] == pytest.approx(likeness[:, -1], abs=1e-5)
    assert found["mean click similarity"] == pytest.approx(likeness.mean(1), abs=1e-5)
    assert found["largest click similarity"] == pytest.approx(likeness.max(1), abs=1e-5)


def test_click_rates_of_candidates_by_hand(shop, features):
    """Rates shrunk towards those of the whole log."""
    train = shop.parts.train
    shown, clicked, ordered = (
        np.array(train[n].explode().drop_nulls().str.strip_prefix("i").cast(int))
        for n in ("shown", "clicked", "ordered")
    )
    shows, clicks, orders = (np.bincount(events, minlength=60) for events in (shown, clicked, ordered))
    items = np.arange(60, dtype=np.int32)
    values = features.compute(shop.requests["test"].select(np.array([0])), items[None])[0]
    found = dict(zip(FEATURES, values.T, strict=True))
    rate = clicks.sum() / shows.sum()
    assert found["item CTR"] == pytest.approx((clicks + 20 * rate) / (shows + 20), rel=1e-5)
    rate = orders.sum() / clicks.sum()
    assert found["item orders per click"] == pytest.approx((orders + 10 * rate) / (clicks + 10), rel=1e-5)
    assert found["item clicks"] == pytest.approx(np.log1p(clicks), rel=1e-5)


def test_recall_is_four_lists_without_repetitions(shop, features, monkeypatch):
    """Most clicked, popular, near and matching items, in this order; a training page view's own click is no source."""
    requests = shop.requests["train"].select(np.arange(40))
    clicked = shop.targets["train"].select(np.arange(40)).clicked
    for name, depth in (("_CLICKED", 3), ("_POPULAR", 2), ("_DENSE", 2), ("_LEXICAL", 4)):
        monkeypatch.setattr(f"onesearch.evaluation.cascade.{name}", depth)
    recall = Recall(features, CONFIG)
    popular = PopularitySearcher(features.lexical, features.statistics.clicked, features.smoothing)
    lists = [
        features.statistics.most_clicked(features.statistics.query_numbers(requests.query), 3, clicked),
        popular.rank(requests, 2).items,
        features.dense.rank(requests, 2).items,
        features.lexical.rank(requests, 4).items,
    ]
    found = recall(requests, clicked)
    for row in range(40):
        merged = dict.fromkeys(item for part in lists for item in part[row].tolist() if item >= 0)
        assert [item for item in found[row].tolist() if item >= 0] == list(merged)
    assert not np.array_equal(found, recall(requests))


def test_training_rows_hold_clicked_candidates_with_their_labels(shop, features):
    rows = np.arange(60)
    targets = shop.targets["train"].select(rows)
    table = ranking_table(Recall(features, CONFIG), shop.requests["train"].select(rows), targets, 6, True, 0)
    assert len(table.groups) == 60 and table.groups.sum() == len(table.labels) == len(table.features)
    assert (table.groups == 7).all() and (table.labels > 0).sum() == 60
    assert (table.labels == 2).sum() == (targets.ordered.lengths > 0).sum()


def test_all_training_page_views_with_a_click_teach_the_ranker_and_none_of_them_lies_in_memory(
    shop, features, tmp_path, monkeypatch
):
    seen, fit = [], cascades.fit_ranker

    def spy(table, check, config):
        files = sorted(path.name for path in tmp_path.glob(".cascade.*/*"))
        seen.append((table, len(table.groups), files, np.array(table.features)))
        return fit(table, check, config)

    monkeypatch.setattr(cascades, "fit_ranker", spy)
    arguments = [features, shop.requests["train"], shop.targets["train"], shop.requests["valid"], shop.targets["valid"]]
    few = CONFIG.updated(trees=5)
    models = [
        Cascade.train(*arguments, config, folder=folder, grid=({},)).ranker.model_to_string()
        for config, folder in ((few, tmp_path), (few, None), (few.updated(page_views=50), tmp_path))
    ]
    clicks = int((shop.targets["train"].clicked.lengths > 0).sum())
    (filed, all_of_them, files, kept), (held, others, no_files, features_held), (_, drawn, *_) = seen
    assert CascadeSettings().page_views is None
    assert clicks * 0.9 < all_of_them <= clicks and others == all_of_them and drawn <= 50 < all_of_them
    # The same numbers, the same trees; the file is gone afterwards.
    assert isinstance(filed.features, np.memmap) and not isinstance(held.features, np.memmap)
    assert files == ["features"] and no_files == [] and not list(tmp_path.iterdir())
    np.testing.assert_array_equal(kept, features_held)
    assert models[0] == models[1] != models[2]


def test_judged_rows_are_the_judged_items_among_what_recall_finds(shop, features):
    queries = shop.requests["train"].query[:3]
    every, asked = Recall(features, CONFIG), Requests.anonymous(queries)

    class Few:
        """Recall that leaves out one of the judged items."""

        def __init__(self):
            self.features = features

        def __call__(self, requests):
            return every(requests)[:, :5]

    recall = Few()
    found = recall(asked)
    judged = [[int(found[0, 2]), int(found[0, 0])], [int(every(asked)[1, 7])], []]
    table = judged_table(recall, queries, Ragged.from_lists(judged), Ragged.from_lists([[0, 3], [2], []]))
    assert table.groups.tolist() == [2, 1] and table.labels.tolist() == [0, 3, 2]
    # Their features are those beside recall's candidates, as in serving: judged items alone would have other places.
    first = judged[0] + [item for item in found[0].tolist() if item >= 0 and item not in judged[0]]
    whole = features.compute(asked.select(np.array([0])), np.array([first], np.int32))[0]
    np.testing.assert_allclose(table.features[:2], whole[:2], rtol=1e-6)
    alone = features.compute(asked.select(np.array([0])), np.array([judged[0]], np.int32))[0]
    assert not np.allclose(alone, whole[:2], equal_nan=True)


def test_a_judge_moves_judged_items_up_by_its_weight(shop, features, cascade, tmp_path):
    """Judgments that call the dear things right: without the judge they do not lead, with a heavy one they do."""
    queries = shop.requests["train"].query[:60]
    found = Recall(features, CONFIG)(Requests.anonymous(queries))
    price = np.nan_to_num(features.items.price)
    lists = [[item for item in row.tolist() if item >= 0] for row in found]
    levels = [[int(3 * (np.sum(price[row] < price[item])) / len(row)) for item in row] for row in lists]
    given = (queries, Ragged.from_lists(lists), Ragged.from_lists(levels))
    requests = shop.requests["test"]

    def dear(one):
        return price[one.rank(requests, 3).items].mean()

    heavy, light = (cascade.with_judge(*given, relevance) for relevance in (100.0, 1e-9))
    assert dear(heavy) > dear(cascade) + 0.1
    np.testing.assert_array_equal(light.rank(requests, 3).items, cascade.rank(requests, 3).items)
    heavy.save(tmp_path)
    again = Cascade.load(tmp_path, features)
    np.testing.assert_array_equal(again.rank(requests, 3).items, heavy.rank(requests, 3).items)
    with pytest.raises(ValueError, match="five training queries or more, not 4"):
        cascade.with_judge(queries[:4], *(one.select(np.arange(4)) for one in given[1:]), 1.0)


def test_held_out_vectors_replace_the_encoder_for_training_rows(shop, features):
    rows = np.arange(20)
    targets = shop.targets["train"].select(rows)
    asked, column = shop.requests["train"].select(rows), FEATURES.index("dense")
    arguments = (Recall(features, CONFIG), asked, targets, None, True, 0, None)
    own = ranking_table(*arguments, shop.encode(asked.query))
    np.testing.assert_array_equal(own.features, ranking_table(*arguments).features)
    other = ranking_table(*arguments, -shop.encode(asked.query))
    assert other.features[:, column].mean() < 0 < own.features[:, column].mean()


def test_items_not_listed_yet_are_no_negatives(shop, features):
    lags = np.full(10, 50.0)  # items are up to 60 days older than the first page view
    table = ranking_table(
        Recall(features, CONFIG),
        shop.requests["train"].select(np.arange(10)),
        shop.targets["train"].select(np.arange(10)),
        None,
        True,
        0,
        lags,
    )
    ages = table.features[:, FEATURES.index("age")]
    assert ages.min() >= 0 and len(table.labels) < 10 * 40
    times = shop.parts.train["time"]
    assert page_view_lags(shop.parts.train)[0] == pytest.approx((times.max() - times[0]).total_seconds() / 86_400)
    assert datetime(2024, 1, 1, tzinfo=UTC) <= times[0]


def test_save_is_text_and_load_ranks_the_same(shop, features, cascade, tmp_path):
    cascade.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"ranker.txt", "cascade.json"}
    again = Cascade.load(tmp_path, features)
    requests = shop.requests["test"]
    np.testing.assert_array_equal(again.rank(requests, 10).items, cascade.rank(requests, 10).items)
    text = (tmp_path / "cascade.json").read_text().replace("bm25 place", "other")
    (tmp_path / "cascade.json").write_text(text)
    with pytest.raises(ValueError, match="other features"):
        Cascade.load(tmp_path, features)
