"""Why a result stands where it does: what made its score, and the way down to its semantic ID."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.encoding.sid_text import sid_tokens
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.results import Part, Step

_LOOKED_AT = 2000  # items below a node that say what it stands for


def parts_of(
    features: Mapping[str, NDArray[np.float32]], weights: Mapping[str, NDArray[np.float32]], column: int
) -> tuple[Part, ...]:
    """The parts of one candidate's score, from features [1, C] and weights [1] of a single request; 0 is left out."""
    parts = [
        Part(name, float(values[0, column]), float(weights[name][0]))
        for name, values in features.items()
        if values[0, column] and weights[name][0]
    ]
    return tuple(sorted(parts, key=lambda part: -abs(part.product)))


def steps_of(snapshot: Snapshot, row: int, probabilities: NDArray[np.float32] | None) -> tuple[Step, ...]:
    """The way down to an item, with the model's probabilities [L] of its tokens."""
    index = snapshot.index
    nodes = index.path(torch.tensor([row], device=index.device))[0]
    steps = []
    for level, token in enumerate(sid_tokens(snapshot.sid(row))):
        # Items below: ranges of positions, of which some may be gone.
        ranges = index.ranges(level, nodes[level : level + 1])
        positions = torch.cat([torch.arange(int(a), int(b), device=index.device) for a, b in ranges])
        if (there := index.present(positions)) is not None:
            positions = positions[there]
        some = positions[:: max(1, len(positions) // _LOOKED_AT)]
        columns = snapshot.filters.columns_of(index.item_rows(some).cpu().numpy())
        paths = columns.paths.counted(1)
        chance = None if probabilities is None else float(probabilities[level])
        steps.append(Step(token, chance, len(positions), paths[0][0] if paths else ""))
    return tuple(steps)
