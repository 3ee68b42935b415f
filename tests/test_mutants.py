"""The lists of one-line faults fit the code: running them takes long, and a list that no longer fits stops that run."""

import ast
import re
from pathlib import Path

import pytest

from mutants.run_mutants import FOLDER, ROOT, read_mutants

LISTS = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_each_fault_finds_its_place_and_its_tests(path: Path):
    mutants = read_mutants(path)
    assert mutants
    missing = []
    for test in {test for mutant in mutants for test in mutant.tests}:
        file, *names = test.split("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        names = [name.partition("[")[0] for name in names]
        missing += [test for name in names if not re.search(rf"^\s*(async def|def|class) {name}\b", text, re.MULTILINE)]
    assert not missing
    # A file that no longer parses stops the tests before one of them could notice the fault.
    for mutant in mutants:
        if mutant.file.endswith(".py"):
            ast.parse((ROOT / mutant.file).read_text(encoding="utf-8").replace(mutant.find, mutant.replace), mutant.why)


def test_a_fault_without_a_place_is_refused(tmp_path: Path):
    (tmp_path / "common.yaml").write_text(
        "- {file: src/onesearch/__init__.py, find: no such text, replace: '', tests: [tests/common/], why: gone}"
    )
    with pytest.raises(ValueError, match=r"mutant 1 \(gone\): 'no such text' occurs 0 times"):
        read_mutants(tmp_path / "common.yaml")
