"""Filter expressions as Meilisearch writes them, and what they mean here.

::

    expression = conjunction { OR conjunction }        conjunction = negation { AND negation }
    negation   = NOT negation | "(" expression ")" | condition
    condition  = attribute (= | != | > | >= | < | <=) value | attribute low TO high | attribute [NOT] IN "[" values "]"

A list of expressions means all of them, a list within the list any of its. Our filters are conditions that must all
hold, each with alternatives for one attribute, and conditions of which none may hold; an expression that says more than
that is refused by name.

An item has several values of an attribute, and lies in several categories: of conditions that must all hold it may
meet each by another one. A lower and an upper bound that leave room between them are one range, as of a slider.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from onesearch.index.filter_values import PATH_SEPARATOR

_TOKEN = re.compile(
    r"""\s*(?:(?P<op>!=|>=|<=|[=<>()\[\],])|"(?P<double>(?:\\.|[^"\\])*)"|'(?P<single>(?:\\.|[^'\\])*)'|(?P<word>[^\s()\[\],=<>!"']+))"""
)
_WORDS = {"AND", "OR", "NOT", "IN", "TO", "EXISTS", "IS", "CONTAINS", "STARTS"}
# Anyone may send a filter: of all its texts together, except for the depth.
_MOST_LETTERS, _MOST_TOKENS, _MOST_DEPTH = 100_000, 1000, 50
_MOST_VALUES = 500
_MOST_PAIRS = 2500  # of ranges that are compared with each other
_PATH_LEVEL = re.compile(r"category\.lvl\d+$")
Range = tuple[float, float]


@dataclass(frozen=True)
class Condition:
    """An attribute has one of some values, or, negated, none of them; a value is a text or a range of numbers."""

    attribute: str
    values: tuple[str | Range, ...]
    negated: bool = False


def our_filters(given: Any) -> dict[str, Any]:
    """Our filters from a ``filter`` of Meilisearch: a text, a list of texts, or a list of lists of texts.

    Raises:
        ValueError: it is no expression, says what our filters cannot, or is too long.
    """
    if given is None:
        return {}
    parts = given if isinstance(given, list) else [given]
    texts = [text for part in parts for text in (part if isinstance(part, list) else [part]) if isinstance(text, str)]
    if len(texts) > _MOST_TOKENS or sum(map(len, texts)) > _MOST_LETTERS:
        raise ValueError(f"a filter has at most {_MOST_TOKENS} texts and {_MOST_LETTERS} characters")
    conditions: list[Condition] = []
    for part in parts:
        if isinstance(part, list):
            conditions.append(_any_of([_single(text) for text in part]))
        elif isinstance(part, str):
            conditions += _Parser(part).conditions() if part.strip() else []
        else:
            raise ValueError(f"a filter is a text or a list, got {str(part)[:50]!r}")
    if sum(len(one.values) for one in conditions) > _MOST_VALUES:
        raise ValueError(f"a filter has at most {_MOST_VALUES} values")
    return _as_filters(conditions)


def _single(text: Any) -> Condition:
    if not isinstance(text, str):
        raise ValueError("lists of filters hold texts, and lists of texts, no deeper")
    found = _Parser(text).conditions()
    if len(found) != 1:
        raise ValueError(f"{text[:100]!r}: one of several alternatives must be a single condition")
    return found[0]


