"""Keeps the engine's rules in step with those in the store, which all servers on it share.

A change is checked against the catalogue, written to the store, and followed from there; other servers look several
times a second. So rules survive a restart, and each version stays with its time and writer. A version that cannot be
read, such as one of a newer onesearch, is passed over: what a shop hides stays hidden.
"""

import logging
import threading

from onesearch.search.rules import Rules, read_rules
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_bodies import now
from onesearch.serving.store import RulesVersion, Store, StoreError

log = logging.getLogger("onesearch.serving")
LOOK_SECONDS = 0.3  # between looks at the store: rules of another server are live in less than a second


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

    def newest(self) -> tuple[RulesVersion | None, Rules]:
        """The newest version that can be read; version None with the run's own boosts where there is none."""
        found, rules = self._readable(self._store.rules())
        return found, self._engine.rules if rules is None else rules

    def read(self, text: str) -> Rules:
        """The rules of a text that can work here.

        Raises:
            RulesRefusedError: they cannot, or the text holds no rules.
        """
        try:
            rules = read_rules(text)
        except ValueError as error:
            raise RulesRefusedError({"rules": str(error)}) from None
        if problems := self._engine.rule_problems(rules):
            raise RulesRefusedError(problems)
        return rules

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
