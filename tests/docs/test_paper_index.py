"""docs/paper_index.md cannot rot: every function and test it names exists."""

import re

import pytest
from tests.docs.code_references import REFERENCE, ROOT, SOURCES, TESTS, missing
from tests.docs.test_method import EQUATIONS, METHOD

PAGE = ROOT / "docs" / "paper_index.md"


def rows() -> list[list[str]]:
    """Cells of all rows of the formula tables: formula, function, ours, paper, test."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if row[0] != "formula" and not set(row[0]) <= set("-: ")]


def test_the_page_covers_every_equation_of_the_method():
    cited = {equation for row in rows() for equation in re.findall(r"\((\d\.\d+)\)", row[0])}
    assert cited == set(EQUATIONS)
    titles = re.findall(r"^## (\d .+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert titles == re.findall(r"^## (\d .+)", METHOD, re.MULTILINE)


@pytest.mark.parametrize("row", rows(), ids=lambda row: re.sub(r"\W+", "-", row[0])[:40])
def test_every_row_names_a_function_and_a_test_that_exist(row: list[str]):
    assert len(row) == 5, f"five cells wanted, got {row}"
    _, functions, ours, paper, tests = row
    assert REFERENCE.search(functions) and REFERENCE.search(tests) and ours and paper
    assert missing(SOURCES, functions) == []
    assert missing(TESTS, tests) == []
    assert all(name.startswith("test_") for _, name in REFERENCE.findall(tests))


def test_a_wrong_reference_is_found():
    assert missing(SOURCES, "`encoding/fusion.py::fuze`") == ["encoding/fusion.py::fuze"]
    assert missing(SOURCES, "`encoding/fusiom.py::fuse`") == ["encoding/fusiom.py::fuse"]
    assert missing(SOURCES, "`encoding/khqe.py::KHQE.fit`") == []


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
