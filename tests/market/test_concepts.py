import ast
import re
from pathlib import Path

from onesearch.market.market_settings import MarketSettings

DOCS = Path(__file__).parents[2] / "docs" / "concepts.md"


def test_the_parameters_are_those_of_the_docs():
    """The market is fixed before methods are compared on it: changing a value means changing the docs, knowingly."""
    written = {
        name: ast.literal_eval(value)
        for name, value in re.findall(r"^\| `(\w+\.\w+)` \| ([^|]+) \|", DOCS.read_text(encoding="utf-8"), re.MULTILINE)
    }
    config = MarketSettings().model_dump()
    sections = [(section, values) for section, values in config.items() if isinstance(values, dict)]
    assert written == {f"{section}.{name}": value for section, values in sections for name, value in values.items()}
