"""Run methods on test requests and report: metrics, intervals, slices, paired tests (docs/method.md, section 9)."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from onesearch.common.settings import Settings
from onesearch.data import metrics
from onesearch.data.histories import Targets
from onesearch.data.requests import Requests
from onesearch.evaluation.report import Comparison, Estimate, Report, SliceResult, Values
from onesearch.evaluation.significance import bootstrap, permutation_test
from onesearch.evaluation.slices import Slices
from onesearch.search.engine import SearchEngine
from onesearch.search.hits import Searcher

TrueMetrics = Callable[[NDArray[np.int32]], Mapping[str, NDArray[np.floating]]]
"""Extra metrics of ranked items [n, k], one value per request."""
_LEVEL = 0.95  # coverage of the intervals
_SEED = 0  # of bootstrap and flips


class MeasureSettings(Settings):
    """What is measured and how surely."""

    k: tuple[int, ...] = Field((1, 5, 10, 50), description="cut-offs of HR, MRR, NDCG and Recall")
    resamples: int = Field(1000, description="bootstrap samples of the intervals")
    flips: int = Field(10_000, description="random sign vectors of the paired test")
    batch: int = Field(256, description="requests given to a method at once; the time per request depends on it")


def evaluate(
    methods: Mapping[str, Searcher],
    requests: Requests,
    targets: Targets,
    slices: Slices | None = None,
    extra: Mapping[str, Mapping[str, NDArray[np.floating]]] | TrueMetrics | None = None,
    compare: Sequence[tuple[str, str]] = (),
    config: MeasureSettings | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Report:
    """Search every request with every method and measure.

    Args:
        methods: name -> searcher.
        requests: the test requests, n.
        targets: what was clicked and ordered on each request.
        slices: dimension -> label per request.
        extra: further per-request metrics: method -> metric -> [n], or a function of the ranked items [n, k] (the
            market's truth).
        compare: pairs (method, against) for paired tests, overall and within slices.
        config: cut-offs, resamples, seed.
        notes: JSON-able remarks kept in the report.

    Raises:
        ValueError: sizes of requests, targets, slices or extra metrics differ, or a compared method is missing.
    """
    # Page views and targets must be those of the requests.
    config = config or MeasureSettings()
    _check_size("targets.clicked", len(targets.clicked), len(requests))
    # Every method ranks every request once; all figures come from these lists.
    lists = ((name, *rank_all(searcher, requests, max(config.k), config.batch)) for name, searcher in methods.items())
    return measure(lists, targets, slices, extra, compare, config, notes)


def measure(
    lists: Iterable[tuple[str, NDArray[np.int32], float]],
    targets: Targets,
    slices: Slices | None = None,
    extra: Mapping[str, Mapping[str, NDArray[np.floating]]] | TrueMetrics | None = None,
    compare: Sequence[tuple[str, str]] = (),
    config: MeasureSettings | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Report:
    """Measure what methods ranked, whoever had them rank it.

    Args:
        lists: of each method its name, ranked items [n, k] and the milliseconds per request; taken one at a time.
        targets: what was clicked and ordered on each of the n requests.
        slices: as of :func:`evaluate`, like all that follow.
        extra: see there.
        compare: see there.
        config: see there.
        notes: see there.

    Raises:
        ValueError: as :func:`evaluate`.
    """
    config, n = config or MeasureSettings(), len(targets.clicked)
    _check_size("targets.ordered", len(targets.ordered), n)
    values: dict[str, dict[str, NDArray[np.float32]]] = {}
    milliseconds: dict[str, float] = {}
    # One method after the other, so that a single one's lists are in memory.
    for name, ranked, milliseconds[name] in lists:
        _check_size(f"ranked items of method {name!r}", len(ranked), n)
        row = sampled_metrics(ranked, targets, config.k)
        more = extra(ranked) if callable(extra) else (extra or {}).get(name, {})
        row |= {metric: np.asarray(one, np.float32) for metric, one in more.items()}
        values[name] = row
    return build_report(values, slices or {}, compare, config, milliseconds, notes)


def rank_all(searcher: Searcher, requests: Requests, k: int, batch: int = 256) -> tuple[NDArray[np.int32], float]:
    """Ranked items int32 [n, k] of all requests, and the mean milliseconds per request."""
    # Time is taken over all requests, in batches as a server would take them.
    parts: list[NDArray[np.int32]] = [np.zeros((0, k), np.int32)]
    start = time.perf_counter()
    for first in range(0, len(requests), batch):
        rows = np.arange(first, min(first + batch, len(requests)))
        items = searcher.rank(requests.select(rows), k).items
        if items.shape != (len(rows), k):
            raise ValueError(
                f"{type(searcher).__name__}.search gave hits of shape {items.shape}, expected {(len(rows), k)}; "
                "pad missing hits with -1"
            )
        parts.append(items)
    return np.concatenate(parts), 1000 * (time.perf_counter() - start) / max(len(requests), 1)


def sampled_metrics(
    ranked: NDArray[np.int32], targets: Targets, cutoffs: Sequence[int]
) -> dict[str, NDArray[np.float32]]:
    """HR, MRR, NDCG and Recall at each cut-off for click and order, per request [n], nan without target."""
    functions = {"HR": metrics.hit_rate, "MRR": metrics.mrr, "NDCG": metrics.ndcg, "Recall": metrics.recall}
    return {
        f"{kind}/{name}@{k}": function(ranked, wanted, k)
        for kind, wanted in (("click", targets.clicked), ("order", targets.ordered))
        for name, function in functions.items()
        for k in cutoffs
    }


def build_report(
    values: Values,
    slices: Slices | None = None,
    compare: Sequence[tuple[str, str]] = (),
    config: MeasureSettings | None = None,
    milliseconds: Mapping[str, float] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Report:
    """A report out of per-request values (see :func:`pool_reports` for several seeds).

    Raises:
        ValueError: a metric or slice has another number of requests, or a compared method is missing.
    """
    config, slices = config or MeasureSettings(), slices or {}
    if not values:
        raise ValueError("nothing to summarise: give at least one method")
    # Everything must speak of the same n requests.
    n = len(next(iter(next(iter(values.values())).values())))
    for method, row in values.items():
        for metric, one in row.items():
            _check_size(f"metric {metric!r} of method {method!r}", len(one), n)
    for dimension, labels in slices.items():
        _check_size(f"slice {dimension!r}", len(labels), n)
    for pair in compare:
        for method in pair:
            if method not in values:
                raise ValueError(f"cannot compare {method!r}: not among the methods {', '.join(values)}")
    # Requests of each group of each dimension; the same estimates and tests are then made within it.
    groups = {
        dimension: {label: np.flatnonzero(labels == label) for label in _ordered(labels)}
        for dimension, labels in slices.items()
    }
    everyone = np.arange(n)
    return Report(
        requests=n,
        methods=_estimates(values, everyone, config),
        slices={
            dimension: {
                label: SliceResult(len(rows), _estimates(values, rows, config)) for label, rows in group.items()
            }
            for dimension, group in groups.items()
        },
        comparisons=[
            comparison
            for pair in compare
            for of, rows in [
                (None, everyone),
                *(((dimension, label), rows) for dimension, group in groups.items() for label, rows in group.items()),
            ]
            for comparison in _compared(values, pair, rows, of, config)
        ],
        values=values,
        labels=slices,
        milliseconds=milliseconds or {},
        settings={"level": _LEVEL, "resamples": config.resamples, "flips": config.flips, "seed": _SEED},
        notes=notes or {},
    )


def pool_reports(
    reports: Sequence[Report],
    compare: Sequence[tuple[str, str]] = (),
    same_requests: bool = False,
    config: MeasureSettings | None = None,
) -> Report:
    """One report over several seeds.

    Args:
        reports: evaluations of the same methods.
        compare: pairs for paired tests on the pooled requests.
        same_requests: True when all seeds share one test part: a request's value is then its mean over seeds.
            Otherwise the requests of all seeds are put one after the other.
        config: resamples, flips, seed.
    """
    first = reports[0]

    # A request's value: the mean over seeds, or each seed's requests one after the other.
    def join(parts: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        return np.mean(parts, axis=0, dtype=np.float32) if same_requests else np.concatenate(parts)

    if same_requests:
        for report in reports:
            _check_size("a report over the same requests", report.requests, first.requests)
    # Only methods and slices that every report has can be joined.
    values = {
        method: {metric: join([report.values[method][metric] for report in reports]) for metric in row}
        for method, row in first.values.items()
        if all(method in report.values for report in reports)
    }
    names = [name for name in first.labels if all(name in report.labels for report in reports)]
    labels = {
        name: first.labels[name] if same_requests else np.concatenate([report.labels[name] for report in reports])
        for name in names
    }
    times = {
        method: float(np.mean([report.milliseconds.get(method, np.nan) for report in reports])) for method in values
    }
    return build_report(values, labels, compare, config, times, {"pooled reports": len(reports)})


@torch.inference_mode()
def valid_sid_share(engine: SearchEngine, requests: Requests, most: int, batch: int = 64) -> float:
    """Greedy decoding over whole codebooks of at most ``most`` requests; how many SIDs belong to an item, 0 to 1."""
    requests = requests.select(np.arange(min(most, len(requests))))
    if not len(requests):
        return float("nan")
    model, snapshot = engine.generator, engine.snapshot
    inputs = engine.prompt_inputs(requests, snapshot)
    found = []
    for rows in np.split(np.arange(len(requests)), range(batch, len(requests), batch)):
        memory = model.encode(snapshot.builder.search_prompt(inputs, rows).to(model.begin.device))
        # One code after the other, the best of the whole codebook: int64 [rows, 1] each.
        state = model.start(memory, 1)
        codes: list[torch.Tensor] = []
        embeds = model.token_embedding(-1, torch.zeros(len(rows), 1, dtype=torch.long))
        for level in range(model.levels):
            hidden = model.step(state, embeds, None)
            codes.append(model.codebook_logits(level, hidden).argmax(-1))
            nodes = snapshot.index.locate(torch.stack(codes, -1)[:, 0])
            vectors = snapshot.index.vectors(level, nodes.clamp(min=0)).unsqueeze(1) if model.anchored else None
            if vectors is not None:
                # A prefix that does not exist has no node, so the next step sees its code alone.
                vectors = vectors * (nodes >= 0)[:, None, None]
            embeds = model.token_embedding(level, codes[-1], vectors)
        found.append((snapshot.index.locate(torch.stack(codes, -1)[:, 0]) >= 0).float())
    return float(torch.cat(found).mean())


def _estimates(values: Values, rows: NDArray[np.int64], config: MeasureSettings) -> dict[str, dict[str, Estimate]]:
    """Means and intervals of every method and metric; all columns share the bootstrap draws."""
    keys = [(method, metric) for method, row in values.items() for metric in row]
    matrix = np.stack([values[method][metric][rows] for method, metric in keys], axis=1)
    found = bootstrap(matrix, config.resamples, _LEVEL, _SEED)
    out: dict[str, dict[str, Estimate]] = {method: {} for method in values}
    for column, (method, metric) in enumerate(keys):
        out[method][metric] = Estimate(
            float(found.mean[column]), float(found.low[column]), float(found.high[column]), int(found.n[column])
        )
    return out


def _compared(
    values: Values, pair: tuple[str, str], rows: NDArray[np.int64], of: tuple[str, str] | None, config: MeasureSettings
) -> list[Comparison]:
    method, against = pair
    shared = [metric for metric in values[method] if metric in values[against]]
    a, b = (np.stack([values[name][metric][rows] for metric in shared], axis=1) for name in pair)
    test = permutation_test(a, b, config.flips, config.resamples, _LEVEL, _SEED)
    return [
        Comparison(
            method,
            against,
            metric,
            float(test.difference[i]),
            float(test.low[i]),
            float(test.high[i]),
            float(test.p[i]),
            int(test.wins[i]),
            int(test.ties[i]),
            int(test.losses[i]),
            int(test.wins[i] + test.ties[i] + test.losses[i]),
            of,
        )
        for i, metric in enumerate(shared)
        if np.isfinite(test.difference[i])
    ]


def _ordered(labels: NDArray[Any]) -> list[str]:
    """Labels in reading order: words, then ranges by their number; "" left out."""

    def key(label: str) -> tuple[int, str]:
        digits = "".join(character if character.isdigit() else " " for character in label).split()
        return (int(digits[0]) if digits else -1, label)

    return sorted({str(label) for label in labels.tolist()} - {""}, key=key)


def _check_size(what: str, found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(
            f"{what} has {found} rows but there are {expected} requests; build both from the same page views, in order"
        )
