"""The whole path: a configuration file to a measured run, and what a finished run promises."""

import asyncio
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

from onesearch.common.artefact import read_json
from onesearch.pipeline import evaluate_run, run_config, status_of
from onesearch.pipeline import understanding_stage as understand
from onesearch.pipeline.pseudo_query_stage import load_pseudo_queries
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.engine import SearchEngine
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.thought_table import Thoughts
from onesearch.understanding.work_summary import Summary

STAGES = [
    "data",
    "encoder",
    "khqe",
    "index",
    "lexical",
    "baselines",
    "sft1",
    "sft2",
    "sft3",
    "engine",
    "understanding",
    "cot",
    "distill",
    "engine_v2",
    "report",
]


def test_every_stage_is_finished_and_the_report_compares_all_methods(tiny_run: Path):
    assert all((tiny_run / stage / "manifest.json").is_file() for stage in STAGES)
    report = read_json(tiny_run / "report" / "report.json")
    expected = {"BM25", "dense", "BM25 + dense", "most clicked", "cascade", "generator alone", "engine without BM25"}
    assert {*expected, "engine"} <= set(report["methods"])
    text = (tiny_run / "report" / "report.md").read_text()
    assert text.startswith("# tiny: search measured on the test part\n\n80 requests") and "## Verdict" in text
    assert all(f"- *{name}*: " in text for name in report["methods"]) and "- **ehr@10**: " in text
    engine = report["methods"]["engine"]
    assert {"click/HR@10", "order/MRR@10", "ndcg@10", "ehr@10"} <= set(engine)
    assert engine["click/HR@10"]["low"] <= engine["click/HR@10"]["mean"] <= engine["click/HR@10"]["high"]
    assert any(one["method"] == "engine" and one["against"] == "cascade" for one in report["comparisons"])
    assert 0 <= report["notes"]["valid_sid_share_without_constraint"] <= 1


