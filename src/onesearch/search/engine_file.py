"""``engine.json``: which model an engine uses, its search settings, and how it orders what it finds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from onesearch.common.artefact import read_json, write_json
from onesearch.search.boosts import Boost
from onesearch.search.confidence import Confidence
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.run_versions import need
from onesearch.search.search_settings import SearchSettings
from onesearch.understanding.thought_table import Taught

ENGINE: Final = "engine.json"
_LARGEST: Final = 1e30  # of a number that float32 can be multiplied with


def save_engine(
    folder: Path,
    stage: str,
    config: SearchSettings,
    weights: RankingWeights,
    controls: Mapping[str, RankingWeights],
    reads: Taught | None = None,
    boosts: Sequence[Boost] = (),
    confidence: Confidence | None = None,
) -> None:
    """Write which model an engine uses, how it orders candidates, and how its ``controls`` do, by name.

    The final engine and versions write as well which ``counts`` they search with, as ``RunParts`` has them.

    ``reads`` says whose keywords the model was trained to read in serving as well; None for every model but RAG's.
    ``boosts`` are written as groups, not as lists of their items; of ``confidence`` its numbers.
    """
    write_json(
        folder / ENGINE,
        {
            "model": stage,
            "search": config.model_dump(mode="json"),
            "weights": dict(weights.values),
            "controls": {name: dict(one.values) for name, one in controls.items()},
            "reads_keywords": reads,
            "boosts": [boost.model_dump(mode="json") for boost in boosts],
            "match": {"quantiles": confidence.quantiles, "margin": confidence.margin} if confidence else None,
        },
    )


def load_about(run: Path, place: str) -> dict[str, Any]:
    """The ``engine.json`` of a finished engine stage or version: its model, its search settings, its weights.

    Raises:
        ValueError: no such file can be what a stage wrote, such as one with a weight that is no number.
    """
    path = need(run, place) / ENGINE
    about = dict(read_json(path))
    weights, match = about.get("weights", {}), about.get("match")
    for name, weight in weights.items():
        if not (isinstance(weight, int | float) and abs(weight) <= _LARGEST):
            wrong = f"the weight {name[:50]!r} is {str(weight)[:20]!r}, and must be a usual number"
            raise ValueError(f"{path}: {wrong}; make the stage again")
    if match and not _telling(match):
        raise ValueError(f"{path}: match has no quantiles, or other than ascending usual numbers; make the stage again")
    return about


def _telling(match: Mapping[str, Any]) -> bool:
    """Whether numbers are what tells confidence: some quantiles, ascending, and a margin."""
    numbers = np.array([*match["quantiles"], match["margin"]], np.float64)
    usual = bool((np.abs(numbers) <= _LARGEST).all())
    return len(numbers) > 1 and usual and bool((np.diff(numbers[:-1]) >= 0).all())


def boosts_of(about: Mapping[str, Any]) -> tuple[Boost, ...]:
    """The boosts that an ``engine.json`` names."""
    return tuple(Boost.model_validate(boost) for boost in about.get("boosts", ()))


def confidence_of(about: Mapping[str, Any]) -> Confidence | None:
    """What tells whether anything fits a query; None where an ``engine.json`` has nothing of it."""
    match = about.get("match")
    return Confidence(tuple(map(float, match["quantiles"])), float(match["margin"])) if match else None
