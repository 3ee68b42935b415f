"""The thoughts of a run's queries as a table: what the teacher reads, and which queries are complex."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.data.text import normalise_query
from onesearch.understanding.thought import Analysis, Attribute, Thought

FILE: Final = "thoughts.parquet"
Taught = Literal["complex", "all"]
SCHEMA: Final[dict[str, Any]] = {
    "query": pl.String,
    "intent": pl.String,
    "query_type": pl.String,
    "category": pl.List(pl.String),
    "attributes": pl.List(pl.Struct({"type": pl.String, "value": pl.String, "negated": pl.Boolean})),
    "keywords": pl.List(pl.String),
    "producer": pl.String,
    "version": pl.String,
}


class Thoughts:
    """Steps 1 and 2 of many queries; nothing personal and nothing injected is in it (docs/method.md, section 4)."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.table = table
        self._number = {query: row for row, query in enumerate(table["query"].to_list())}
        self._keywords = [tuple(row) for row in table["keywords"].to_list()]
        self._complex = (table["query_type"] != "plain").to_numpy()

    @classmethod
    def from_thoughts(cls, thoughts: Iterable[Thought]) -> "Thoughts":
        """A table of thoughts, by normalised query."""
        rows = [
            {
                "query": one.query,
                "intent": one.analysis.intent,
                "query_type": one.analysis.query_type,
                "category": list(one.analysis.category),
                "attributes": [attribute.model_dump() for attribute in one.analysis.attributes],
                "keywords": list(one.keywords),
                "producer": one.producer,
                "version": one.version,
            }
            for one in thoughts
        ]
        return cls(pl.DataFrame(rows, schema=SCHEMA).unique("query", keep="first").sort("query"))

    def __len__(self) -> int:
        return len(self.table)

    def plus(self, more: "Thoughts") -> "Thoughts":
        """These thoughts, and the others' of queries that nobody has thought about here."""
        return Thoughts(pl.concat([self.table, more.table]).unique("query", keep="first").sort("query"))

    def rows(self, queries: Sequence[str]) -> NDArray[np.int64]:
        """Row of each query, int64 [n]; -1 where nobody has thought about it."""
        return np.fromiter((self._number.get(normalise_query(query), -1) for query in queries), np.int64, len(queries))

    def keywords(self, queries: Sequence[str]) -> list[tuple[str, ...]]:
        """Keywords of each query; empty where there are none."""
        return [self._keywords[row] if row >= 0 else () for row in self.rows(queries).tolist()]

    def is_complex(self, queries: Sequence[str]) -> NDArray[np.bool_]:
        """Whether a query is known to be of another type than plain, bool [n]."""
        rows = self.rows(queries)
        return np.asarray((rows >= 0) & self._complex[rows] if len(self) else np.zeros(len(rows), bool))

    def taught(self, queries: Sequence[str], which: Taught) -> NDArray[np.bool_]:
        """Which queries have a teacher, bool [n]: those with keywords, of complex queries or of all."""
        known = np.fromiter((len(row) > 0 for row in self.keywords(queries)), np.bool_, len(queries))
        return known if which == "all" else np.asarray(known & self.is_complex(queries))

    def taught_keywords(self, queries: Sequence[str], which: Taught) -> list[tuple[str, ...]]:
        """Keywords of the queries that have a teacher; empty for the others."""
        taught = self.taught(queries, which).tolist()
        return [row if has else () for row, has in zip(self.keywords(queries), taught, strict=True)]

    def thought(self, row: int) -> Thought:
        """One row as it was thought, without the topics, which the table leaves out."""
        found = self.table.row(row, named=True)
        analysis = Analysis(
            intent=found["intent"],
            query_type=found["query_type"],
            category=tuple(found["category"]),
            attributes=tuple(Attribute(**one) for one in found["attributes"]),
        )
        return Thought(
            query=found["query"],
            analysis=analysis,
            keywords=tuple(found["keywords"]),
            producer=found["producer"],
            version=found["version"],
        )

    def save(self, folder: Path) -> None:
        """Write ``thoughts.parquet``."""
        self.table.write_parquet(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Thoughts":
        """Read what :meth:`save` wrote."""
        return cls(pl.read_parquet(folder / FILE))
