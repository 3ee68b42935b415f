"""Categories as one path from the root, also where a cell holds several ("Clothing > Men, Clothing > Shirts")."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import polars as pl

from onesearch.data.ingest.text_values import texts

# Between the levels of a path, unless the mapping says another sign; and between texts that are joined here.
PATH: Final = r"\s*(?:[-=]*>|[›»→])\s*"
JOINT: Final = "\x1f"
SEVERAL: Final = "several paths in one cell, the first of the longest is kept"
DOUBTFUL: Final = "a sign between two levels could part two paths"
_ARROW: Final = re.compile(PATH)
# What parts the paths of one text: a comma may also belong to a category's name.
_PARTED: Final = re.compile(r"\s*[,;|]\s+|\s*[;|]\s*")
_BETWEEN_LEVELS: Final = rf"{PATH}[^>›»→]*(?:,\s|[;|])[^>›»→]*{PATH}"


def category_paths(
    frame: pl.DataFrame, name: str, ignore: Sequence[str] = (), separator: str | None = None
) -> tuple[pl.Series, Counter[str]]:
    """A column of categories as lists of levels from the root, and what is doubtful about them.

    Texts, also those in lists, are cut at the separator, without one at ">". Of several paths in a cell, which a shop's
    second or third categories are, the first of the longest is kept.
    """
    # One text a row; only those that may have several paths are taken apart.
    lines = frame.select(texts(frame, name, None).alias(name))[name].list.join(JOINT)
    listed = lines.str.contains(JOINT, literal=True)
    if separator is None:
        rows = (lines.str.contains(PATH) & (listed | lines.str.contains("[,;|]"))).arg_true()
    else:
        rows = listed.arg_true()
    counts = Counter[str]()
    if len(rows):
        written = lines.gather(rows)
        one = {line: _one_path(line, separator) for line in written.unique().to_list()}
        found = [one[line] for line in written.to_list()]
        lines = lines.scatter(rows, pl.Series([JOINT.join(path) for path, _ in found]))
        several = pl.Series([is_several for _, is_several in found])
        counts[f"category: {SEVERAL}"] = int(several.sum())
        if separator is None:
            counts[f"category: {DOUBTFUL}"] = int(written.filter(~several).str.contains(_BETWEEN_LEVELS).sum())
    # Levels: the texts of a list, and what stands between the signs.
    if separator is None:
        lines = lines.str.replace_all(PATH, JOINT)
    else:
        lines = lines.str.replace_all(separator, JOINT, literal=True)
    levels = pl.DataFrame({name: lines.str.split(JOINT)})
    return levels.select(texts(levels, name, None, ignore).alias(name))[name], +counts


def _one_path(line: str, separator: str | None = None) -> tuple[list[str], bool]:
    """The texts that one path of a line is written in, and whether the line has several paths.

    >>> _one_path("Clothing, Clothing > Men, Clothing > Shirts"), _one_path("Home > Bed, Bath > Towels")
    ((['Clothing > Men'], True), (['Home > Bed, Bath > Towels'], False))
    """

    def cut(path: str) -> list[str]:
        return _ARROW.split(path) if separator is None else path.split(separator)

    parts = line.split(JOINT)
    # A separator of the mapping parts levels alone: several paths are texts of a list.
    paths = parts if len(parts) > 1 or separator is not None else _parted(line)
    roots = [cut(path)[0].strip().casefold() for path in paths]
    # Levels in a list have at most one path among them, and none begins anew at the root.
    if len(paths) > 1 and (roots[0] in roots[1:] or sum(len(cut(path)) > 1 for path in paths) > 1):
        return [max(paths, key=lambda path: len(cut(path)))], True
    return parts, False


def _parted(text: str) -> list[str]:
    """The paths of a text: cut where its root stands again behind a sign that can part them."""
    first = _PARTED.split(_ARROW.split(text)[0])[0]
    anew = re.compile(rf"(?:{_PARTED.pattern})(?={re.escape(first)}\s*(?:$|[,;|]|{PATH}))", re.IGNORECASE)
    return anew.split(text) if first else [text]
