"""Which quantizer? A grid of KHQE variants on the vectors of runs, measured on validation queries only.

    onesearch run configs/homedepot.yaml                # at least through the stage encoder
    python -m benchmarks.quantizers --run runs/homedepot --run runs/market --cells runs/quantizers
    python -m benchmarks.quantizers --run runs/homedepot --behaviour --cells runs/quantizers
    python -m benchmarks.quantizers --render --cells runs/quantizers

Every cell is one JSON file. A cell that exists is not measured again, so the command can be interrupted and repeated;
several copies may share the work. ``--behaviour`` measures SIDs that know clicks and categories, on the quantizer that
the run's configuration names. ``--render`` takes over what the page shows of the cells on disk into
``docs/results/quantizers.json`` and writes the page. Test queries stay untouched.
"""

import argparse
import datetime
import json
import platform
import subprocess
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

from benchmarks import short_trainings
from benchmarks.result_files import ResultFiles
from onesearch.common.artefact import read_json, write_json
from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import Dataset
from onesearch.data.text import item_texts
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.khqe import KHQE, KHQESettings, fuse_keywords
from onesearch.encoding.sid_behaviour import fit_sids
from onesearch.encoding.sid_quality import measure_query_encoding, prefix_agreement, quality_report, ranking
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.pipeline import settings_of
from onesearch.understanding.keyword_lexicon import Lexicon

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

# name: what differs from the quantizer of the run's configuration
BEHAVIOUR: dict[str, dict[str, float]] = {
    "as configured": {},
    "co-click 0.7": {"co_click": 0.7},
    "first codebook by clicks 0.8": {"first_by_clicks": 0.8},
    "first codebook by category 0.3": {"first_by_category": 0.3},
    "queries weigh four times": {"query_weight": 4.0},
    "co-click 0.7, first codebook by clicks 0.8": {"co_click": 0.7, "first_by_clicks": 0.8},
}
FILES = ResultFiles("quantizers")


@dataclass(frozen=True)
class Inputs:
    """Vectors that every cell of one data set shares: with and without keywords fused in."""

    encoder: TextEncoder
    lexicon: Lexicon
    items: Mapping[bool, Floats]
    train_queries: Mapping[bool, Floats]
    queries: Mapping[bool, Floats]
    texts: list[str]
    targets: Ragged
    statistics: ClickStatistics
    categories: list[list[str] | None]


def validation_queries(page_views: pl.DataFrame, items: pl.DataFrame, seed: int) -> tuple[list[str], Ragged]:
    """Distinct validation queries with their clicked items, at most ``MOST_QUERIES``."""
    statistics = ClickStatistics.from_page_views(page_views, items)
    rows = np.sort(np.random.default_rng(seed).permutation(len(statistics.queries))[:MOST_QUERIES])
    return [statistics.queries[row] for row in rows.tolist()], statistics.items.select(rows)


def prepare(run: Path, seed: int) -> Inputs:
    """Encoder, lexicon and held-out training query vectors of a run; the lexicon is mined if the run has none."""
    encoder = load_encoder(run / "encoder" / "encoder")
    dataset = Dataset.load(run / "data")
    texts = item_texts(dataset.items, tuple(read_json(run / "encoder" / "fields.json")))
    queries, targets = validation_queries(pl.read_parquet(run / "data" / "valid.parquet"), dataset.items, seed)
    kept = run / "khqe" / "lexicon"
    train = pl.read_parquet(run / "data" / "train.parquet")
    lexicon = Lexicon.load(kept) if kept.is_dir() else Lexicon.from_log(dataset.items, train)
    words = encoder.encode(lexicon.texts)
    statistics = ClickStatistics.from_page_views(train, dataset.items)
    held_out, seen = run / "encoder" / "held_out_vectors.npy", statistics.queries
    seen_vectors = np.load(held_out, allow_pickle=False) if held_out.is_file() else encoder.encode(seen)

    def both(of: list[str], plain: Floats) -> dict[bool, Floats]:
        return {False: plain, True: fuse_keywords(plain, lexicon.match(of), words)}

    return Inputs(
        encoder,
        lexicon,
        both(texts, encoder.encode(texts)),
        both(seen, seen_vectors),
        both(queries, encoder.encode(queries)),
        queries,
        targets,
        statistics,
        dataset.items["category"].to_list(),
    )


