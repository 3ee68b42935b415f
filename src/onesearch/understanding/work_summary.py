"""What became of many queries that somebody was asked about: counted, and those without an answer written down."""

import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from onesearch.understanding.llm_producer import Usage


@dataclass
class Summary:
    """What became of the queries. Of a list: ``asked == cached + answered + set_aside + unfinished``, always.

    Attributes:
        what: what is counted, for the reader: queries, or queries with a history (step 3).
        given: queries handed in; asked: distinct ones among them, normalised and not empty. Both 0 for the queue.
        cached: there already. answered: thought about and kept now.
        set_aside: no usable answer. unfinished: not reached, or the server was down; another run goes on with them.
        repaired: answers that were usable only when asked again; dropped: parts of answers that were left out.
        outages: how often the producer was found to be down. stopped: why it ended early, "" if it did not.
    """

    what: str = "queries"
    given: int = 0
    asked: int = 0
    cached: int = 0
    answered: int = 0
    set_aside: int = 0
    unfinished: int = 0
    repaired: int = 0
    dropped: int = 0
    calls: int = 0
    retries: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0
    seconds: float = 0.0
    outages: int = 0
    stopped: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why queries were set aside, by kind."""

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_in + self.tokens_out

    def text(self, live: bool = False) -> str:
        """The figures in words, in a few lines; ``live``: of work on the queue."""
        became = f"{self.cached:,} cached before, {self.answered:,} answered ({self.repaired:,} repaired), "
        became += f"{self.set_aside:,} set aside"
        lines = [
            f"{became}, {self.outages:,} outages"
            if live
            else f"{self.asked:,} distinct {self.what} of {self.given:,}: {became}, {self.unfinished:,} unfinished",
            f"{self.calls:,} calls ({self.retries:,} repeated), {self.tokens_in:,} tokens in, {self.tokens_out:,} out, "
            f"cost {self.cost:.4g}, {self.seconds:.1f} s",
        ]
        if self.reasons:
            lines.append("set aside: " + ", ".join(f"{kind} {count:,}" for kind, count in self.reasons.most_common()))
        if live:
            lines.append(f"ended: {self.stopped}")
        elif self.stopped:
            lines.append(f"stopped early: {self.stopped}; the same command goes on where it stopped")
        return "\n".join(lines)


class UsageMeter:
    """What somebody who is asked uses from now on; nothing, if they keep no :class:`Usage`."""

    def __init__(self, asked: object) -> None:
        self._asked = asked
        self._before = Usage(**vars(self._usage()))

    def used(self) -> dict[str, Any]:
        """Calls, tokens, cost, ..., as in :class:`Summary`."""
        return {name: value - getattr(self._before, name) for name, value in vars(self._usage()).items()}

    def _usage(self) -> Usage:
        usage: Any = getattr(self._asked, "usage", None)
        return usage if isinstance(usage, Usage) else Usage()


def note_reject(rejects: Path, producer: str, version: str, query: str, reason: str) -> None:
    """Append a query without a usable answer to a JSON-lines file: when, whose answer, why."""
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "producer": producer,
        "version": version,
        "query": query,
        "reason": reason,
    }
    rejects.parent.mkdir(parents=True, exist_ok=True)
    # One write in append mode: lines of several slots or processes do not mix.
    with rejects.open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")
