"""The HTTP API against its own description: schemathesis makes calls of every kind from it, and looks at the answers.

All its checks are on: no answer with a status, form or header that the description does not have, no 5xx, broken calls
refused, good ones taken, keys asked for.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from fastapi import FastAPI
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import events, from_schema

from onesearch.search.confidence import Confidence
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings
from onesearch.serving.sqlite_store import SqliteStore
from small_engine import small_engine

KEY = "correct-horse-battery-staple"
# What a JSON Schema cannot say: a call that breaks one of these rules may be refused though its form is right.
UNSAID = (
    "appears more than once in this call",
    "is above the highest",
    "must be within a day of the server's clock",
    "unknown attribute type",
    "an attribute type",
    "no item has a",
    "has no bound",
    "need the method onesearch",
    "leave sort or explain out",
    "'min': 40, 'max': 42",
    '"error":"rules: ',
    "is the newest: look at it first",
    "lies outside of the years 1 to 9999",
    "must be after start (",
)


def applications(folder: Path) -> Iterator[tuple[str, FastAPI]]:
    """The service with its page, and one without it whose roles all have keys."""
    engine = small_engine()
    engine.confidence = Confidence((0.0, 1.0), margin=0.4)
    yield "page", create_app(engine, SqliteStore(folder / "page.sqlite3"), admin_token=KEY)
    keys = {"admin_token": KEY, "search_key": KEY, "events_key": KEY}
    alone = ServingSettings(page=False)
    yield "keys", create_app(engine, SqliteStore(folder / "keys.sqlite3"), alone, **keys)


def try_all(app: FastAPI, most: int, coverage: bool, seed: int) -> tuple[int, list[str]]:
    """How many calls were made, and what was wrong with the answers.

    ``most`` bounds the calls that are drawn for a route; ``coverage`` adds those that try its limits one by one.
    """
    schemes = app.openapi()["components"]["securitySchemes"]
    settings = {
        "seed": seed,
        "continue-on-failure": True,
        "phases": {"coverage": {"enabled": coverage}},
        "generation": {"max-examples": most, "database": "none"},
        "auth": {"openapi": {name: {"bearer": KEY} for name in schemes}},
    }
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, config=SchemathesisConfig.from_dict(settings))
    calls, faults = 0, Counter[str]()
    for event in from_schema(schema).execute():
        if isinstance(event, events.NonFatalError | events.FatalError):
            faults[str(event.__dict__)] += 1
        if not isinstance(event, events.ScenarioFinished):
            continue
        calls += len(event.recorder.interactions)
        for number, checks in event.recorder.checks.items():
            answer = event.recorder.interactions[number].response
            words = answer.content.decode(errors="replace") if answer else ""
            for check in checks:
                unsaid = check.name == "positive_data_acceptance" and any(rule in words for rule in UNSAID)
                # A text that is too long in a body that is too long is refused, with 413 and not one of its 4xx.
                unsaid |= check.name == "negative_data_rejection" and answer is not None and answer.status_code == 413
                if check.failure_info is not None and not unsaid:
                    case = event.recorder.cases[number].value
                    call = f"{case.method} {case.formatted_path} {case.query} {case.body!r}"[:400]
                    faults[f"{check.name}: {call}: {check.failure_info.failure.message}: {words[:300]}"] += 1
    return calls, list(faults)


@pytest.mark.parametrize(
    ("which", "most", "coverage", "least"),
    [
        ("page", 10, False, 200),
        ("keys", 5, False, 50),
        pytest.param("page", 10, True, 700, marks=pytest.mark.long),
        # together more than 10,000
        pytest.param("page", 350, True, 5500, marks=[pytest.mark.hours, pytest.mark.timeout(7200)]),
        pytest.param("keys", 350, True, 4500, marks=[pytest.mark.hours, pytest.mark.timeout(7200)]),
    ],
)
def test_every_answer_is_as_described(tmp_path: Path, which: str, most: int, coverage: bool, least: int):
    app = dict(applications(tmp_path))[which]
    calls, faults = try_all(app, most, coverage, seed=most)
    assert faults == [] and calls >= least
