"""Shared fixtures, and the rule that a continuous-integration run skips nothing it was set up for."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tiny_run import tiny_config, tiny_run  # noqa: F401 - fixtures of all folders

_MUST_RUN_IN_CI = ("browser", "redis")


def pytest_addoption(parser):
    parser.addoption("--part", default="1/1", help="3/10 runs every tenth of the tests, beginning with the third.")


@pytest.hookimpl(trylast=True)  # after -m
def pytest_collection_modifyitems(config, items):
    first, _, step = config.getoption("part").partition("/")
    if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise pytest.UsageError(f"--part takes a part of all, such as 3/10, got {config.getoption('part')!r}")
    first, step = int(first), int(step)
    config.hook.pytest_deselected(items=[item for place, item in enumerate(items) if place % step != first - 1])
    items[:] = items[first - 1 :: step]


def pytest_configure(config):
    # Threads of several libraries on a few cores slow small tests down.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if "PYTEST_XDIST_WORKER" in os.environ:  # several processes share the cores already
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """With CI set, a skipped browser or Redis test is a failure: the machine was meant to have them."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        needs = [name for name in _MUST_RUN_IN_CI if item.get_closest_marker(name)]
        if needs:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            report.outcome = "failed"
            report.longrepr = f"CI is set, so tests marked {', '.join(needs)} must run. {reason}"


@pytest.fixture(scope="session", autouse=True)
def _wide_terminal():
    """A message's words stand on one line, however long the paths in it are and whatever terminal this is."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    yield
    os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory):
    """A Redis of our own on a socket, so that it meets no other."""
    pytest.importorskip("redis", reason="the redis client is not installed")
    server = shutil.which("redis-server")
    if server is None:
        pytest.skip("no redis-server on this machine")
    socket = tmp_path_factory.mktemp("redis") / "redis.sock"
    process = subprocess.Popen(
        [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(socket.parent)],
        stdout=subprocess.DEVNULL,
    )
    end = time.monotonic() + 10
    while not socket.exists() and time.monotonic() < end:
        time.sleep(0.02)
    yield f"unix://{socket}"
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets: ONESEARCH_DATA, or ../shared/data beside the repository; skips without it."""
    folder = Path(os.environ.get("ONESEARCH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}: set ONESEARCH_DATA")
    return folder
