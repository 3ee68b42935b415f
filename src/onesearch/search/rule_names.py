"""What rules name: which of it the catalogue has not, and which of it earlier rules named already.

An item that leaves the catalogue leaves the rules about it behind. They do nothing then, and must not be in the way of
other changes, whereas a name that was never there is most likely misspelt.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, get_args

import polars as pl

from onesearch.index.filter_values import PATH_SEPARATOR
from onesearch.search.rules import BoostRule, Column, Hide, Pin, Rule, Rules

NAMED_COLUMNS: Final[tuple[Column, ...]] = get_args(Column)
"""Columns of the item table whose values rules may name."""


def unknown_names(rules: Rules, items: pl.DataFrame) -> dict[str, str]:
    """What rules name and the catalogue has not, in words, by the rule's name.

    ``items`` is the table of the items that are there now, or these columns of it.
    """
    known: dict[str, frozenset[str]] = {}

    def missing(column: Column, names: Iterable[str]) -> list[str]:
        if column not in known:
            values = items[column].explode() if column == "category" else items[column]
            known[column] = frozenset(values.drop_nulls().unique())
        what = "item" if column == "item_id" else column
        return [f"no {what} {name!r} in the catalogue" for name in names if name not in known[column]]

    found: dict[str, str] = {}
    for kind, rule in rules.each():
        # A condition may name a path, of which each level is a category.
        faults = [] if not rule.when.category else missing("category", _levels(rule.when.category))
        if isinstance(rule, Pin):
            faults += missing("item_id", rule.items)
        elif isinstance(rule, BoostRule | Hide):
            faults += missing(rule.column, rule.values)
        if faults:
            found[rule.name] = f"{kind}, {rule.name}: {'; '.join(faults[:5])}"
    return found


def additions(rules: Rules, before: Rules) -> Rules:
    """What rules say that those before did not: without rules that are as they were, and names that some rule named."""
    as_before = {(kind, rule.name): rule for kind, rule in before.each()}
    named = {name for _, rule in before.each() for name in _names(rule)}
    rest: dict[str, Any] = {kind: () for kind in Rules.model_fields}
    for kind, rule in rules.each():
        if as_before.get((kind, rule.name)) != rule:
            rest[kind] += (_without(rule, named),)
    return rules.model_copy(update=rest)


def _names(rule: Rule) -> Iterator[tuple[str, str]]:
    """Columns and names of a rule's group, and of its condition."""
    yield from (("when", path) for path in rule.when.category)
    if isinstance(rule, Pin):
        yield from (("item_id", name) for name in rule.items)
    elif isinstance(rule, BoostRule | Hide):
        yield from ((rule.column, name) for name in rule.values)


def _without(rule: Rule, named: set[tuple[str, str]]) -> Rule:
    """A rule that leaves names out, maybe all of them: to be looked at, not to be kept."""
    paths = tuple(path for path in rule.when.category if ("when", path) not in named)
    changes: dict[str, object] = {"when": rule.when.model_copy(update={"category": paths})}
    if isinstance(rule, Pin):
        changes["items"] = tuple(name for name in rule.items if ("item_id", name) not in named)
    elif isinstance(rule, BoostRule | Hide):
        changes["values"] = tuple(name for name in rule.values if (rule.column, name) not in named)
    return rule.model_copy(update=changes)


def _levels(paths: Iterable[str]) -> list[str]:
    return [level for path in paths for level in path.split(PATH_SEPARATOR)]
