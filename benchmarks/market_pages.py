"""Pages that a whole engine serves to a market's shoppers, rules and all, as its service would."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest

PAGE, _BATCH = 10, 256


def served(engine: SearchEngine, page_views: pl.DataFrame) -> NDArray[np.int32]:
    """Item rows of the first page of each page view, int32 [n, 10], -1 for none.

    Known shoppers have the history that the log left; who is new has none.
    """
    requests = [SearchRequest(query, user, PAGE) for query, user in page_views.select("query", "user_id").iter_rows()]
    pages, number = np.full((len(requests), PAGE), -1, np.int32), engine.snapshot.number
    for first in range(0, len(requests), _BATCH):
        for row, hits in enumerate(engine.search_batch(requests[first : first + _BATCH]), first):
            pages[row, : len(hits)] = [number[hit.item_id] for hit in hits]
    return pages
