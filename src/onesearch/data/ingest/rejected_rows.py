"""Rows that an import sets aside: where they were, why, and what they said, streamed to ``rejected.parquet``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import polars as pl

from onesearch.data.ingest.parquet_writer import ParquetWriter

REJECTED: Final = "rejected.parquet"
SCHEMA: Final = pl.Schema(
    {"table": pl.String(), "file": pl.String(), "row": pl.Int64(), "reason": pl.String(), "text": pl.String()}
    | {"id": pl.String()}
)
LONGEST_TEXT: Final = 300


class Rejects:
    """Collects rows set aside and counts them by table and reason; memory does not grow with their number."""

    def __init__(self, folder: Path | None) -> None:
        """``folder`` gets the file; None only counts, for a first look at a file that is read again."""
        self._writer = None if folder is None else ParquetWriter(folder / REJECTED, SCHEMA)
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(
        self,
        table: str,
        file: str,
        rows: Sequence[int],
        reasons: Sequence[str],
        texts: Sequence[str | bytes],
        ids: Sequence[str | None] | None = None,
    ) -> None:
        """Set rows aside.

        Args:
            table: for which table they were meant.
            file: name of the file they were in.
            rows: line of each in that file (1 is the first; row number for Parquet).
            reasons: why, one per row.
            texts: what each said; cut to :data:`LONGEST_TEXT` characters, undecodable bytes in hexadecimal.
            ids: of the records that they were to be, None where that is not known.
        """
        if not len(rows):
            return
        # A reason may end in details after ": "; rows are counted by what comes before.
        self.counts.update((table, reason.split(": ", 1)[0]) for reason in reasons)
        if self._writer is None:
            return
        self._writer.write(
            pl.DataFrame(
                {
                    "table": [table] * len(rows),
                    "file": [file] * len(rows),
                    "row": rows,
                    "reason": reasons,
                    "text": [_readable(text) for text in texts],
                    "id": [None] * len(rows) if ids is None else ids,
                },
                schema=SCHEMA,
            )
        )

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _readable(text: str | bytes) -> str:
    if isinstance(text, bytes):
        # At most four bytes a character, so that a long line is not decoded as a whole.
        text = text[: 4 * LONGEST_TEXT].decode("utf-8", "backslashreplace")
    return text.rstrip("\r\n")[:LONGEST_TEXT]