def describe(run: Path, inputs: Inputs, seed: int, more: str = "") -> dict[str, Any]:
    """What the page says of a data set: sizes, provenance, and what the leading dimensions are worth."""
    widths = [width for width in (64, 96, 128, inputs.encoder.dimension) if width <= inputs.encoder.dimension]
    return {
        **provenance(run, seed),
        "command": f"python -m benchmarks.quantizers --run runs/{settings_of(run).name} --seed {seed}{more}",
        "items": len(inputs.items[False]),
        "train_queries": len(inputs.train_queries[False]),
        "valid_queries": len(inputs.texts),
        "keywords": len(inputs.lexicon),
        "leading_dimensions": {
            str(w): leading(inputs.queries[False], inputs.items[False], inputs.targets, w) for w in widths
        },
    }


def leading(queries: Floats, items: Floats, targets: Ragged, width: int) -> dict[str, float]:
    """Ranking by the first ``width`` dimensions alone."""
    sides = [vectors[:, :width] for vectors in (queries, items)]
    unit = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides]
    return ranking(unit[0], unit[1], targets)


def measure(inputs: Inputs, cell: str, seed: int, iterations: int) -> dict[str, Any]:
    """Fit one variant on items and training queries together and report on validation queries."""
    layers, parts, balance, keywords = CELLS[cell]
    config = KHQESettings(layers=layers, opq_parts=parts, balance=balance, iterations=iterations, seed=seed)  # type: ignore[arg-type]
    start = time.perf_counter()
    khqe = KHQE.fit(np.concatenate([inputs.items[keywords], inputs.train_queries[keywords]]), config)
    fitted = time.perf_counter()
    khqe.encode(inputs.items[keywords])
    encoded = time.perf_counter()
    report = quality_report(khqe, inputs.items[keywords], inputs.queries[keywords], inputs.targets)
    lexicon = inputs.lexicon if keywords else None
    timing = measure_query_encoding(inputs.encoder, khqe, inputs.texts[:300], lexicon)
    return {
        "cell": cell,
        "config": config.model_dump(mode="json"),
        "keywords": keywords,
        "fit_seconds": fitted - start,
        "items_per_second": len(inputs.items[keywords]) / (encoded - fitted),
        "timing": timing,
        "report": report,
    }


def measure_behaviour(
    run: Path, inputs: Inputs, cell: str, fits: int, iterations: int, layers: list[int] | None
) -> dict[str, Any]:
    """Figures of one variant of the run's own quantizer, or with other ``layers``: a list of ``fits`` for each."""
    configured = settings_of(run)
    keywords = configured.lexicon.fuse
    changes = {"iterations": iterations, **({"layers": layers} if layers else {}), **BEHAVIOUR[cell]}
    items, seen, queries = (one[keywords] for one in (inputs.items, inputs.train_queries, inputs.queries))
    new = np.flatnonzero(inputs.statistics.query_numbers(inputs.texts) < 0)
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    sizes: list[int] = []
    for seed in range(fits):
        settings = configured.khqe.updated(seed=seed, **changes)
        khqe, coded = fit_sids(items, seen, inputs.statistics, inputs.categories, settings)
        report, sizes = quality_report(khqe, coded, queries, inputs.targets), list(khqe.codebook_sizes)
        agreed = report["prefix_agreement"]
        of_new = prefix_agreement(khqe.encode(queries[new]), khqe.encode(coded), inputs.targets.select(new))
        figures = [report["icr"], *(report["quantized"][name] for name in ("hr@10", "recall@10", "mrr@10"))]
        figures += [*agreed[:3], of_new[0], report["first_code"]["top_64"]]
        for name, figure in zip(FIGURES, figures, strict=True):
            found[name].append(figure)
    return {"cell": cell, "codebooks": "-".join(map(str, sizes)), "keywords": keywords, "figures": found}


FIGURES = ("ICR", "HR@10", "Recall@10", "MRR@10", "agreement 1", "agreement 2", "agreement 3", "new queries", "top 64")


