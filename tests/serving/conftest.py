import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

# Tests are imported by path (import-mode=importlib), so the helper module is made importable here.
_spec = importlib.util.spec_from_file_location("serving_fakes", Path(__file__).with_name("fakes.py"))
assert _spec and _spec.loader
fakes = importlib.util.module_from_spec(_spec)
sys.modules["serving_fakes"] = fakes
_spec.loader.exec_module(fakes)

TOKEN = "correct horse battery staple"


@pytest.fixture
def engine():
    return fakes.FakeEngine(fakes.catalogue())


@pytest.fixture
def store(tmp_path: Path):
    return fakes.FlakyStore(tmp_path / "store.sqlite3")


@pytest.fixture
def client(engine, store) -> Iterator[TestClient]:
    from onesearch.serving.http_app import create_app

    with TestClient(create_app(engine, store, admin_token=TOKEN), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def admin() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}
