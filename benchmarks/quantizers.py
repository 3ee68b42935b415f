"""Which quantizer? A grid of KHQE variants on real data, measured on validation queries; test queries stay untouched.

    python benchmarks/quantizers.py --data homedepot=data/homedepot --data market=data/market --runs runs/quantizers
    python benchmarks/quantizers.py --render docs/results/quantizers.md --runs runs/quantizers

Every cell is one JSON file in the run folder. A cell that exists is not measured again, so the command can be
interrupted and repeated; several copies may share the work. ``--render`` writes the page from the cells on disk.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.data.artefact import read_json, write_json
from onesearch.data.dataset import Dataset
from onesearch.data.item_text import item_texts
from onesearch.data.ragged import Ragged
from onesearch.data.split import split
from onesearch.data.statistics import ClickStatistics
from onesearch.encoding.align import AlignConfig, align
from onesearch.encoding.fusion import fuse
from onesearch.encoding.khqe import KHQE, KHQEConfig
from onesearch.encoding.mining import mine_pairs
from onesearch.encoding.quality import quality_report, ranking
from onesearch.encoding.static import StaticConfig, StaticEncoder
from onesearch.encoding.text import load_encoder
from onesearch.encoding.timing import measure_query_encoding
from onesearch.understanding.lexicon import Lexicon

Floats = NDArray[np.float32]

MOST_QUERIES = 2000
DEFAULT = (1024, 512, 256)
# name: (layers, OPQ parts, balance, keywords fused)
CELLS: dict[str, tuple[tuple[int, ...], int, str, bool]] = {
    "rq": (DEFAULT, 0, "none", True),
    "rq, balanced last": (DEFAULT, 0, "last", True),
    "rq, codebook per parent": (DEFAULT, 0, "per_parent", True),
    "rq, five layers": ((*DEFAULT, 256, 256), 0, "none", True),
    "rq-opq, not balanced": (DEFAULT, 2, "none", True),
    "rq-opq": (DEFAULT, 2, "last", True),
    "rq-opq, codebook per parent": (DEFAULT, 2, "per_parent", True),
    "rq-opq, no keywords": (DEFAULT, 2, "last", False),
    "rq, no keywords": (DEFAULT, 0, "last", False),
    "rq-opq, 256-128-64": ((256, 128, 64), 2, "last", True),
    "rq-opq, 512-256-128": ((512, 256, 128), 2, "last", True),
    "rq-opq, 2048-1024-512": ((2048, 1024, 512), 2, "last", True),
    "rq-opq, 4096-1024-512": ((4096, 1024, 512), 2, "last", True),
}


@dataclass(frozen=True)
class Inputs:
    """Vectors that every cell of one data set shares: with and without keywords fused in."""

    encoder: StaticEncoder
    lexicon: Lexicon
    items: Mapping[bool, Floats]
    train_queries: Mapping[bool, Floats]
    queries: Mapping[bool, Floats]
    texts: list[str]
    targets: Ragged


def validation_queries(page_views: pl.DataFrame, items: pl.DataFrame, seed: int) -> tuple[list[str], Ragged]:
    """Distinct validation queries with their clicked items, at most ``MOST_QUERIES``."""
    statistics = ClickStatistics.of(page_views, items)
    rows = np.sort(np.random.default_rng(seed).permutation(len(statistics.queries))[:MOST_QUERIES])
    return [statistics.queries[row] for row in rows.tolist()], statistics.items.select(rows)


def prepare(name: str, folder: Path, runs: Path, epochs: float, seed: int) -> Inputs:
    """Encoder and lexicon of one data set, trained on its training part once and kept in the run folder."""
    dataset = Dataset.load(folder)
    parts = split(dataset.page_views, 0.1, 0.1, "auto", seed)
    texts = item_texts(dataset.items, ("title", "brand"))
    pairs = mine_pairs(parts.train, dataset.items, texts, dataset.judgments, seed)
    queries, targets = validation_queries(parts.valid, dataset.items, seed)
    kept, cell = runs / name / "encoder", runs / name / "encoder.json"
    if not cell.is_file():
        start = time.perf_counter()
        fresh = StaticEncoder.build([*texts, *pairs.queries], StaticConfig(dimension=256), seed)
        encoder = align(fresh, pairs, AlignConfig(epochs=epochs, seed=seed))
        seconds = time.perf_counter() - start
        encoder.save(kept)
        start = time.perf_counter()
        lexicon = Lexicon.mine(dataset.items, parts.train)
        lexicon.save(kept)
        widths = {str(width): leading(encoder, texts, queries, targets, width) for width in (64, 96, 128, 256)}
        write_json(
            cell,
            {
                **provenance(dataset, seed), "items": len(texts), "train_queries": len(pairs.queries),
                "valid_queries": len(queries), "align_seconds": seconds, "epochs": epochs,
                "lexicon_seconds": time.perf_counter() - start, "keywords": len(lexicon), "leading_dimensions": widths,
            },
        )  # fmt: skip
    loaded = load_encoder(kept)
    assert isinstance(loaded, StaticEncoder)
    lexicon = Lexicon.load(kept)
    words = loaded.encode(lexicon.texts)

    def vectors(of: list[str]) -> dict[bool, Floats]:
        plain = loaded.encode(of)
        return {False: plain, True: fuse(plain, lexicon.match(of), words)}

    return Inputs(loaded, lexicon, vectors(texts), vectors(list(pairs.queries)), vectors(queries), queries, targets)


def leading(
    encoder: StaticEncoder, texts: list[str], queries: list[str], targets: Ragged, width: int
) -> dict[str, float]:
    """Ranking by the first ``width`` dimensions alone."""
    sides = [vectors[:, :width] for vectors in (encoder.encode(queries), encoder.encode(texts))]
    unit = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides]
    return ranking(unit[0], unit[1], targets)


def measure(inputs: Inputs, cell: str, seed: int, iterations: int) -> dict[str, Any]:
    """Fit one variant on items and training queries together and report on validation queries."""
    layers, parts, balance, keywords = CELLS[cell]
    config = KHQEConfig(layers=layers, opq_parts=parts, balance=balance, iterations=iterations, seed=seed)  # type: ignore[arg-type]
    start = time.perf_counter()
    khqe = KHQE.fit(np.concatenate([inputs.items[keywords], inputs.train_queries[keywords]]), config)
    fitted = time.perf_counter()
    khqe.encode(inputs.items[keywords])
    encoded = time.perf_counter()
    report = quality_report(khqe, inputs.items[keywords], inputs.queries[keywords], inputs.targets)
    lexicon = inputs.lexicon if keywords else None
    timing = measure_query_encoding(inputs.encoder, khqe, inputs.texts[:300], lexicon)
    return {
        "cell": cell, "config": config.model_dump(mode="json"), "keywords": keywords, "fit_seconds": fitted - start,
        "items_per_second": len(inputs.items[keywords]) / (encoded - fitted), "timing": timing, "report": report,
    }  # fmt: skip


def provenance(dataset: Dataset, seed: int) -> dict[str, Any]:
    """What a table must say beside its figures."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "command": " ".join(["python", "benchmarks/quantizers.py", *sys.argv[1:]]), "source": dataset.source,
        "fingerprint": dataset.fingerprint, "counts": dataset.counts, "seed": seed,
        "commit": commit.stdout.strip() or "unknown", "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, faiss {faiss.__version__}",
    }  # fmt: skip


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


