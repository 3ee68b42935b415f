"""A market's shoppers on pages that an engine serves: traffic after the end of the log, for A/B tests.

Known shoppers go on with the history that the log left; newcomers have none. Nothing they do here becomes anybody's
history, so that both arms of a test meet the same requests.
"""

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.dataset import Dataset
from onesearch.data.histories import Histories
from onesearch.data.requests import Requests
from onesearch.index.filter_values import PATH_SEPARATOR
from onesearch.market.click_truth import Visits
from onesearch.market.make_market import page_lists, searches_table
from onesearch.market.market_catalogue import US_PER_DAY
from onesearch.market.world import World
from onesearch.market.world_files import FOLDER, load_config


class Laboratory:
    """Shoppers who search a market after its log.

    Args:
        dataset: folder of the market's dataset.
        page_views: how many, n.
        newcomers: shoppers beside the known ones whom the log has never seen.
        stream: another one gives other page views of the same shoppers.

    Attributes:
        page_views: the table of n page views, without what was shown.
        known: whether the log knows the shopper of each, bool [n].
        visits: the same page views as numbers; truth: of their shoppers, items and queries.
        leaf_paths: category paths of the market's leaves, as filters name them.

    Raises:
        FileNotFoundError: the dataset is no market's.
        ValueError: there are one to nine newcomers.
    """

    def __init__(self, dataset: Path, page_views: int, newcomers: int = 0, stream: int = 1) -> None:
        if 0 < newcomers < 10:
            raise ValueError(f"{newcomers} newcomers are too few to draw; take none, or at least 10")
        config = load_config(dataset / FOLDER)
        world = World.build(config)
        # The market is built again from its settings, then newcomers are added behind its shoppers.
        known = len(world.shoppers)
        world = world.with_newcomers(newcomers)
        traffic, queries, visits = world.traffic(page_views, stream)
        time = visits.time + config.days * US_PER_DAY  # everything that will be listed is
        self.visits = Visits(visits.user, visits.query, visits.focus, time)
        self.truth = world.truth(queries)
        self.known = visits.user < known
        self.page_views = searches_table(self.visits, traffic.session, queries, (f"t{stream}-", f"t{stream}-"))
        self.leaf_paths = [PATH_SEPARATOR.join(name) for name in world.vocabulary.leaf_names]
        self._dataset = dataset

    def requests(self) -> Requests:
        """The page views as requests, with what the log knew of their shoppers."""
        data = Dataset.load(self._dataset)
        return Histories(data.page_views, data.items, data.users).requests(self.page_views)

    def exposures(self, pages: NDArray[np.integer]) -> pl.DataFrame:
        """What the shoppers did on pages of item rows [n, k], -1 for none: the page views with shown, clicked, ordered.

        A shopper's fate with an item depends on shopper, query and item alone, so that two engines that show the same
        item get the same answer.
        """
        reactions = self.truth.react(self.visits, pages.astype(np.int32))
        return self.page_views.with_columns(**page_lists(pages, reactions.clicked, reactions.ordered))