class _Parser:
    """Recursive descent; every rule gives the conditions that must all hold."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._depth = text.rstrip(), 0, 0
        self._tokens: list[tuple[str, bool]] = []  # text, whether it was in quotes
        place = 0
        while place < len(self._text):
            found = _TOKEN.match(self._text, place)
            if found is None or len(self._tokens) >= _MOST_TOKENS:
                raise self._wrong("is no filter" if found is None else f"has more than {_MOST_TOKENS} words")
            quoted = next((found[name] for name in ("double", "single") if found[name] is not None), None)
            plain = found["op"] or found["word"]
            self._tokens.append((plain, False) if quoted is None else (re.sub(r"\\(.)", r"\1", quoted), True))
            place = found.end()

    def conditions(self) -> list[Condition]:
        """The whole text."""
        found = self._expression()
        if self._at < len(self._tokens):
            raise self._wrong(f"goes on with {self._tokens[self._at][0][:50]!r}, where AND or OR is expected")
        return found

    def _wrong(self, words: str) -> ValueError:
        return ValueError(f"filter {self._text[:100]!r} {words}")

    def _taken(self, *words: str) -> str | None:
        """The next token, if it is one of these outside of quotes."""
        if self._at < len(self._tokens):
            text, quoted = self._tokens[self._at]
            if not quoted and (text.upper() if text.upper() in _WORDS else text) in words:
                self._at += 1
                return text.upper()
        return None

    def _value(self) -> str:
        if self._at == len(self._tokens):
            raise self._wrong("ends too early")
        text, quoted = self._tokens[self._at]
        if not quoted and (text in "()[],=<>" or text.upper() in _WORDS or text in ("!=", ">=", "<=")):
            raise self._wrong(f"has {text!r} where a name or a value is expected")
        self._at += 1
        return text

    def _expression(self) -> list[Condition]:
        found = self._conjunction()
        while self._taken("OR"):
            other = self._conjunction()
            if len(found) != 1 or len(other) != 1:
                raise self._wrong("joins by OR what is no single condition; only values of one attribute can be")
            found = [_any_of([found[0], other[0]])]
        return found

    def _conjunction(self) -> list[Condition]:
        found = self._negation()
        while self._taken("AND"):
            found = found + self._negation()
        return found

    def _negation(self) -> list[Condition]:
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            raise self._wrong(f"is nested deeper than {_MOST_DEPTH}")
        if self._taken("NOT"):
            found = self._negation()
            if len(found) != 1:
                raise self._wrong("negates several conditions at once")
            found = [replace(found[0], negated=not found[0].negated)]
        elif self._taken("("):
            found = self._expression()
            if not self._taken(")"):
                raise self._wrong("lacks a closing parenthesis")
        else:
            found = [self._condition()]
        self._depth -= 1
        return found

    def _condition(self) -> Condition:
        attribute = self._value()
        negated = bool(self._taken("NOT"))
        if self._taken("IN"):
            return Condition(attribute, tuple(self._list()), negated)
        if self._taken("EXISTS", "IS", "CONTAINS", "STARTS") or negated:
            raise self._wrong("asks for what our filters do not know; there are =, !=, >, >=, <, <=, TO, IN and NOT")
        operator = self._taken("=", "!=", ">", ">=", "<", "<=")
        if operator in ("=", "!="):
            return Condition(attribute, (self._value(),), operator == "!=")
        low = self._number()
        if operator is None:
            if not self._taken("TO"):
                raise self._wrong(f"says nothing of {attribute[:50]!r}")
            return Condition(attribute, ((low, self._number()),))
        bounds = {
            ">": (math.nextafter(low, math.inf), math.inf),
            ">=": (low, math.inf),
            "<": (-math.inf, math.nextafter(low, -math.inf)),
            "<=": (-math.inf, low),
        }
        return Condition(attribute, (bounds[operator],))

    def _list(self) -> list[str]:
        if not self._taken("["):
            raise self._wrong("has IN without a list in brackets")
        found: list[str] = []
        while not self._taken("]"):
            if found and not self._taken(","):
                raise self._wrong("lacks a comma or a closing bracket")
            found.append(self._value())
        if not found:
            raise self._wrong("has IN with an empty list")
        return found

    def _number(self) -> float:
        text = self._value()
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self._wrong(f"compares with {text[:50]!r}, which is no number")
        return number


def _any_of(conditions: Sequence[Condition]) -> Condition:
    """One of several conditions: values of one attribute."""
    if not conditions:
        raise ValueError("an empty list of alternatives")
    if len({one.attribute for one in conditions}) > 1 or (
        len(conditions) > 1 and any(one.negated for one in conditions)
    ):
        names = ", ".join(dict.fromkeys(one.attribute[:50] for one in conditions))
        raise ValueError(f"OR joins values of one attribute; it cannot join conditions on {names}")
    return replace(conditions[0], values=tuple(value for one in conditions for value in one.values))


def _as_filters(conditions: Sequence[Condition]) -> dict[str, Any]:
    # Of each key the conditions that must hold, each a set of alternatives, and what may not be.
    positive: dict[str, list[tuple[Any, ...]]] = {}
    negative: dict[str, list[Any]] = {}
    for one in conditions:
        key = "category" if _PATH_LEVEL.match(one.attribute) else one.attribute
        values = tuple(_value(one.attribute, value) for value in one.values)
        if key == "in_stock" and one.negated:  # there is nothing else that an item may be
            positive.setdefault(key, []).append(tuple({True, False}.difference(values)))
        elif one.negated:
            negative.setdefault(key, []).extend(values)
        else:
            positive.setdefault(key, []).append(values)
    # The first condition on each key stands at the top, the second ones of all keys together below it, and so on.
    sets = {key: _conditions_on(key, those) for key, those in positive.items()}
    layers = [
        _nested({key: _either(key, those[depth]) for key, those in sets.items() if len(those) > depth})
        for depth in range(max(map(len, sets.values()), default=0))
    ]
    out = layers[0] if layers else {}
    if layers[1:]:
        out["all"] = layers[1:]
    if negative:
        out["not"] = _nested({key: _either(key, values) for key, values in negative.items()})
    return out


def _value(attribute: str, value: str | Range) -> Any:
    """A value as our filter of an attribute takes it."""
    if attribute == "price":
        if isinstance(value, str):
            try:
                return float(value), float(value)
            except ValueError:
                raise ValueError(f"price is compared with {value[:50]!r}, which is no number") from None
        return value
    if attribute == "in_stock":
        if not isinstance(value, str) or value.lower() not in ("true", "false"):
            raise ValueError("in_stock is true or false")
        return value.lower() == "true"
    if isinstance(value, str):
        # What a level of the menu is called is its path from the root, also where that is one name.
        return {"path": value.split(PATH_SEPARATOR)} if _PATH_LEVEL.match(attribute) else value
    if not attribute.startswith("attributes."):
        raise ValueError(f"{attribute[:50]} holds texts, which have no order")
    return value


def _conditions_on(key: str, sets: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The conditions on one key that must all hold: as few sets of alternatives as say the same.

    Price and stock are one value of an item, so that their conditions make one, or two that never hold together.
    """
    if key == "price":
        found = sets[0]
        for other in sets[1:]:
            if len(found) * len(other) > _MOST_PAIRS:
                raise ValueError("the conditions on price combine too many ranges")
            shared = (_shared(one, two) for one in found for two in other)
            found = tuple(dict.fromkeys(both for both in shared if both is not None))
        return [found] if found else [((0.0, 0.0),), ((1.0, 1.0),)]
    if key == "in_stock":
        left = {True, False}.intersection(*sets)
        return [] if len(left) == 2 else [tuple(left)] if left else [(True,), (False,)]
    if key.startswith("attributes."):
        sets = _with_one_range(sets)
    return list({repr(one): one for one in sets}.values())


