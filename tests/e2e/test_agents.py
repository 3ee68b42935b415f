"""Agents before the tiny run's engine: the command, the tools of a process, alignment on sessions, the study's page."""

import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from benchmarks.result_files import ResultFiles
from mcp import Client, StdioServerParameters
from typer.testing import CliRunner

from benchmarks import agents as study
from onesearch.cli import app
from onesearch.common.artefact import read_json
from onesearch.data.dataset import Dataset
from onesearch.evaluation.agent_figures import figures, session_sums
from onesearch.evaluation.agent_sessions import session_page_views
from onesearch.model.generator import Generator
from onesearch.pipeline.abtest_runs import open_arm
from onesearch.pipeline.agent_runs import sessions_of
from onesearch.pipeline.session_alignment import align_on_sessions
from onesearch.search.engine import SearchEngine
from onesearch.serving.run_store import open_run_store

SMALL = ("grpo.prompts=8", "grpo.rollouts=4", "grpo.loop.best=''", "grpo.loop.learning_rate=1e-3")


@pytest.fixture(scope="module")
def sessions(tiny_run: Path) -> pl.DataFrame:
    """Searches of sessions as page views. So small a market sells little: every second session is made to end well."""
    found, laboratory = sessions_of(open_arm(str(tiny_run)), tiny_run / "data", 60, budget=2)
    for number, one in enumerate(found):
        one.ordered = one.searches[-1][1][0] if number % 2 and one.searches[-1][1] else None
    return session_page_views(found, laboratory)


def test_the_stand_in_shops_and_the_same_again(tiny_run):
    engine = open_arm(str(tiny_run))
    found, laboratory = sessions_of(engine, tiny_run / "data", 60)
    again, _ = sessions_of(engine, tiny_run / "data", 60)
    assert found == again and len(found) == 60
    assert all(1 <= len(one.searches) <= 6 for one in found)
    queries = laboratory.page_views["query"].to_list()
    assert any(one.searches[0][0] != queries[one.page_view] for one in found), "it begins with less than the whole"
    # No item is shown twice in a session, and the last page has what was ordered.
    for one in found:
        shown = [item for _, items in one.searches for item in items]
        assert len(set(shown)) == len(shown) and (one.ordered is None or one.ordered in one.searches[-1][1])
    orders = sum(one.ordered is not None for one in found)
    assert 5 < orders < 60
    # More searches bring more orders, and the sessions that end early are the same ones.
    short, _ = sessions_of(engine, tiny_run / "data", 60, budget=1)
    assert 0 < sum(one.ordered is not None for one in short) < orders
    assert all(one.ordered == two.ordered for one, two in zip(found, short, strict=True) if two.ordered)


