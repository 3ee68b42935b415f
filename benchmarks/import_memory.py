"""Memory and speed of an import of one large click log: prints one JSON object.

    python -m benchmarks.import_memory --rows 20000000 [--format jsonl] [--group]

A log of that many rows is generated into a temporary folder, imported in a process of its own, whose peak resident
memory is read from the operating system, and deleted again. One row in a thousand is broken on purpose.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.importer import import_mapping

ITEMS, USERS, QUERIES = 500_000, 1_000_000, 200_000
STEP = 500_000


def generate(folder: Path, rows: int, kind: str) -> None:
    """Write items.csv and clicks.<kind>."""
    numbers = pl.int_range(ITEMS, eager=True)
    pl.DataFrame({"sku": numbers, "name": "product number " + numbers.cast(pl.String)}).write_csv(folder / "items.csv")
    rng = np.random.default_rng(0)
    start = 1_700_000_000_000
    with (folder / f"clicks.{kind}").open("wb") as file:
        for first in range(0, rows, STEP):
            n = min(STEP, rows - first)
            frame = pl.DataFrame(
                {
                    "user": "user-" + pl.Series(rng.integers(0, USERS, n)).cast(pl.String),
                    # some skus are not in the catalogue
                    "sku": rng.integers(0, int(ITEMS * 1.01), n),
                    "query": "query number " + pl.Series(rng.integers(0, QUERIES, n)).cast(pl.String),
                    # in milliseconds; one row in a thousand in seconds
                    "ms": (start + np.arange(first, first + n)) // np.where(np.arange(n) % 1000 == 0, 1000, 1),
                }
            )
            if kind == "csv":
                frame.write_csv(file, include_header=first == 0)
            else:
                frame.write_ndjson(file)


def run(folder: str, kind: str, group: bool, results: "multiprocessing.Queue[dict[str, object]]") -> None:
    """Import, in a process of its own."""
    mapping = ColumnMapping.model_validate(
        {
            "source": "benchmark",
            "folder": folder,
            "items": {"file": "items.csv", "columns": {"item_id": "sku", "title": "name"}},
            "page_views": {
                "file": f"clicks.{kind}",
                "rows": "clicks",
                "group_by": ["user", "query"] if group else [],
                "columns": {"user_id": "user", "query": "query", "item_id": "sku", "time": "ms"},
                "time": {"unit": "ms"},
            },
        }
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    summary = import_mapping(mapping, Path(folder) / "out")
    results.put(
        {
            "seconds": round(time.perf_counter() - start, 1),
            "cpu_seconds": round(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]), 1),
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "rss_before_mib": before // 1024,
            "imported": summary.rows,
            "rejected": summary.rejected,
        }
    )


def main() -> None:
    """Generate, import, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--format", choices=["csv", "jsonl"], default="csv")
    parser.add_argument("--group", action="store_true", help="group rows by user and query into page views")
    parser.add_argument("--folder", type=Path, help="where to make the temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        generate(folder, arguments.rows, arguments.format)
        size = (folder / f"clicks.{arguments.format}").stat().st_size
        context = multiprocessing.get_context("spawn")
        results: multiprocessing.Queue[dict[str, object]] = context.Queue()
        process = context.Process(target=run, args=(name, arguments.format, arguments.group, results))
        process.start()
        found = results.get()
        process.join()
    seconds = float(str(found["seconds"]))
    print(
        json.dumps(
            {
                "rows": arguments.rows,
                "format": arguments.format,
                "grouped": arguments.group,
                "file_mib": size >> 20,
                "rows_per_second": round(arguments.rows / seconds),
                **found,
            }
        )
    )


if __name__ == "__main__":
    main()
