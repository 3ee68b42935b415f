from datetime import UTC, datetime

import numpy as np
import pytest

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.requests import Requests
from onesearch.evaluation.baselines import Baselines, tuning_score
from onesearch.evaluation.cascade import Cascade, CascadeSettings, Recall, page_view_lags, ranking_table
from onesearch.evaluation.cascade_features import FEATURES, CascadeFeatures
from onesearch.search.dense_search import DenseSearcher
from onesearch.search.lexical_search import LexicalSearcher

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
        asked = shop.requests["train"].select(rows)
        items = np.arange(60, dtype=np.int32)[None]
        left_out = features.compute(asked, items, shop.targets["train"].select(rows))
        expected = without.compute(asked, items)
        differs = [
            name
            for i, name in enumerate(FEATURES)
            if not np.allclose(left_out[..., i], expected[..., i], rtol=0.02, atol=0.02, equal_nan=True)
        ]  # rates at large move a little
        assert differs == []
        counted = features.compute(asked, items)[..., FEATURES.index("query clicks")]
        assert (counted != left_out[..., FEATURES.index("query clicks")]).sum() == 1


def test_training_rows_hold_clicked_candidates_with_their_labels(shop, features):
    rows = np.arange(60)
    targets = shop.targets["train"].select(rows)
    table = ranking_table(Recall(features, CONFIG), shop.requests["train"].select(rows), targets, 6, True, 0)
    assert len(table.groups) == 60 and table.groups.sum() == len(table.labels) == len(table.features)
    assert (table.groups == 7).all() and (table.labels > 0).sum() == 60
    assert (table.labels == 2).sum() == (targets.ordered.lengths > 0).sum()


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
