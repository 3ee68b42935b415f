"""Quality figures of a quantizer (2.11 to 2.14): how codes are used, how unique SIDs are, what quantization loses.

In three parts: figures of the SIDs alone; figures of vectors and rankings; the report, and the time a query takes.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.data.metrics import hit_rate, mrr
from onesearch.data.metrics import recall as recall_at
from onesearch.encoding.khqe import KHQE, fuse_keywords
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.understanding.keyword_lexicon import Lexicon

Floats = NDArray[np.float32]
Codes = NDArray[np.int32]

_QUERIES_AT_ONCE, _ITEMS_AT_ONCE = 512, 16_384


def prefix_numbers(codes: Codes, sizes: Sequence[int]) -> NDArray[np.int64]:
    """A number for every prefix, equal exactly where prefixes are equal: int64 [n, L].

    Level by level a prefix is (number of the shorter prefix, code), numbered anew so that numbers stay small.
    """
    out = np.zeros(codes.shape, np.int64)
    number = np.zeros(len(codes), np.int64)
    for level, size in enumerate(sizes):
        number = np.unique(number * size + codes[:, level], return_inverse=True)[1].reshape(-1)
        out[:, level] = number
    return out


def usage(codes: Codes, sizes: Sequence[int]) -> dict[str, list[float]]:
    """Codebook utilisation of SIDs [n, L], one figure per level.

    ``cur``: share of the level's codes in use; ``cur_prefix``: distinct prefixes over how many there could be, which
    is the product of the codebook sizes or the number of SIDs, whichever is smaller; ``entropy`` in bits;
    ``perplexity`` = 2^entropy; ``dead`` codes.
    """
    prefixes = prefix_numbers(codes, sizes)
    out: dict[str, list[float]] = {name: [] for name in ("cur", "cur_prefix", "entropy", "perplexity", "dead")}
    possible = 1.0
    for level, size in enumerate(sizes):
        counts = np.bincount(codes[:, level], minlength=size)  # [K_l]
        share = counts[counts > 0] / len(codes)
        entropy = float(-(share * np.log2(share)).sum())
        possible *= size
        out["cur"].append(float((counts > 0).mean()))
        out["cur_prefix"].append(float((prefixes[:, level].max() + 1) / min(possible, len(codes))))
        out["entropy"].append(entropy)
        out["perplexity"].append(2.0**entropy)
        out["dead"].append(float((counts == 0).sum()))
    return out


def uniqueness(codes: Codes, sizes: Sequence[int]) -> dict[str, float]:
    """ICR (share of items whose SID is theirs alone), colliding items, distinct SIDs, largest group of one SID."""
    counts = np.bincount(prefix_numbers(codes, sizes)[:, -1])
    alone = int((counts == 1).sum())
    return {
        "icr": alone / len(codes),
        "colliding_items": float(len(codes) - alone),
        "distinct_sids": float(len(counts)),
        "largest_collision": float(counts.max()),
    }


def reconstruction(khqe: KHQE, vectors: Floats, codes: Codes) -> dict[str, list[float]]:
    """Relative squared error and mean cosine of the reconstruction after each level."""
    levels = len(khqe.codebook_sizes)
    norm, error, cosine = 0.0, np.zeros(levels), np.zeros(levels)
    # A block of vectors at a time: the differences of all would be as large as the catalogue again.
    for begin in range(0, len(vectors), _ITEMS_AT_ONCE):
        block, of_block = vectors[begin : begin + _ITEMS_AT_ONCE], codes[begin : begin + _ITEMS_AT_ONCE]
        norm += float(np.square(block).sum(dtype=np.float64))
        length = np.linalg.norm(block, axis=1)
        for level in range(levels):
            guess = khqe.decode(of_block, level + 1)
            error[level] += np.square(block - guess).sum(dtype=np.float64)
            lengths = np.maximum(length * np.linalg.norm(guess, axis=1), 1e-12)
            cosine[level] += ((block * guess).sum(1) / lengths).sum(dtype=np.float64)
    return {"relative_error": (error / norm).tolist(), "cosine": (cosine / len(vectors)).tolist()}


def top_items(queries: Floats, items: Floats, k: int) -> NDArray[np.int32]:
    """The k items of largest dot product, best first, int32 [n, k]; of two that tie, the lower row first."""
    k = min(k, len(items))
    out = np.empty((len(queries), k), np.int32)
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        asked = torch.from_numpy(queries[start : start + _QUERIES_AT_ONCE])
        # The best so far, and those of one block of items at a time: scores of all items would not fit at scale.
        scores, rows = asked.new_zeros(len(asked), 0), torch.zeros(len(asked), 0, dtype=torch.int64)
        for begin in range(0, len(items), _ITEMS_AT_ONCE):
            block = asked @ torch.from_numpy(items[begin : begin + _ITEMS_AT_ONCE]).T
            best = block.topk(min(k, block.shape[1]))
            scores, rows = torch.cat([scores, best.values], 1), torch.cat([rows, begin + best.indices], 1)
            order = torch.from_numpy(np.lexsort((rows.numpy(), -scores.numpy()), axis=1)[:, :k].copy())
            scores, rows = scores.gather(1, order), rows.gather(1, order)
        out[start : start + len(asked)] = rows.numpy()
    return out


def ranking(queries: Floats, items: Floats, targets: Ragged, k: int = 10) -> dict[str, float]:
    """HR@k, Recall@k and MRR@k of items ranked by dot product with query vectors."""
    ranked = top_items(queries, items, k)
    return {
        f"hr@{k}": float(np.nanmean(hit_rate(ranked, targets, k))),
        f"recall@{k}": float(np.nanmean(recall_at(ranked, targets, k))),
        f"mrr@{k}": float(np.nanmean(mrr(ranked, targets, k))),
    }


def prefix_agreement(query_codes: Codes, item_codes: Codes, targets: Ragged) -> list[float]:
    """Share of query-item pairs whose first l codes agree, for l = 1..L."""
    same = query_codes[targets.owners] == item_codes[targets.values]
    return [float(share) for share in np.logical_and.accumulate(same, axis=1).mean(0)]


def first_code_reach(khqe: KHQE, queries: Floats, item_codes: Codes, targets: Ragged, top: int = 64) -> float:
    """Share of query-item pairs whose item has one of the query's ``top`` nearest first-level codes."""
    centroids = khqe.centroids[0]
    scores = queries @ centroids.T - 0.5 * np.square(centroids).sum(1)
    top = min(top, scores.shape[1])
    best = np.argpartition(-scores, top - 1, axis=1)[:, :top]
    return float((best[targets.owners] == item_codes[targets.values, 0][:, None]).any(1).mean())


