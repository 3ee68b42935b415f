"""Keeps the engine's rules in step with those in the store, which all servers on it share.

A change is checked against the catalogue, written to the store, and followed from there; other servers look several
times a second. So rules survive a restart, and each version stays with its time and writer.
"""

import logging
import threading

from onesearch.search.rules import Rules, read_rules
from onesearch.serving.engine_protocol import Engine
from onesearch.serving.http_bodies import now
from onesearch.serving.store import RulesVersion, Store

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
        self._problem = ""

    def newest(self) -> tuple[RulesVersion | None, Rules]:
        """The newest version; version None with the run's own boosts where none was written."""
        found = self._store.rules()
        return found, self._engine.rules if found is None else Rules.model_validate_json(found.body)

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
        with self._lock:
            found = self._store.rules()
            if found == self._served:
                return False
            # Rules that cannot be read leave the engine with those it has, and are not looked at again.
            self._served, self._problem = found, ""
            try:
                self._engine.follow_rules(None if found is None else Rules.model_validate_json(found.body))
            except ValueError:
                self._problem = f"rules: version {found.version if found else 0} cannot be read; those before it stay"
                log.exception("%s", self._problem)
            return True

    def problems(self) -> list[str]:
        """Why the rules that are served may not be those of the store."""
        return [self._problem] if self._problem else []
