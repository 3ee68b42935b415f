"""Items that show others, as a video shows products: their vectors are drawn towards those of what they show.

::

    v' = unit((1 - w) v + w m),   m = unit(sum of the vectors of the linked items)      # (2.7a)

So in the one quantizer a video shares the first codes of its SID with its products. The vectors of the linked items are
those of their own texts: what these link to in turn draws nobody further.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.encoding.khqe import KHQESettings
from onesearch.encoding.sid_behaviour import drawn, unit

Floats = NDArray[np.float32]
FILE: Final = "linked.json"
_DEFAULT: Final = float(KHQESettings.model_fields["linked"].default)


def drawn_to_linked(vectors: Floats, linked: Ragged, others: Floats, weight: float) -> Floats:
    """Unit vectors [n, d] of items, those with links drawn by ``weight`` towards what they link to.

    Args:
        vectors: unit vectors of the items' own texts, [n, d].
        linked: for each item rows of ``others``.
        others: unit vectors of the items that are linked to, [m, d].
        weight: from 0, which changes nothing, to below 1.
    """
    some = np.flatnonzero(linked.lengths)  # reduceat cannot sum nothing
    if not weight or not len(some):
        return vectors
    out = np.array(vectors, np.float32)
    sums = np.add.reduceat(others[linked.values], linked.offsets[:-1][some], axis=0)
    out[some] = drawn(out[some], unit(sums), np.full(len(some), weight))
    return out


def save_linked_weight(weight: float, has_links: bool, folder: Path) -> None:
    """Write what :func:`load_linked_weight` reads; nothing where it is the default and no item has links."""
    if has_links or weight != _DEFAULT:
        write_json(folder / FILE, {"weight": weight})


def load_linked_weight(folder: Path) -> float:
    """The weight that a run's quantizer was fitted with; the default for a catalogue without links."""
    path = folder / FILE
    return float(read_json(path)["weight"]) if path.is_file() else _DEFAULT
