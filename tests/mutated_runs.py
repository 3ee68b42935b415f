"""Run folders changed by structure, as a stranger may have packed them, and what comes of using them.

    python tests/mutated_runs.py RUN COUNT SEED

prints a JSON line for each change: its name, and what became of it. A change is one key, type, shape, length, value,
path or link of one file. Each is tried in a process of its own, with bounds of memory and time, on a folder whose other
files are the run's; nothing that uses threads happens before the fork.
"""

import io
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss  # noqa: F401 - loaded once for all children
import numpy as np
import polars as pl
import pyarrow.parquet as pq
import torch

from onesearch.cli.terminal import _EXPECTED
from onesearch.pipeline.report_stage import baseline_methods
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stages import settings_of
from onesearch.search.engine import load_engine
from onesearch.search.run_parts import RunParts
from onesearch.search.run_versions import readable

STAGES = ("data", "encoder", "khqe", "index", "lexical", "understanding", "distill", "engine_v2", "baselines")
OUTSIDE = "outside"  # a copy of the run beside the changed one: what is read there is read outside
SECONDS, MEMORY = 60, 4 << 30
Change = tuple[str, Callable[[Path], None]]


# -- the changes ------------------------------------------------------------------------------------------------------


def changes(run: Path) -> list[tuple[str, str, Callable[[Path], None]]]:
    """File, name and function of every change; the function gets the path of the file in a copy of the run."""
    files = [path for stage in STAGES for path in sorted((run / stage).rglob("*")) if path.is_file()]
    files = [run / "config.json", *(path for path in files if "market" not in path.relative_to(run).parts)]
    kinds = {".json": of_json, ".npy": of_array, ".safetensors": of_tensors, ".parquet": of_table, ".txt": of_text}
    out = []
    for path in files:
        place = str(path.relative_to(run))
        out += [(place, name, change) for name, change in of_any(place)]
        out += [(place, name, change) for name, change in kinds.get(path.suffix, of_text)(path)]
    return out


