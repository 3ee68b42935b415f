"""A/B tests of the tiny run's engines before its market's shoppers."""

import shutil
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.common.artefact import read_json
from onesearch.data.dataset import Dataset
from onesearch.data.records import page_views_frame
from onesearch.evaluation.abtest_estimates import METRICS
from onesearch.evaluation.abtest_report import markdown
from onesearch.evaluation.evaluate import rank_all
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.pipeline.abtest_runs import compare_arms, compare_engines, open_arm


@pytest.fixture(scope="module")
def laboratory(tiny_run: Path) -> Laboratory:
    return Laboratory(tiny_run / "data", 400, newcomers=200)


def test_known_shoppers_go_on_and_newcomers_have_no_past(laboratory, tiny_run):
    requests = laboratory.requests()
    past = (requests.clicked >= 0).any(1)
    assert 0.1 < laboratory.known.mean() < 0.9
    assert past[laboratory.known].mean() > 0.5 and not past[~laboratory.known].any()
    # A session that began on the log's last day may end a little later.
    log_end = Dataset.load(tiny_run / "data").page_views["time"].max()
    assert laboratory.page_views["time"].min() > log_end - timedelta(hours=1)
    with pytest.raises(ValueError, match="at least 10"):
        Laboratory(tiny_run / "data", 100, newcomers=3)
    same = Laboratory(tiny_run / "data", 400, newcomers=200)
    assert same.page_views.equals(laboratory.page_views)
    other = Laboratory(tiny_run / "data", 400, newcomers=200, stream=2)
    assert not other.page_views["query"].equals(laboratory.page_views["query"])


def test_the_same_item_meets_the_same_fate(laboratory):
    rng = np.random.default_rng(0)
    pages = np.stack([rng.permutation(400)[:10] for _ in range(400)])
    log = laboratory.exposures(pages)
    assert log["shown"].list.len().to_list() == [10] * 400 and log["clicked"].list.len().sum() > 0
    for row in log.iter_rows(named=True):
        assert set(row["ordered"]) <= set(row["clicked"]) <= set(row["shown"])
    assert laboratory.exposures(pages).equals(log)
    # On top of a page instead of at its end an item is seen by more shoppers, and nobody who clicked it stops.
    turned = laboratory.exposures(pages[:, ::-1])
    first = [f"i{item}" for item in pages[:, -1]]
    clicked = [[item in row for item, row in zip(first, one["clicked"], strict=True)] for one in (log, turned)]
    assert sum(clicked[0]) < sum(clicked[1]) and all(b for a, b in zip(*clicked, strict=True) if a)
    empty = laboratory.exposures(np.full((400, 3), -1))
    assert empty["shown"].list.len().sum() == 0 and set(page_views_frame([]).columns) >= set(empty.columns)


def test_an_engine_against_itself_lifts_nothing(tiny_run, tmp_path):
    found = compare_engines(f"{tiny_run}:v1", f"{tiny_run}:v1", tmp_path, 300, resamples=50, splits=0)
    assert all(found["paired"][name]["lift"] == 0.0 and found["paired"][name]["p"] == 1.0 for name in METRICS)
    assert "a_a" not in found


def test_pages_that_were_served_are_not_served_again(tiny_run, tmp_path, monkeypatch):
    test = lambda **how: compare_engines(  # noqa: E731
        f"{tiny_run}:v1", f"{tiny_run}:v2", tmp_path, 60, resamples=20, splits=0, **how
    )
    test()
    first = (tmp_path / "abtest.json").read_text()
    assert not list(tmp_path.glob("*.part.npz"))
    assert len(list(tmp_path.glob("pages_*.npz"))) == 2
    with monkeypatch.context() as without:
        without.setattr("onesearch.pipeline.abtest_runs.rank_all", None)
        test()
    assert (tmp_path / "abtest.json").read_text() == first
    test(alone=True)
    assert len(list(tmp_path.glob("pages_*.npz"))) == 4, "other pages are served by the generators alone"


def test_a_killed_test_goes_on_with_the_pages_it_kept(tiny_run, tmp_path, monkeypatch):
    test = lambda folder: compare_engines(  # noqa: E731
        f"{tiny_run}:v1", f"{tiny_run}:v2", folder, 100, resamples=20, splits=0
    )
    whole = test(tmp_path / "whole")
    monkeypatch.setattr("onesearch.pipeline.abtest_runs._KEPT", 30)
    served = []

    def killed(searcher, requests, k):
        if len(served) == 5:
            raise KeyboardInterrupt
        served.append(len(requests))
        return rank_all(searcher, requests, k)

    with monkeypatch.context() as once, pytest.raises(KeyboardInterrupt):
        once.setattr("onesearch.pipeline.abtest_runs.rank_all", killed)
        test(tmp_path / "parts")
    assert served == [30, 30, 30, 10, 30]
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").glob("pages_*.npz")}
    found = test(tmp_path / "parts")
    assert len(kept) == 5 and all(path.stat().st_mtime_ns == moment for path, moment in kept.items())
    assert len(list((tmp_path / "parts").glob("pages_*.npz"))) == 8
    for name in ("paired", "split", "slices"):
        np.testing.assert_equal(found[name], whole[name])


