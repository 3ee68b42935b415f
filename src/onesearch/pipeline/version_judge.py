"""Which of two engines is the better one, by page views that neither has seen (docs/method.md, 7.18 and 7.19).

Page views of a service show what the served engine found: clicks fall on nothing else, so it always finds all of them,
and any change of the page loses some. So engines are compared by how they order the items that were shown, and a click
far down a page, where few look, counts for those that were not seen there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.dataset import ragged_rows
from onesearch.data.metrics import hit_rate, mrr
from onesearch.evaluation.significance import permutation_test
from onesearch.pipeline.run_data import RunData
from onesearch.search.hits import Searcher
from onesearch.training.click_rates import ClickRates, Impressions, examination_of

Floats = NDArray[np.float64]
PAGE: Final = 10
DEPTH: Final = 100  # places of an engine's ranking in which items that were shown are looked for
LEAST_SEEN: Final = 0.1  # of P(examined), so that no click counts for more than ten
LEAST_SAME: Final = 0.5  # of the served first page that a version keeps


@dataclass(frozen=True)
class Judgement:
    """What a round's engines find in the page views that judge.

    Attributes:
        before: ``gain``, the J of (7.18), and ``hr10`` and ``mrr10`` over the whole catalogue, of the served engine.
        after: of the new version.
        p: of the difference in ``gain``, paired over page views.
        same: share of the served engine's first pages that the version shows as well (7.19).
    """

    before: Mapping[str, float]
    after: Mapping[str, float]
    p: float
    same: float

    @property
    def better(self) -> bool:
        """Whether the version is worth publishing: equal is not better, and pages of items that nobody has been shown
        cannot be judged by clicks.
        """
        return self.after["gain"] > self.before["gain"] and self.same >= LEAST_SAME


def judge(run_data: RunData, before: Searcher, after: Searcher) -> Judgement:
    """Compare two engines on the page views of the part "test", some of which have a click on a known item."""
    page_views = run_data.split.test
    requests, clicked = run_data.requests(page_views), run_data.targets(page_views).clicked
    shown = ragged_rows(page_views["shown"], run_data.dataset.items["item_id"])
    rates = examination(run_data)
    ranked = [engine.rank(requests, DEPTH).items for engine in (before, after)]
    # Weights are those of the clicks, whoever ranks.
    (old, weights), (new, _) = (page_gains(items, shown, clicked, rates) for items in ranked)
    test = permutation_test(new[:, None], old[:, None])
    served, version = (
        {
            "gain": float(np.nansum(gains) / weights.sum()),
            "hr10": float(np.nanmean(hit_rate(items, clicked))),
            "mrr10": float(np.nanmean(mrr(items, clicked))),
        }
        for gains, items in zip((old, new), ranked, strict=True)
    )
    return Judgement(served, version, float(test.p[0]), same_items(*ranked))


def examination(run_data: RunData) -> Floats:
    """P(examined) of each rank from 0, as the stage ``rewards`` found it, or else as the run's log tells; [1] where
    nothing tells.
    """
    if len(found := examination_of(run_data.run)):
        return found
    dataset = run_data.dataset
    shown = Impressions.from_page_views(dataset.page_views, dataset.items["item_id"])
    return ClickRates.from_impressions(shown, len(dataset.items)).examination if len(shown) else np.ones(1)


def page_gains(ranked: NDArray[np.integer], shown: Ragged, clicked: Ragged, examined: Floats) -> tuple[Floats, Floats]:
    """What the clicks on each page view gain under a ranking, (7.18) before its division.

    An item that was shown has its place among those that were shown; such as are not ranked share the last places. A
    click on anything else has its place in the ranking and counts once.

    Args:
        ranked: item rows, best first, -1 for none, [n, k].
        shown: item rows in the order in which they were shown, n lists.
        clicked: item rows, n lists.
        examined: P(examined) of ranks from 0; deeper ones have the last one's.

    Returns:
        Gains [n], nan where nothing was clicked, and the sums of the clicks' weights [n].
    """
    n, width = ranked.shape
    codes = int(max(ranked.max(initial=0), shown.values.max(initial=0), clicked.values.max(initial=0))) + 1
    # Where the ranking has each item that was shown; ``width`` where it has it not.
    rows, columns = np.nonzero(ranked >= 0)
    keys = rows * codes + ranked[rows, columns]
    shown_keys, clicked_keys = (one.owners * codes + one.values for one in (shown, clicked))
    clicked_keys = np.unique(clicked_keys)
    places = _found(keys, columns, shown_keys, width)
    # Its place among them, from 1: the mean of the places that items without one share.
    order = np.lexsort((places, shown.owners))
    among = np.empty(len(order))
    among[order] = np.arange(len(order)) - np.repeat(shown.offsets[:-1], shown.lengths) + 1.0
    absent = places == width
    number = np.bincount(shown.owners, absent, n)
    middle = shown.lengths - (number - 1) / 2
    among[absent] = middle[shown.owners[absent]]
    # Clicks on what was shown, weighted by how seldom its rank is looked at; then clicks on anything else.
    hit = np.isin(shown_keys, clicked_keys)
    rank = np.arange(len(shown_keys)) - np.repeat(shown.offsets[:-1], shown.lengths)
    weight = 1 / np.maximum(examined[np.minimum(rank[hit], len(examined) - 1)], LEAST_SEEN)
    others = clicked_keys[~np.isin(clicked_keys, shown_keys)]
    other = _found(keys, columns, others, width)
    owners = np.concatenate([shown.owners[hit], others // codes])
    weights = np.concatenate([weight, np.ones(len(others))])
    with np.errstate(divide="ignore"):
        gain = np.concatenate([1 / np.log2(1 + among[hit]), np.where(other < width, 1 / np.log2(2.0 + other), 0.0)])
    total = np.bincount(owners, weights, n).astype(np.float64)
    return np.where(total > 0, np.bincount(owners, weights * gain, n), np.nan), total


def same_items(before: NDArray[np.integer], after: NDArray[np.integer]) -> float:
    """Share of the first page's items of one ranking [n, k] that are on the other's, too (7.19); 1 of empty pages."""
    before, after = before[:, :PAGE], after[:, :PAGE]
    kept = (before[:, :, None] == after[:, None, :]).any(-1) & (before >= 0)
    return float(kept.sum() / (before >= 0).sum()) if (before >= 0).any() else 1.0


def _found(
    keys: NDArray[np.int64], columns: NDArray[np.int64], asked: NDArray[np.int64], missing: int
) -> NDArray[np.int64]:
    """The first column of each asked key, ``missing`` of those that are not there."""
    order = np.lexsort((columns, keys))
    at = np.minimum(np.searchsorted(keys[order], asked), max(len(keys) - 1, 0))
    if not len(keys):
        return np.full(len(asked), missing)
    return np.where(keys[order][at] == asked, columns[order][at], missing)
