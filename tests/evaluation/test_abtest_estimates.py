import numpy as np
import polars as pl
import pytest
from scipy.stats import kstest

from onesearch.evaluation.abtest_estimates import (
    GROUP_METRICS,
    METRICS,
    SUMS,
    PageViewGroups,
    ShopperSums,
    aa_p_values,
    assign_arms,
    detectable_lift,
    keep_items,
    lifts_by_group,
    paired_lifts,
    power,
    split_lifts,
)

LOG = pl.DataFrame(
    {
        "user_id": ["u1", "u1", "u2", None],
        "shown": [["a", "b"], ["a"], ["b", "c"], ["a"]],
        "clicked": [["a", "b"], [], ["c"], ["a"]],
        "ordered": [["b"], [], [], ["a"]],
    }
)


def simulated(n: int, seed: int, lift: float = 0.0, arm: np.ndarray | None = None, tastes: int = 0) -> ShopperSums:
    """Shoppers with very different habits; ``lift`` acts on clicks and orders of arm 1, or of all without arms."""
    habits = np.random.default_rng([tastes, 99])
    activity, rate = habits.gamma(1.0, 3.0, n) + 0.2, habits.beta(2, 8, n)
    rng = np.random.default_rng(seed)
    pages = 1 + rng.poisson(activity)
    times = 1 + lift * (np.ones(n) if arm is None else arm)
    clicks = rng.binomial(10 * pages, np.minimum(rate * times, 1))
    orders = rng.binomial(clicks, 0.1)
    columns = {
        "shoppers": np.ones(n),
        "pages": pages,
        "impressions": 10 * pages,
        "clicks": clicks,
        "clicked pages": np.minimum(clicks, pages),
        "ordered pages": np.minimum(orders, pages),
        "orders": orders,
        "buyers": orders > 0,
        "GMV": orders * rng.gamma(2.0, 10.0, n),
    }
    return ShopperSums([f"u{i}" for i in range(n)], np.stack([columns[name] for name in SUMS], 1).astype(float))


def test_totals_by_hand():
    found = ShopperSums.from_page_views(LOG, {"b": 5.0, "a": 100.0})
    assert found.shoppers == ["u1", "u2"]  # nobody knows whose the last page view is
    rows = [dict(zip(SUMS, row, strict=True)) for row in found.values.tolist()]
    assert rows[0] == {
        "shoppers": 1,
        "pages": 2,
        "impressions": 3,
        "clicks": 2,
        "clicked pages": 1,
        "ordered pages": 1,
        "orders": 1,
        "buyers": 1,
        "GMV": 5,
    }
    assert rows[1] == {
        "shoppers": 1,
        "pages": 1,
        "impressions": 2,
        "clicks": 1,
        "clicked pages": 1,
        "ordered pages": 0,
        "orders": 0,
        "buyers": 0,
        "GMV": 0,
    }
    assert found.ratio("item CTR") == 3 / 5 and found.ratio("page CTR") == 2 / 3 and found.ratio("GMV") == 2.5
    some = ShopperSums.from_page_views(LOG, shoppers=["u2", "u3"], kept=np.array([True, False, False, True]))
    assert some.shoppers == ["u2", "u3"] and some.column("pages").tolist() == [0, 0]
    assert some.column("shoppers").tolist() == [1, 1]


def test_arms_are_stable_even_and_independent():
    names = [f"u{i}" for i in range(20_000)]
    arm = assign_arms(names, "test 1")
    assert arm[:8].tolist() == assign_arms(names[:8], "test 1").tolist() and abs(arm.mean() - 0.5) < 0.02
    other = assign_arms(names, "test 2")
    assert abs((arm == other).mean() - 0.5) < 0.02
    assert set(assign_arms(names, "x", 3).tolist()) == {0, 1, 2}
    # Written down once: nobody may change arms with a new version of this package.
    assert assign_arms(names[:12], "fixed").tolist() == [0, 1, 1, 1, 1, 0, 1, 1, 0, 1, 1, 1]


