"""Query vectors of training queries as if the encoder had never seen them (2.15); the papers do not mention this.

A query that took part in encoder training lies unrealistically close to its products; a generator trained on such
vectors fails on new queries. So the queries are dealt into K folds, an encoder is trained without each fold, and its
vectors of the fold are rotated into the space of the main encoder by orthogonal Procrustes on the item vectors.
"""

from collections.abc import Callable, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from onesearch.encoding.click_pairs import Pairs
from onesearch.encoding.encoder_alignment import Around, EncoderAlignmentSettings, align_encoder
from onesearch.encoding.text_encoder import TextEncoder, TrainableEncoder

_ITEMS_FOR_ROTATION = 50_000


def fold_numbers(queries: Sequence[str], folds: int, seed: int = 0) -> NDArray[np.int64]:
    """Fold 0..folds-1 of each query by a hash of its text, so that equal texts always share a fold."""
    return np.fromiter((crc32(f"{seed}:{query}".encode()) % folds for query in queries), np.int64, len(queries))


def procrustes(source: NDArray[np.float32], target: NDArray[np.float32]) -> NDArray[np.float32]:
    """The orthonormal R [d, d] that minimises ``||source @ R - target||`` (both [n, d])."""
    left, _, right = np.linalg.svd(source.T.astype(np.float64) @ target.astype(np.float64))
    return np.asarray(left @ right, np.float32)


def held_out_vectors(
    main: TextEncoder,
    fresh: Callable[[int], TrainableEncoder],
    pairs: Pairs,
    config: EncoderAlignmentSettings,
    folds: int = 2,
    around: Callable[[], Around] | None = None,
) -> NDArray[np.float32]:
    """Cross-fitted unit vectors of ``pairs.queries``, float32 [n_queries, d], in the main encoder's space.

    ::

        for each fold k of the queries (by a hash of their text):
            E_k = a fresh encoder aligned on the pairs without the queries of fold k
            O_k = argmin over orthonormal O of ‖E_k(items) O - E(items)‖          # Procrustes
            vector of each query of fold k = E_k(query) O_k

    Args:
        main: the encoder that serves; already aligned on all pairs.
        fresh: makes an untrained encoder for a fold (of the same dimension).
        pairs: what ``main`` was aligned on.
        config: how; the folds' epochs are those of ``config``.
        folds: number of encoders trained, at least 2.
        around: makes what ``main`` was aligned with beside texts, anew for each fold; spaces are rotated by texts.

    Raises:
        ValueError: fewer than two folds.
    """
    if folds < 2:
        raise ValueError(f"held-out query vectors need at least 2 folds, got {folds}")
    fold_of = fold_numbers(pairs.queries, folds, config.seed)
    # the item texts by which the spaces are brought to coincide
    rng = np.random.default_rng(config.seed)
    n_items = len(pairs.items)
    rows = np.sort(rng.choice(n_items, min(n_items, _ITEMS_FOR_ROTATION), replace=False)).tolist()
    anchors = [pairs.items[row] for row in rows]
    target = main.encode(anchors)
    out = np.zeros((len(pairs.queries), main.dimension), np.float32)
    for fold in range(folds):
        members = np.flatnonzero(fold_of == fold)
        if not len(members):
            continue
        encoder = align_encoder(fresh(fold), pairs.with_queries(fold_of != fold), config, around and around())
        rotation = procrustes(encoder.encode(anchors), target)
        out[members] = encoder.encode([pairs.queries[i] for i in members.tolist()]) @ rotation
    return out