HEADINGS = (
    "variant", "codebooks", "ICR %", "CUR % per level", "prefix CUR % per level", "dead codes", "error", "HR@10",
    "Recall@10", "MRR@10", "prefix agreement % (1, 2, 3)", "code 1 in top 64 %", "fit s", "query p50 ms",
)  # fmt: skip


def percent(values: list[float], digits: int = 0) -> str:
    """Shares as percentages."""
    return " ".join(f"{100 * value:.{digits}f}" for value in values)


def ranking_columns(figures: dict[str, float]) -> str:
    """HR, recall and MRR as table columns."""
    return " | ".join(f"{figures[name]:.3f}" for name in ("hr@10", "recall@10", "mrr@10"))


def table_row(cell: dict[str, Any]) -> str:
    """One line of the table."""
    report, timing = cell["report"], cell["timing"]
    use, quantized = report["usage"], report["quantized"]
    columns = (
        cell["cell"], "-".join(map(str, report["codebook_sizes"])), percent([report["icr"]], 2), percent(use["cur"]),
        percent(use["cur_prefix"]), f"{sum(use['dead']):.0f}", f"{report['reconstruction']['relative_error'][-1]:.3f}",
        ranking_columns(quantized),
        percent(report["prefix_agreement"][:3], 1), percent([report["first_code"]["top_64"]], 1),
        f"{cell['fit_seconds']:.0f}", f"{timing['query_p50_ms']:.2f}",
    )  # fmt: skip
    return "| " + " | ".join(columns) + " |"


