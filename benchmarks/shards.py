"""A catalogue in several engines beside one: the same pages, and what the shards tell each other.

Run: ``python -m benchmarks.shards runs/demo --shards 2 --shards 4``. Prints one JSON object. Page views of the log
ask, as their shoppers; every other one with a filter: the category or the brand of an item that was clicked or shown,
or prices around its own. Each shard is a process with one thread, all of them on this machine, which talk over gloo::

    same           pages with the same ten items in the same order
    by ties alone  other pages on which every item has the score, within 1e-4, of the one in its place
    score off      the largest difference between scores in one place
    exchanges      how often the shards meet in one search; ``bytes`` that come to each of them then
    cpu_ms         of all shards together, one search at a time; ``largest_cpu_ms`` of the busiest, ``wall_ms`` of all
    index_mib      vectors and structure of the largest part of the index

On a machine with fewer cores than shards they wait for each other, so that ``wall_ms`` says little.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.provenance import ROOT
from onesearch.common.artefact import read_json, write_json
from onesearch.common.processes import joined
from onesearch.data.dataset import Dataset
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.results import SearchRequest
from onesearch.search.shards import ProcessShards

Page = list[list[Any]]  # of (item id, score)
TOP, CLOSE = 10, 1e-4


def searches(dataset: Dataset, count: int) -> list[dict[str, Any]]:
    """Queries of the log with their shoppers, every other one with a filter, in a form that JSON holds."""
    views = dataset.page_views.sample(count, seed=0, with_replacement=True, shuffle=True)
    items = {row["item_id"]: row for row in dataset.items.iter_rows(named=True)}
    asked = []
    for number, view in enumerate(views.iter_rows(named=True)):
        item = items.get([*view["clicked"], *view["shown"], ""][0], {})
        price = item.get("price")
        filters: Sequence[dict[str, Any] | None] = (
            {"category": item["category"][0]} if item.get("category") else None,
            {"brand": item["brand"]} if item.get("brand") else None,
            None if price is None else {"price": [price / 2, price * 2]},
        )
        asked.append(
            {
                "query": view["query"],
                "user": view["user_id"],
                "filters": filters[number // 2 % 3] if number % 2 else None,
            }
        )
    return asked


def answers(engine: SearchEngine, asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The pages, and the processor and wall seconds that they took."""
    engine.search_batch([SearchRequest(**asked[0])])
    wall, cpu = time.perf_counter(), time.process_time()
    pages = [[[hit.item_id, hit.score] for hit in engine.search_batch([SearchRequest(**one)])[0]] for one in asked]
    index = engine.snapshot.index.nbytes
    return {
        "pages": pages,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.perf_counter() - wall,
        "items": len(engine.snapshot.index),
        "index_mib": (index.structure + index.vectors) / 2**20,
    }


def be_shard(run: Path, asked: Sequence[dict[str, Any]], folder: Path) -> None:
    """One of the processes: answer as a shard, and leave what came of it in a file."""
    torch.set_num_threads(1)
    with joined() as job:
        shards = ProcessShards()
        engine = load_engine(run).shard(shards)
        found = answers(engine, asked)
        told = {"exchanges": shards.exchanges / (len(asked) + 1), "bytes": shards.received / (len(asked) + 1)}
        write_json(folder / f"{job.rank}.json", {**found, **told})


def together(run: Path, asked: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """What each of so many shards answers."""
    with tempfile.TemporaryDirectory() as temporary, socket.socket() as free:
        folder = Path(temporary)
        write_json(folder / "asked.json", list(asked))
        free.bind(("127.0.0.1", 0))
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(count)}
        free.close()
        command = [sys.executable, "-m", "benchmarks.shards", str(run.resolve()), "--shard-of", temporary]
        processes = [
            subprocess.Popen(command, cwd=ROOT, env={**os.environ, **job, "RANK": str(rank), "OMP_NUM_THREADS": "1"})
            for rank in range(count)
        ]
        if any([process.wait() for process in processes]):
            sys.exit(f"one of {count} shards failed")
        return [read_json(folder / f"{rank}.json") for rank in range(count)]


def compared(parts: Sequence[dict[str, Any]], whole: dict[str, Any], asked: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pages of shards beside those of the whole."""
    figures: dict[str, Any] = {}
    for name, filtered in (("plain", False), ("filtered", True)):
        rows = [row for row, one in enumerate(asked) if (one["filters"] is not None) == filtered]
        pairs = [(part["pages"][row], whole["pages"][row]) for part in parts for row in rows]
        figures[name] = {"searches": len(rows), **agreement(pairs)}
    return {
        **figures,
        "items": [part["items"] for part in parts],
        "exchanges": round(parts[0]["exchanges"], 1),
        "bytes": round(parts[0]["bytes"]),
        "cpu_ms": _ms(sum(part["cpu_s"] for part in parts), asked),
        "largest_cpu_ms": _ms(max(part["cpu_s"] for part in parts), asked),
        "wall_ms": _ms(max(part["wall_s"] for part in parts), asked),
        "index_mib": round(max(part["index_mib"] for part in parts), 2),
    }


def agreement(pairs: Sequence[tuple[Page, Page]]) -> dict[str, Any]:
    """How many pages are the same, and how far scores are apart."""
    same = [[item for item, _ in one] == [item for item, _ in other] for one, other in pairs]
    off = [
        float(np.abs(np.array([score for _, score in one]) - [score for _, score in other]).max(initial=0))
        if len(one) == len(other)
        else float("inf")
        for one, other in pairs
    ]
    ties = sum(distance <= CLOSE and not is_same for distance, is_same in zip(off, same, strict=True))
    share, largest = sum(same) / max(len(same), 1), max(off, default=0)
    return {"same": round(share, 5), "by ties alone": ties, "other": len(same) - sum(same) - ties, "score off": largest}


def _ms(seconds: float, asked: Sequence[object]) -> float:
    return round(1000 * seconds / len(asked), 2)


def measure(run: Path, counts: Sequence[int], requests: int) -> dict[str, Any]:
    """The whole engine, then shards of each number."""
    torch.set_num_threads(1)
    asked = searches(Dataset.load(run / "data"), requests)
    whole = answers(load_engine(run), asked)
    figures = {
        "items": whole["items"],
        "searches": len(asked),
        "one engine": {"cpu_ms": _ms(whole["cpu_s"], asked), "index_mib": round(whole["index_mib"], 2)},
    }
    return figures | {f"{count} shards": compared(together(run, asked, count), whole, asked) for count in counts}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Do shards answer as one engine?")
    parser.add_argument("run", type=Path)
    parser.add_argument("--shards", type=int, action="append")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--shard-of", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.shard_of:
        be_shard(arguments.run, read_json(arguments.shard_of / "asked.json"), arguments.shard_of)
    else:
        print(json.dumps(measure(arguments.run, arguments.shards or [2, 4], arguments.requests)))
