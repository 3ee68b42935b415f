"""A run in a folder where nothing can be written: it is searched, and what has to write says so in a line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onesearch.serving.sqlite_store import SqliteStore

# Who may do anything must first give that up.
GIVE_UP = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]


@pytest.fixture(scope="module")
def sealed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("sealed") / "run"
    shutil.copytree(tiny_run, run)
    SqliteStore(run / "serving.sqlite3").close()
    for path in [run, *run.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    return run


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    first = GIVE_UP if os.geteuid() == 0 else []
    if first and shutil.which("setpriv") is None:
        pytest.skip("runs as root, and there is no setpriv")
    command = [*first, sys.executable, "-m", "onesearch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_it_can_be_searched(sealed):
    found = call("search", sealed, "boots", "-k", 1)
    assert found.returncode == 0 and "1 results" in found.stdout + found.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("serve",), "--store names another place"), (("update", "--rollback"), "Permission denied")],
)
def test_what_has_to_write_says_so_in_a_line(sealed, arguments, words):
    done = call(arguments[0], sealed, *arguments[1:])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert words in " ".join(done.stderr.split())
