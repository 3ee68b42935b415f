"""docs/paper_index.md cannot rot: every function and test it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "paper_index.md"
REFERENCE = re.compile(r"`([\w/]+\.py)::([\w.]+)`")


@cache
def names(path: Path) -> frozenset[str]:
    """Functions, classes, methods (as Class.method), module constants and class fields of a file."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)
            if isinstance(node, ast.Assign):
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def rows() -> list[list[str]]:
    """Cells of all rows of the formula tables: formula, function, ours, paper, test."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[0] != "formula" and not set(row[0]) <= set("-: ")]


def missing(folder: Path, cell: str) -> list[str]:
    found = []
    for path, name in REFERENCE.findall(cell):
        file = (ROOT if path.startswith("benchmarks/") else folder) / path
        if not file.is_file() or name not in names(file):
            found.append(f"{path}::{name}")
    return found


def test_the_page_covers_the_specification():
    assert len(rows()) >= 40
    text = PAGE.read_text(encoding="utf-8")
    parts = ("Section 1", "Section 2", "Section 3", "Section 5", "Section 6", "Section 8", "Where we deviate")
    assert all(f"## {part}" in text for part in parts)


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row[0])[:40])
def test_every_row_names_a_function_and_a_test_that_exist(row: list[str]):
    assert len(row) == 5, f"five cells wanted, got {row}"
    _, functions, ours, paper, tests = row
    assert REFERENCE.search(functions) and REFERENCE.search(tests) and ours and paper
    assert missing(ROOT / "src" / "onesearch", functions) == []
    assert missing(ROOT / "tests", tests) == []
    assert all(name.startswith("test_") for _, name in REFERENCE.findall(tests))


def test_a_wrong_reference_is_found():
    assert missing(ROOT / "src" / "onesearch", "`encoding/fusion.py::fuze`") == ["encoding/fusion.py::fuze"]
    assert missing(ROOT / "src" / "onesearch", "`encoding/fusiom.py::fuse`") == ["encoding/fusiom.py::fuse"]
    assert missing(ROOT / "src" / "onesearch", "`encoding/khqe.py::KHQE.fit`") == []


def test_the_defaults_the_page_states_are_those_of_the_code():
    from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings
    from onesearch.model.model_settings import ModelSettings, PromptSettings
    from onesearch.training.sft_settings import PersonalisationSettings

    text = PAGE.read_text(encoding="utf-8")
    align, prompt, model, last = (
        EncoderAlignmentSettings(),
        PromptSettings(),
        ModelSettings(),
        PersonalisationSettings(),
    )
    assert f"temperature {align.temperature}" in text and f"margin {align.margin}" in text
    assert f"q2i {align.q2i:g}, q2q {align.q2q}, i2i {align.i2i}, rank {align.rank}, rel {align.relevance}" in text
    assert f"`short` {prompt.short}" in text and f"`fill: {prompt.fill}`" in text
    assert f"`codebook_weight` {last.codebook_weight}" in text and f"N_M = {model.long_vectors}" in text
