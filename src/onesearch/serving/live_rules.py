"""Keeps the engine's rules in step with those in the store, which all servers on it share.

A change is checked against the catalogue, written to the store, and followed from there; other servers look several
times a second. So rules survive a restart, and each version stays with its time and writer. A version that cannot be
read, such as one of a newer onesearch, is passed over: what a shop hides stays hidden.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

from onesearch.search.rule_names import additions
from onesearch.search.rules import Rules, read_rules
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_bodies import now
from onesearch.serving.store import RulesVersion, Store, StoreError

log = logging.getLogger("onesearch.serving")
LOOK_SECONDS = 0.3  # between looks at the store: rules of another server are live in less than a second

_MOST_LOOKED_AT = 50  # earlier versions that what is named may come from


class RulesInForce(NamedTuple):
    """The rules in force.

    Attributes:
        version: theirs; None: nobody wrote any that can be read, these are the run's own.
        rules: what they say.
        newest: the number of the newest version, which a change is made from, also of one that cannot be read.
    """

    version: RulesVersion | None
    rules: Rules
    newest: int


class CheckedRules(NamedTuple):
    """Rules that can work here; ``warnings`` by the rule's name: what they name and the catalogue has no more."""

    rules: Rules
    warnings: dict[str, str]


class RulesRefusedError(ValueError):
    """Rules cannot work here; ``problems`` says why, by the rule's name."""

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(problems.values()))
        self.problems = problems


class LiveRules:
    """The engine following the store's rules."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self._engine, self._store = engine, store
        self._lock = threading.Lock()
        self._served: RulesVersion | None = None
        self._problem = self._failed = ""

    def newest(self) -> RulesInForce:
        """The newest version that can be read; the run's own boosts where there is none."""
        newest = self._store.rules()
        found, rules = self._readable(newest)
        number = 0 if newest is None else newest.version
        return RulesInForce(found, self._engine.rules if rules is None else rules, number)

    def warnings(self, rules: Rules) -> dict[str, str]:
        """Why rules in force do not work here, or not all of them, by the rule's name."""
        return self._engine.rule_problems(rules)

    def read(self, text: str) -> CheckedRules:
        """The rules of a text that can work here.

        Raises:
            RulesRefusedError: they cannot, or the text holds no rules.
            StoreError: earlier rules could not be read.
        """
        try:
            rules = read_rules(text)
        except ValueError as error:
            raise RulesRefusedError({"rules": str(error)}) from None
        return CheckedRules(rules, old_problems(rules, self._engine.rule_problems, self._before))

    def _before(self) -> Iterator[Rules]:
        """The rules in force, then those of the store, the newest first."""
        yield self.newest().rules
        yield from rules_before(self._store)

    def change(self, rules: Rules, who: str, base: int | None) -> int:
        """Write a new version and serve it; its number.

        Raises:
            RulesConflictError: the newest version is not ``base``.
            StoreError: nothing was changed, or it is stored and follows later.
        """
        version = self._store.write_rules(rules.model_dump_json(exclude_defaults=True), who, now(), base)
        self.follow()
        return version

    def follow(self) -> bool:
        """Serve the newest rules; whether they are other ones than before.

        Raises:
            StoreError: the store could not be read; the rules stay.
        """
        try:
            changed = self._follow()
        except StoreError:
            raise
        except Exception as error:
            self._failed = f"rules: the newest cannot be followed ({type(error).__name__}), see the log"
            raise
        self._failed = ""
        return changed

    def _follow(self) -> bool:
        with self._lock:
            newest = self._store.rules()
            if newest == self._served:
                return False
            found, rules = self._readable(newest)
            self._engine.follow_rules(rules)
            self._served, self._problem = newest, ""
            if newest is not None and found is not newest:
                instead = "the run's own rules" if found is None else f"version {found.version}"
                self._problem = f"rules: version {newest.version} cannot be read; {instead} in its place"
                log.error("%s", self._problem)
            return True

    def problems(self) -> list[str]:
        """Why the rules that are served may not be those of the store."""
        return [problem for problem in (self._problem, self._failed) if problem]

    def _readable(self, found: RulesVersion | None) -> tuple[RulesVersion | None, Rules | None]:
        """A version with its rules, or the next one before it that can be read; None where there is none."""
        while found is not None and (rules := stored_rules(found)) is None:
            found = self._store.rules(found.version - 1)
        return (None, None) if found is None else (found, rules)


def stored_rules(version: RulesVersion) -> Rules | None:
    """What a stored version says; None where it cannot be read."""
    try:
        return Rules.model_validate_json(version.body)
    except ValueError:
        return None


def rules_before(store: Store) -> Iterator[Rules]:
    """What the versions of a store say that can be read, the newest first, of the last ones."""
    version = store.rules()
    for _ in range(_MOST_LOOKED_AT):
        if version is None:
            return
        if (rules := stored_rules(version)) is not None:
            yield rules
        version = store.rules(version.version - 1)


def old_problems(
    rules: Rules, problems: Callable[[Rules], dict[str, str]], before: Callable[[], Iterator[Rules]]
) -> dict[str, str]:
    """What is wrong with rules, by name, and was said by earlier ones as well: it left the catalogue since.

    Args:
        rules: new ones.
        problems: why rules cannot work, by name.
        before: those before, the newest first; asked only where there is a problem.

    Raises:
        RulesRefusedError: what is said for the first time cannot work.
    """
    found = problems(rules)
    if not found:
        return found
    # Most often what is gone is in the newest; only to go back to an older version the others are read.
    earlier = before()
    rest = additions(rules, next(earlier, Rules()))
    if problems(rest):
        for one in earlier:
            rest = additions(rest, one)
        if refused := problems(rest):
            raise RulesRefusedError(refused)
    return found
