"""KHQE: vectors fused with their keywords, then coded by residual k-means and OPQ (docs/method.md, section 2).

Differences from the paper:

1. Codebooks of 1024–512–256 codes by default (4096–1024–512 at paper scale), fewer where there are fewer vectors.
2. The last layer is balanced *while fitting* only (:mod:`onesearch.encoding.kmeans`): a vector's code is always its
   nearest centroid, so that new items and queries are coded alike. ``per_parent`` is the released code's way.
3. Queries may weigh more than items while fitting, so that a few thousand of them count beside a large catalogue.
4. Fitting looks at 256,000 vectors at most.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from safetensors.numpy import load_file, save_file

from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.common.settings import Settings
from onesearch.encoding.kmeans import Vectors, fit_kmeans, fit_per_parent, nearest, nearest_of_parent
from onesearch.encoding.opq import OPQ
from onesearch.encoding.sid_text import OPQ_SIZE


def fuse_keywords(
    vectors: NDArray[np.float32], keywords: Ragged, keyword_vectors: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Fused unit vectors float32 [n, d] (2.7): ``unit(½ (e + mean of the keywords))``; without keywords a text keeps
    its own vector.

    Args:
        vectors: unit vectors of queries or items, [n, d].
        keywords: keyword numbers matched in each of them, n rows.
        keyword_vectors: unit vectors of all keywords of the lexicon, [W, d].
    """
    out = np.array(vectors, np.float32)
    some = np.flatnonzero(keywords.lengths)  # reduceat cannot sum nothing, so texts without keywords are left out
    if len(some):
        sums = np.add.reduceat(keyword_vectors[keywords.values], keywords.offsets[:-1][some], axis=0)
        out[some] = 0.5 * (out[some] + sums / keywords.lengths[some, None])
    lengths = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.maximum(lengths, 1e-12), np.float32)


_ENCODE_AT_ONCE = 65_536  # bounds the residuals that are alive at a time


class KHQESettings(Settings):
    """Shape and fitting of the quantizer."""

    later: ClassVar[frozenset[str]] = frozenset(
        {"query_weight", "co_click", "first_by_clicks", "first_by_category", "linked"}
    )
    layers: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1024, 512, 256), description="residual k-means codebooks; paper scale (4096, 1024, 512)"
    )
    balance: Literal["none", "last", "per_parent"] = Field(
        "last", description="which fitting is balanced; per_parent: the release's way"
    )
    opq_parts: int = Field(2, ge=0, description="sub-codes of the leftover residual; 0: plain RQ")
    opq_size: int = Field(OPQ_SIZE, ge=1, description="codes of each sub-code")
    iterations: int = Field(20, ge=1, description="of k-means")
    sample: int = Field(256_000, ge=1, description="most vectors that fitting looks at")
    seed: int = Field(0, description="of fitting; a run sets its own")
    query_weight: float = Field(
        1.0, gt=0, description="weight of queries in fitting; 1: each as an item, all together at most as all items"
    )
    co_click: float = Field(
        0.0, ge=0, lt=1, description="most weight of co-clicked items in the vector that an item's SID is made of"
    )
    first_by_clicks: float = Field(
        0.0, ge=0, lt=1, description="most weight of a query's clicked items in what the first codebook is fitted on"
    )
    first_by_category: float = Field(
        0.0, ge=0, lt=1, description="weight of an item's category in what the first codebook is fitted on"
    )
    linked: float = Field(
        0.5, ge=0, lt=1, description="weight of linked items, such as a video's products, in the vector of an item"
    )


