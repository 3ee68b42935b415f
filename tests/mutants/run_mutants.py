"""One-line faults that the tests of their own room must notice.

    python tests/mutants/run_mutants.py                                    # all of them
    python tests/mutants/run_mutants.py --file tests/mutants/index.yaml    # those of one room
    python tests/mutants/run_mutants.py --part 3/10                        # every tenth, beginning with the third

A mutant is a text of a source file (it must occur exactly once), what takes its place, and the fast tests meant to fail
then. Each is applied to a copy of ``src``; the checkout is never touched. A mutant survives if the tests pass, and also
if the tests it names do not run at all: they are run once on the sources as they are, and must pass there.

The libraries are imported once; each run of tests is a fork of that process, which then imports the package anew from
its own copy of the sources.
"""

import argparse
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import fastapi.testclient  # noqa: F401  (what most tests import, loaded once)
import hypothesis  # noqa: F401
import lightgbm  # noqa: F401
import polars  # noqa: F401
import pytest
import tokenizers  # noqa: F401
import torch
import transformers  # noqa: F401
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
LIMIT = 300  # seconds; a fault that makes its tests hang is noticed, too
LAST_CHARACTERS = 20_000  # of what tests print that fail without a fault
FAILED = 1  # pytest's exit code where tests ran and some failed


@dataclass(frozen=True)
class Mutant:
    """A fault of one place: in ``file`` the text ``find`` becomes ``replace``, and one of ``tests`` must fail."""

    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    why: str

    @property
    def room(self) -> str:
        """The folder below ``src/onesearch``."""
        return self.file.split("/")[2]


def read_mutants(path: Path) -> list[Mutant]:
    """The mutants of a YAML file.

    Raises:
        ValueError: a text does not occur exactly once, or a test lies outside the room's own folder.
    """
    found = []
    for number, entry in enumerate(yaml.safe_load(path.read_text(encoding="utf-8")) or [], 1):
        mutant = Mutant(entry["file"], entry["find"], entry["replace"], tuple(entry["tests"]), entry["why"])
        where = f"{path.name}, mutant {number} ({mutant.why})"
        times = (ROOT / mutant.file).read_text(encoding="utf-8").count(mutant.find)
        if times != 1:
            raise ValueError(
                f"{where}: {mutant.find!r} occurs {times} times in {mutant.file}; name a text that occurs once"
            )
        own = (f"tests/{mutant.room}/", f"tests/test_{mutant.room}")
        if not mutant.tests or not all(test.startswith(own) for test in mutant.tests):
            raise ValueError(f"{where}: its tests must lie in tests/{mutant.room}/, got {', '.join(mutant.tests)}")
        found.append(mutant)
    return found


def run_tests(sources: Path, tests: Sequence[str], output: str) -> int:
    """Exit code of pytest on the tests, with the package taken from ``sources``; ``output`` gets what is printed;
    run this in a process of its own.
    """
    os.chdir(ROOT)
    os.environ |= {"PYTHONPATH": f"{sources}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}
    sys.path[:0] = [str(sources), str(ROOT)]
    os.dup2(os.open(output, os.O_WRONLY), 1)
    os.dup2(1, 2)
    options = ["-q", "-x", "-m", "not long and not hours", "-p", "no:cacheprovider", "-p", "no:xdist"]
    return int(pytest.main([*options, *tests]))


def exit_code(sources: Path, tests: Sequence[str], limit: float | None = None, output: str = os.devnull) -> int:
    """That of :func:`run_tests` in a fork; tests that take longer than ``limit`` seconds have failed."""

    def forked() -> None:
        os.setsid()  # a test's own processes end with it
        os._exit(run_tests(sources, tests, output))

    child = multiprocessing.get_context("fork").Process(target=forked)
    child.start()
    child.join(limit)
    if child.is_alive():
        os.killpg(child.pid or 0, signal.SIGKILL)
        child.join()
        return FAILED
    return int(child.exitcode or 0)


def is_killed(mutant: Mutant) -> bool:
    """Whether the mutant's tests fail on a copy of the sources that has its fault."""
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "src"
        shutil.copytree(ROOT / "src", sources, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        path = Path(folder) / mutant.file
        path.write_text(path.read_text(encoding="utf-8").replace(mutant.find, mutant.replace), encoding="utf-8")
        return exit_code(sources, mutant.tests, LIMIT) == FAILED


def main() -> None:
    """Run the mutants asked for; the exit code is 1 if one survives."""
    parser = argparse.ArgumentParser(description="Do the tests notice these faults?")
    parser.add_argument("--file", type=Path, action="append", help="a YAML file of mutants; all files without it")
    parser.add_argument("--part", default="1/1", metavar="I/N", help="every N-th mutant, beginning with the I-th")
    parser.add_argument("--workers", type=int, default=2, help="mutants at a time")
    arguments = parser.parse_args()
    first, step = (int(number) for number in arguments.part.split("/"))
    torch.set_num_threads(1)  # before the first fork: a pool of threads does not survive one

    files = arguments.file or sorted(FOLDER.glob("*.yaml"))
    mutants = [mutant for path in files for mutant in read_mutants(path)][first - 1 :: step]
    # A test that fails anyway notices nothing.
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    with tempfile.NamedTemporaryFile("r", encoding="utf-8", errors="replace") as output:
        if tests and exit_code(ROOT / "src", tests, output=output.name) != 0:
            print(output.read()[-LAST_CHARACTERS:])
            sys.exit("tests fail without any fault (above); mend them first")

    survivors = []
    with ThreadPoolExecutor(arguments.workers) as pool:  # a thread waits for its fork
        for mutant, killed in zip(mutants, pool.map(is_killed, mutants), strict=True):
            print(f"{'killed' if killed else 'SURVIVES'}: {mutant.file}: {mutant.why}", flush=True)
            if not killed:
                survivors.append(mutant)
    for mutant in survivors:  # again, at the end of a long log
        print(f"survives: {mutant.file}: {mutant.why} ({', '.join(mutant.tests)})")
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} mutants killed")
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
