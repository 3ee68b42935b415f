import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shop():
    path = Path(__file__).parent / "shop.py"
    spec = importlib.util.spec_from_file_location("tiny_shop", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make()