def provenance(run: Path, seed: int) -> dict[str, Any]:
    """What a table must say beside its figures."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    dataset, settings = Dataset.load(run / "data"), read_json(run / "config.json")
    return {
        "config": f"configs/{settings['name']}.yaml" + (f" --set seed={settings['seed']}" if settings["seed"] else ""),
        "encoder": settings["encoder"],
        "source": dataset.source,
        "fingerprint": dataset.fingerprint,
        "counts": dataset.counts,
        "seed": seed,
        "commit": commit.stdout.strip() or "unknown",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": f"{processor()}, {torch.get_num_threads()} thread(s), Python {platform.python_version()}, "
        f"torch {torch.__version__}, faiss {faiss.__version__}",
    }


def processor() -> str:
    """Name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


HEADINGS = (
    "variant",
    "codebooks",
    "ICR %",
    "CUR % per level",
    "prefix CUR % per level",
    "dead codes",
    "error",
    "HR@10",
    "Recall@10",
    "MRR@10",
    "prefix agreement % (1, 2, 3)",
    "code 1 in top 64 %",
    "fit s",
    "query p50 ms",
)


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
        cell["cell"],
        "-".join(map(str, report["codebook_sizes"])),
        percent([report["icr"]], 2),
        percent(use["cur"]),
        percent(use["cur_prefix"]),
        f"{sum(use['dead']):.0f}",
        f"{report['reconstruction']['relative_error'][-1]:.3f}",
        ranking_columns(quantized),
        percent(report["prefix_agreement"][:3], 1),
        percent([report["first_code"]["top_64"]], 1),
        f"{cell['fit_seconds']:.0f}",
        f"{timing['query_p50_ms']:.2f}",
    )
    return "| " + " | ".join(columns) + " |"


def collect(cells_folder: Path) -> dict[str, dict[str, Any]]:
    """What the page shows of the cells on disk: a group for each data set, and one for its cells of behaviour."""
    found: dict[str, dict[str, Any]] = {}
    for folder in sorted(path for path in cells_folder.iterdir() if (path / "about.json").is_file()):
        about = read_json(folder / "about.json")
        cells = [read_json(path) for path in folder.glob("cell-*.json")]
        if cells:
            found[folder.name] = _grid(about, sorted(cells, key=lambda cell: list(CELLS).index(cell["cell"])))
        moved = [read_json(path) for path in folder.glob("behaviour-*.json")]
        if moved:
            kept = ("codebooks", "keywords", "figures", "commit", "date")
            found[f"{folder.name}, behaviour"] = {
                "about": _about(about),
                **{cell["cell"]: {name: cell[name] for name in kept} for cell in moved},
            }
    return found


def _about(about: Mapping[str, Any]) -> list[str]:
    """Two paragraphs: sizes and provenance."""
    return [
        f"{about['items']:,} items, {about['train_queries']:,} training queries (held-out vectors) and "
        f"{about['valid_queries']:,} validation queries, {about['keywords']:,} keywords.",
        f"Command: `{about['command']}` after `onesearch run {about['config']}`. Data: {about['source']}, "
        f"fingerprint `{about['fingerprint']}`. Seed {about['seed']}. Machine: {about['machine']}. "
        f"Commit `{about['commit']}`, {about['date']}.",
    ]


