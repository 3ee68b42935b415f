"""Versions of a run's V2 that online updates made, beside the one that the run's stages made.

A version is a folder ``versions/NUMBER`` with a generator and an ``engine.json``. ``versions/published.json`` says
which one is served, and which ones were before it, so that going back is one small file. Versions belong to the engine
of the run's stages that they started from, the final one where there is one: once it is rebuilt they are left alone.
"""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from onesearch.common.artefact import read_json, read_manifest, refuse_links, write_json
from onesearch.common.run_lock import RunLock
from onesearch.search.run_parts import Model, own_place

log = logging.getLogger("onesearch")
FOLDER: Final = "versions"
PUBLISHED: Final = "published.json"


def published(run: Path) -> str | None:
    """The version that is served, as a path below the run; None for the engine of the run's own stages."""
    state = _state(run)
    if state is None or not state["served"]:
        return None
    if state["from"] != origin(run):
        log.warning("%s was rebuilt since its versions were made, so its own engine is used", run)
        return None
    return str(state["served"][-1])


def served_place(run: Path, model: Model) -> str:
    """The folder below a run of the engine that it serves of a model: a published version of V2, else the run's own."""
    version = published(run) if model == "v2" else None
    return version or own_place(run, model)


@dataclass(frozen=True)
class Served:
    """What a run serves at a moment: the fingerprint of its own engine, and the version on top of it, if any."""

    origin: str | None
    version: str | None

    @classmethod
    def now(cls, run: Path) -> "Served":
        """What is served now."""
        return cls(origin(run), published(run))


def publish(run: Path, name: str, instead_of: Served) -> bool:
    """Serve a version from now on; what was served before stays in reach of :func:`roll_back`.

    Returns False, and changes nothing, if something else is served than ``instead_of``, which the version was made
    from: the run was rebuilt, or somebody went back.
    """
    with _changing(run):
        if Served.now(run) != instead_of:
            return False
        served = [] if (state := _state(run)) is None or state["from"] != origin(run) else list(state["served"])
        write_json(run / FOLDER / PUBLISHED, {"from": origin(run), "served": [*served, name]})
    return True


def roll_back(run: Path) -> str | None:
    """Serve what was served before; returns its name, None for the run's own engine.

    Raises:
        ValueError: no version is published.
    """
    with _changing(run):
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
    """The fingerprint of the run's own V2 engine, the final one where there is one."""
    return (read_manifest(run / own_place(run, "v2")) or {}).get("fingerprint")


def _changing(run: Path) -> RunLock:
    """Held for the moment of a change, not for the minutes of a round."""
    refuse_links(run)
    return RunLock(run / FOLDER / "publishing")


def _state(run: Path) -> dict[str, Any] | None:
    path = run / FOLDER / PUBLISHED
    return dict(read_json(path)) if path.is_file() else None
