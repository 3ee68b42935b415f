import json
import logging

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from onesearch.batch.query_thoughts import Answers, thought_rows
from onesearch.cli import app
from onesearch.data.dataset import Dataset
from onesearch.data.records import PageView, page_views_frame
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_cache import SqliteThoughts
from tiny_bert import make_tiny_bert

GOOD = {
    "intent": "merchandise",
    "query_type": "plain",
    "category": ["Shoes"],
    "attributes": [],
    "topics": ["hiking boots"],
    "keywords": ["hiking boots", "leather"],
}


@pytest.fixture
def invoke():
    logger = logging.getLogger("onesearch")
    before = logger.level, list(logger.handlers), logger.propagate
    yield lambda *arguments: CliRunner().invoke(app, ["understand", *map(str, arguments)])
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


@pytest.fixture
def shop(tmp_path, shop_items):
    searched = ["boots", "Boots ", "boots", "leather sandals", "leather sandals", "tent", ""]
    views = [PageView(str(n), query, shown=("i0",), clicked=("i0",)) for n, query in enumerate(searched)]
    Dataset.write(tmp_path / "shop", shop_items, page_views=page_views_frame(views))
    return tmp_path / "shop"


def test_the_most_searched_queries_of_a_log_are_thought_about(invoke, shop, tmp_path, fake_llm):
    fake_llm.reply = lambda task: "never JSON" if task["query"] == "boots" else GOOD
    path = tmp_path / "thoughts.sqlite3"
    result = invoke(shop, "--cache", path, "--base-url", fake_llm.url, "--limit", 2, "--price-in", 1)
    assert result.exit_code == 0 and "2 distinct queries" in result.output, result.output
    assert set(fake_llm.asked) == {"boots", "leather sandals"}
    assert set(SqliteThoughts(path).get_many(["leather sandals", "boots"], "llm:Qwen3-32B", "1")) == {"leather sandals"}
    assert '"boots"' in (tmp_path / "thoughts.sqlite3.rejects.jsonl").read_text()
    again = invoke(shop, "--cache", path, "--base-url", fake_llm.url, "--max-calls", 0)
    assert "1 cached before" in again.output and "budget of 0 calls" in again.output
    summary = json.loads(invoke(shop, "--cache", path, "--base-url", fake_llm.url, "--limit", 2, "--json").stdout)
    assert (summary["asked"], summary["cached"], summary["set_aside"], summary["calls"]) == (2, 1, 1, 2)
    assert invoke(shop, "--cache", path, "--json", "--watch").exit_code == 2


def test_queries_of_a_file_need_a_catalogue(invoke, shop, tmp_path):
    (tmp_path / "queries.txt").write_text("boots\n\n Boots\n")
    path = tmp_path / "thoughts.sqlite3"
    arguments = (tmp_path / "queries.txt", "--cache", path, "--producer", "log-expert")
    assert "--dataset" in invoke(*arguments).output
    result = invoke(*arguments, "--dataset", shop)
    assert "1 distinct queries of 1: 0 cached before, 1 answered" in result.output, result.output
    assert SqliteThoughts(path).get_many(["boots"], "log-expert", "1")["boots"].keywords


def test_a_missing_address_is_said(invoke, shop, tmp_path, monkeypatch):
    monkeypatch.delenv("ONESEARCH_LLM_BASE_URL", raising=False)
    result = invoke(shop, "--cache", tmp_path / "c")
    assert result.exit_code == 1 and "ONESEARCH_LLM_BASE_URL" in result.output


def test_a_sentence_encoder_of_a_folder_thinks(invoke, shop, tmp_path):
    model, path = make_tiny_bert(tmp_path / "bert", ["boots", "leather", "tent"]), tmp_path / "thoughts.sqlite3"
    result = invoke(shop, "--producer", "encoder", "--encoder", model, "--cache", path)
    assert "3 distinct queries of 3: 0 cached before, 3 answered" in result.output, result.output
    assert SqliteThoughts(path).get_many(["boots"], "encoder", "1")["boots"].analysis.topics[0] == "boots"
    missing = invoke(shop, "--producer", "encoder", "--cache", path)
    assert missing.exit_code == 1 and "encoder" in missing.output


def test_calibration_needs_a_language_model_and_a_run(invoke, shop, tmp_path):
    arguments = (shop, "--cache", tmp_path / "c", "--calibrate", 5)
    for more in (["--producer", "log-expert"], ["--producer", "encoder"], ["--watch"]):
        refused = invoke(*arguments, *more)
        assert refused.exit_code == 2 and "language model" in refused.output
    assert "is no run" in invoke(*arguments).output


def test_a_table_of_thoughts_comes_into_the_cache_and_nobody_is_asked(invoke, shop, tmp_path, fake_llm):
    answers = Answers(
        {"boots": Thought(query="boots", analysis=Analysis(intent="other"), producer="llm:Qwen3-32B", version="1")},
        {"tent": "refused by the server: status 400"},
    )
    table, path = tmp_path / "table.parquet", tmp_path / "thoughts.sqlite3"
    pq.write_table(thought_rows(["boots", "tent"], answers, "llm:Qwen3-32B", "1"), table)
    arguments = ("--from-table", table, "--cache", path)
    found = json.loads(invoke(shop, *arguments, "--json").stdout)
    assert (found["asked"], found["answered"], found["set_aside"], found["calls"]) == (2, 1, 1, 0)
    assert set(SqliteThoughts(path).get_many(["boots", "tent"], "llm:Qwen3-32B", "1")) == {"boots"}
    assert "status 400" in (tmp_path / "thoughts.sqlite3.rejects.jsonl").read_text()
    assert "1 cached before, 0 answered" in invoke(shop, *arguments).output and not fake_llm.asked
    # Whose thoughts are wanted is said, and a table says no more than that.
    assert "another producer 1" in invoke(shop, *arguments, "--producer", "log-expert").output
    for more in (["--watch"], ["--coverage", "day"], ["--calibrate", 3]):
        assert invoke(shop, *arguments, *more).exit_code == 2


def test_a_server_may_know_no_json_schema(invoke, shop, tmp_path, fake_llm):
    for form in ("json_schema", "json_object"):
        arguments = ("--cache", tmp_path / form, "--base-url", fake_llm.url, "--limit", 1, "--response-format", form)
        assert invoke(shop, *arguments).exit_code == 0
    first, second = (body["response_format"] for body in fake_llm.bodies)
    assert first["type"] == "json_schema" and second["type"] == "json_object"
    assert second["schema"] == first["json_schema"]["schema"]