def _grid(about: Mapping[str, Any], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows of both tables of a data set, as they stand on the page."""
    widths = sorted(about["leading_dimensions"].items(), key=lambda pair: int(pair[0]))
    rows = []
    for keywords in (True, False):
        raw = next((cell["report"]["raw"] for cell in cells if cell["keywords"] is keywords), None)
        if raw is not None:
            label = "raw vectors, " + ("keywords fused" if keywords else "no keywords")
            rows.append(f"| {label} |  |  |  |  |  | 0 | {ranking_columns(raw)} |  |  |  |  |")
    rows += [table_row(cell) for cell in cells]
    leading = [f"| {width} | {ranking_columns(figures)} |" for width, figures in widths]
    numbered = {f"row {place:02d}": row for place, row in enumerate(rows)}
    return {"about": _about(about), "leading dimensions": leading, **numbered}


def render() -> None:
    """Write docs/results/quantizers.md."""
    figures, lines = FILES.figures(), FILES.head()
    for name, group in sorted(figures.items()):
        if "leading dimensions" in group:
            lines += ["", f"## {name}", "", group["about"][0], "", group["about"][1], ""]
            lines += ["| leading dimensions | HR@10 | Recall@10 | MRR@10 |", "|---|---|---|---|"]
            lines += [
                *group["leading dimensions"],
                "",
                "| " + " | ".join(HEADINGS) + " |",
                "|" + "---|" * len(HEADINGS),
            ]
            lines += [row for key, row in sorted(group.items()) if key.startswith("row ")]
    behaviour = sorted((name, group) for name, group in figures.items() if name.endswith(", behaviour"))
    if behaviour:
        lines += ["", *ResultFiles("quantizers_behaviour").head()]
    for name, group in behaviour:
        lines += ["", f"### {name.removesuffix(', behaviour')}", "", group["about"][0], "", group["about"][1], ""]
        lines += _behaviour_table([(cell, group[cell]) for cell in BEHAVIOUR if cell in group])
    FILES.write_page([*lines, *short_trainings.section(figures.get(short_trainings.GROUP, {}))])


def _behaviour_table(cells: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Means over fits, with their standard deviation where there are several; shares in percent."""
    lines = [
        "| variant | codebooks | fits | " + " | ".join(FIGURES) + " | commit, date |",
        "|---" * (len(FIGURES) + 4) + "|",
    ]
    for name, cell in cells:
        fits = len(cell["figures"][FIGURES[0]])
        columns = [_mean(cell["figures"][figure], 1 if "@" in figure else 100) for figure in FIGURES]
        made = f"`{cell['commit']}`, {cell['date']}"
        lines.append(f"| {name} | {cell['codebooks']} | {fits} | {' | '.join(columns)} | {made} |")
    return lines


def _mean(values: list[float], times: int) -> str:
    digits = 3 if times == 1 else 1
    spread = f" ± {times * np.std(values):.{digits}f}" if len(values) > 1 else ""
    return f"{times * np.mean(values):.{digits}f}{spread}"


def main() -> None:
    """Measure the missing cells, or render the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="append", default=[], type=Path, help="folder of a run; repeatable")
    parser.add_argument("--cells", type=Path, default=Path("runs/quantizers"), help="folder of the cells")
    parser.add_argument("--only", nargs="+", default=list(CELLS), choices=list(CELLS), metavar="CELL")
    parser.add_argument("--behaviour", action="store_true", help="measure SIDs that know behaviour")
    parser.add_argument("--fits", type=int, default=1, help="seeds of k-means that --behaviour takes means of")
    parser.add_argument("--layers", type=int, nargs="+", help="codebooks for --behaviour, in place of the run's")
    parser.add_argument("--render", action="store_true", help="write the page and stop")
    parser.add_argument("--iterations", type=int, default=10)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    if given.render:
        found = collect(given.cells) if given.cells.is_dir() else {}
        FILES.write_figures({**FILES.figures(), **found})
        render()
        return
    for run in given.run:
        inputs = prepare(run, given.seed)
        folder = given.cells / str(read_json(run / "config.json")["name"])
        more = f" --behaviour --fits {given.fits}" if given.behaviour else ""
        more += f" --layers {' '.join(map(str, given.layers))}" if given.behaviour and given.layers else ""
        write_json(folder / "about.json", describe(run, inputs, given.seed, more))
        for cell in BEHAVIOUR if given.behaviour else ():
            path = folder / f"behaviour-{list(BEHAVIOUR).index(cell):02d}.json"
            if not path.is_file():
                moved = measure_behaviour(run, inputs, cell, given.fits, given.iterations, given.layers)
                write_json(path, {**provenance(run, given.seed), **moved})
                print(folder.name, cell, json.dumps(moved["figures"]), flush=True)
        for cell in () if given.behaviour else given.only:
            path = folder / f"cell-{list(CELLS).index(cell):02d}.json"
            if path.is_file():
                continue
            result = measure(inputs, cell, given.seed, given.iterations)
            write_json(path, {**provenance(run, given.seed), **result})
            line = {k: round(v, 4) for k, v in result["report"]["quantized"].items()}
            print(folder.name, cell, json.dumps(line), f"{result['fit_seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
