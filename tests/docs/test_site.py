"""What the site's hook makes of the code: the settings reference, the API pages, the home page."""

import importlib.util
import re

import pytest
import yaml
from pydantic import BaseModel
from tests.docs.code_references import ROOT, SOURCES

from onesearch.common.settings import Settings
from onesearch.pipeline.run_settings import RunSettings

_spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
hooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hooks)


class Inner(Settings):
    """Inside."""

    depth: int = 3  # how deep


class Outer(Settings):
    """Around."""

    name: str
    inner: Inner = Inner()
    more: tuple[Inner, ...] = ()
    ratio: float | None = None
    """What is
    kept."""


class Below(Outer):
    """Further down."""

    name: str = "x"


def test_sections_types_defaults_and_meanings_by_hand():
    text = "\n".join(hooks._sections("", Outer, {}))
    assert "| `name` | text | required |  |" in text
    assert "| `ratio` | number or `null` | `null` | What is kept. |" in text
    assert "| `inner.depth` | whole number | `3` | how deep |" in text
    assert "| `more` | list of sections as below | `[]` |" in text and "The keys of [inner](#inner)." in text
    assert hooks.meaning(Below, "ratio") == "What is kept."


def keys(prefix: str, model: type[BaseModel], seen: set) -> list[str]:
    """Dotted names of all values, each section once."""
    out: list[str] = []
    for name, value in model.model_construct().__dict__.items() if model not in seen else ():
        kind = type(value)
        inside = isinstance(value, BaseModel)
        out += keys(f"{prefix}{name}.", kind, seen) if inside else [f"{prefix}{name}"]
    seen.add(model)
    return out


def test_the_settings_reference_names_every_key_of_a_run():
    page = hooks.settings_page()
    named = set(re.findall(r"^\| `([\w.]+)` \|", page, re.MULTILINE))
    wanted = keys("", RunSettings, set())
    assert len(wanted) > 100 and set(wanted) <= named


def test_every_module_has_a_page_in_a_known_room():
    named = {name for names in hooks.modules().values() for name in names}
    rooms = {path.name for path in SOURCES.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert set(hooks.modules()) == rooms
    assert "onesearch.search.engine" in named and "onesearch.data.ingest" in named


def test_the_home_page_links_within_the_site():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", hooks.home_page())
    inside = [link for link in links if "://" not in link]
    assert inside and all((ROOT / "docs" / link).is_file() for link in inside)


@pytest.mark.parametrize(
    ("html", "wanted"),
    [
        (":func:<code>~a.b.c</code>", '<autoref identifier="a.b.c" optional><code>c</code></autoref>'),
        (":class:<code>C</code>s", '<autoref identifier="C" optional><code>C</code></autoref>s'),
        ("<code>x</code>", "<code>x</code>"),
    ],
)
def test_roles_become_links(html: str, wanted: str):
    assert hooks.on_page_content(html) == wanted


def test_pages_of_the_navigation_exist():
    def pages(entry):
        parts = entry.values() if isinstance(entry, dict) else entry if isinstance(entry, list) else []
        return [entry] if isinstance(entry, str) else [page for part in parts for page in pages(part)]

    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    missing = [page for page in nav if not (ROOT / "docs" / page).is_file()]
    assert missing == ["index.md", "settings.md"]  # which the hook makes