def test_a_finished_run_is_a_no_op(tiny_config: Path, tiny_run: Path):
    before = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*") if path.is_file()}
    results = run_config(tiny_config, tiny_run)
    assert {result.outcome for result in results} == {"skipped"}
    after = {path: path.stat().st_mtime_ns for path in tiny_run.rglob("*") if path.is_file()}
    changed = {path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    assert changed <= {".lock", "config.json"}


@pytest.mark.parametrize(
    ("override", "stale"),
    [
        ("distill.kl=0.5", {"distill", "engine_v2", "report"}),
        ("evaluation.test_requests=50", {"report"}),
    ],
)
def test_a_changed_setting_makes_only_what_depends_on_it_stale(
    tiny_config: Path, tiny_run: Path, override: str, stale: set[str]
):
    found = status_of(tiny_config, tiny_run, [override])
    assert {stage for stage, state in found.items() if state != "finished"} == stale


def test_stages_are_taken_over_from_another_run(tiny_config: Path, tiny_run: Path, tmp_path: Path):
    results = run_config(tiny_config, tmp_path / "copy", reuse=[tiny_run], until="sft1")
    assert {result.outcome for result in results} == {"reused"}


def test_the_run_can_be_measured_again(tiny_run: Path, tmp_path: Path):
    table = evaluate_run(tiny_run, tmp_path / "again", "valid", 20)
    assert "| engine |" in table and "20 requests" in table


def test_no_file_of_a_run_can_run_code(tiny_run: Path):
    kinds = {path.suffix for path in tiny_run.rglob("*") if path.is_file() and path.name != ".lock"}
    assert kinds <= {".json", ".jsonl", ".safetensors", ".npy", ".parquet", ".png", ".md", ".txt"}
    for path in tiny_run.rglob("*.npy"):
        header = path.read_bytes()[:200]
        assert b"|O" not in header, f"{path} holds Python objects"


def test_training_statistics_come_from_the_training_part_only(tiny_run: Path):
    clicks = pl.read_parquet(tiny_run / "data" / "statistics" / "item_counts.parquet")["clicked"].sum()
    train = pl.read_parquet(tiny_run / "data" / "train.parquet")
    assert clicks == train["clicked"].list.n_unique().sum()
    later = pl.read_parquet(tiny_run / "data" / "test.parquet")["time"].min()
    assert train["time"].max() < later


def test_losses_and_validation_are_logged_and_drawn(tiny_run: Path):
    lines = [json.loads(line) for line in (tiny_run / "sft3" / "log.jsonl").read_text().splitlines()]
    assert any("search/level_1" in line for line in lines) and any("valid/hr10" in line for line in lines)
    assert (tiny_run / "sft3" / "curves.png").stat().st_size > 1000


def test_a_wrong_setting_is_named_with_the_nearest_valid_one(tiny_config: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"search\.width"):
        run_config(tiny_config, tmp_path, ["search.widht=3"])


def test_v2_is_measured_beside_v1_and_its_thoughts_hold_nothing_of_a_page_view(tiny_run: Path):
    methods = read_json(tiny_run / "report" / "report.json")["methods"]
    assert {"engine", "generator alone", "V2 engine", "V2 generator alone"} <= set(methods)
    thoughts = Thoughts.load(tiny_run / "understanding")
    assert set(thoughts.table.columns) == {
        "query",
        "intent",
        "query_type",
        "category",
        "attributes",
        "keywords",
        "producer",
        "version",
    }
    words = CatalogueVocabulary.load(tiny_run / "understanding" / "words")
    assert thoughts.is_complex(thoughts.table["query"].to_list()).any()
    for keywords in thoughts.keywords(thoughts.table["query"].to_list()):
        assert len(keywords) <= 8 and all(words.keyword(word) == word for word in keywords)


def test_both_generators_have_the_same_size_and_the_engine_reads_no_keywords(tiny_run: Path):
    of_v1, of_v2 = (load_file(tiny_run / stage / "model.safetensors") for stage in ("sft3", "distill"))
    names = {name.split("generator.")[-1]: tensor.shape for name, tensor in of_v1.items()}
    assert names == {name.split("generator.")[-1]: tensor.shape for name, tensor in of_v2.items()}
    logged = (tiny_run / "distill" / "log.jsonl").read_text()
    assert all(f"search/{term}" in logged for term in ("kl", "teacher_ce", "r_drop", "later_loss"))
    assert SearchEngine.load(tiny_run).keywords is None


def test_an_unfinished_understanding_is_no_finished_stage_and_keeps_its_answers(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def stops_early(queries, producer, cache, *_):
        thought = asyncio.run(producer.think(queries[0]))
        cache.put([thought])
        return Summary(asked=len(queries), answered=1, unfinished=len(queries) - 1, stopped="the server is down")

    monkeypatch.setattr(understand, "run_understand", stops_early)
    settings = understand.UnderstandingSettings(producer="log-expert").model_dump()
    context = StageContext("understanding", tmp_path, {}, 0)
    with pytest.raises(RuntimeError, match=r"without an answer \(the server is down\); run the same command again"):
        understand.build_understanding(RunData(tiny_run), context, **settings)
    assert not (tmp_path / "thoughts.parquet").exists()
    monkeypatch.undo()
    figures = understand.build_understanding(RunData(tiny_run), context, **settings)
    assert 0 < figures["with_keywords"] <= figures["thoughts"] <= figures["queries"]
    assert not list(tmp_path.glob("cache.sqlite*"))


def test_stage_3_learns_the_ranking_of_searches_that_nobody_made(tiny_run: Path, tiny_config: Path, tmp_path: Path):
    sets = ("pseudo.searches=60", "sft3.pseudo_share=0.5", "model.prompt.evidence.lexical=4", "sft3.epochs=0.1")
    done = run_config(tiny_config, tmp_path / "run", sets, reuse=(tiny_run,), until="sft3")
    assert [one.name for one in done][-2:] == ["pseudo", "sft3"]
    said = read_json(tmp_path / "run" / "pseudo" / "manifest.json")["metrics"]
    assert said["titles"] == 20 and said["searches"] >= 40
    requests, targets, weights = load_pseudo_queries(RunData(tmp_path / "run"), tmp_path / "run" / "pseudo")
    assert len(requests) > 20 and 2 < targets.lengths.mean() <= 8
    assert np.allclose(np.bincount(targets.owners, weights), 1, atol=1e-5)
