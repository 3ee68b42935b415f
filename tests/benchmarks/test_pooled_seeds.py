"""Seeds whose single requests are gone join new ones nearly as if all requests were there."""

import numpy as np
import pytest
from benchmarks.pooled_seeds import joined_figures, joined_tests
from scipy import stats


def figure(values):
    half = 1.959964 * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(values)}


def compared(values, seeds, metric="click/HR@10"):
    found = figure(values)
    test = {"method": "a", "against": "b", "metric": metric, "slice": None, "difference": found["mean"], "p": 0.5}
    counts = {"wins": int((values > 0).sum()), "ties": int((values == 0).sum()), "losses": int((values < 0).sum())}
    return {"seeds": seeds, "tests": [{**test, "low": found["low"], "high": found["high"], **counts, "n": found["n"]}]}


def test_joined_seeds_are_those_of_all_requests():
    chance = np.random.default_rng(0)
    one = chance.choice([-1.0, 0.0, 1.0], 900, p=(0.08, 0.8, 0.12))
    other = chance.choice([-1.0, 0.0, 1.0], 400, p=(0.1, 0.8, 0.1))
    both = np.concatenate([one, other])
    found = joined_tests(compared(one, [11, 12]), compared(other, [13]))
    test, expected = found["tests"][0], compared(both, [])["tests"][0]
    assert found["seeds"] == [11, 12, 13] and found["joined"]
    for key in ("difference", "wins", "ties", "losses", "n"):
        assert test[key] == pytest.approx(expected[key])
    # The means of the two lie apart, which their own errors do not know.
    assert (test["low"], test["high"]) == pytest.approx((expected["low"], expected["high"]), abs=5e-4)
    assert test["p"] == pytest.approx(stats.ttest_1samp(both, 0).pvalue, rel=0.2)
    kept = {"seeds": [11, 12], "requests": 900, "methods": {"a": {"HR": figure(one)}, "gone": {"HR": figure(one)}}}
    fresh = {"seeds": [13], "requests": 400, "methods": {"a": {"HR": figure(other)}}}
    joined = joined_figures(kept, fresh)
    assert joined["requests"] == 1300 and set(joined["methods"]) == {"a"}
    assert joined["methods"]["a"]["HR"] == pytest.approx(figure(both), abs=5e-4)


def test_seeds_are_not_counted_twice():
    values = np.array([1.0, 0.0, -1.0, 1.0])
    three, two = compared(values, [11, 12, 13]), compared(values, [12, 13])
    assert joined_tests(three, two) == three
    assert joined_tests(two, three) == three
    assert joined_tests({}, two) == two
    # One is shared, and each has others: neither may be lost.
    with pytest.raises(ValueError, match=r"seeds \[11, 12\] are kept together .* beside \[14\]"):
        joined_tests(three, compared(values, [13, 14]))
    again = compared(-values, [12, 13])
    assert joined_tests(two, again) == again, "of the same seeds the newer ones"


def test_what_was_not_measured_joins_nothing():
    none = {"mean": None, "low": None, "high": None, "n": 0}
    values = figure(np.array([1.0, 0.0, 1.0]))
    kept = {"seeds": [1], "requests": 3, "methods": {"a": {"HR": none, "MRR": none}}}
    fresh = {"seeds": [2], "requests": 3, "methods": {"a": {"HR": values, "MRR": none}}}
    assert joined_figures(kept, fresh)["methods"]["a"] == {"HR": values, "MRR": none}
