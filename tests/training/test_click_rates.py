import numpy as np
import polars as pl
import pytest

from onesearch.training.click_rates import ClickRates, Impressions


def simulated(n: int, seed: int, attraction: np.ndarray, examination: np.ndarray) -> Impressions:
    """Better items are shown further up, as a real ranking would: the bias that must be taken out."""
    rng = np.random.default_rng(seed)
    item = rng.integers(0, len(attraction), n)
    rank = np.clip(np.round((1 - attraction[item]) * len(examination) + rng.normal(0, 2, n)), 0, len(examination) - 1)
    rank = rank.astype(np.int64)
    clicked = (rng.random(n) < examination[rank]) & (rng.random(n) < attraction[item])
    return Impressions(item, rank, clicked)


TRUE = np.random.default_rng(0).uniform(0.05, 0.6, 200)
SEEN = 1 / np.sqrt(np.arange(1, 9))


def test_a_log_becomes_impressions():
    log = pl.DataFrame({"shown": [["b", "a"], [], ["c"]], "clicked": [["a"], ["b"], ["c"]]})
    found = Impressions.from_page_views(log, pl.Series(["a", "b", "c"]))
    assert found.item.tolist() == [1, 0, 2] and found.rank.tolist() == [0, 1, 0]
    assert found.clicked.tolist() == [False, True, True]


def test_positions_are_taken_out():
    shown = simulated(400_000, 1, TRUE, SEEN)
    rates = ClickRates.from_impressions(shown, 200, prior=1)
    np.testing.assert_allclose(rates.examination, SEEN, atol=0.03)
    assert np.abs(rates.attraction - TRUE).mean() < 0.02
    plain = np.bincount(shown.item, shown.clicked, 200) / np.bincount(shown.item, minlength=200)
    assert np.abs(plain - TRUE).mean() > 0.1  # what counting alone would say


def test_rare_items_are_near_the_average():
    clicked = np.array([True] * 200 + [False] * 800 + [True])
    shown = Impressions(np.array([0] * 1000 + [1]), np.zeros(1001, np.int64), clicked)
    rates = ClickRates.from_impressions(shown, 3, prior=20)
    mean = 201 / 1001
    assert rates.attraction[2] == pytest.approx(mean)  # never shown
    assert rates.attraction[1] == pytest.approx((1 + 20 * mean) / 21)
    assert rates.rate(np.array([[-1, 2]]), 0.1, 0.9).tolist() == [[0.1, pytest.approx(mean)]]


def test_calibration_repairs_bent_rates():
    held_out, fresh = simulated(100_000, 2, TRUE, SEEN), simulated(100_000, 3, TRUE, SEEN)
    rates = ClickRates(SEEN, np.sqrt(TRUE), np.zeros(0), np.zeros(0))  # in the right order, far too high
    calibrated = rates.calibrated(held_out)
    assert calibrated.reliability(fresh).error < 0.02 < 0.08 < rates.reliability(fresh).error
    np.testing.assert_allclose(calibrated.rate(np.arange(200)), TRUE, atol=0.12)
    assert calibrated.rate(np.argsort(TRUE)).tolist() == sorted(calibrated.rate(np.arange(200)))
    assert (np.diff(calibrated.values) >= 0).all()
    table = calibrated.reliability(fresh, 7)
    assert table.n.sum() == 100_000 and len(table.n) == 7 and (np.diff(table.predicted) >= 0).all()
    assert rates.calibrated(Impressions(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool)))) is rates


def test_rates_come_back_from_disk(tmp_path):
    rates = ClickRates.from_impressions(simulated(5_000, 1, TRUE, SEEN), 200).calibrated(
        simulated(5_000, 2, TRUE, SEEN)
    )
    rates.save(tmp_path)
    again = ClickRates.load(tmp_path)
    items = np.arange(200)
    np.testing.assert_array_equal(again.rate(items), rates.rate(items))
    np.testing.assert_array_equal(again.examination, rates.examination)


def test_a_log_without_impressions_is_said():
    with pytest.raises(ValueError, match="R_CTR"):
        ClickRates.from_impressions(Impressions(*(np.zeros(0, kind) for kind in (np.int64, np.int64, bool))), 3)


def test_calibration_by_hand():
    # One item at ranks that are examined always and half the time. Clicks over P(examined) are 1, 0, 0, 2; with weights
    # P(examined)², which is least squares of the clicks themselves, their mean is (1 + 2/4) / (2 + 2/4).
    held_out = Impressions(np.zeros(4, np.int64), np.array([0, 0, 1, 1]), np.array([True, False, False, True]))
    rates = ClickRates(np.array([1.0, 0.5]), np.array([0.3]), np.zeros(0), np.zeros(0)).calibrated(held_out)
    assert rates.rate(np.array([0])).tolist() == [pytest.approx(0.6)]
