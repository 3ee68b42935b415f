import numpy as np
import pytest

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.evaluation.baselines import (
    BM25,
    DENSE,
    FUSED,
    MOST_CLICKED,
    POPULAR,
    Baselines,
    BaselineSettings,
    tune,
    tune_lexical,
    tuning_score,
)
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher


def test_every_baseline_answers_every_request(shop):
    methods = Baselines(shop.items, shop.statistics, shop.vectors, shop.encode).methods()
    assert set(methods) == {BM25, DENSE, FUSED, POPULAR, MOST_CLICKED}
    for name, searcher in methods.items():
        hits = searcher.rank(shop.requests["test"], 10)
        assert hits.items.shape == (len(shop.requests["test"]), 10) and hits.items.dtype == np.int32, name
        real = hits.items >= 0
        assert (np.diff(hits.scores, axis=1)[real[:, 1:]] <= 1e-6).all(), name
        assert tuning_score(hits.items, shop.targets["test"].clicked) > 0.2, name


def test_tuning_reads_only_what_it_is_given_and_its_settings_build_the_baselines(shop):
    settings = tune(
        shop.items, shop.statistics, shop.vectors, shop.encode, shop.requests["valid"], shop.targets["valid"].clicked
    )
    again = tune(
        shop.items, shop.statistics, shop.vectors, shop.encode, shop.requests["valid"], shop.targets["valid"].clicked
    )
    assert settings == again and settings == type(settings).model_validate(settings.model_dump())
    tuned = Baselines(shop.items, shop.statistics, shop.vectors, shop.encode, settings)
    plain = Baselines(shop.items, shop.statistics, shop.vectors, shop.encode)
    requests, clicked = shop.requests["valid"], shop.targets["valid"].clicked
    for name in (BM25, FUSED, POPULAR):
        reached = [tuning_score(one.methods()[name].rank(requests, 10).items, clicked) for one in (tuned, plain)]
        assert reached[0] >= reached[1] - 1e-9, name
    with pytest.raises(ValueError, match="no validation page view has a click"):
        tune(
            shop.items,
            shop.statistics,
            shop.vectors,
            shop.encode,
            Requests.anonymous(["hammer"]),
            Ragged.from_lists([[]]),
        )


def test_the_dense_weight_follows_the_better_searcher(shop):
    noise = np.random.default_rng(0).normal(size=shop.vectors.shape).astype(np.float32)
    settings = tune(
        shop.items, shop.statistics, noise, shop.encode, shop.requests["valid"], shop.targets["valid"].clicked
    )
    assert settings.dense_weight < 0.5


def test_bm25_that_was_tuned_is_the_one_its_settings_build(shop):
    """Queries that brands alone answer: another set of fields is taken, and its own texts are counted."""
    brands = shop.items["brand"].to_list()
    rows = [row for row, brand in enumerate(brands) if brand][:40]
    requests = Requests.anonymous([brands[row] for row in rows])
    wanted = Ragged.from_lists([[other for other, brand in enumerate(brands) if brand == brands[row]] for row in rows])
    tuned = tune_lexical(shop.items, LexicalSettings(fields=("title",)), requests, wanted)
    assert "brand" in tuned.config.fields
    again = LexicalSearcher.build(shop.items, tuned.config)
    found, expected = (searcher.rank(requests, 20) for searcher in (tuned, again))
    np.testing.assert_array_equal(found.items, expected.items)
    np.testing.assert_array_equal(found.scores, expected.scores)
    # What is tuned already is not tuned again.
    outcomes = shop.targets["valid"].clicked
    arguments = (shop.items, shop.statistics, shop.vectors, shop.encode, shop.requests["valid"], outcomes)
    base = BaselineSettings(lexical=tuned.config)
    assert tune(*arguments, base, lexical=tuned).lexical == tuned.config
