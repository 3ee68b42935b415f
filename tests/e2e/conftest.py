"""The engine of the tiny run of tests/conftest.py."""

from pathlib import Path

import pytest

from onesearch.search.engine import SearchEngine


@pytest.fixture
def engine(tiny_run: Path) -> SearchEngine:
    return SearchEngine.load(tiny_run)
