"""Picture vectors centred and reduced, as towers join them with texts."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from onesearch.encoding.pictures.picture_encoder import unit_rows

Floats = NDArray[np.float32]
_SAMPLE: Final = 50_000  # pictures that the axes are fitted on, at most

_AT_ONCE: Final = 16_384


@dataclass(frozen=True)
class PictureSpace:
    """``u = unit((p - mean) A)``: the features of a network for other pictures have most in common for a catalogue's.

    Attributes:
        mean: of the catalogue's picture vectors, float32 [p].
        axes: principal axes, float32 [p, k], orthonormal columns.
    """

    mean: Floats
    axes: Floats

    @classmethod
    def fit(cls, vectors: Floats, there: NDArray[np.bool_], dimension: int, seed: int = 0) -> "PictureSpace":
        """From the catalogue's vectors [N, p], those that are ``there`` [N]; k is at most ``dimension``.

        Raises:
            ValueError: fewer than two items have a picture.
        """
        rows = np.flatnonzero(there)
        if len(rows) < 2:
            raise ValueError(
                f"{len(rows)} of {len(there)} items have a picture that could be read, too few to encode any: look at "
                "refused.parquet of the stage 'pictures', or set encoder.encoding to text"
            )
        if len(rows) > _SAMPLE:
            rows = np.sort(np.random.default_rng(seed).choice(rows, _SAMPLE, replace=False))
        some = np.asarray(vectors[rows], np.float64)
        mean = some.mean(0)
        values, axes = np.linalg.eigh((some - mean).T @ (some - mean))
        # Axes in which nothing differs hold rounding errors alone.
        kept = min(dimension, max(1, int((values > 1e-9 * max(values[-1], 1e-12)).sum())))
        return cls(mean.astype(np.float32), np.ascontiguousarray(axes[:, ::-1][:, :kept]).astype(np.float32))

    @property
    def dimension(self) -> int:
        """k, the length of reduced vectors."""
        return int(self.axes.shape[1])

    def reduce(self, vectors: Floats, there: NDArray[np.bool_]) -> Floats:
        """Unit vectors float32 [n, k] of picture vectors [n, p]; zeros where there is no picture."""
        out = np.zeros((len(vectors), self.dimension), np.float32)
        for start in range(0, len(vectors), _AT_ONCE):  # they may be mapped, and more than memory holds
            rows = slice(start, start + _AT_ONCE)
            out[rows] = unit_rows((vectors[rows] - self.mean) @ self.axes)
        out[~there] = 0
        return out
