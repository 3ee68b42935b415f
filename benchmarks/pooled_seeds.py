"""Figures and paired tests of some seeds put together with those of others whose single requests are no longer there.

A study pools its seeds request by request. What the repository keeps of a seed are means, intervals and differences:
where the runs behind them are gone, new seeds join them as samples of their own, weighted by their requests, and
intervals and p follow from the two standard errors by the normal distribution.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH = 2 * 1.959964  # of a 95 % interval, in standard errors
_PAIR = ("method", "against", "metric", "slice")


def joined_tests(kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Paired tests ({"seeds", "tests"}) of both; the ones with more seeds where they share some.

    Raises:
        ValueError: they share some, and each has others of its own.
    """
    if not _apart(kept, fresh):
        return dict(_larger(kept, fresh))
    before = {tuple(test[key] for key in _PAIR): test for test in kept["tests"]}
    pairs = [(before.get(tuple(test[key] for key in _PAIR)), test) for test in fresh["tests"]]
    tests = [_joined_test(old, new) for old, new in pairs if old is not None]
    return {"seeds": sorted([*kept["seeds"], *fresh["seeds"]]), "tests": tests, "joined": True}


def joined_figures(kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Figures ({"seeds", "requests", "methods"}) of both; the ones with more seeds where they share some.

    Raises:
        ValueError: they share some, and each has others of its own.
    """
    if not _apart(kept, fresh):
        return dict(_larger(kept, fresh))
    methods = {
        method: {
            metric: _joined_figure(kept["methods"][method][metric], figure)
            for metric, figure in row.items()
            if metric in kept["methods"][method]
        }
        for method, row in fresh["methods"].items()
        if method in kept["methods"]
    }
    seeds, requests = sorted([*kept["seeds"], *fresh["seeds"]]), kept["requests"] + fresh["requests"]
    return {"seeds": seeds, "requests": requests, "methods": methods, "joined": True}


def _apart(kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> bool:
    return bool(kept.get("seeds")) and not set(kept["seeds"]) & set(fresh["seeds"])


def _larger(kept: Mapping[str, Any], fresh: Mapping[str, Any]) -> Mapping[str, Any]:
    only = [
        sorted(set(one.get("seeds", ())) - set(other.get("seeds", ()))) for one, other in ((kept, fresh), (fresh, kept))
    ]
    if all(only):  # neither can be taken without losing seeds of the other
        raise ValueError(
            f"seeds {only[0]} are kept together with others that were measured again beside {only[1]}: put back the "
            "figures of a commit that kept them by themselves, then save"
        )
    # Of as many seeds the newer ones.
    return kept if len(kept.get("seeds", ())) > len(fresh["seeds"]) else fresh


def _joined_figure(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    if not old["n"] or not new["n"]:
        return dict(old if old["n"] else new)
    mean, error = _weighted([(one["n"], one["mean"], one["high"] - one["low"]) for one in (old, new)])
    return {"mean": mean, **_interval(mean, error), "n": old["n"] + new["n"]}


def _joined_test(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    mean, error = _weighted([(one["n"], one["difference"], one["high"] - one["low"]) for one in (old, new)])
    counts = {key: old[key] + new[key] for key in ("wins", "ties", "losses", "n")}
    p = math.erfc(abs(mean) / error / math.sqrt(2)) if error else float(mean == 0)
    return {**{key: new[key] for key in _PAIR}, "difference": mean, **_interval(mean, error), "p": p, **counts}


def _weighted(parts: Sequence[tuple[int, float, float]]) -> tuple[float, float]:
    """Mean and standard error of parts, each with its requests, mean and width of interval."""
    n = sum(part[0] for part in parts)
    mean = sum(count * value for count, value, _ in parts) / n
    return mean, math.sqrt(sum((count * width / _WIDTH) ** 2 for count, _, width in parts)) / n


def _interval(mean: float, error: float) -> dict[str, float]:
    return {"low": mean - _WIDTH / 2 * error, "high": mean + _WIDTH / 2 * error}
