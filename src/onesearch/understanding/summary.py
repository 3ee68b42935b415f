"""What a driver's run over many queries came to."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Summary:
    """What became of the queries: ``asked == cached + answered + set_aside + unfinished``, always.

    Attributes:
        given: queries handed in; asked: distinct ones among them, normalised and not empty.
        cached: there already. answered: thought about and kept now.
        set_aside: no usable answer. unfinished: not reached, or the server was down; another run goes on with them.
        repaired: answers that were usable only when asked again; dropped: parts of answers that were left out.
        stopped: why it ended early, "" if it did not.
    """

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
    stopped: str = ""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why queries were set aside, by kind."""

    @property
    def tokens(self) -> int:
        """Tokens read and written."""
        return self.tokens_in + self.tokens_out

    def text(self) -> str:
        """The figures in words, in a few lines."""
        lines = [
            f"{self.asked:,} distinct queries of {self.given:,}: {self.cached:,} cached before, {self.answered:,} "
            f"answered ({self.repaired:,} repaired), {self.set_aside:,} set aside, {self.unfinished:,} unfinished",
            f"{self.calls:,} calls ({self.retries:,} repeated), {self.tokens_in:,} tokens in, {self.tokens_out:,} out, "
            f"cost {self.cost:.4g}, {self.seconds:.1f} s",
        ]
        if self.reasons:
            lines.append("set aside: " + ", ".join(f"{kind} {count:,}" for kind, count in self.reasons.most_common()))
        if self.stopped:
            lines.append(f"stopped early: {self.stopped}; the same command goes on where it stopped")
        return "\n".join(lines)
