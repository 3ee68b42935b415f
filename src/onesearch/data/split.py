"""Training, validation and test part of a log, so that nothing of a later part can be known in an earlier one."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from onesearch.data.text import normalise_queries

By = Literal["auto", "time", "query"]
_DRAWS = pl.Schema({"query": pl.String(), "draw": pl.Float64()})


@dataclass(frozen=True)
class Split:
    """Three parts of a page view table, rows in time order where there are times.

    Attributes:
        by: "time" (validation and test are the last stretches of the log) or "query" (no query is in two parts).
    """

    train: pl.DataFrame
    valid: pl.DataFrame
    test: pl.DataFrame
    by: str


def split(page_views: pl.DataFrame, valid: float, test: float, by: By = "auto", seed: int = 0) -> Split:
    """Split page views; ``valid`` and ``test`` are shares of the page views (by time) or of the queries (by query).

    By time, page views of the same moment stay together, so shares are met up to such ties. By query, a keyed hash of
    the normalised query decides: the part of a query depends on nothing but its text and ``seed``. "auto" takes time
    when every page view has one.

    Raises:
        ValueError: shares that leave no training part, or a split by time of page views without time.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise ValueError(f"valid and test are shares with valid + test < 1, got valid={valid}, test={test}")
    untimed = page_views["time"].null_count()
    # One page view without a time is enough: nobody could say what was known before it.
    if by == "auto":
        by = "time" if untimed == 0 and len(page_views) > 0 else "query"
    if by == "query":
        return _by_query(page_views, valid, test, seed)
    if untimed:
        raise ValueError(
            f"cannot split by time: {untimed:,} of {len(page_views):,} page views have no time; use 'query'"
        )
    return _by_time(page_views, valid, test)


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


def _draw(text: str, seed: int) -> float:
    """A number in [0, 1) that depends only on the text and the seed (Python's own hash changes between runs)."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=str(seed).encode()).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