def test_lifts_by_hand():
    a = ShopperSums(["x"], np.array([[1.0, 2, 20, 4, 1, 1, 1, 1, 10]]))
    b = ShopperSums(["x"], np.array([[1.0, 2, 20, 5, 2, 1, 2, 1, 5]]))
    found = paired_lifts(a, b, resamples=50)
    assert {name: round(lift.lift, 9) for name, lift in found.items()} == {
        "item CTR": 0.25,
        "page CTR": 1.0,
        "conversion": 0.0,
        "buyers": 0.0,
        "orders": 1.0,
        "GMV": -0.5,
    }
    assert (found["item CTR"].a, found["item CTR"].b) == (0.2, 0.25)
    with pytest.raises(ValueError, match="same shoppers"):
        paired_lifts(a, ShopperSums(["y"], b.values))
    with pytest.raises(ValueError, match="arm 1"):
        split_lifts(a, np.array([0]))


def test_a_real_lift_is_found_and_covered():
    n = 8000
    arm = assign_arms([f"u{i}" for i in range(n)], "s")
    log = simulated(n, 1, lift=0.15, arm=arm)
    found = split_lifts(log, arm)
    for name in ("item CTR", "orders"):
        assert found[name].p < 0.01 and found[name].low < 0.15 < found[name].high
    halves = [ShopperSums([log.shoppers[i] for i in np.flatnonzero(arm == k)], log.values[arm == k]) for k in (0, 1)]
    assert found["item CTR"].lift == pytest.approx(halves[1].ratio("item CTR") / halves[0].ratio("item CTR") - 1)


def test_the_seed_draws_the_shoppers_again():
    a, b = simulated(300, 1, tastes=1), simulated(300, 2, lift=0.2, tastes=1)
    interval = lambda seed: paired_lifts(a, b, 200, seed)["item CTR"].low  # noqa: E731
    assert interval(1) == interval(1) != interval(2)


def test_the_same_fate_needs_far_fewer_shoppers():
    n = 3000
    a, b = simulated(n, 5), simulated(n, 5, lift=0.05)  # the same draws where the rate is the same
    arm = assign_arms(a.shoppers, "s")
    mixed = ShopperSums(a.shoppers, np.where(arm[:, None] == 1, b.values, a.values))
    split, paired = split_lifts(mixed, arm)["item CTR"], paired_lifts(a, b)["item CTR"]
    assert paired.low < 0.05 < paired.high and paired.high - paired.low < 0.6 * (split.high - split.low)


def test_groups_of_shoppers_spread_as_shoppers_do(monkeypatch):
    n = 20_000
    before = simulated(n, 7)
    arm = assign_arms(before.shoppers, "s")
    log = simulated(n, 8, lift=0.1, arm=arm)
    grouped = split_lifts(log, arm, before, resamples=2000)
    monkeypatch.setattr("onesearch.evaluation.abtest_estimates._GROUPS", n)
    single = split_lifts(log, arm, before, resamples=2000)
    for name, one in single.items():
        assert grouped[name].lift == pytest.approx(one.lift, abs=1e-12)
        assert grouped[name].high - grouped[name].low == pytest.approx(one.high - one.low, rel=0.15), name


def test_cuped_narrows_the_interval_and_keeps_the_lift():
    n = 6000
    before = simulated(n, 10)
    arm = assign_arms(before.shoppers, "s")
    log = simulated(n, 11, lift=0.1, arm=arm)
    plain, adjusted = split_lifts(log, arm), split_lifts(log, arm, before)
    for name, share in (("item CTR", 0.9), ("orders", 0.98), ("GMV", 1.0)):
        assert adjusted[name].high - adjusted[name].low < share * (plain[name].high - plain[name].low), name
    assert adjusted["item CTR"].low < 0.1 < adjusted["item CTR"].high
    with pytest.raises(ValueError, match="same shoppers"):
        split_lifts(log, arm, simulated(10, 0))


def test_cuped_by_hand():
    """Equation (9.7), shopper by shopper: clicks less what the clicks before explain, over impressions."""
    n = 400
    before, log = simulated(n, 20), simulated(n, 21)
    arm = assign_arms(log.shoppers, "s")
    y, x = log.column("clicks"), log.column("impressions")
    y_before, x_before = before.column("clicks"), before.column("impressions")
    explained = y_before - y_before.sum() / x_before.sum() * x_before
    rest = y - y.sum() / x.sum() * x
    theta = np.mean((explained - explained.mean()) * (rest - rest.mean())) / explained.var()
    assert abs(theta) > 0.1
    rates = [(y - theta * (explained - explained.mean()))[arm == k].sum() / x[arm == k].sum() for k in (0, 1)]
    found = split_lifts(log, arm, before, 20)["item CTR"]
    assert (found.a, found.b, found.lift) == pytest.approx((*rates, rates[1] / rates[0] - 1))


