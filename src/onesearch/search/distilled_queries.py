"""Queries whose thoughts a served model was taught: those of its training page views that had a teacher."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from onesearch.common.artefact import inside, read_manifest
from onesearch.data.text import normalise_queries, normalise_query
from onesearch.search.engine import SearchEngine
from onesearch.search.run_parts import FINAL, engine_name, need, own_place
from onesearch.search.served_versions import served_place
from onesearch.understanding.thought_table import Taught, Thoughts

log = logging.getLogger("onesearch")
FILE: Final = "distilled.parquet"


class DistilledQueries:
    """A set of queries, compared as normalised, in eight bytes each."""

    def __init__(self, queries: Iterable[str] = ()) -> None:
        self._hashes = np.unique(np.fromiter((hash(normalise_query(query)) for query in queries), np.int64))

    def __contains__(self, query: str) -> bool:
        wanted = hash(normalise_query(query))
        at = int(np.searchsorted(self._hashes, wanted))
        return at < len(self._hashes) and int(self._hashes[at]) == wanted

    def __len__(self) -> int:
        return len(self._hashes)


def distilled_queries(run: Path, place: str) -> pl.Series:
    """Normalised queries whose thoughts the V2 model of an engine was taught, String [Q], each once.

    Args:
        run: folder of a run with V2.
        place: folder below it of the engine or version. One that an earlier version of onesearch made does not say;
            then they are those of the run's own stages, which it was taught as well.

    Raises:
        FileNotFoundError: the run has no V2.
    """
    file = inside(run, place) / FILE
    if file.is_file():
        return pl.read_parquet(file)["query"]
    settings = (read_manifest(need(run, "distill")) or {})["settings"]["distill"]
    if settings["keywords"] == "none":
        return pl.Series("query", [], pl.String)
    # The final engine has learnt the newest page views, too.
    parts = ("train", "valid", "test") if own_place(run, "v2") == FINAL else ("train",)
    columns = ["query", "clicked", "ordered"]
    page_views = pl.concat([pl.read_parquet(need(run, "data") / f"{part}.parquet", columns=columns) for part in parts])
    return taught_queries(Thoughts.load(need(run, "understanding")), page_views, settings["teach"])


def taught_queries(thoughts: Thoughts, page_views: pl.DataFrame, teach: Taught) -> pl.Series:
    """Of the queries of page views to learn those that have a teacher, normalised, each once.

    A page view without a click or an order teaches nothing.
    """
    learnt = page_views.filter((pl.col("clicked").list.len() > 0) | (pl.col("ordered").list.len() > 0))
    queries = normalise_queries(learnt["query"].fill_null("")).unique(maintain_order=True)
    return queries.filter(pl.Series(thoughts.taught(queries.to_list(), teach))).alias("query")


class ServedDistilled:
    """What the version that an engine searches with was taught; read again once the engine has another.

    Not for the path of a search: reading takes a moment.
    """

    def __init__(self, run: Path, engine: SearchEngine) -> None:
        self._run, self._engine = run, engine
        self._name, self._found = "", DistilledQueries()

    def __call__(self) -> DistilledQueries:
        """The queries, now."""
        name, place = self._engine.name, served_place(self._run, "v2")
        # Between publishing and taking over the engine still has the version before.
        if name == self._name or engine_name(self._run, "v2", place) != name:
            return self._found
        try:
            self._found = DistilledQueries(distilled_queries(self._run, place))
        except (OSError, ValueError, KeyError, pl.exceptions.PolarsError):
            log.exception("%s: which thoughts %s was taught cannot be read; none count as distilled", self._run, name)
            self._found = DistilledQueries()
        self._name = name
        return self._found
