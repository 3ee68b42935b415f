"""A market on disk, to be asked for the truth."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.text import normalise_query
from onesearch.market.click_truth import Reactions, Truth, Visits
from onesearch.market.market_catalogue import MarketCatalogue
from onesearch.market.market_kinds import MarketKinds
from onesearch.market.market_queries import Queries
from onesearch.market.market_shoppers import Shoppers
from onesearch.market.needs import Needs
from onesearch.market.world_files import FOLDER, load_array, load_config, load_table

PageViews = pl.DataFrame | pl.Series | Sequence[str]


class Market:
    """Truth beside a dataset. Item numbers are rows of the dataset's item table; -1 means 'none'."""

    def __init__(self, folder: Path, truth: Truth, needs: Needs, visits: Visits) -> None:
        self.folder, self.truth, self.needs, self.visits = folder, truth, needs, visits
        self._query_rows: dict[str, int] | None = None

    @classmethod
    def load(cls, dataset_folder: str | Path) -> "Market":
        """Open the truth of a dataset made by ``onesearch market make``."""
        folder = Path(dataset_folder) / FOLDER
        config = load_config(folder)
        catalogue = load_table(folder, "catalogue", MarketCatalogue)
        visits = load_table(folder, "visits", Visits)
        needs = load_table(folder, "needs", Needs)
        truth = Truth(
            config.seed,
            config.choice,
            catalogue,
            load_table(folder, "shoppers", Shoppers),
            load_table(folder, "queries", Queries),
            load_array(folder, "type_sets"),
            load_array(folder, "type_leaf"),
            needs.trait_values,
            load_table(folder, "kinds", MarketKinds) if config.has_kinds else None,
        )
        return cls(folder, truth, needs, visits)

    @cached_property
    def _all_totals(self) -> dict[str, NDArray[np.float32]]:
        return {name: np.full(len(self.visits), np.nan, np.float32) for name in ("click_mass", "order_mass", "ideal")}

    def page_view_rows(self, page_views: PageViews) -> NDArray[np.int64]:
        """Rows of page views, given as a table with ``page_view_id``, as such a column or as ids.

        Raises:
            KeyError: an id that is not of this market.
        """
        column = page_views["page_view_id"] if isinstance(page_views, pl.DataFrame) else pl.Series(page_views)
        text = column.cast(pl.String)
        rows = text.str.strip_prefix("p").cast(pl.Int64, strict=False)
        wrong = rows.is_null() | (rows >= len(self.visits)) | (rows < 0)
        if wrong.any():
            raise KeyError(f"page view {text.filter(wrong)[0]!r} is not of the market in {self.folder}")
        return rows.to_numpy()

    def _visits(self, page_views: PageViews) -> Visits:
        return self.visits.select(self.page_view_rows(page_views))

    def query_rows(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """Rows of query texts in the truth.

        Raises:
            KeyError: a text nobody searched for in this market, so nobody knows what it means.
        """
        if self._query_rows is None:
            texts = self.truth.queries.texts
            self._query_rows = dict(zip(map(normalise_query, texts), range(len(texts)), strict=True))
        try:
            return np.fromiter((self._query_rows[normalise_query(text)] for text in queries), np.int64, len(queries))
        except KeyError as error:
            raise KeyError(f"query {error} was never searched for in the market {self.folder}") from None

    def relevance(self, queries: Sequence[str], items: NDArray[np.integer]) -> NDArray[np.int8]:
        """Level 0-3 of item rows for query texts: items [n] or [n, k], the answer alike; -1 gives 0."""
        rows = self.query_rows(queries)
        shaped = items.reshape(len(rows), -1)
        level = self.truth.levels(np.repeat(rows, shaped.shape[1]), np.maximum(shaped, 0).reshape(-1))
        return np.where(items >= 0, level.reshape(items.shape), 0).astype(np.int8)

    def levels(self, page_views: PageViews, items: NDArray[np.integer]) -> NDArray[np.int8]:
        """Level 0-3 of item rows [n, k] for page views; an item not yet listed has level 0."""
        return self.truth.probabilities(self._visits(page_views), items)[0]

    def click_probability(self, page_views: PageViews, items: NDArray[np.integer]) -> NDArray[np.float32]:
        """P(click | examined) of item rows [n, k] on page views, float32 [n, k]."""
        return self.truth.probabilities(self._visits(page_views), items)[1]

    def order_probability(self, page_views: PageViews, items: NDArray[np.integer]) -> NDArray[np.float32]:
        """P(click and order | examined) of item rows [n, k] on page views, float32 [n, k]."""
        _, click, order = self.truth.probabilities(self._visits(page_views), items)
        return click * order

    def evaluate(self, page_views: PageViews, ranked: NDArray[np.integer]) -> dict[str, NDArray[np.float32]]:
        """True metrics per request (:meth:`Truth.true_metrics`) of ranked items, int [n, k], all of a row distinct."""
        rows = self.page_view_rows(page_views)
        visits = self.visits.select(rows)
        return self.truth.true_metrics(visits, ranked, self._totals(rows))

    def _totals(self, rows: NDArray[np.int64]) -> Mapping[str, NDArray[np.float32]]:
        """Totals of page views: computed once per page view, whatever is evaluated."""
        known = self._all_totals
        new = np.unique(rows[np.isnan(known["ideal"][rows])])
        if len(new):
            for name, value in self.truth.listed_totals(self.visits.select(new)).items():
                known[name][new] = value
        return {name: value[rows] for name, value in known.items()}

    def react(self, page_views: PageViews, ranked: NDArray[np.integer]) -> Reactions:
        """What the shoppers of page views would do on other pages [n, k], on the same fate as in the log."""
        return self.truth.react(self._visits(page_views), ranked)

    def oracle(self, page_views: PageViews, k: int = 10, by: str = "click") -> NDArray[np.int32]:
        """The best possible ranking by true ``click``, ``order`` or ``relevance``, int32 [n, k]."""
        return self.truth.best(self._visits(page_views), k, by)

    @property
    def emerging_items(self) -> NDArray[np.bool_]:
        """Whether an item's seller is an emerging one, bool [N]."""
        return self.truth.catalogue.seller_emerging[self.truth.catalogue.sellers]
