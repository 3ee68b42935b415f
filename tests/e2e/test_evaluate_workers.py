"""A report whose page views several workers ranked is that of one process."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.common.artefact import read_json
from onesearch.evaluation.evaluate import MeasureSettings
from onesearch.pipeline.ranked_parts import WorkerPool, rank_in_parts
from onesearch.pipeline.report_stage import write_report
from onesearch.pipeline.run_data import RunData

pytestmark = pytest.mark.slow
MEASURES = MeasureSettings(resamples=20, flips=50, batch=16)
STAGES = ("data", "encoder", "khqe", "index", "lexical", "baselines", "sft3", "engine", "distill", "engine_v2")


def figures(folder: Path) -> str:
    """All of a report but its times."""
    report = read_json(folder / "report.json")
    del report["milliseconds"]
    report["notes"].pop("milliseconds", None)
    return json.dumps(report)


@pytest.mark.long  # the test below goes the same way, without the comparison
def test_figures_of_workers_are_those_of_one_process(tiny_run: Path, tmp_path: Path):
    def report(name: str, workers: int | None):
        def by_workers(rows):
            pool = WorkerPool(workers)
            return rank_in_parts(tiny_run, tmp_path / name, "test", MEASURES, True, STAGES, pool, rows)

        ranker = None if workers is None else by_workers
        return write_report(RunData(tiny_run), tmp_path / name, "test", MEASURES, 40, True, 0, ranker)

    # One thread here as well: more of them may round otherwise.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        here, two = report("here", None), report("two", 2)
    finally:
        torch.set_num_threads(threads)
    assert figures(tmp_path / "here") == figures(tmp_path / "two")
    values = [pl.read_parquet(tmp_path / name / "values.parquet") for name in ("here", "two")]
    assert values[0].equals(values[1])
    assert here.requests == 40 and {"V2 engine", "engine", "generator alone", "cascade"} <= set(two.methods)
    # Whose times these are is said, and only there.
    assert all(each > 0 and np.isfinite(each) for each in two.milliseconds.values())
    line = "- **ms per request**: by a worker with one thread"
    assert line in two.markdown() and line not in here.markdown() and "one thread" in two.notes["milliseconds"]
    # What is there is taken: nothing is ranked again.
    parts = sorted((tmp_path / "two").glob("ranked-*/parts/part-*.parquet"))
    before = [path.stat().st_mtime_ns for path in parts]
    parts[1].unlink()
    assert report("two", 2).methods == two.methods
    assert [path.stat().st_mtime_ns == old for path, old in zip(parts, before, strict=True)] == [True, False, True]


def test_the_command_has_workers_rank(tiny_run: Path, tmp_path: Path):
    arguments = ["evaluate", str(tiny_run), "--part", "valid", "--page-views", "20", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, "--workers", "2"])
    assert done.exit_code == 0 and "| V2 engine |" in done.output and "by a worker with one thread" in done.output
    assert len(list(tmp_path.glob("ranked-*/parts/part-*.parquet"))) == 1
    assert CliRunner().invoke(app, [*arguments, "--engine", "ray"]).exit_code == 2
    lone = CliRunner().invoke(app, [*arguments, "--workers", "2", "--address", "ray://h:1"])
    assert lone.exit_code == 1 and "give --engine ray as well" in lone.output
