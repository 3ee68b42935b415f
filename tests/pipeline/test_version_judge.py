"""Which engine is better by clicks on what one of them showed: by hand, beside a plain twin, on made-up shoppers."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.common.artefact import write_manifest
from onesearch.common.ragged import Ragged
from onesearch.pipeline.version_judge import LEAST_SEEN, Judgement, examination, page_gains, same_items
from onesearch.training.click_rates import RATES, ClickRates

SEEN = np.array([1.0, 0.5, 0.05])


def plain_gains(ranked, shown, clicked, examined):
    """Page by page and click by click."""
    gains, weights = [], []
    for order, page, hits in zip(ranked, shown, clicked, strict=True):
        places = [item for item in order if item >= 0]
        there = sorted((one for one in page if one in places), key=places.index)
        rest = len(page) - len(there)
        gain = weight = 0.0
        for item in set(hits):
            w, place = 1.0, places.index(item) + 1 if item in places else None
            if item in page:
                w = 1 / max(examined[min(page.index(item), len(examined) - 1)], LEAST_SEEN)
                place = there.index(item) + 1 if item in there else len(there) + (rest + 1) / 2
            gain += w / np.log2(1 + place) if place else 0.0
            weight += w
        gains.append(gain if weight else np.nan)
        weights.append(weight)
    return gains, weights


def test_what_clicks_gain_by_hand():
    ranked = np.array([[7, 3, 9, -1], [1, 2, -1, -1], [5, 6, -1, -1], [4, 8, 0, -1]])
    shown = Ragged.from_lists([[9, 3, 4], [2, 3, 4], [], [8]])
    clicked = Ragged.from_lists([[9], [4], [6], []])
    gains, weights = page_gains(ranked, shown, clicked, SEEN)
    # 9 is behind 3 among what was shown, and 7, which nobody saw, is no matter; it was clicked at the first rank.
    assert gains[0] == pytest.approx(1 / np.log2(3)) and weights[0] == 1
    # 2 is ranked; 3 and 4 share the places behind it, 2.5; the third rank is seen by fewer than a tenth.
    assert gains[1] == pytest.approx(10 / np.log2(3.5)) and weights[1] == 10
    # Nothing says what was shown: the place in the ranking counts.
    assert gains[2] == pytest.approx(1 / np.log2(3)) and weights[2] == 1
    assert np.isnan(gains[3]) and weights[3] == 0


@given(st.data())
def test_gains_are_those_of_the_plain_way(data):
    items = st.integers(0, 8)
    page = st.lists(items, unique=True, max_size=6)
    n, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 7))
    orders = [data.draw(page)[:width] for _ in range(n)]
    ranked = np.array([order + [-1] * (width - len(order)) for order in orders])
    shown, clicked = ([data.draw(page) for _ in range(n)] for _ in range(2))
    found = page_gains(ranked, Ragged.from_lists(shown), Ragged.from_lists(clicked), SEEN)
    assert np.allclose(found, plain_gains(ranked.tolist(), shown, clicked, SEEN), equal_nan=True)


def test_the_better_order_is_found_on_pages_of_the_worse_one():
    """Shoppers who look less far down click what the served engine showed; the other orders by what they like."""
    rng = np.random.default_rng(0)
    n, k = 4000, 10
    liked = rng.random((n, k)).astype(np.float32)  # of the items that the served engine shows, in its order
    seen = np.arange(1, k + 1) ** -0.7
    clicks = (rng.random((n, k)) < seen) & (rng.random((n, k)) < 0.3 * liked)
    served = np.arange(n * k).reshape(n, k)
    better = np.take_along_axis(served, (-(liked + 0.5 * rng.random((n, k)))).argsort(1), 1)
    chance = np.take_along_axis(served, rng.random((n, k)).argsort(1), 1)
    shown = Ragged.from_lists(served.tolist())
    clicked = Ragged.from_lists([row[hit].tolist() for row, hit in zip(served, clicks, strict=True)])

    def gain(ranked, examined):
        gains, weights = page_gains(ranked, shown, clicked, examined)
        return np.nansum(gains) / weights.sum()

    assert gain(better, seen) > gain(served, seen) + 0.02
    # Any order by chance is as good as that of the served engine; without the correction it seems much worse.
    assert gain(chance, seen) == pytest.approx(gain(served, seen), abs=0.012)
    assert gain(chance, np.ones(1)) < gain(served, np.ones(1)) - 0.05


def test_shared_items_of_first_pages_by_hand():
    before = np.array([[1, 2, -1], [3, -1, -1]])
    assert same_items(before, np.array([[2, 9, 4], [5, 6, 7]])) == pytest.approx(1 / 3)
    assert same_items(before, before) == 1.0 and same_items(before[:0], before[:0]) == 1.0
    long = np.arange(12)[None]
    assert same_items(long, np.roll(long, 2)) == pytest.approx(0.8), "two of the first ten are behind the page"


@pytest.mark.parametrize(
    ("after", "same", "better"), [(0.6, 0.9, True), (0.5, 0.9, False), (0.4, 0.9, False), (0.6, 0.4, False)]
)
def test_a_version_is_better_only_if_more_is_found_with_it(after: float, same: float, better: bool):
    found = Judgement({"gain": 0.5, "hr10": 0.1}, {"gain": after, "hr10": 0.1}, 0.01, same)
    assert found.better is better


def test_how_far_shoppers_look_is_what_the_rewards_found(tmp_path):
    run_data = SimpleNamespace(run=tmp_path, dataset=None)
    ClickRates(SEEN, np.ones(3), np.zeros(0), np.zeros(0)).save(tmp_path / "rewards" / RATES)
    write_manifest(tmp_path / "rewards", {})
    assert examination(run_data).tolist() == SEEN.tolist()


def test_how_far_shoppers_look_is_asked_of_the_log_where_there_are_no_rewards(tmp_path):
    import polars as pl

    def log(shown):
        rows = {"shown": [shown] * 300, "clicked": [["a"] if i % 2 else ["b"] if i % 4 else [] for i in range(300)]}
        views = pl.DataFrame(rows, schema={name: pl.List(pl.String) for name in rows})
        dataset = SimpleNamespace(page_views=views, items=pl.DataFrame({"item_id": ["a", "b"]}))
        return SimpleNamespace(run=tmp_path, dataset=dataset)

    assert examination(log([])).tolist() == [1.0]
    found = examination(log(["a", "b"]))
    assert len(found) == 2 and found[0] == 1.0 > found[1]