def test_the_command_tells_figures_and_writes_page_views(tiny_run, tmp_path):
    out = tmp_path / "new" / "sessions.parquet"
    arguments = ["agents", str(tiny_run), "--sessions", "40", "--budget", "3", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["sessions"] == 40 and 0 < found["orders"]["value"] < 1 and len(found["orders_by_searches"]) == 3
    assert sum(found["orders_by_searches"]) == round(40 * found["orders"]["value"])
    log = pl.read_parquet(out)
    assert log["session_id"].n_unique() == 40 and len(log) == round(
        40 * found["searches per order"]["value"] * found["orders"]["value"]
    )
    ordered = log.filter(pl.col("ordered").list.len() > 0)
    assert ordered["session_id"].n_unique() == sum(found["orders_by_searches"])
    assert ordered["clicked"].to_list() == ordered["ordered"].to_list()
    assert set(log.columns) >= set(Dataset.load(tiny_run / "data").page_views.columns) - {"split"}
    alone = CliRunner().invoke(app, ["agents", str(tiny_run), "--sessions", "20", "--generator-alone"])
    assert alone.exit_code == 0 and "searches per order" in alone.stdout and "orders after 1, 2" in alone.stdout


def test_a_model_needs_an_address(tiny_run, monkeypatch):
    monkeypatch.delenv("ONESEARCH_LLM_BASE_URL", raising=False)
    done = CliRunner().invoke(app, ["agents", str(tiny_run), "--sessions", "2", "--by-model"])
    assert done.exit_code == 1 and "--base-url" in done.stderr


@pytest.mark.timeout(300)
def test_a_process_serves_the_run_itself(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run, tmp_path / "tiny")  # it makes a store there
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    server = StdioServerParameters(command=sys.executable, args=["-m", "onesearch", "mcp", str(run)], env=kept)

    async def talk():
        async with Client(server) as client:
            page = await client.call_tool("search", {"query": "boots", "k": 3, "reasons": True})
            first = page.structured_content["items"][0]["item_id"]
            item = await client.call_tool("item", {"item_id": first})
            like = await client.call_tool("similar", {"item_id": first, "k": 2})
            filters = await client.call_tool("filters", {"most": 3})
            return [one.structured_content for one in (page, item, like, filters)]

    page, item, like, filters = asyncio.run(talk())
    engine = SearchEngine.load(tiny_run)
    assert [one["item_id"] for one in page["items"]] == [hit.item_id for hit in engine.search("boots", k=3)]
    assert page["items"][0]["reasons"] and page["ask"] and page["version"] == engine.version
    assert item["title"] == engine.item(item["item_id"]).title and len(like["items"]) == 2
    assert len(filters["categories"]) == 3 and filters["attributes"]
    store = open_run_store(run, None)
    assert store.searches() == ([], "") or store.searches()[0] == []
    store.close()


def test_alignment_learns_from_orders_alone_and_is_not_repeated(tiny_run, sessions, tmp_path, monkeypatch):
    log = sessions
    made = align_on_sessions(tiny_run, log, tmp_path / "one", 2, SMALL)
    assert made["steps"] == 2 and (tmp_path / "one" / "manifest.json").is_file()
    about = read_json(tmp_path / "one" / "manifest.json")
    assert {"rewards.click_rate=0", "rewards.relevance=0"} <= set(about["sets"])
    before = dict(SearchEngine.load(tiny_run).generator.named_parameters())
    after = dict(Generator.load(tmp_path / "one" / "generator").named_parameters())
    assert any(not bool((before[name] == value).all()) for name, value in after.items())
    # The reward is that of orders: a rollout without one is worth nothing.
    lines = [json.loads(line) for line in (tmp_path / "one" / "log.jsonl").read_text().splitlines()]
    rewards = [line for line in lines if any("reward_behaviour" in name for name in line)]
    assert rewards
    for line in rewards:
        named = {name.rpartition("reward_")[2]: value for name, value in line.items() if "reward_" in name}
        assert named["click_rate"] == named["relevance"] == 0 < named["behaviour"] == named["total"]
    monkeypatch.setattr("onesearch.pipeline.session_alignment.run_grpo", None)
    assert align_on_sessions(tiny_run, log, tmp_path / "one", 2, SMALL) == made
    with pytest.raises(ValueError, match="searches led to an order"):
        align_on_sessions(tiny_run, log.with_columns(ordered=log["shown"].list.head(0)), tmp_path / "two", 2, SMALL)
    assert not (tmp_path / "two").exists()


def test_the_study_compares_forms_on_the_same_needs(tiny_run, sessions, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "FILES", ResultFiles("agents", tmp_path / "results"))
    runs = tmp_path / "runs"
    base, place = tiny_run, runs / "agents" / "market-31"
    monkeypatch.setattr(study, "base_of", lambda runs, seed: tiny_run)
    study.FILES.folder.mkdir()
    (study.FILES.folder / "agents.head.md").write_text("# Head\n")
    study.render()
    assert "Not measured yet" in study.FILES.page.read_text()

    monkeypatch.setattr(study, "simulate", lambda *_, out: (sessions.write_parquet(out), {})[1])
    study.run(runs, "", SMALL, learnt=150, measured=8, steps=2, seeds=(31,))
    made = study.FILES.figures()
    assert set(made["cells"]) == {f"market-31/{form.name}" for form in study.FORMS} and len(made["pairs"]) == 3
    sums = np.load(place / "aligned" / "engine.npy")
    assert sums.shape == (8, 5)
    kept = made["cells"]["market-31/aligned"]["methods"]["engine"]
    # Files of results keep eight digits.
    assert kept == {name: pytest.approx(value, rel=1e-7) for name, value in figures(sums).items()}
    first, _ = sessions_of(open_arm(f"{base}:v2"), base / "data", 8, study.BUDGET, study.TEST_STREAM)
    assert np.array_equal(np.load(place / "before" / "engine.npy"), session_sums(first, study.BUDGET))
    # What was measured before a stop is not measured again.
    (place / "before" / "cell.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(study, "_sums", None)
        study.run(runs, "market-31/before", SMALL, learnt=150, measured=8, steps=2, seeds=(31,))
    again = study.FILES.figures()["cells"]["market-31/before"]
    assert again["methods"] == made["cells"]["market-31/before"]["methods"]
    made = study.FILES.figures()
    # What is finished is not made again, and a difference needs both.
    monkeypatch.setattr(study, "align_on_sessions", None)
    study.run(runs, "market-31/aligned", SMALL, learnt=150, measured=8, steps=2, seeds=(31,))
    assert study.FILES.figures() == made
    study.render()
    page = study.FILES.page.read_text()
    assert "| aligned less control |" in page and "8 sessions of at most 6 searches" in page
