"""Dense search: inner products of a query vector with item vectors, exact (flat) or approximate (HNSW), by faiss."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
from numpy.typing import NDArray

from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.common.settings import Settings
from onesearch.data.requests import Requests
from onesearch.search.hits import Hits
from onesearch.search.ranked_lists import NONE, padded_hits

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
_CELLS = 4_000_000  # vector components gathered at once when scoring candidates


class DenseSettings(Settings):
    """Which faiss index."""

    kind: Literal["flat", "hnsw"] = "flat"
    """"flat" is exact; "hnsw" is a graph search for millions of items."""
    neighbours: int = 32
    """HNSW: links per item."""
    construction: int = 200
    """HNSW: breadth of the search while building."""
    breadth: int = 256
    """HNSW: breadth of the search at query time; at least k is used."""


class DenseSearcher:
    """Search by vectors. Immutable: :meth:`add` and :meth:`remove` return a new searcher."""

    def __init__(
        self,
        vectors: NDArray[np.float32],
        encode: Encode,
        rows: NDArray[np.integer] | None = None,
        config: DenseSettings | None = None,
        index: Any = None,
    ) -> None:
        """Index item vectors.

        Args:
            vectors: item vectors, [N, d].
            encode: texts to query vectors [n, d].
            rows: item row of each vector, [N]; 0..N-1 when None.
            config: the kind of index.
            index: a ready faiss index over the same vectors (used by :meth:`load`).
        """
        self.config, self.encode = config or DenseSettings(), encode
        self.vectors = np.ascontiguousarray(vectors, np.float32)
        self.rows = np.arange(len(vectors), dtype=np.int64) if rows is None else np.asarray(rows, np.int64)
        if len(self.rows) != len(self.vectors):
            raise ValueError(f"{len(self.vectors)} item vectors but {len(self.rows)} rows; give one row per vector")
        self._index = index if index is not None else _build(self.vectors, self.config)
        self._position = np.full(int(self.rows.max(initial=-1)) + 2, NONE, np.int64)  # last entry stays -1
        self._position[self.rows] = np.arange(len(self.rows))

    def __len__(self) -> int:
        return len(self.rows)

    def rank(self, requests: Requests, k: int) -> Hits:
        """The ``k`` items nearest to the query text; none for a text without any known feature (zero vector)."""
        vectors, inverse = self.query_vectors(requests.query)
        hits = self.search_vectors(vectors, k)
        return Hits(hits.items[inverse], hits.scores[inverse])

    def query_vectors(self, queries: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors [u, d] of the distinct texts, and the number [n] of each text's vector."""
        distinct, inverse = np.unique(np.asarray(queries, dtype=object), return_inverse=True)
        if not len(distinct):
            return np.zeros((0, self.vectors.shape[1]), np.float32), inverse
        return np.ascontiguousarray(self.encode(distinct.tolist()), np.float32), inverse

    def search_vectors(self, vectors: NDArray[np.float32], k: int) -> Hits:
        """The ``k`` items with the largest inner product with each query vector [n, d]."""
        vectors = np.ascontiguousarray(vectors, np.float32)
        if self.config.kind == "hnsw":
            self._index.hnsw.efSearch = max(self.config.breadth, k)
        if not len(self.rows) or not len(vectors):
            return padded_hits(np.zeros((len(vectors), 0), np.int64), np.zeros((len(vectors), 0), np.float32), k)
        scores, positions = self._index.search(vectors, min(k, len(self.rows)))
        # A query of unknown words alone has the zero vector: everything is equally near, so nothing is found.
        silent = (vectors == 0).all(axis=1, keepdims=True)
        return padded_hits(np.where((positions == NONE) | silent, NONE, self.rows[positions]), scores, k)

    def scores(self, queries: Sequence[str], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Inner products of query texts [n] with given candidates [n, m]; 0 for -1 and items that are not indexed."""
        vectors, inverse = self.query_vectors(queries)
        return self.vector_scores(vectors[inverse], items)

    def vector_scores(self, vectors: NDArray[np.float32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """Inner products of vectors [n, d] with given candidates [n, m], float32 [n, m]; 0 where unknown."""
        position = self._position[np.where(items >= len(self._position) - 1, NONE, items)]
        out = np.zeros(items.shape, np.float32)
        # Vectors of the candidates are gathered for some requests at a time.
        size = max(1, _CELLS // max(items.shape[1] * self.vectors.shape[1], 1))
        for first in range(0, len(items), size):
            part = slice(first, first + size)
            out[part] = np.matmul(self.vectors[position[part]], vectors[part, :, None])[..., 0]
        return np.where(position == NONE, np.float32(0), out)

    def add(self, rows: NDArray[np.integer], vectors: NDArray[np.float32]) -> "DenseSearcher":
        """A searcher with these items added; a row that is already indexed gets the new vector."""
        kept = ~np.isin(self.rows, rows)
        return DenseSearcher(
            np.concatenate([self.vectors[kept], vectors]),
            self.encode,
            np.concatenate([self.rows[kept], np.asarray(rows, np.int64)]),
            self.config,
        )

    def remove(self, rows: NDArray[np.integer]) -> "DenseSearcher":
        """A searcher without these item rows."""
        kept = ~np.isin(self.rows, rows)
        return DenseSearcher(self.vectors[kept], self.encode, self.rows[kept], self.config)

    def save(self, folder: Path) -> None:
        """Write ``.npy`` arrays, JSON and, for HNSW, faiss's own file; the encoder is saved by its owner."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors, allow_pickle=False)
        np.save(folder / "rows.npy", self.rows, allow_pickle=False)
        if self.config.kind == "hnsw":
            faiss.write_index(self._index, str(folder / "index.faiss"))
        write_json(folder / "dense.json", {"config": self.config.model_dump()})

    @classmethod
    def load(cls, folder: Path, encode: Encode) -> "DenseSearcher":
        """Read what :meth:`save` wrote; ``encode`` is the encoder the item vectors came from."""
        if not (folder / "dense.json").is_file():
            raise FileNotFoundError(f"{folder} holds no dense index (dense.json is missing); build and save one first")
        config = DenseSettings.model_validate(read_json(folder / "dense.json")["config"])
        vectors = map_array(folder / "vectors.npy")
        rows = map_array(folder / "rows.npy")
        index = faiss.read_index(str(folder / "index.faiss")) if config.kind == "hnsw" else None
        return cls(vectors, encode, rows, config, index)


def _build(vectors: NDArray[np.float32], config: DenseSettings) -> Any:
    dimension = vectors.shape[1]
    index: Any
    if config.kind == "flat":
        index = faiss.IndexFlatIP(dimension)
    else:
        index = faiss.IndexHNSWFlat(dimension, config.neighbours, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = config.construction
    index.add(vectors)
    return index
