from pathlib import Path

import pytest

from onesearch.data.dataset import Dataset
from onesearch.market.make_market import make_market
from onesearch.market.market import Market
from onesearch.market.market_settings import MarketSettings

CONFIG = MarketSettings(items=2_000, users=600, page_views=8_000, seed=3)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("market")
    make_market(CONFIG, path)
    return path


@pytest.fixture(scope="session")
def dataset(folder: Path) -> Dataset:
    return Dataset.load(folder)


@pytest.fixture(scope="session")
def market(folder: Path) -> Market:
    return Market.load(folder)


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Large enough for the figures that the docs state: items to fill pages, page views to see need words often."""
    path = tmp_path_factory.mktemp("larger")
    make_market(MarketSettings(items=12_000, users=1_000, page_views=15_000, seed=4), path)
    return path
