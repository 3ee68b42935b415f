"""What a report says in words: which method is best in what, and whether the engine is above what it has to beat."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from onesearch.evaluation.significance import permutation_test

Relation = Literal["above", "below", "undecided"]


@dataclass(frozen=True)
class Question:
    """Who has to beat whom: ``engine`` every one of ``baselines``, and itself without the model (``control``)."""

    engine: str
    baselines: Sequence[str]
    control: str


@dataclass(frozen=True)
class Finding:
    """The engine against one method in one metric, on all requests."""

    metric: str
    against: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def relation(self) -> Relation:
        """Undecided where the interval holds 0 or the test cannot tell: by the stricter of the two."""
        if self.p >= 0.05 or self.low <= 0 <= self.high:
            return "undecided"
        return "above" if self.difference > 0 else "below"

    def __str__(self) -> str:
        """For a cell of a table."""
        words = "not enough test requests to tell" if self.relation == "undecided" else f"**{self.relation}**"
        figures = f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p = {self.p:.4f}"
        return f"{figures}: {words}"


@dataclass(frozen=True)
class Verdict:
    """The findings of a :class:`Question` in the metrics of a report."""

    question: Question
    best: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    """Metric -> the method with the highest mean, and that mean."""
    baseline: Sequence[Finding] = ()
    """Against the baseline that is strongest in the metric, chosen on the same requests: in its favour."""
    control: Sequence[Finding] = ()

    def lines(self) -> list[str]:
        """Markdown."""
        engine, without = self.question.engine, self.question.control
        out = [
            _summary(engine, "the strongest baseline", self.baseline, _BASELINE_ADVICE),
            _summary(engine, f"the {without}", self.control, _CONTROL_ADVICE),
            "",
            f"| metric | best method | strongest baseline | {engine} − it | {engine} − {without} |",
            "|---|---|---|---|---|",
        ]
        # One row a metric; where nothing was clicked or ordered there is none.
        rivals = {one.metric: f"{one.against} | {one}" for one in self.baseline}
        control = {one.metric: str(one) for one in self.control}
        for metric, (method, mean) in self.best.items():
            out.append(
                f"| {metric} | {method} {mean:.4f} | {rivals.get(metric, '– | –')} | {control.get(metric, '–')} |"
            )
        out += [
            "",
            "Differences are means over the requests with 95 % intervals and the p of a paired sign-flip test. The"
            " strongest baseline is chosen for each metric on these requests. One of twenty such statements is wrong by"
            " chance.",
        ]
        return out


_BASELINE_ADVICE: Mapping[tuple[bool, bool], str] = {
    (True, False): "The engine is the better search here.",
    (
        False,
        True,
    ): "The baseline is the better search here: train longer, or on more page views, before you serve this run.",
    (True, True): "Which one is better depends on the metric that you care for.",
    (False, False): "Measure on more page views (`evaluation.test_requests`, or a longer log) before you choose.",
}
_CONTROL_ADVICE: Mapping[tuple[bool, bool], str] = {
    (True, False): "The generator is worth its time.",
    (False, True): "Leave it out (`search.generator=false`): faster, and better here.",
    (True, True): "Whether the generator is worth its time depends on the metric that you care for.",
    (False, False): "On these requests nothing shows that the generator is worth its time.",
}


def _summary(engine: str, against: str, findings: Sequence[Finding], advice: Mapping[tuple[bool, bool], str]) -> str:
    """One point of the list: in how many metrics the engine is above, below, undecided; and what follows."""
    counts = {name: sum(one.relation == name for one in findings) for name in ("above", "below", "undecided")}
    if not findings:
        return f"- {engine} and {against}: nothing to compare."
    told = f"above in {counts['above']} of {len(findings)} metrics, below in {counts['below']}"
    unclear = f"; in {counts['undecided']} there are not enough test requests to tell" if counts["undecided"] else ""
    return f"- **{engine} and {against}**: {told}{unclear}. {advice[counts['above'] > 0, counts['below'] > 0]}"


def give_verdict(
    values: Mapping[str, Mapping[str, NDArray[np.float32]]],
    metrics: Sequence[str],
    question: Question,
    flips: int = 10_000,
    resamples: int = 1000,
) -> Verdict:
    """Compare on all requests.

    Args:
        values: method -> metric -> per-request values [n], nan where undefined.
        metrics: those that count.
        question: who has to beat whom.
        flips: sign vectors of the paired test.
        resamples: bootstrap samples of the intervals.
    """
    means = {
        metric: {
            method: float(np.nanmean(row[metric]))
            for method, row in values.items()
            if metric in row and np.isfinite(row[metric]).any()
        }
        for metric in metrics
    }
    means = {metric: row for metric, row in means.items() if row}

    def findings(rivals: Sequence[str]) -> Iterator[Finding]:
        """The engine against the strongest of the rivals in each metric."""
        strongest: dict[str, list[str]] = {}
        for metric, row in means.items():
            there = [name for name in rivals if name in row]
            if there and question.engine in row:
                strongest.setdefault(max(there, key=row.__getitem__), []).append(metric)
        # All metrics of a rival share the flips.
        for rival, of in strongest.items():
            ours, theirs = (np.stack([values[name][m] for m in of], axis=1) for name in (question.engine, rival))
            test = permutation_test(ours, theirs, flips, resamples)
            columns = zip(of, test.difference, test.low, test.high, test.p, strict=True)
            yield from (Finding(m, rival, *map(float, figures)) for m, *figures in columns)

    return Verdict(
        question,
        {metric: max(row.items(), key=lambda pair: pair[1]) for metric, row in means.items()},
        list(findings(question.baselines)),
        list(findings([question.control])),
    )