def render(runs: Path) -> str:
    """The page, from the cells on disk."""
    lines = [
        "# Quantizers: which codes keep most of the encoder's ranking?", "",
        "Written by `python benchmarks/quantizers.py --render docs/results/quantizers.md`; do not edit by hand.", "",
        "Items and training queries are quantized together; figures are of *validation* queries and all items. "
        "HR@10, Recall@10 and MRR@10 rank the quantized items by the exact query vector; the raw line does the same "
        "with exact item vectors. Error: squared distance to the reconstruction over squared length. Prefix agreement: "
        "share of query-item pairs whose first 1, 2, 3 codes are equal. Code 1 in top 64: the item's first code is "
        "among the query's 64 nearest. `rq-opq` without more words: codebooks 1024-512-256, last layer balanced while "
        "fitting, OPQ 2 x 256, keywords fused. Fit time depends on what else the machine did.", "",
    ]  # fmt: skip
    for folder in sorted(path for path in runs.iterdir() if (path / "encoder.json").is_file()):
        about = read_json(folder / "encoder.json")
        cells = [read_json(path) for path in folder.glob("cell-*.json")]
        cells.sort(key=lambda cell: list(CELLS).index(cell["cell"]))
        lines += [f"## {folder.name}", ""]
        lines += [
            f"{about['items']:,} items, {about['train_queries']:,} training and {about['valid_queries']:,} validation "
            f"queries, {about['keywords']:,} keywords; encoder d = 256, {about['epochs']:g} epochs, aligned in "
            f"{about['align_seconds']:.0f} s.", "",
            f"Command: `{about['command']}`. Data: {about['source']}, fingerprint `{about['fingerprint']}`. Seed "
            f"{about['seed']}. Machine: {about['machine']}. Commit `{about['commit']}`, {about['date']}.", "",
            "| leading dimensions | HR@10 | Recall@10 | MRR@10 |", "|---|---|---|---|",
        ]  # fmt: skip
        for width, figures in sorted(about["leading_dimensions"].items(), key=lambda pair: int(pair[0])):
            lines.append(f"| {width} | {ranking_columns(figures)} |")
        lines += ["", "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
        for keywords in (True, False):
            raw = next((cell["report"]["raw"] for cell in cells if cell["keywords"] is keywords), None)
            if raw is not None:
                label = "raw vectors, " + ("keywords fused" if keywords else "no keywords")
                lines.append(f"| {label} |  |  |  |  |  | 0 | {ranking_columns(raw)} |  |  |  |  |")
        lines += [table_row(cell) for cell in cells]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure the missing cells, or render the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER", help="data set; repeatable")
    parser.add_argument("--runs", type=Path, default=Path("runs/quantizers"), help="folder of the cells")
    parser.add_argument("--only", nargs="+", default=list(CELLS), choices=list(CELLS), metavar="CELL")
    parser.add_argument("--render", type=Path, help="write the page here and stop")
    parser.add_argument("--epochs", type=float, default=8)
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    if given.render is not None:
        given.render.parent.mkdir(parents=True, exist_ok=True)
        given.render.write_text(render(given.runs), encoding="utf-8")
        return
    for pair in given.data:
        name, _, folder = pair.partition("=")
        inputs = prepare(name, Path(folder), given.runs, given.epochs, given.seed)
        about = provenance(Dataset.load(folder), given.seed)
        for cell in given.only:
            path = given.runs / name / f"cell-{list(CELLS).index(cell):02d}.json"
            if path.is_file():
                continue
            result = measure(inputs, cell, given.seed, given.iterations)
            write_json(path, {**about, **result})
            line = {k: round(v, 4) for k, v in result["report"]["quantized"].items()}
            print(name, cell, json.dumps(line), f"{result['fit_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