def _with_one_range(sets: Sequence[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Of one attribute: all lower and upper bounds as one range, where they leave room; all else as it is."""
    bounds = [
        one[0] for one in sets if len(one) == 1 and isinstance(one[0], tuple) and not all(map(math.isfinite, one[0]))
    ]
    low = max((one[0] for one in bounds), default=-math.inf)
    high = min((one[1] for one in bounds), default=math.inf)
    if not bounds or low > high:
        return list(sets)
    first = next(at for at, one in enumerate(sets) if one[0] in bounds)
    out = [one for one in sets if len(one) > 1 or one[0] not in bounds]
    return [*out[:first], ((low, high),), *out[first:]]


def _shared(one: Range, two: Range) -> Range | None:
    """What two ranges have in common, None where that is nothing."""
    low, high = max(one[0], two[0]), min(one[1], two[1])
    return (low, high) if low <= high else None


def _range(low: float, high: float) -> dict[str, float]:
    """A range of an attribute's numbers as our filter has it."""
    return {name: bound for name, bound in (("min", low), ("max", high)) if math.isfinite(bound)}


def _either(key: str, values: Sequence[Any]) -> Any:
    if key == "price":
        ends = [[bound if math.isfinite(bound) else None for bound in one] for one in values]
        if len(ends) > 1:
            raise ValueError("price takes one range")
        return ends[0]
    found = [_range(*value) if isinstance(value, tuple) else value for value in values]
    return found[0] if len(found) == 1 else found


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``attributes.Color`` as a mapping within ``attributes``."""
    out: dict[str, Any] = {}
    for key, value in flat.items():
        name, _, kind = key.partition(".")
        if name == "attributes" and kind:
            out.setdefault(name, {})[kind] = value
        else:
            out[key] = value
    return out
