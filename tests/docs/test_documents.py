"""What documents refer to exists: files, headings, functions, settings, rooms."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel
from tests.docs.code_references import ROOT, SOURCES, missing

from onesearch.pipeline.run_settings import RunSettings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "results").glob("*.md"))]
HAND_WRITTEN = [page for page in PAGES if page.parent.name != "results"]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """Headings as links name them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path):
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path) if path else page
        assert target.exists(), f"{link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=name)
def test_code_that_pages_name_exists(page: Path):
    text = page.read_text(encoding="utf-8")
    if page.name == "paper_index.md":  # which has a test of its own: it names tests as well
        text = text[text.index("## Where we deviate") :]
    assert missing(SOURCES, text) == []


def setting_exists(key: str) -> bool:
    """Whether a dotted name such as "sft3.loop.best" is a setting of a run; the last parts may be keys of a table."""
    model: type[BaseModel] | None = RunSettings
    for part in key.split("."):
        if model is None:
            return True
        if part not in model.model_fields:
            return False
        kinds = (model.model_fields[part].annotation, *getattr(model.model_fields[part].annotation, "__args__", ()))
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
    return True


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=name)
def test_settings_that_pages_name_exist(page: Path):
    named = re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9]+)+)(?:[:=][^`]*)?`", prose(page))
    of_runs = [key for key in named if key.split(".")[0] in RunSettings.model_fields]
    files = {"parquet", "json", "yaml", "npy", "md", "py", "png", "txt", "jsonl", "safetensors", "sqlite3", "zip"}
    assert [key for key in of_runs if key.split(".")[-1] not in files and not setting_exists(key)] == []


def test_misspelt_settings_are_found():
    assert setting_exists("sft3.loop.best") and setting_exists("data.market.items")
    assert not setting_exists("sft3.loop.bets") and not setting_exists("grpo.lopp")


def test_the_architecture_names_every_room():
    rooms = {path.parent.name for path in SOURCES.glob("*/__init__.py")}
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rooms <= set(table)


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=name)
def test_pages_are_public(page: Path):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<![\w.])/(?:work|home|root|tmp)/", text)
