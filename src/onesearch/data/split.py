"""Training, validation and test part of a log, so that nothing of a later part can be known in an earlier one."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from onesearch.data.histories import shopper_keys
from onesearch.data.records import PARTS
from onesearch.data.text import normalise_queries

By = Literal["auto", "time", "query", "leave-one-out", "given"]
_DRAWS = pl.Schema({"query": pl.String(), "draw": pl.Float64()})


@dataclass(frozen=True)
class Split:
    """Three parts of a page view table, rows in time order where there are times.

    Attributes:
        by: "time" (validation and test are the last stretches of the log), "query" (no query is in two parts),
            "leave-one-out" (the last clicks of each shopper) or "given" (as the page views say).
    """

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    by: str


def split(page_views: pl.DataFrame, valid: float, test: float, by: By = "auto", seed: int = 0) -> Split:
    """Split page views; ``valid`` and ``test`` are shares of the page views (by time) or of the queries (by query).

    The other two ways take no shares: see :func:`_leave_one_out` and :func:`_as_given`.

    By time, page views of the same moment stay together, so shares are met up to such ties. By query, a keyed hash of
    the normalised query decides: the part of a query depends on nothing but its text and ``seed``. "auto" takes time
    when every page view has one.

    Raises:
        ValueError: shares that leave no training part, page views without time where times are needed, or a part that
            would be empty (and whose share is not 0); the message says what to set.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares with valid + test < 1, got valid={valid}, test={test}")
    untimed = page_views["time"].null_count()
    # One page view without a time is enough: nobody could say what was known before it.
    if by == "auto":
        by = "time" if untimed == 0 and len(page_views) > 0 else "query"
    if by == "query":
        return _filled(_by_query(page_views, valid, test, seed), valid, test)
    if by == "given":
        return _as_given(page_views)
    if untimed:
        raise ValueError(
            f"cannot split by {by}: {untimed:,} of {len(page_views):,} page views have no time; use data.split: query"
        )
    return (
        _leave_one_out(page_views) if by == "leave-one-out" else _filled(_by_time(page_views, valid, test), valid, test)
    )


def _filled(parts: Split, valid: float, test: float) -> Split:
    """The split, if no part is empty that was asked for."""
    shares = {"train": 1 - valid - test, "valid": valid, "test": test}
    rows = {name: getattr(parts, name) for name in PARTS}
    if not (empty := [name for name in PARTS if shares[name] > 0 and not len(rows[name])]):
        return parts
    # Why: too few of what the split is by, or (by time) one moment that holds more than a part.
    whole = pl.concat(rows.values())
    if not len(whole):
        raise ValueError("there are no page views, and a model learns from them; import a search log (page_views)")
    if parts.by == "query":
        counted = f"{normalise_queries(whole['query']).n_unique():,} different queries"
        advice = "set larger shares data.valid and data.test, another seed, or import more of the log"
    elif (moments := whole["time"].n_unique()) == 1:
        counted, advice = "one and the same time", "set data.split to 'query'"
    else:
        counted = f"{moments:,} different times"
        advice = "set data.split to 'query', or other shares data.valid and data.test"
    raise ValueError(
        f"data.split by {parts.by} would leave nothing in {' and '.join(map(repr, empty))}: "
        f"{len(whole):,} page views have {counted}; {advice}"
    )


def _by_time(page_views: pl.DataFrame, valid: float, test: float) -> Split:
    """The last stretches of the log as validation and test part."""
    # Page views of one moment keep the order of the log.
    ordered = page_views.sort("time", maintain_order=True)
    time = ordered["time"].to_physical().to_numpy()

    def cut(share: float) -> int:
        """Where the last ``share`` begins, moved back to the first page view of the same moment."""
        at = round(len(time) * (1 - share))
        return int(np.searchsorted(time, time[at], side="left")) if at < len(time) else len(time)

    first_test = cut(test)
    first_valid = min(cut(valid + test), first_test)
    return Split(ordered[:first_valid], ordered[first_valid:first_test], ordered[first_test:], "time")


def _by_query(page_views: pl.DataFrame, valid: float, test: float, seed: int) -> Split:
    """The page views of some queries as test part, those of some others as validation part."""
    # One number per distinct query, then that of each page view.
    queries = normalise_queries(page_views["query"])
    distinct = queries.unique()
    draws = pl.DataFrame({"query": distinct, "draw": [_draw(text, seed) for text in distinct.to_list()]}, schema=_DRAWS)
    draw = pl.DataFrame({"query": queries}).join(draws, on="query", how="left", maintain_order="left")["draw"]
    in_test, in_valid = draw < test, (draw >= test) & (draw < test + valid)
    return Split(
        page_views.filter(~(in_test | in_valid)), page_views.filter(in_valid), page_views.filter(in_test), "query"
    )


def _leave_one_out(page_views: pl.DataFrame) -> Split:
    """Each shopper's last page view with a click tests, the one with a click before it validates, the rest trains.

    A shopper is a user or, without one, a session. One with fewer than three page views with a click stays in training,
    as does everything without a click or a shopper. Of one moment, the page view that the log has later is the later.
    """
    ordered = page_views.sort("time", maintain_order=True)
    # Place of each page view with a click among those of its shopper, counted from the last; and how many there are.
    frame = pl.DataFrame({"shopper": shopper_keys(ordered), "clicked": ordered["clicked"].list.len() > 0})
    clicks = frame.with_row_index("row").filter(pl.col("clicked") & pl.col("shopper").is_not_null())
    clicks = clicks.with_columns(
        from_last=pl.int_range(pl.len()).reverse().over("shopper"), of=pl.len().over("shopper")
    ).filter(pl.col("of") >= 3)
    if not len(clicks):
        raise ValueError(
            "data.split is 'leave-one-out', but no shopper (user or session) has three page views with a click; "
            "set it to 'auto'"
        )
    part = np.zeros(len(ordered), np.int8)
    for number, from_last in ((1, 1), (2, 0)):
        part[clicks.filter(pl.col("from_last") == from_last)["row"].to_numpy()] = number
    train, valid, test = (ordered.filter(pl.Series(part == number)) for number in range(3))
    return Split(train, valid, test, "leave-one-out")


def _as_given(page_views: pl.DataFrame) -> Split:
    """The parts that the column ``split`` of the page views names."""
    word = page_views["split"]
    advice = (
        "map a column that says train, valid or test for every page view (page_views.columns.split of the mapping), "
        "or set data.split to 'auto'"
    )
    wrong = page_views.filter(~word.is_in(PARTS).fill_null(False))
    if len(wrong):
        raise ValueError(
            f"data.split is 'given', but {len(wrong):,} of {len(page_views):,} page views say neither train, valid nor "
            f"test in 'split' but, for instance, {wrong['split'][0]!r}; {advice}"
        )
    ordered = page_views if page_views["time"].null_count() else page_views.sort("time", maintain_order=True)
    train, valid, test = (ordered.filter(pl.col("split") == name) for name in PARTS)
    for name, part in zip(PARTS, (train, valid, test), strict=True):
        if not len(part):
            raise ValueError(f"data.split is 'given', but no page view says {name!r} in 'split'; {advice}")
    return Split(train, valid, test, "given")


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends only on the text and the seed (Python's own hash changes between runs)."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
