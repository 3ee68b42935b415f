"""Rules of a shop's merchandisers: what its searches show first, never, more or less, and what queries mean.

::

    boosts:        # groups as in the rewards; times below 1 buries them
      - {name: festival, column: seller, values: [seller 17], times: 4, when: {start: 2026-11-27T00:00:00Z}}
    pins:
      - {name: tent of the week, items: [B0042], when: {query: [tent, tents]}}
    hides:
      - {name: recalled, column: item_id, values: [B7]}
    replacements:
      - {name: spelling, by: sneakers, when: {query: snekers}}
    synonyms:
      - {name: sofas, words: [sofa, couch]}                # each finds the other
      - {name: phones, words: [phone], also: [handset]}    # one way: who asks for a phone finds handsets, too

Names belong to one rule each. What the rules do to items is in :mod:`onesearch.search.rule_effects`; docs/rules.md is
the guide.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Literal

import yaml
from pydantic import AwareDatetime, BeforeValidator, FailFast, Field, StringConstraints, model_validator

from onesearch.common.settings import Settings, validated
from onesearch.common.strict_yaml import StrictLoader
from onesearch.data.text import fold, split_words
from onesearch.index.filter_values import PATH_SEPARATOR, conjuncts
from onesearch.search.boosts import Boost

MAX_RULES = 1000  # of each kind
MAX_TEXT = 500_000  # characters of all rules as a text
_LONGEST_QUERY = 400  # with its synonyms
_MOST_DEPTH, _MOST_VALUES, _LONGEST_VALUE = 20, 50_000, 1000  # of a text's YAML
_ONE_LINE = r"^[^\u0000-\u001f\u007f-\u009f]*$"


def _listed(value: Any) -> Any:
    """One text stands for a list of it."""
    return (value,) if isinstance(value, str) else _few(value)


def _few(value: Any) -> Any:
    """Too long a list is refused before each of its entries is found wrong."""
    if isinstance(value, list) and len(value) > MAX_RULES:
        raise ValueError(f"{len(value)} entries; at most {MAX_RULES} are allowed")
    return value


def _spelt_out(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("must be a time with its zone, such as 2026-11-27T00:00:00Z")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=_ONE_LINE)]
Text = Annotated[str, StringConstraints(max_length=200, pattern=_ONE_LINE)]
Texts = Annotated[tuple[Text, ...], FailFast(), Field(max_length=MAX_RULES), BeforeValidator(_listed)]
SomeTexts = Annotated[Texts, Field(min_length=1)]
Column = Literal["seller", "brand", "category", "item_id"]
Time = Annotated[AwareDatetime, BeforeValidator(_spelt_out)]


@dataclass(frozen=True)
class Asked:
    """What conditions look at: words of the query, one blank between them; names, folded; and the time."""

    words: str
    categories: frozenset[str]
    groups: frozenset[str]
    time: datetime

    @classmethod
    def from_search(
        cls, query: str, filters: Mapping[str, Any] | None, groups: Iterable[str], time: datetime
    ) -> "Asked":
        """Of a search with its filters; ``groups`` that its shopper belongs to."""
        given = [one["category"] for one in conjuncts(filters) if "category" in one]
        # Each a name, a path as a text, a path as a tuple, or a list of these.
        names = [name for one in given for name in (one if isinstance(one, list) else [one])]
        paths = [list(name) if isinstance(name, tuple) else str(name).split(PATH_SEPARATOR) for name in names]
        # Who looks at A > B looks at A, at B and at A > B.
        above = {PATH_SEPARATOR.join(path[:end]) for path in paths for end in range(1, len(path) + 1)}
        categories = above.union(*paths)
        return cls(_asked_words(query), frozenset(map(fold, categories)), frozenset(map(fold, groups)), time)

    def instead(self, query: str) -> "Asked":
        """The same with another query."""
        return Asked(_asked_words(query), self.categories, self.groups, self.time)


class When(Settings):
    """When a rule holds: all that is given must; a list means "one of these"."""

    query: Texts = Field((), description="what is searched for, whatever its case and accents; '' is no query")
    match: Literal["exact", "contains"] = Field(
        "exact", description="the whole query, or words in it beside each other"
    )
    category: Texts = Field((), description="the shopper looks at a category, or below it: the search's filter")
    group: Texts = Field((), description="of the shopper: named by the search, or a word of their profile")
    start: Time | None = Field(None, description="from then on")
    end: Time | None = Field(None, description="until then, excluded")

    @model_validator(mode="after")
    def _possible(self) -> "When":
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start {self.start} is not before end {self.end}")
        if self.match == "contains" and not all(map(_words, self.query)):
            raise ValueError("a query that holds no word is in no other: leave query and match out, or match exactly")
        return self

    @cached_property
    def _phrases(self) -> tuple[str, ...]:
        return tuple(map(_asked_words, self.query))

    def found_in(self, words: str) -> set[str]:
        """Of a query that it holds for: the words of the conditions that are in it."""
        return _all_words(phrase for phrase in self._phrases if _contains(words, phrase))

    @cached_property
    def _names(self) -> tuple[frozenset[str], frozenset[str]]:
        return frozenset(map(fold, self.category)), frozenset(map(fold, self.group))

    @property
    def every_search(self) -> bool:
        """Whether nothing but the time matters."""
        return not (self.query or self.category or self.group)

    def in_time(self, time: datetime) -> bool:
        """Whether it is the time."""
        return (self.start is None or self.start <= time) and (self.end is None or time < self.end)

    def holds(self, asked: Asked) -> bool:
        """Whether it holds for a search."""
        if self.query and not (
            asked.words in self._phrases
            if self.match == "exact"
            else any(_contains(asked.words, phrase) for phrase in self._phrases)
        ):
            return False
        categories, groups = self._names
        return (
            (not categories or not categories.isdisjoint(asked.categories))
            and (not groups or not groups.isdisjoint(asked.groups))
            and self.in_time(asked.time)
        )


ALWAYS = When()


class BoostRule(Boost):
    """A boost that may hold for some searches only."""

    name: Name
    values: SomeTexts = Field(description="values of the column; of a category any level of its path")
    times: float = Field(ge=0.001, le=1000, description="what the odds of these items are multiplied with")
    when: When = ALWAYS


class Pin(Settings):
    """Items that come first, in this order."""

    name: Name
    items: SomeTexts = Field(description="ids")
    when: When = ALWAYS


class Hide(Settings):
    """Items that are never shown."""

    name: Name
    column: Column = Field(description="of the item table")
    values: SomeTexts = Field(description="values of the column; of a category any level of its path")
    when: When = ALWAYS


class Replacement(Settings):
    """Another query is searched for, and all other rules see that one."""

    name: Name
    by: Text = Field(description="the query instead; '' shows recommendations")
    when: When

    @model_validator(mode="after")
    def _of_a_query(self) -> "Replacement":
        if not self.when.query:
            raise ValueError("give the query that is replaced: when: {query: ...}")
        return self


class Synonym(Settings):
    """Words that mean the same: a query with one of them is searched with the others as well."""

    name: Name
    words: SomeTexts = Field(description="words or phrases; each finds the others, and what is in `also`")
    also: Texts = Field((), description="found as well, but does not find the words itself")
    when: When = ALWAYS

    @model_validator(mode="after")
    def _two(self) -> "Synonym":
        if not self.also and len(self.words) < 2:
            raise ValueError("one word has no synonym: give two words, or some in `also`")
        if not all(map(_words, (*self.words, *self.also))):
            raise ValueError("a synonym holds no word")
        return self

    def added(self, words: str) -> list[str]:
        """What a query, given by its words, is searched with as well; nothing where it holds none of the words."""
        if not any(_contains(words, phrase) for phrase in self._phrases[0]):
            return []
        return [
            text
            for texts, phrases in zip((self.words, self.also), self._phrases, strict=True)
            for text, phrase in zip(texts, phrases, strict=True)
            if not _contains(words, phrase)
        ]

    def found_in(self, words: str) -> set[str]:
        """The words of it that are in a query."""
        return _all_words(phrase for phrase in self._phrases[0] if _contains(words, phrase))

    @cached_property
    def _phrases(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(map(_words, self.words)), tuple(map(_words, self.also))


Rule = BoostRule | Pin | Hide | Replacement | Synonym


@dataclass(frozen=True)
class Touching:
    """The rules that touch one search.

    Attributes:
        query: what is searched for instead.
        in_log: what the click log is asked for: the same without synonyms.
        rewriting: names of the rules that made the query.
        whole: whether a rule knows the whole query: it replaces it, or holds for exactly that one.
        words: of the query, folded, that rules know, where they know words of it.
    """

    query: str
    in_log: str
    rewriting: tuple[str, ...] = ()
    boosts: tuple[BoostRule, ...] = ()
    hides: tuple[Hide, ...] = ()
    pins: tuple[Pin, ...] = ()
    whole: bool = False
    words: frozenset[str] = frozenset()

    @property
    def effects(self) -> tuple[str, ...]:
        """Names of the rules that change which items are found, and their scores."""
        return (*(boost.name for boost in self.boosts), *(hide.name for hide in self.hides))


class Rules(Settings):
    """All rules of a shop."""

    boosts: Annotated[tuple[BoostRule, ...], BeforeValidator(_few)] = ()
    pins: Annotated[tuple[Pin, ...], BeforeValidator(_few)] = ()
    hides: Annotated[tuple[Hide, ...], BeforeValidator(_few)] = ()
    replacements: Annotated[tuple[Replacement, ...], BeforeValidator(_few)] = ()
    synonyms: Annotated[tuple[Synonym, ...], BeforeValidator(_few)] = ()

    @model_validator(mode="after")
    def _each_name_once(self) -> "Rules":
        seen: set[str] = set()
        for _, rule in self.each():
            if rule.name in seen:
                raise ValueError(f"two rules are called {rule.name!r}")
            seen.add(rule.name)
        return self

    def each(self) -> Iterator[tuple[str, Rule]]:
        """Every rule with its kind."""
        for kind in type(self).model_fields:
            for rule in getattr(self, kind):
                yield kind, rule

    def touching(self, query: str, asked: Asked) -> Touching:
        """The rules that touch a search: first what replaces its query, then all others by the query that is left."""
        rewriting = []
        for replacement in self.replacements:
            if replacement.when.holds(asked):
                query, asked = replacement.by, asked.instead(replacement.by)
                rewriting.append(replacement.name)
                break
        # Synonyms stand behind the query, each once.
        longer, words, known = query, asked.words, set[str]()
        replaced, conditions = bool(rewriting), list[When]()
        for synonym in self.synonyms:
            if synonym.when.holds(asked) and (added := synonym.added(asked.words)):
                added = [text for text in added if not _contains(words, _words(text))]
                if len(more := " ".join([longer, *added])) > _LONGEST_QUERY:
                    break
                longer, words = more, _words(more)
                rewriting.append(synonym.name)
                known |= synonym.found_in(asked.words)
                conditions.append(synonym.when)
        boosts = tuple(rule for rule in self.boosts if rule.when.holds(asked))
        hides = tuple(rule for rule in self.hides if rule.when.holds(asked))
        pins = tuple(rule for rule in self.pins if rule.when.holds(asked))
        # What the rules know of the query as it was typed: all of it, or words in it.
        conditions += [rule.when for rules in (boosts, hides, pins) for rule in rules]
        by_query = [when for when in conditions if when.query]
        known.update(*(when.found_in(asked.words) for when in by_query))
        whole = replaced or any(when.match == "exact" for when in by_query)
        return Touching(longer, query, tuple(rewriting), boosts, hides, pins, whole, frozenset(known))

    def of_rewards(self, time: datetime) -> tuple[Boost, ...]:
        """Boosts that hold for every search at a time, as the rewards know them: there a boost knows no search."""
        return tuple(
            Boost.model_validate(rule.model_dump(exclude={"when"}))
            for rule in self.boosts
            if rule.when.every_search and rule.when.in_time(time)
        )


def read_rules(text: str, origin: str = "rules") -> Rules:
    """The rules of a YAML text, or of a JSON text, which is YAML as well; ``origin`` names it in errors.

    Raises:
        ValueError: one line per wrong value: origin, key, what is wrong.
    """
    if len(text) > MAX_TEXT:
        raise ValueError(f"{origin}: {len(text)} characters; at most {MAX_TEXT} are allowed")
    try:
        _check_events(text)
        values = yaml.load(text, StrictLoader)
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"{origin}: not valid YAML: {str(error)[:300]}") from None
    return validated(Rules, {} if values is None else values, origin)


def _check_events(text: str) -> None:
    """Refuse YAML that is short, and takes long to read: what rules never need."""
    depth = values = 0
    for event in yaml.parse(text, StrictLoader):
        # A few aliases can stand for billions of entries.
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_DEPTH:
            raise ValueError(f"nested deeper than {_MOST_DEPTH}")
        if isinstance(event, yaml.ScalarEvent):
            values += 1
            # A number of so many digits is slow to read and to write.
            if len(event.value) > _LONGEST_VALUE:
                raise ValueError(f"a value has {len(event.value)} characters; at most {_LONGEST_VALUE} are allowed")
            if values > _MOST_VALUES:
                raise ValueError(f"more than {_MOST_VALUES} keys and values")


def write_rules(rules: Rules) -> str:
    """The rules as YAML."""
    values = rules.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(values, allow_unicode=True, sort_keys=False, width=120)


def _words(text: str) -> str:
    return " ".join(split_words(text))


def _all_words(phrases: Iterable[str]) -> set[str]:
    return {word for phrase in phrases for word in phrase.split()}


def _asked_words(query: str) -> str:
    """What conditions compare of a query: its words; of one that is signs alone, such as an emoji, these."""
    # Without that "%" would be taken for "", the search without a query.
    return _words(query) or fold(query.strip()) or query.strip()


def _contains(words: str, phrase: str) -> bool:
    """Whether the words of a phrase stand beside each other in a text, both given by their words."""
    return f" {phrase} " in f" {words} "
