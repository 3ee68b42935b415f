"""Step 3 by the language model: which shoppers of the training part it is asked about, and what it answered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from onesearch.data.requests import Requests
from onesearch.pipeline.run_data import RunData
from onesearch.understanding.calibration_worker import ShopperKey, shopper_key
from onesearch.understanding.preference_calibration import HistoryTexts
from onesearch.understanding.thought import Thought
from onesearch.understanding.thought_table import Thoughts

FILE: Final = "calibrated.parquet"
_ITEMS_OF_HISTORY: Final = 10
Calibrated = Mapping[ShopperKey, tuple[str, ...]]
"""A language model's keywords by query and history."""


def history_texts(requests: Requests, titles: Sequence[str]) -> list[HistoryTexts]:
    """What was known of each shopper as texts, [n]; ``titles``: of all items."""
    clicked = requests.clicked[:, -_ITEMS_OF_HISTORY:].tolist()
    items = (tuple(titles[item] for item in row if item >= 0) for row in clicked)
    return [HistoryTexts(*one) for one in zip(requests.recent_queries, items, requests.profile, strict=True)]


def shoppers_to_calibrate(
    run_data: RunData, thoughts: Thoughts, most: int, seed: int
) -> dict[ShopperKey, tuple[Thought, HistoryTexts]]:
    """At most ``most`` pairs of a complex query that has keywords and a history of searches or clicks.

    They are of training page views, drawn with ``seed``; a larger ``most`` has the same ones first.
    """
    page_views = run_data.split.train
    taught = thoughts.taught(page_views["query"].fill_null("").to_list(), "complex")
    rows = np.random.default_rng([seed, 73]).permutation(np.flatnonzero(taught))
    requests = run_data.requests(page_views[rows])
    numbers = thoughts.rows(requests.query).tolist()
    found: dict[ShopperKey, tuple[Thought, HistoryTexts]] = {}
    titles = run_data.dataset.items["title"].fill_null("").to_list()
    for number, history in zip(numbers, history_texts(requests, titles), strict=True):
        if len(found) == most:
            break
        if history.queries or history.items:
            thought = thoughts.thought(number)
            found.setdefault(shopper_key(thought.query, history), (thought, history))
    return found


def save_calibrated(calibrated: Calibrated, folder: Path) -> None:
    """Write ``calibrated.parquet``."""
    rows = [{"query": q, "history": h, "keywords": list(keywords)} for (q, h), keywords in calibrated.items()]
    schema: dict[str, Any] = {"query": pl.String, "history": pl.String, "keywords": pl.List(pl.String)}
    pl.DataFrame(rows, schema).sort("query", "history").write_parquet(folder / FILE)


def load_calibrated(folder: Path) -> Calibrated:
    """What :func:`save_calibrated` wrote; nothing where no language model was asked."""
    if not (folder / FILE).is_file():
        return {}
    return {(query, history): tuple(words) for query, history, words in pl.read_parquet(folder / FILE).iter_rows()}
