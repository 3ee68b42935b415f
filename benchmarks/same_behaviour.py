"""Does this checkout behave as an earlier commit does? A small fixed run of both, compared bit by bit.

    python -m benchmarks.same_behaviour COMMIT

The sources of COMMIT are laid out in a temporary worktree. Each side makes its own data, trains V1 and V2 through
every stage, and answers requests, all on one thread (half a minute to a minute each). Compared are

* every array, table and weight that the stages leave, by the bytes of its file,
* the figures and paired tests of the report,
* the weights of the engines' features,
* the results of V1 and V2 for 100 test page views, without and with a filter: items, semantic IDs, and scores to four
  digits.

What differs is printed by name; the exit code is 1 then. A change of layout or of names leaves no difference; a change
of arithmetic leaves one, and says where it begins: the artefacts are listed in the order of the stages.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT, sources_of

CONFIG = """
name: tiny
data: {market: {items: 400, users: 120, days: 20, page_views: 1500}}
encoder: {static: {dimension: 32}, align: {epochs: 1, nested: [], batch_size: 128}, folds: 2}
khqe: {layers: [32, 16, 8], opq_size: 16, iterations: 4}
model:
  backbone: {d_model: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, ffn: 64}
  text_vocabulary: 600
  row_dim: 32
  word_rows: true
sft1: {steps: 11, batch_size: 32}
sft2: {steps: 4, batch_size: 32}
sft3: {epochs: 0.5, batch_size: 64, score_negatives: 128}
understanding: {producer: market, error: 0.1}
cot: {steps: 9, batch_size: 16, page_views: 200}
distill: {cot: 0.2}
dpo: {steps: 4}
grpo: {steps: 4, validate_requests: 60}
search: {width: 16, lexical: true, relevance: 0.5}
evaluation:
  measures: {resamples: 20, flips: 50}
  test_requests: 80
  fit_requests: 80
  cascade: {trees: 5, page_views: 300, validation_page_views: 80}
"""
# What both sides run: names that have been public for long, so that commits far apart can be compared.
TRAIN = """
import sys
from pathlib import Path
import torch
from onesearch.pipeline import run_config
torch.set_num_threads(1)
run_config(Path(sys.argv[1]), Path(sys.argv[2]))
"""
SEARCH = """
import json, sys
from pathlib import Path
import polars as pl
import torch
from onesearch.search.engine import SearchEngine
torch.set_num_threads(1)
run, found = Path(sys.argv[1]), {}
page_views = pl.read_parquet(run / "data" / "test.parquet").head(100)
for model in ("v1", "v2"):
    engine = SearchEngine.load(run, model=model)
    for view in page_views.iter_rows(named=True):
        for filters in (None, {"price": [None, 40.0]}):
            results = engine.search(view["query"] or "", view["user_id"], 10, filters)
            key = f"{model} {view['page_view_id']} {filters}"
            found[key] = [[one.item_id, round(float(one.score), 4), list(one.sid)] for one in results]
print(json.dumps(found))
"""
ARRAYS = (".npy", ".parquet", ".safetensors", ".txt")
Behaviour = dict[str, dict[str, Any]]


def behaviour(sources: Path, work: Path) -> Behaviour:
    """Train and search with the package below ``sources``; what is compared, by kind and name.

    Raises:
        SystemExit: a step fails; with the end of what it wrote.
    """
    config, run = work / "tiny.yaml", work / "run"
    work.mkdir()
    config.write_text(CONFIG, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(sources), "OMP_NUM_THREADS": "1"}

    def step(code: str, *arguments: Path) -> str:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{sources} fails:\n{done.stderr[-3000:]}")
        return done.stdout

    step(TRAIN, config, run)
    results = json.loads(step(SEARCH, run))
    report = json.loads((run / "report" / "report.json").read_text(encoding="utf-8"))
    # A stage's manifest is written last, so its time tells the order of the stages.
    stages = sorted(run.glob("*/manifest.json"), key=lambda path: path.stat().st_mtime_ns)
    arrays = [path for stage in stages for path in sorted(stage.parent.rglob("*")) if path.suffix in ARRAYS]
    return {
        "arrays": {
            str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in arrays
            if "checkpoints" not in path.parts
        },
        "figures": {
            f"{method} {metric}": figure
            for method, figures in report["methods"].items()
            for metric, figure in figures.items()
        },
        "paired tests": {
            f"{one['method']} - {one['against']}, {one['metric']}, {one['slice']}": one for one in report["comparisons"]
        },
        "engines": {
            stage: json.loads((run / stage / "engine.json").read_text(encoding="utf-8"))["weights"]
            for stage in ("engine", "engine_v2")
        },
        "searches": results,
    }


def differences(old: Behaviour, new: Behaviour) -> dict[str, list[str]]:
    """Names that differ or that one side lacks, in order, by kind; empty lists where nothing does."""
    return {
        kind: [name for name in {**old[kind], **new[kind]} if old[kind].get(name) != new[kind].get(name)]
        for kind in old
    }


def compare(commit: str) -> bool:
    """Print what differs between this checkout and a commit; whether anything does."""
    with tempfile.TemporaryDirectory(prefix="same-behaviour-") as folder:
        work = Path(folder)
        with sources_of(commit) as tree:
            old = behaviour(tree / "src", work / "old")
        new = behaviour(ROOT / "src", work / "new")
    found = differences(old, new)
    for kind, names in found.items():
        print(f"{kind}: {len(new[kind])}, " + (f"{len(names)} differ" if names else "all the same"))
        for name in names[:20]:
            print(f"  {name}")
    return any(found.values())


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Compare the behaviour of this checkout with that of a commit.")
    parser.add_argument("commit", help="what to compare with, such as main or a hash")
    raise SystemExit(compare(parser.parse_args().commit))


if __name__ == "__main__":
    main()
