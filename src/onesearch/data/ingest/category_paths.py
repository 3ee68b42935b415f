"""Categories as one path from the root, also where a cell holds several ("Clothing > Men, Clothing > Shirts")."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Final

import polars as pl

from onesearch.data.ingest.text_values import JOINT, PATH, texts

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
    cells = frame.select(texts(frame, name, None).alias(name))[name]
    if separator is not None:
        return _cut_at(cells, separator, ignore)
    # One text a row; only those that have an arrow, and a second path or what looks like one, are taken apart.
    lines = cells.list.join(JOINT)
    rows = (lines.str.contains(PATH) & lines.str.contains(rf"[,;|{JOINT}]")).arg_true()
    counts = Counter[str]()
    if len(rows):
        written = lines.gather(rows)
        one = {line: _one_path(line) for line in written.unique().to_list()}
        found = [one[line] for line in written.to_list()]
        lines = lines.scatter(rows, pl.Series([JOINT.join(path) for path, _ in found]))
        several = sum(is_several for _, is_several in found)
        counts[f"category: {SEVERAL}"] = several
        single = written.filter(pl.Series([not is_several for _, is_several in found]))
        counts[f"category: {DOUBTFUL}"] = int(single.str.contains(_BETWEEN_LEVELS).sum())
    cut = pl.DataFrame({name: lines.str.split(JOINT)})
    return cut.select(texts(cut, name, None, ignore, path=True).alias(name))[name], +counts


def _cut_at(cells: pl.Series, separator: str, ignore: Sequence[str]) -> tuple[pl.Series, Counter[str]]:
    """Lists of texts as paths whose levels are parted by a separator and nothing else."""
    lines = cells.list.join(JOINT)
    # A list is one path, or its texts are one each.
    rows = lines.str.contains(JOINT, literal=True).arg_true()
    several = 0
    if len(rows):
        written = lines.gather(rows)
        one = {line: _one_of(line.split(JOINT), separator) for line in written.unique().to_list()}
        found = [one[line] for line in written.to_list()]
        lines = lines.scatter(rows, pl.Series([JOINT.join(path) for path, _ in found]))
        several = sum(is_several for _, is_several in found)
    name = cells.name
    cut = pl.DataFrame({name: lines.str.replace_all(separator, JOINT, literal=True).str.split(JOINT)})
    return cut.select(texts(cut, name, None, ignore).alias(name))[name], +Counter({f"category: {SEVERAL}": several})


def _one_of(parts: list[str], separator: str) -> tuple[list[str], bool]:
    """The texts of a list that one path is written in, and whether the list has several paths.

    >>> _one_of(["A|B", "A|C|D"], "|"), _one_of(["A", "B|C"], "|"), _one_of(["A", "A|C"], "|")
    ((['A|C|D'], True), (['A', 'B|C'], False), (['A|C'], True))
    """
    paths = [part.split(separator) for part in parts]
    roots = [path[0].strip().casefold() for path in paths]
    if roots[0] in roots[1:] or sum(len(path) > 1 for path in paths) > 1:
        return [max(parts, key=lambda part: len(part.split(separator)))], True
    return parts, False


def _one_path(line: str) -> tuple[list[str], bool]:
    """The texts that one path of a line is written in, and whether the line has several paths.

    >>> _one_path("Clothing, Clothing > Men, Clothing > Shirts"), _one_path("Home > Bed, Bath > Towels")
    ((['Clothing > Men'], True), (['Home > Bed, Bath > Towels'], False))
    """
    parts = line.split(JOINT)
    paths = parts if len(parts) > 1 else _parted(line)
    roots = [_ARROW.split(path)[0].casefold() for path in paths]
    # Levels in a list have at most one path among them, and none begins anew at the root.
    if len(paths) > 1 and (roots[0] in roots[1:] or sum(_ARROW.search(path) is not None for path in paths) > 1):
        return [max(paths, key=lambda path: len(_ARROW.split(path)))], True
    return parts, False


def _parted(text: str) -> list[str]:
    """The paths of a text: cut where its root stands again behind a sign that can part them."""
    first = _PARTED.split(_ARROW.split(text)[0])[0]
    anew = re.compile(rf"(?:{_PARTED.pattern})(?={re.escape(first)}\s*(?:$|[,;|]|{PATH}))", re.IGNORECASE)
    return anew.split(text) if first else [text]
