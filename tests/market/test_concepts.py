import ast
import re
from dataclasses import asdict
from pathlib import Path

from onesearch.market.market_settings import MarketSettings

DOCS = Path(__file__).parents[2] / "docs" / "concepts.md"


def test_the_parameters_are_those_of_the_docs():
    """The market is fixed before methods are compared on it: changing a value means changing the docs, knowingly."""
    written = {
        name: ast.literal_eval(value)
        for name, value in re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    }
    sections = ("catalogue", "shoppers", "queries", "engine", "choice")
    fixed = {section: asdict(getattr(MarketSettings, section)) for section in sections}
    assert written == {f"{section}.{name}": value for section in sections for name, value in fixed[section].items()}
