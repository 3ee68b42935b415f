"""docs/method.md and the code cite each other: no reference leads nowhere."""

import re

import pytest
from tests.docs.code_references import ROOT, SOURCES, missing

METHOD = (ROOT / "docs" / "method.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (\d) ", METHOD, re.MULTILINE)
EQUATIONS = re.findall(r"^\((\d\.\d+)\)", METHOD, re.MULTILINE)


def citations(text: str) -> list[str]:
    """Section and equation numbers that a text cites of ``docs/method.md``: "section 6", "(6.3)", "(6.1) to (6.4)"."""
    found = []
    for after in re.findall(r"docs/method\.md,?((?:[\s#]*(?:sections?|equations?|and|to|,|\d|\(\d\.\d+\)))*)", text):
        found += re.findall(r"\((\d\.\d+)\)|\b(\d)\b(?!\.)", after)
    return [equation or section for equation, section in found]


def test_sections_and_equations_are_numbered_through():
    assert [str(number) for number in range(1, 10)] == SECTIONS
    for section in SECTIONS:
        of_section = [int(e.split(".")[1]) for e in EQUATIONS if e.startswith(f"{section}.")]
        assert of_section == list(range(1, len(of_section) + 1)) and of_section


def test_every_equation_named_in_the_text_exists():
    assert set(re.findall(r"\((\d\.\d+)\)", METHOD)) == set(EQUATIONS)


def test_code_that_the_page_names_exists():
    assert missing(SOURCES, METHOD) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("see docs/method.md (6.3), which", ["6.3"]),
        ("(docs/method.md, section 7)", ["7"]),
        ("docs/method.md, equations (6.1) to (6.4)", ["6.1", "6.4"]),
        ("docs/method.md, sections 2 and 3. 4 codes", ["2", "3"]),
    ],
)
def test_citations_are_found(text: str, wanted: list[str]):
    assert citations(text) == wanted


@pytest.mark.parametrize("path", sorted(SOURCES.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCES)))
def test_sections_and_equations_that_the_code_cites_exist(path):
    assert set(citations(path.read_text(encoding="utf-8"))) <= {*SECTIONS, *EQUATIONS}
