"""Real pictures with real words: emoji of two sets of drawings, and the keywords by which people look for them.

Made of the npm packages ``emoji-datasource-google``, ``emoji-datasource-twitter`` (pictures, names, groups) and
``emojilib`` (keywords). Nothing of them is kept here.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import yaml

from onesearch.common.artefact import read_json

SETS: Final = ("google", "twitter")
_SIDE: Final = 64  # pixels
_WORD: Final = re.compile(r"[a-z]{2}")


def write_emoji(packages: Path, folder: Path, unnamed: float, seed: int = 0) -> None:
    """Write items, judgments and their mapping to a folder.

    An item has its name, its group and two pictures; of a share ``unnamed`` the text says the group alone. Every
    keyword is a query, and all emoji that have it are what it looks for.

    Args:
        packages: folder ``node_modules`` that has the three packages; pictures are named from there.
        folder: is made.
        unnamed: 0 to 1.
        seed: which items lose their names; those of a smaller share lose it with a larger one, too.

    Raises:
        FileNotFoundError: a package is not there.
    """
    listed: Any = read_json(packages / f"emoji-datasource-{SETS[0]}" / "emoji.json")
    words: Any = read_json(packages / "emojilib" / "dist" / "emoji-en-US.json")
    keywords = {_bare(emoji): some for emoji, some in words.items()}
    shown = [one for one in listed if one["category"] != "Component" and all(one[f"has_img_{name}"] for name in SETS)]
    drawn = np.random.default_rng(seed).random(len(shown)) < unnamed
    items, judgments = [], []
    for one, lost in zip(shown, drawn, strict=True):
        name, found = one["name"].lower(), keywords.get(_bare(_text(one["unified"])), [])
        items.append(_item(one, one["subcategory"].replace("-", " ") if lost else name))
        queries = {keyword.replace("_", " ").lower() for keyword in found} - {name}
        judgments += [(query, one["unified"], 3) for query in sorted(queries) if _WORD.search(query)]
    # Files as a shop's: two tables, and the mapping that reads them.
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(items).write_csv(folder / "items.csv")
    pl.DataFrame(judgments, ["query", "item_id", "score"], orient="row").write_csv(folder / "judgments.csv")
    (folder / "mapping.yaml").write_text(yaml.safe_dump(_mapping()), encoding="utf-8")


def _item(one: Mapping[str, Any], title: str) -> dict[str, str]:
    pictures = [f"emoji-datasource-{name}/img/{name}/{_SIDE}/{one['image']}" for name in SETS]
    group = f"{one['category']} > {one['subcategory'].replace('-', ' ')}"
    return {"item_id": one["unified"], "title": title, "category": group, "images": json.dumps(pictures)}


def _mapping() -> dict[str, Any]:
    columns = {name: name for name in ("item_id", "title", "category", "images")}
    judged = {name: name for name in ("query", "item_id", "score")}
    return {
        "source": "emoji",
        "folder": ".",
        "items": {"file": "items.csv", "columns": columns},
        "judgments": {"file": "judgments.csv", "columns": judged, "levels": [1, 2, 3]},
        "page_views": {"from": "judgments", "clicked_at": 3},
    }


def _text(unified: str) -> str:
    return "".join(chr(int(part, 16)) for part in unified.split("-"))


def _bare(emoji: str) -> str:
    """Without the sign that asks for the coloured form, which not every list writes."""
    return emoji.replace("\ufe0f", "")
