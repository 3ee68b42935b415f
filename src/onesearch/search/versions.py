"""Versions of a run's V2 that online updates made, beside the one that the run's stages made.

A version is a folder ``versions/NUMBER`` with a generator and an ``engine.json``. ``versions/published.json`` says
which one is served, and which ones were before it, so that going back is one small file. Versions belong to the engine
that they started from: once the run is rebuilt they are left alone.
"""

import logging
from pathlib import Path
from typing import Any, Final

from onesearch.data.artefact import read_json, read_manifest, write_json

log = logging.getLogger("onesearch")
FOLDER: Final = "versions"
PUBLISHED: Final = "published.json"
ENGINE_STAGE: Final = "engine_v2"


def published(run: Path) -> str | None:
    """The version that is served, as a path below the run; None for the engine of the run's own stages."""
    state = _state(run)
    if state is None or not state["served"]:
        return None
    if state["from"] != origin(run):
        log.warning("%s was rebuilt since its versions were made, so its own engine is used", run)
        return None
    return str(state["served"][-1])


def publish(run: Path, name: str) -> None:
    """Serve a version from now on; what was served before stays in reach of :func:`roll_back`."""
    served = [] if (state := _state(run)) is None or state["from"] != origin(run) else list(state["served"])
    write_json(run / FOLDER / PUBLISHED, {"from": origin(run), "served": [*served, name]})


def roll_back(run: Path) -> str | None:
    """Serve what was served before; returns its name, None for the run's own engine.

    Raises:
        ValueError: no version is published.
    """
    if published(run) is None:
        raise ValueError(f"{run} serves the engine of its own stages; there is no version to go back from")
    state = _state(run) or {}
    write_json(run / FOLDER / PUBLISHED, {**state, "served": state["served"][:-1]})
    return published(run)


def next_name(run: Path) -> str:
    """The name of a new version."""
    taken = [int(path.name) for path in (run / FOLDER).glob("[0-9]*") if path.name.isdigit()]
    return f"{FOLDER}/{max(taken, default=0) + 1:04d}"


def origin(run: Path) -> str | None:
    """The fingerprint of the run's own V2 engine."""
    return (read_manifest(run / ENGINE_STAGE) or {}).get("fingerprint")


def _state(run: Path) -> dict[str, Any] | None:
    path = run / FOLDER / PUBLISHED
    return dict(read_json(path)) if path.is_file() else None