@dataclass(frozen=True)
class KHQE:
    """A fitted quantizer; a vector's code is a pure function of the vector.

    ::

        r = e°                                            # queries and items in one space
        for each layer C_l:    c_l = nearest(r, C_l);  r = r - C_l[c_l]
        y = A r, cut into parts;   c_{3+m} = nearest(y_m, D_m)
        SID = (c_1, ..., c_5);   reconstruction = Σ C_l[c_l] + Aᵀ (D_1[c_4], D_2[c_5])

    Fitting is the same walk, each codebook fitted on the residuals just before it is used: (2.8) to (2.10).

    Attributes:
        layers: codebook of each residual layer, [K_l, d]; the last one is [K_(l-1), K_l, d] when it has a codebook per
            parent.
        opq: quantizer of the leftover residual, or None.
        per_parent: whether the last layer has a codebook per parent.
    """

    layers: tuple[Vectors, ...]
    opq: OPQ | None
    per_parent: bool = False

    @classmethod
    def fit(
        cls,
        vectors: Vectors,
        config: KHQESettings | None = None,
        weights: Vectors | None = None,
        first: Vectors | None = None,
    ) -> "KHQE":
        """Fit on fused query and item vectors *together*, so that both are coded in one space.

        Args:
            vectors: float32 [n, d], of queries and items alike.
            config: shape and fitting.
            weights: importance of each vector in the residual k-means, [n]; for instance to let a few thousand
                queries count as much as many items.
            first: what the first codebook is fitted on in the place of ``vectors``, [n, d]; what it leaves over is
                still that of ``vectors``.

        Raises:
            ValueError: there are no vectors, or they are not finite.
        """
        config = config or KHQESettings()
        if vectors.ndim != 2 or not len(vectors):
            raise ValueError(f"KHQE.fit needs vectors [n, d] with n > 0, got shape {vectors.shape}")
        if not np.isfinite(vectors[:: max(1, len(vectors) // 1000)]).all():
            raise ValueError("KHQE.fit got vectors with NaN or infinite values; check the text encoder's output")
        # each layer sees what the layers before it left over, [n, d]
        if len(vectors) > config.sample:
            rows = np.sort(np.random.default_rng(config.seed).choice(len(vectors), config.sample, replace=False))
            vectors, weights = vectors[rows], None if weights is None else weights[rows]
            first = None if first is None else first[rows]
        residual = np.array(vectors, np.float32, order="C")
        layers: list[Vectors] = []
        codes = np.zeros(len(residual), np.int32)  # of the layer before: a per-parent codebook's parents
        per_parent = config.balance == "per_parent" and len(config.layers) > 1
        for level, size in enumerate(config.layers):
            last, seed = level == len(config.layers) - 1, config.seed + 1000 * level
            if last and per_parent:  # the released code's "balanced": a codebook below every code of the layer before
                books = fit_per_parent(residual, codes, len(layers[-1]), size, config.iterations, seed)
                codes, parents = nearest_of_parent(residual, codes, books), codes
                residual -= books[parents, codes]
                layers.append(books)
                continue
            balanced = last and config.balance == "last"
            points = first if first is not None and level == 0 else residual
            centroids = fit_kmeans(points, size, config.iterations, seed, weights, balanced)
            codes = nearest(residual, centroids)
            residual -= centroids[codes]
            layers.append(centroids)
        opq = None  # plain RQ throws the last residual away; OPQ codes it
        if config.opq_parts:
            opq = OPQ.fit(residual, config.opq_parts, config.opq_size, config.iterations, config.seed + 7777)
        return cls(tuple(layers), opq, per_parent)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self.layers[0].shape[-1])

    @property
    def opq_parts(self) -> int:
        """Number of OPQ levels."""
        return 0 if self.opq is None else len(self.opq.codebooks)

    @property
    def codebook_sizes(self) -> tuple[int, ...]:
        """Number of codes of each SID level, OPQ levels last."""
        opq = () if self.opq is None else (self.opq.codebooks.shape[1],) * self.opq_parts
        return tuple(layer.shape[-2] for layer in self.layers) + opq

    @property
    def centroids(self) -> list[Vectors]:
        """Centroid vectors of each level in the original space, [K_l, d].

        OPQ parts are rotated back. A per-parent last layer gives the mean over its parents.
        """
        rq = [layer if layer.ndim == 2 else layer.mean(0) for layer in self.layers]
        return rq + ([] if self.opq is None else [self.opq.part_centroids(part) for part in range(self.opq_parts)])

    def encode(self, vectors: Vectors) -> NDArray[np.int32]:
        """Level-local codes int32 [n, L] of vectors [n, d]."""
        out = np.empty((len(vectors), len(self.codebook_sizes)), np.int32)
        for start in range(0, len(vectors), _ENCODE_AT_ONCE):
            residual = np.array(vectors[start : start + _ENCODE_AT_ONCE], np.float32, order="C")  # a copy: it shrinks
            rows = slice(start, start + len(residual))
            for level, layer in enumerate(self.layers):
                if layer.ndim == 3:
                    parents = out[rows, level - 1]
                    codes = nearest_of_parent(residual, parents, layer)
                    residual -= layer[parents, codes]
                else:
                    codes = nearest(residual, layer)
                    residual -= layer[codes]
                out[rows, level] = codes
            if self.opq is not None:
                out[rows, len(self.layers) :] = self.opq.encode(residual)
        return out

    def decode(self, codes: NDArray[np.integer], levels: int | None = None) -> Vectors:
        """Reconstructions float32 [n, d]: the sum of the centroids of the first ``levels`` levels (default all)."""
        levels = len(self.codebook_sizes) if levels is None else levels
        out = np.zeros((len(codes), self.dimension), np.float32)
        for level in range(levels):
            if level < len(self.layers):
                layer = self.layers[level]
                out += layer[codes[:, level - 1], codes[:, level]] if layer.ndim == 3 else layer[codes[:, level]]
            elif self.opq is not None:
                out += self.opq.part_centroids(level - len(self.layers))[codes[:, level]]
        return out

    def save(self, folder: Path) -> None:
        """Write ``khqe.safetensors`` and ``khqe.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"layer_{level}": np.ascontiguousarray(layer) for level, layer in enumerate(self.layers)}
        if self.opq is not None:
            arrays |= {"opq_rotation": self.opq.rotation, "opq_codebooks": self.opq.codebooks}
        save_file(arrays, folder / "khqe.safetensors")
        write_json(
            folder / "khqe.json",
            {"codebook_sizes": list(self.codebook_sizes), "layers": len(self.layers), "per_parent": self.per_parent},
        )

    @classmethod
    def load(cls, folder: str | Path) -> "KHQE":
        """Load what :meth:`save` wrote.

        Raises:
            FileNotFoundError: the folder holds no quantizer.
        """
        folder = Path(folder)
        path = folder / "khqe.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no quantizer (khqe.json is missing); run the khqe stage first")
        values, arrays = read_json(path), load_file(folder / "khqe.safetensors")
        layers = tuple(arrays[f"layer_{level}"] for level in range(int(values["layers"])))
        opq = OPQ(arrays["opq_rotation"], arrays["opq_codebooks"]) if "opq_rotation" in arrays else None
        return cls(layers, opq, bool(values["per_parent"]))
