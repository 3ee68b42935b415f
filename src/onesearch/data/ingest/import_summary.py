"""What an import did: rows taken, set aside and changed, and how well the tables join."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Join:
    """How many references from one table are found in another."""

    total: int = 0
    found: int = 0

    def add(self, total: int, found: int) -> None:
        """Count some more."""
        self.total += total
        self.found += found

    @property
    def share(self) -> float:
        """Found / total; 1 when there is nothing to find."""
        return self.found / self.total if self.total else 1.0


@dataclass
class ImportSummary:
    """Counts of one import.

    Attributes:
        rows: rows in each table of the data set.
        rejected: table -> reason -> rows set aside (all of them are in ``rejected.parquet``).
        emptied: table -> reason -> values left empty because they could not be right.
        repaired: table -> column and what was changed -> values.
        suspicious: table -> column and why -> values that were taken and may mean something else.
        dropped: what -> item ids left out of lists because the catalogue does not have them.
        created: what -> records made for ids that had none.
        joins: "from -> to" -> how many references were found.
        notes: what else a reader should know.
        seconds: wall-clock time.
    """

    source: str
    rows: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    emptied: dict[str, Counter[str]] = field(default_factory=dict)
    repaired: dict[str, Counter[str]] = field(default_factory=dict)
    suspicious: dict[str, Counter[str]] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    created: Counter[str] = field(default_factory=Counter)
    joins: dict[str, Join] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def join(self, name: str, total: int, found: int) -> None:
        """Count references of one kind."""
        self.joins.setdefault(name, Join()).add(total, found)

    def values(
        self, table: str, emptied: Mapping[str, int], repaired: Mapping[str, int], suspicious: Mapping[str, int]
    ) -> None:
        """Count values left empty, changed, and doubtful."""
        for counts, more in ((self.emptied, emptied), (self.repaired, repaired), (self.suspicious, suspicious)):
            counts.setdefault(table, Counter()).update(more)

    @property
    def rejected_rows(self) -> int:
        """All rows set aside."""
        return sum(sum(reasons.values()) for reasons in self.rejected.values())

    def as_dict(self) -> dict[str, Any]:
        """For ``dataset.json``."""
        return {
            "rows": self.rows,
            "rejected": self.rejected,
            **{
                name: {table: dict(counts) for table, counts in counted.items() if counts}
                for name, counted in (
                    ("emptied", self.emptied),
                    ("repaired", self.repaired),
                    ("suspicious", self.suspicious),
                )
            },
            "dropped": dict(self.dropped),
            "created": dict(self.created),
            "joins": {name: {"total": join.total, "found": join.found} for name, join in self.joins.items()},
            "notes": self.notes,
        }