def test_power_is_the_share_of_splits_that_find_the_lift():
    n, lift = 1500, 0.15
    log = simulated(n, 1)
    smallest = detectable_lift(log, "item CTR")
    assert power(smallest, smallest) == pytest.approx(0.8, abs=1e-3) and power(smallest, 0.0) == pytest.approx(0.05)
    assert power(smallest, -lift) == power(smallest, lift)
    found = []
    for number in range(120):
        arm = assign_arms(log.shoppers, f"power {number}")
        found.append(split_lifts(simulated(n, number, lift, arm), arm, resamples=200)["item CTR"].p < 0.05)
    assert np.mean(found) == pytest.approx(power(smallest, lift), abs=0.12)


def test_nothing_is_found_where_nothing_differs():
    values, uniform = aa_p_values(simulated(2500, 3), splits=150, resamples=200)
    assert set(values) == set(METRICS) and all(len(ps) == 150 for ps in values.values())
    assert all(p > 0.005 for p in uniform.values()), uniform
    assert 0.0 <= (values["orders"] < 0.05).mean() < 0.12
    assert kstest(values["orders"] ** 2, "uniform").pvalue < 0.01  # the check would notice


def test_cuped_finds_nothing_either():
    before, log = simulated(2000, 1), simulated(2000, 2)
    ps = [split_lifts(log, assign_arms(log.shoppers, f"{n}"), before, 200, n)["item CTR"].p for n in range(100)]
    assert kstest(ps, "uniform").pvalue > 0.005


def test_the_detectable_lift_is_what_a_test_finds():
    log = simulated(4000, 4)
    wanted = detectable_lift(log, "item CTR")
    hits = 0
    for number in range(40):
        arm = assign_arms(log.shoppers, f"power {number}")
        tested = simulated(4000, 100 + number, lift=wanted, arm=arm)
        hits += split_lifts(tested, arm, resamples=200)["item CTR"].p < 0.05
    assert 0.6 < hits / 40 <= 0.97


def test_the_detectable_lift_by_hand():
    # 400 shoppers who saw one item each, 100 of whom clicked: a half's CTR has variance .25 * .75 / 200.
    sums = {name: np.zeros(400) for name in SUMS}
    sums |= {"impressions": np.ones(400), "clicks": np.repeat([1.0, 0.0], [100, 300])}
    log = ShopperSums([f"u{i}" for i in range(400)], np.stack([sums[name] for name in SUMS], 1))
    error = np.sqrt(2 * 0.25 * 0.75 / 200) / 0.25  # of the difference of two halves, relative to the CTR
    assert detectable_lift(log, "item CTR") == pytest.approx((1.959964 + 0.841621) * error, rel=1e-5)


def test_slices_are_lifts_of_parts_of_the_log():
    kinds = PageViewGroups(["old", "new", "none"], np.array(["new", "old", "old", ""], object))
    found = lifts_by_group({"kind": kinds}, lambda kept: {"pages": float(kept.sum())})
    assert list(found["kind"].items()) == [("old", {"pages": 2.0}), ("new", {"pages": 1.0})]


def test_a_group_of_items_alone():
    found = keep_items(LOG, ["b", "c"])
    assert found["shown"].to_list() == [["b"], [], ["b", "c"], []]
    assert found["clicked"].to_list() == [["b"], [], ["c"], []] and found["ordered"].to_list() == [["b"], [], [], []]
    assert (
        ShopperSums.from_page_views(found).ratio("item CTR") == 2 / 3
        and ShopperSums.from_page_views(found).ratio("exposure") == 1.0
    )
    lifts = paired_lifts(
        ShopperSums.from_page_views(LOG), ShopperSums.from_page_views(found), 20, metrics=GROUP_METRICS
    )
    assert set(lifts) == set(GROUP_METRICS) and lifts["exposure"].lift == pytest.approx(3 / 5 - 1)