def quality_report(
    khqe: KHQE, items: Floats, queries: Floats | None = None, targets: Ragged | None = None, k: int = 10
) -> dict[str, Any]:
    """All figures of one quantizer.

    Args:
        khqe: the quantizer.
        items: fused vectors of all items, [n, d].
        queries: fused vectors of held-out queries, [m, d]; without them the ranking figures are left out.
        targets: the relevant item rows of each query, m rows.
        k: cut of the ranking figures.

    Returns:
        JSON-able: ``icr``, ``usage``, ``uniqueness``, ``reconstruction``, ``sizes`` and, with queries, ``raw`` and
        ``quantized`` ranking (quantized items against exact queries), ``quantized_both``, ``prefix_agreement`` and
        ``first_code``.
    """
    # what the SIDs and their reconstructions say without any query
    codes, sizes = khqe.encode(items), khqe.codebook_sizes
    unique = uniqueness(codes, sizes)
    report: dict[str, Any] = {
        "icr": unique["icr"],
        "codebook_sizes": list(sizes),
        "items": len(items),
        "usage": usage(codes, sizes),
        "uniqueness": unique,
        "reconstruction": reconstruction(khqe, items, codes),
        "sizes": {
            "bytes_per_sid": sum(np.log2(size) for size in sizes) / 8,
            "codebook_bytes": sum(layer.nbytes for layer in khqe.layers)
            + (0 if khqe.opq is None else khqe.opq.rotation.nbytes + khqe.opq.codebooks.nbytes),
        },
    }
    if queries is None or targets is None or not len(queries):
        return report
    # items ranked by exact and by quantized vectors: what coding costs a search
    guess, query_codes = khqe.decode(codes), khqe.encode(queries)
    rq_levels = len(khqe.layers)
    report |= {
        "queries": len(queries),
        "raw": ranking(queries, items, targets, k),
        "quantized": ranking(queries, guess, targets, k),
        "quantized_rq_only": ranking(queries, khqe.decode(codes, rq_levels), targets, k),
        "quantized_both": ranking(khqe.decode(query_codes), guess, targets, k),
        "prefix_agreement": prefix_agreement(query_codes, codes, targets),
        "first_code": {f"top_{top}": first_code_reach(khqe, queries, codes, targets, top) for top in (1, 64)},
    }
    return report


def measure_query_encoding(
    encoder: TextEncoder,
    khqe: KHQE,
    queries: Sequence[str],
    lexicon: Lexicon | None = None,
    keyword_vectors: NDArray[np.float32] | None = None,
    warm_up: int = 20,
) -> dict[str, float]:
    """Time text -> vector -> keyword fusion -> SID, one query at a time and nothing cached.

    Args:
        encoder: text encoder.
        khqe: quantizer.
        queries: distinct query texts; the first ``warm_up`` are run before the clock starts.
        lexicon: keywords for fusion; None leaves the fusion out.
        keyword_vectors: vectors of the lexicon's keywords, computed here when missing.
        warm_up: queries that are not measured.

    Returns:
        ``query_p50_ms``, ``query_p95_ms``, ``query_p99_ms`` and the mean of each step in milliseconds.

    Raises:
        ValueError: there are no queries left to measure.
    """
    if len(queries) <= warm_up:
        raise ValueError(f"measuring needs more than {warm_up} queries, got {len(queries)}")
    if lexicon is not None and keyword_vectors is None:
        keyword_vectors = encoder.encode(lexicon.texts)
    marks = np.zeros((len(queries), 4))  # the clock at the start and after each of the three steps
    for row, query in enumerate(queries):
        marks[row, 0] = time.perf_counter()
        vector = encoder.encode([query])
        marks[row, 1] = time.perf_counter()
        if lexicon is not None and keyword_vectors is not None:
            vector = fuse_keywords(vector, lexicon.match([query]), keyword_vectors)
        marks[row, 2] = time.perf_counter()
        khqe.encode(vector)
        marks[row, 3] = time.perf_counter()
    steps = 1000.0 * np.diff(marks[warm_up:], axis=1)
    p50, p95, p99 = np.percentile(steps.sum(1), [50, 95, 99])
    encode, keywords, quantize = steps.mean(0)
    return {
        "query_p50_ms": float(p50),
        "query_p95_ms": float(p95),
        "query_p99_ms": float(p99),
        "encode_ms": float(encode),
        "keywords_ms": float(keywords),
        "quantize_ms": float(quantize),
        "queries": float(len(steps)),
    }
