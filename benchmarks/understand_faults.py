"""``onesearch understand`` over HTTP through a bad day: failing calls, malformed answers, the server gone for a while.

Usage: python -m benchmarks.understand_faults [queries]
Prints one JSON object. A tenth of the queries is thought about before; in the middle of the rest the server is killed
and another one started three seconds later. ``lost``: queries that are neither in the cache nor set aside with a
reason. ``asked_twice``: queries of the first tenth that the second run asked again. ``calls_of_a_third_run`` over the
same queries may only be those of what was set aside.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from onesearch.cli.producer_options import ProducerName, open_thoughts, producer_key
from onesearch.data.dataset import Dataset
from onesearch.data.text import normalise_queries
from onesearch.market.make_market import make_market
from onesearch.market.market_settings import MarketSettings

FAIL, MALFORMED, AWAY = 0.01, 0.01, 3.0
ONESEARCH = str(Path(sys.executable).with_name("onesearch"))


def main() -> None:
    """Make a market, run the command three times and print what became of its queries."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        dataset = make_market(MarketSettings(items=2000, users=2000, page_views=6 * wanted), folder / "market")
        queries = _distinct_queries(dataset)[:wanted]
        (folder / "queries.txt").write_text("\n".join(queries), encoding="utf-8")
        print(json.dumps(_day(folder, queries)))


def _distinct_queries(dataset: Dataset) -> list[str]:
    queries = normalise_queries(dataset.page_views["query"])
    return list(queries.filter(queries != "").unique(maintain_order=True))


def _day(folder: Path, queries: list[str]) -> dict[str, Any]:
    port = _free_port()
    server = _serve(folder, port)
    try:
        before = _understand(folder, port, len(queries) // 10)
        stop = threading.Event()
        restarted: list[subprocess.Popen[bytes]] = []
        watcher = threading.Thread(target=_restart, args=(folder, port, queries, server, restarted, stop))
        watcher.start()
        middle = _understand(folder, port, len(queries))
        stop.set()
        watcher.join()
        again = _understand(folder, port, len(queries))
    finally:
        for process in [server, *restarted]:
            process.kill()
            process.wait()
    known, rejects = _known(folder, queries), folder / "thoughts.sqlite3.rejects.jsonl"
    aside = {json.loads(line)["query"] for line in rejects.read_text().splitlines()} if rejects.is_file() else set()
    return {
        "queries": len(queries),
        "fail": FAIL,
        "malformed": MALFORMED,
        "restarts": len(restarted),
        "lost": len(set(queries) - known - aside),
        "asked_twice": before["answered"] - middle["cached"],
        "unfinished": middle["unfinished"],
        "calls_of_a_third_run": again["calls"],
        **{
            f"second_run_{name}": middle[name]
            for name in (
                "cached",
                "answered",
                "repaired",
                "set_aside",
                "calls",
                "retries",
                "tokens_in",
                "tokens_out",
                "seconds",
            )
        },
        "set_aside_then_answered": again["answered"],
    }


def _known(folder: Path, queries: list[str]) -> set[str]:
    """Those of the queries that the cache has a thought of."""
    cache = open_thoughts(str(folder / "thoughts.sqlite3"))
    try:
        return set(cache.get_many(queries, *producer_key(ProducerName.llm)))
    finally:
        cache.close()


def _restart(
    folder: Path,
    port: int,
    queries: list[str],
    server: subprocess.Popen[bytes],
    restarted: list[subprocess.Popen[bytes]],
    stop: threading.Event,
) -> None:
    """Once half of the queries are answered, kill the server and start another one."""
    while not stop.wait(1.0):
        if len(_known(folder, queries)) >= len(queries) // 2:
            server.send_signal(signal.SIGKILL)
            server.wait()
            time.sleep(AWAY)
            restarted.append(_serve(folder, port))
            return


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        ONESEARCH,
        "market",
        "llm",
        str(folder / "market"),
        "--port",
        str(port),
        "--fail",
        str(FAIL),
        "--malformed",
        str(MALFORMED),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            with urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
                return process
        except (URLError, OSError):
            if process.poll() is not None:
                break
            time.sleep(0.1)
    process.kill()
    raise RuntimeError(f"the stand-in model does not answer on port {port}")


def _understand(folder: Path, port: int, limit: int) -> dict[str, Any]:
    command = [
        ONESEARCH,
        "understand",
        str(folder / "queries.txt"),
        "--dataset",
        str(folder / "market"),
        "--cache",
        str(folder / "thoughts.sqlite3"),
        "--base-url",
        f"http://127.0.0.1:{port}/v1",
        "--limit",
        str(limit),
        "--json",
    ]
    environment = {**os.environ, "ONESEARCH_LLM_API_KEY": "none"}
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
    summary: dict[str, Any] = json.loads(done.stdout)
    return summary


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