def test_engines_that_serve_their_own_shoppers_alone_find_the_split_of_the_paired_test(tiny_run, tmp_path):
    test = lambda **how: compare_engines(  # noqa: E731
        f"{tiny_run}:v1", f"{tiny_run}:v2", tmp_path, 300, 200, resamples=50, splits=5, **how
    )
    both, alone = test(), test(paired=False)
    served = sorted(len(np.load(path)["pages"]) for path in tmp_path.glob("pages_*.npz"))
    assert served[2:] == [300, 300] and served[0] > 50 and sum(served[:2]) == 300
    assert "paired" not in alone and both["shoppers"] == alone["shoppers"]
    for kind in ("split", "split_cuped"):
        np.testing.assert_equal(alone[kind], both[kind])
    assert set(alone["slices"]) == set(both["slices"]) and alone["a_a"]["splits"] == 5
    assert list(alone["slices"]["category"].popitem()[1]) == ["exposure", "item CTR", "orders"]
    assert "Half of the shoppers meet A" in (tmp_path / "abtest.md").read_text()


def test_the_command_writes_tables_and_charts(tiny_run, tmp_path):
    arguments = [f"{tiny_run}:v1", f"{tiny_run}:v2", "--page-views", "300", "--newcomers", "50", "--splits", "5"]
    result = CliRunner().invoke(app, ["-q", "abtest", *arguments, "--out", str(tmp_path), "--generator-alone"])
    assert result.exit_code == 0, result.output
    found = read_json(tmp_path / "abtest.json")
    assert markdown(found, ()).splitlines()[:20] == (tmp_path / "abtest.md").read_text().splitlines()[:20]
    assert found["a_a"]["splits"] == 5 and set(found["paired"]) == set(METRICS)
    for name in ("user activity", "query frequency", "query type", "item hotness", "item age", "category"):
        assert len(found["slices"][name]) > 1
        assert (tmp_path / f"lift_by_{name.replace(' ', '_')}.png").stat().st_size > 2000
    assert (tmp_path / "ctr.png").is_file()


def test_an_arm_is_a_run_or_one_of_its_models(tiny_run):
    assert [open_arm(f"{tiny_run}{model}").name for model in ("", ":v1", ":v2")] == ["tiny/v2", "tiny/v1", "tiny/v2"]


def test_arms_of_different_shops_are_refused(tiny_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    items = pl.read_parquet(other / "data" / "items.parquet")
    items.with_columns(title=pl.col("title").reverse()).write_parquet(other / "data" / "items.parquet")
    with pytest.raises(ValueError, match="different catalogues"):
        compare_engines(f"{tiny_run}:v1", f"{other}:v1", tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        compare_engines(str(tiny_run), str(tmp_path / "nothing"), tmp_path)


def test_an_exposure_log_of_a_service(tmp_path):
    rng = np.random.default_rng(0)
    n = 6000
    user = rng.integers(0, 1500, n)
    arm = np.where(user % 2 == 1, "new", "a")
    clicks = rng.random(n) < np.where(arm == "new", 0.5, 0.3)
    log = pl.DataFrame(
        {
            "user_id": [f"u{u}" for u in user],
            "arm": arm,
            "shown": [["x", "y"]] * n,
            "clicked": [["x"] if hit else [] for hit in clicks],
            "ordered": [[]] * n,
            "query_type": np.where(rng.random(n) < 0.5, "plain", "question"),
        },
        schema_overrides={"ordered": pl.List(pl.String)},
    )
    strays = log.head(4).with_columns(arm=pl.Series(["a", "new", "a", "new"]), user_id=pl.lit("both"))
    pl.concat([log, strays]).write_parquet(tmp_path / "log.parquet")
    found = compare_arms(tmp_path / "log.parquet", tmp_path / "out", resamples=200, splits=3)
    assert found["in_both_arms"] == 1 and found["shoppers"] == len(set(user.tolist()))
    lift = found["split"]["item CTR"]
    assert lift["p"] < 1e-6 and lift["low"] < 2 / 3 < lift["high"]
    assert set(found["slices"]["query type"]) == {"plain", "question"}
    page = (tmp_path / "out" / "abtest.md").read_text()
    assert "1 who met both arms" in page and "| item CTR |" in page and "paired" not in page
    with pytest.raises(ValueError, match="no column arm"):
        log.drop("arm").write_parquet(tmp_path / "bad.parquet")
        compare_arms(tmp_path / "bad.parquet", tmp_path / "out")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(ValueError, match="cannot be read as Parquet"):
        compare_arms(tmp_path / "text.parquet", tmp_path / "out")
    with pytest.raises(ValueError, match="1 arms"):
        log.filter(pl.col("arm") == "a").write_parquet(tmp_path / "bad.parquet")
        compare_arms(tmp_path / "bad.parquet", tmp_path / "out")