def of_any(place: str) -> Iterator[Change]:
    """What can happen to any file."""

    def replaced(make: Callable[[Path], Any]) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            path.unlink()
            make(path)

        return change

    yield "removed", lambda path: path.unlink()
    yield "empty", replaced(Path.touch)
    yield "a folder", replaced(Path.mkdir)
    yield "a pipe", replaced(os.mkfifo)
    yield "a link outside", replaced(lambda path: path.symlink_to(_top(path, place).parent / OUTSIDE / place))
    yield "cut in half", lambda path: rewrite(path, path.read_bytes()[: path.stat().st_size // 2])
    yield "its folder a link outside", lambda path: _folder_link(path, place)


def _folder_link(path: Path, place: str) -> None:
    if path.parent != _top(path, place):
        shutil.rmtree(path.parent)
        path.parent.symlink_to(_top(path, place).parent / OUTSIDE / Path(place).parent)


def _top(path: Path, place: str) -> Path:
    return path.parents[len(Path(place).parts) - 1]


def rewrite(path: Path, content: bytes) -> None:
    """A file of its own in the place of one that shares its bytes with the run."""
    path.unlink()
    path.write_bytes(content)


def of_json(path: Path) -> Iterator[Change]:
    """Each key: gone, of another type, larger, negative, leading elsewhere."""
    value = json.loads(path.read_text())

    def places(part: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
        inner = part.items() if isinstance(part, dict) else enumerate(part[:3]) if isinstance(part, list) else ()
        for key, below in inner:
            yield (*keys, key), below
            if len(keys) < 3:
                yield from places(below, (*keys, key))

    def put(keys: tuple[Any, ...], other: Any) -> Callable[[Path], None]:
        def change(target: Path) -> None:
            whole = json.loads(path.read_text())
            part = whole
            for key in keys[:-1]:
                part = part[key]
            if other is ...:
                del part[keys[-1]]
            else:
                part[keys[-1]] = other
            rewrite(target, json.dumps(whole).encode())

        return change

    for keys, old in list(places(value))[:60]:
        others: list[Any] = [..., None, [], {}, "x", -1, 10**9, 10**18, 0.5, float("nan"), [old, old]]
        if isinstance(old, str):
            others += [f"../{OUTSIDE}/{old}", f"/{OUTSIDE}/{old}", "", "x" * 100_000]
        for other in others:
            yield f"{'.'.join(map(str, keys))} = {str(other)[:30] if other is not ... else 'gone'}", put(keys, other)
    for name, content in (("a list", b"[]"), ("deep", b"[" * 100_000), ("no JSON", b"{"), ("bytes", b"\xff\xfe\x00")):
        yield name, lambda target, content=content: rewrite(target, content)


def of_array(path: Path) -> Iterator[Change]:
    """Type, shape, length and values."""
    array = np.load(path, allow_pickle=False, mmap_mode="r")
    shape, kind = array.shape, array.dtype

    def headed(dtype: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
        def change(target: Path) -> None:
            out = io.BytesIO()
            header = {"descr": dtype, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(out, header)  # type: ignore[attr-defined]
            rewrite(target, out.getvalue() + np.load(path, allow_pickle=False).tobytes())

        return change

    def saved(of: Callable[[Any], Any]) -> Callable[[Path], None]:
        def change(target: Path) -> None:
            out = io.BytesIO()
            np.save(out, of(np.load(path, allow_pickle=False)), allow_pickle=False)
            rewrite(target, out.getvalue())

        return change

    for other in ("<f8", "<i8", "<U3", "|b1", "|O", "<M8[s]"):
        yield f"header says {other}", headed(other, shape)
    sizes = ((), (0,), (10**12,), (2**62, 4), (*shape, 1), tuple(2 * size for size in shape), (-1,))
    for size in sizes:
        yield f"header says {size}", headed(kind.str, size)
    for other in ("<f8", "<i8", "<U3", "|b1"):
        yield f"as {other}", saved(lambda old, other=other: old.astype(other))
    yield "no rows", saved(lambda old: old[:0])
    yield "one row less", saved(lambda old: old[:-1])
    yield "one row more", saved(lambda old: np.concatenate([old, old[:1]]) if old.ndim else old)
    yield "one dimension more", saved(lambda old: old[..., None])
    for value in (-1, 2**31 - 1, float("nan"), float("inf")):
        filled = np.full(1, value, np.float64)
        with np.errstate(invalid="ignore"):
            yield f"all {value}", saved(lambda old, filled=filled: np.full_like(old, filled.astype(old.dtype)[0]))


def of_tensors(path: Path) -> Iterator[Change]:
    """Each tensor's type, shape and place; the header's length."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]

    def headed(name: str, **changed: Any) -> Callable[[Path], None]:
        def change(target: Path) -> None:
            new = {key: {**value, **changed} if key == name else value for key, value in header.items()}
            if not changed:
                del new[name]
            text = json.dumps(new).encode()
            rewrite(target, struct.pack("<Q", len(text)) + text + data)

        return change

    for name, about in header.items():
        if name == "__metadata__":
            continue
        shape, (start, end) = about["shape"], about["data_offsets"]
        yield f"{name} gone", headed(name)
        for kind in ("F64", "I64", "BF16", "X9"):
            yield f"{name} is {kind}", headed(name, dtype=kind)
        for other in ([], [0], [10**12], [*shape, 1], shape[::-1], [2**62, 4]):
            yield f"{name} has {other}", headed(name, shape=other)
        for offsets in ([start, end + 4], [0, 10**15], [end, start]):
            yield f"{name} lies at {offsets}", headed(name, data_offsets=offsets)
    for size in (0, 2**40, 2**63):
        yield f"header of {size}", lambda target, size=size: rewrite(target, struct.pack("<Q", size) + raw[8:])
    for byte in (b"\xff", b"\x00"):
        yield f"all {byte!r}", lambda target, byte=byte: rewrite(target, raw[: 8 + length] + byte * len(data))


def of_table(path: Path) -> Iterator[Change]:
    """Each column gone, named otherwise, of another type, empty; rows gone or twice; bytes changed."""

    def table(of: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Path], None]:
        def change(target: Path) -> None:
            out = io.BytesIO()
            of(pl.read_parquet(path)).write_parquet(out)
            rewrite(target, out.getvalue())

        return change

    for name in pq.read_schema(path).names:
        yield f"{name} gone", table(lambda old, name=name: old.drop(name))
        yield f"{name} renamed", table(lambda old, name=name: old.rename({name: f"{name}2"}))
        for kind in (pl.Int64, pl.String, pl.List(pl.String), pl.Struct({"a": pl.Int8})):
            yield f"{name} is {kind}", table(lambda old, n=name, k=kind: old.with_columns(pl.lit(None, k).alias(n)))
        yield f"{name} null", table(lambda old, n=name: old.with_columns(pl.lit(None, old[n].dtype).alias(n)))
        yield f"{name} the same", table(lambda old, n=name: old.with_columns(pl.col(n).first()))
    yield "no rows", table(lambda old: old[:0])
    yield "half the rows", table(lambda old: old[: len(old) // 2])
    yield "rows twice", table(lambda old: pl.concat([old, old]))
    yield from of_text(path)


def of_text(path: Path) -> Iterator[Change]:
    """Bytes changed here and there."""
    raw = path.read_bytes()
    for at in range(0, len(raw), max(1, len(raw) // 12)):
        for other in (b"\xff" * 8, b"9" * 30):
            changed = raw[:at] + other + raw[at + len(other) :]
            yield f"{other[:1]!r} at {at}", lambda target, changed=changed: rewrite(target, changed)


# -- what becomes of them ---------------------------------------------------------------------------------------------


def use(run: Path, place: str) -> None:
    """All that reads a run: its settings, its engine, searches, its parts; its baselines, if the change is there."""
    settings_of(run)
    engine = load_engine(run, device="cpu")
    engine.search("red shoes", k=5)
    engine.search("", user=next(iter(engine.known_shoppers), None), k=3)
    with readable(run):
        parts = RunParts(run, "cpu")
        assert parts.thoughts is not None and parts.item_pairs is not None
        if place.startswith("baselines"):
            baseline_methods(RunData(run))


def outcome(run: Path, place: str, change: Callable[[Path], None]) -> str:
    """Apply a change to a copy of a run, use it, and say what became of it; in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        copy, outside = Path(folder) / "run", Path(folder) / OUTSIDE
        for target in (copy, outside):
            shutil.copytree(run, target, copy_function=os.link)
        change(copy / place)
        read: list[str] = []
        sys.addaudithook(
            lambda what, given: what == "open" and str(given[0]).startswith(str(outside)) and read.append("")
        )
        try:
            use(copy, place)
        except _EXPECTED as error:
            # Memory that cannot be had is told by torch as a RuntimeError: no error of ours, and no bound.
            words = f"{type(error).__name__}: {error}"
            told = "asked for memory: " if "alloc" in words and "memory" in words else "refused: "
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the finding
            told, words = "traceback: ", f"{type(error).__name__}: {error}"
        else:
            told, words = "used", ""
        return "read outside" if read else f"{told}{words.splitlines()[0][:300] if words else ''}"


def tried(run: Path, place: str, change: Callable[[Path], None]) -> str:
    """:func:`outcome` in a fork with bounds; how it died, if it did."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(SECONDS)
        torch.set_num_threads(1)
        os.write(theirs, outcome(run, place, change).encode())
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return told or f"died: signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else told or "died"


def drawn(run: Path, count: int, seed: int) -> list[tuple[str, str, Callable[[Path], None]]]:
    """So many of the changes; of every file in turn, so that each has as many as another."""
    of_file: dict[str, list[Any]] = {}
    for one in changes(run):
        of_file.setdefault(one[0], []).append(one)
    draw = random.Random(seed)
    for some in of_file.values():
        draw.shuffle(some)
    ranks = ((rank, draw.random(), one) for some in of_file.values() for rank, one in enumerate(some))
    return [one for _, _, one in sorted(ranks, key=lambda three: three[:2])][:count]


def main(run: Path, count: int, seed: int) -> None:
    """Try so many changes."""
    for place, name, change in drawn(run, count, seed):
        told = tried(run, place, change)
        print(json.dumps({"file": place, "change": name, "outcome": told}), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
