"""What V2's teacher reads in training, and that no other input of a model has any of it."""

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from benchmarks.direct_cot import write_keywords

from onesearch.common.artefact import read_json
from onesearch.data.histories import Histories
from onesearch.data.text import normalise_query
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import BEGIN, END
from onesearch.pipeline import run_config, settings_of
from onesearch.pipeline import understanding_stage as understand
from onesearch.pipeline.report_stage import engine_of
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.shopper_keywords import history_texts, load_calibrated
from onesearch.pipeline.stage_runner import StageContext
from onesearch.pipeline.teacher import cot_task_set, keyword_source, personalised, shuffled
from onesearch.training.cot_tasks import COT
from onesearch.understanding.calibration_worker import shopper_key
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.keyword_extraction import holds_phrase
from onesearch.understanding.thought_table import Thoughts


@pytest.fixture(scope="module")
def run_data(tiny_run: Path) -> RunData:
    return RunData(tiny_run)


@pytest.fixture(scope="module")
def thoughts(tiny_run: Path) -> Thoughts:
    return Thoughts.load(tiny_run / "understanding")


def keywords_of(run_data, thoughts, page_views, **settings):
    config = settings_of(run_data.run)
    source = keyword_source(run_data, thoughts, config.distill.updated(**settings), config.seed)
    return source(run_data.requests(page_views), run_data.targets(page_views).clicked)


def test_a_teacher_reads_the_thought_of_complex_queries(run_data, thoughts):
    page_views = run_data.split.train
    found = keywords_of(run_data, thoughts, page_views)
    assert found == thoughts.taught_keywords(page_views["query"].to_list(), "complex")
    taught = np.array([len(row) > 0 for row in found])
    kinds = page_views["query_type"].to_numpy()
    assert taught.any() and (kinds[taught] != "plain").mean() > 0.95
    everyone = keywords_of(run_data, thoughts, page_views, teach="all")
    assert sum(map(bool, everyone)) > taught.sum()


def test_the_placebo_gives_every_query_the_keywords_of_another_one(thoughts):
    other = shuffled(thoughts, "complex", 3)
    queries = thoughts.table["query"].to_list()
    own, given = (one.taught_keywords(queries, "complex") for one in (thoughts, other))
    taught = [number for number, row in enumerate(own) if row]
    assert sorted(own) == sorted(given) and [bool(row) for row in own] == [bool(row) for row in given]
    assert np.mean([own[number] == given[number] for number in taught]) < 0.2  # some queries share their keywords
    assert shuffled(thoughts, "complex", 3).table.equals(other.table)


def test_calibration_keeps_to_the_thought_and_the_shoppers_past(run_data, thoughts):
    page_views = run_data.split.train
    requests = run_data.requests(page_views)
    plain = thoughts.taught_keywords(requests.query, "complex")
    words = CatalogueVocabulary.load(run_data.run / "understanding" / "words")
    titles = run_data.dataset.items["title"].to_list()
    found = personalised(thoughts, words, {}, titles, requests, plain)
    assert found == keywords_of(run_data, thoughts, page_views, personal=True)
    assert any(a != b for a, b in zip(found, plain, strict=True))
    for row, base in zip(found, plain, strict=True):
        assert len(row) <= 8 and bool(row) == bool(base) and set(base) <= set(row)


def test_a_language_model_calibrates_where_the_run_asks_it_to(tiny_config, tiny_run, run_data, tmp_path):
    run = tmp_path / "calibrated"
    sets = ["understanding.calibrate=20", "distill.personal=true", "cot.steps=2"]
    run_config(tiny_config, run, sets, reuse=[tiny_run], until="cot")
    calibrated = load_calibrated(run / "understanding")
    asked = RunData(run)
    assert read_json(run / "understanding" / "manifest.json")["metrics"]["calibrated"] == len(calibrated) > 0
    assert asked.thoughts.table.equals(run_data.thoughts.table) and load_calibrated(tiny_run / "understanding") == {}
    # A training page view of such a query and history reads the answer, every other one what the rule says.
    requests = asked.requests(asked.split.train)
    titles = asked.dataset.items["title"].to_list()
    keys = [
        shopper_key(query, history)
        for query, history in zip(requests.query, history_texts(requests, titles), strict=True)
    ]
    found = keywords_of(asked, asked.thoughts, asked.split.train, personal=True)
    ruled = keywords_of(run_data, run_data.thoughts, run_data.split.train, personal=True)
    assert found == [calibrated.get(key, rule) for key, rule in zip(keys, ruled, strict=True)] != ruled
    # A placebo reads nobody's answer to the true query.
    placebo = [
        keywords_of(one, one.thoughts, one.split.train, personal=True, shuffle=True) for one in (asked, run_data)
    ]
    assert placebo[0] == placebo[1]


def test_a_budget_of_calls_leaves_queries_without_a_thought(tiny_config, tiny_run, thoughts, tmp_path):
    run, cache = tmp_path / "some", tmp_path / "thoughts.sqlite3"
    for calls, known in ((5, 5), (0, 5)):  # what an earlier run has asked is in the cache
        sets = [f"understanding.max_calls={calls}", f"understanding.cache={cache}", "understanding.concurrency=1"]
        run_config(tiny_config, run, sets, reuse=[tiny_run], until="understanding")
        found = Thoughts.load(run / "understanding")
        assert len(found) == known < len(thoughts)
        assert set(found.table["query"]) <= set(thoughts.table["query"])
        # Those that are searched most.
        parts = RunData(run).split
        texts = [text for part in (parts.train, parts.valid, parts.test) for text in part["query"].to_list() if text]
        searches = Counter(map(normalise_query, texts))
        most = sorted(searches.values(), reverse=True)[:known]
        assert most[0] > most[-1] and sorted((searches[q] for q in found.table["query"]), reverse=True) == most


def test_injection_adds_words_of_the_clicked_item_to_training_keywords_only(run_data, thoughts):
    page_views = run_data.split.train
    clicked = run_data.targets(page_views).clicked
    plain, found = (keywords_of(run_data, thoughts, page_views, inject=inject) for inject in (False, True))
    titles = run_data.dataset.items["title"].to_list()
    changed = [number for number, row in enumerate(found) if row != plain[number]]
    assert changed and all(len(clicked[number]) for number in changed)
    for number in changed:
        added = set(found[number]) - set(plain[number])
        assert all(holds_phrase(titles[clicked[number][0]], word) for word in added)
    assert settings_of(run_data.run).distill.inject is False  # off unless asked for
    # What is thought of a query, and kept, is the same after a training with injection.
    assert Thoughts.load(run_data.run / "understanding").table.equals(thoughts.table)


def test_no_input_of_evaluation_or_serving_has_keywords_or_the_future(tiny_config, tiny_run, tmp_path):
    """Also after a training with injection: everything at or after a moment may change, the inputs of it do not."""
    run = tmp_path / "injected"
    sets = ["distill.inject=true", "distill.personal=true", "cot.steps=0", "distill.cot=0"]
    run_config(tiny_config, run, sets, reuse=[tiny_run], until="engine_v2")
    trained = RunData(run)
    engine = engine_of(trained, run / "engine_v2")
    assert engine.keywords is None

    test = trained.split.test
    moment = test["time"].sort()[len(test) // 2]
    asked = test.filter(pl.col("time") <= moment)
    prompts = prompts_of(engine, trained.requests(asked))
    mark = engine.featurizer.vocabulary.mark("kw")
    assert all(batch.keyword_vectors is None and not (batch.tokens == mark).any() for batch in prompts)

    data = trained.dataset
    other = pl.lit(data.items["item_id"][7])
    later = data.page_views.with_columns(
        pl.when(pl.col("time") >= moment).then(pl.concat_list(other)).otherwise(pl.col(name)).alias(name)
        for name in ("shown", "clicked", "ordered")
    ).with_columns(query=pl.when(pl.col("time") > moment).then(pl.lit("something else")).otherwise(pl.col("query")))
    assert not later.equals(data.page_views)
    changed = Histories(later, data.items, data.users)
    for before, after in zip(prompts, prompts_of(engine, changed.requests(asked)), strict=True):
        assert (before.tokens == after.tokens).all() and (before.query_head_rows == after.query_head_rows).all()
        assert (before.long_codes == after.long_codes).all()


def prompts_of(engine, requests):
    evidence = engine.snapshot.click_features.statistics.most_clicked(
        engine.snapshot.click_features.statistics.query_numbers(requests.query),
        engine.generator.config.prompt.clicked_for_query,
    )
    columns = PromptInputs.from_requests(
        requests, engine.featurizer.text_features, engine.generator.config.prompt, evidence
    )
    rows = np.arange(len(requests))
    return [engine.snapshot.builder.search_prompt(columns, rows[i : i + 64]) for i in range(0, len(rows), 64)]


def test_cot_tasks_write_the_thought_as_text_and_as_sids(run_data, thoughts):
    config = settings_of(run_data.run)
    tasks = cot_task_set(run_data, run_data.generator("sft2"), config.cot, "complex", False, True, config.seed)
    assert tuple(tasks) == COT
    vocabulary, featurizer = run_data.vocabulary, run_data.featurizer
    texts = [query for query in run_data.statistics.queries if thoughts.taught_keywords([query], "complex")[0]]
    rows = np.arange(min(5, len(texts)))
    text = tasks["query_to_keywords"].batch(rows)
    sids = tasks["query_sid_to_keyword_sids"].batch(rows)
    for number in rows:
        keywords = thoughts.taught_keywords([texts[number]], "complex")[0]
        written = vocabulary.text([i for i in text.text[number].tolist() if i > 3])
        whole = ", ".join(keywords)
        assert whole.startswith(written.strip()) and len(written) > 5
        wanted = featurizer.text_features(keywords).sids
        assert sids.sids[sids.owner == number].tolist() == wanted.tolist()
    allowed = set(text.subwords.tolist())
    assert all(
        set(task.batch(np.arange(3)).text.flatten().tolist()) <= allowed
        for name, task in tasks.items()
        if name == "query_to_keywords"
    )
    prompt = tasks["user_query_sid_to_keyword_sids"].batch(np.arange(4)).prompt
    assert not (prompt.tokens == vocabulary.mark("q")).any()
    assert (prompt.tokens == vocabulary.mark("sid_q")).any(1).all()
    assert (prompt.query_vectors == 0).all() and (prompt.query_head_rows == 0).all()


def test_rag_reads_in_serving_what_it_read_in_training(tiny_config, tiny_run, tmp_path, thoughts):
    sets = ["distill.keywords=input", "distill.think=1"]
    run_config(tiny_config, tmp_path / "rag", sets, reuse=[tiny_run], until="engine_v2")
    run_data = RunData(tmp_path / "rag")
    engine = engine_of(run_data, tmp_path / "rag" / "engine_v2")
    generator = run_data.generator("distill")
    assert generator.config.prompt.think == 1
    requests = run_data.requests(run_data.split.test[:40])
    assert engine.keywords(requests.query) == thoughts.taught_keywords(requests.query, "complex")
    builder = run_data.builder(generator.config.prompt)
    own = write_keywords(generator, run_data.featurizer, builder, requests.query[:5], limit=6, batch=2)
    assert own == [keywords_step_by_step(generator, run_data, builder, query, 6) for query in requests.query[:5]]
    assert any(own)


@torch.inference_mode()
def keywords_step_by_step(generator, run_data, builder, query, limit):
    """What :func:`write_keywords` does with a cache for many, from the start at each step for one."""
    prompt = builder.text_prompt(run_data.featurizer.text_features([query]), np.array([0]), "task:query_to_keywords")
    ids = [BEGIN]
    while len(ids) <= limit:
        memory = generator.encode(prompt).prompts
        hidden = generator.backbone.decode(memory, generator.embed(torch.tensor([ids])), torch.tensor([0]))
        following = int(generator.text_logits(hidden[0, -1]).argmax())
        if following == END:
            break
        ids.append(following)
    words = [word.strip() for word in builder.vocabulary.text(ids[1:]).split(",")]
    return tuple(dict.fromkeys(word for word in words if word))


def test_v2_writes_into_rows_of_words_that_v1_has_and_leaves_alone(tiny_config, tiny_run, tmp_path):
    sets = ["model.word_rows=true", "sft3.loop.learning_rates={generator.word_: 5}"]
    run_config(tiny_config, tmp_path / "rows", sets, reuse=[tiny_run], until="distill")
    run_data = RunData(tmp_path / "rows")
    v1, v2 = run_data.generator("sft3"), run_data.generator("distill")
    assert (v1.word_rows.weight == 0).all() and v1.word_bias == 0
    assert (v2.word_rows.weight != 0).any(1).sum() > 50 and v2.word_bias != 0
    assert sum(p.numel() for p in v1.parameters()) == sum(p.numel() for p in v2.parameters())
    log = (tmp_path / "rows" / "distill" / "log.jsonl").read_text()
    assert '"search/row"' in log


def test_a_fused_query_row_is_the_unit_sum_of_query_and_mean_keyword(run_data):
    page_views = run_data.split.train[:3]
    prompt = run_data.generator("sft2").config.prompt
    columns = run_data.training_columns(
        page_views, prompt, False, lambda requests, _: [("lamp", "red"), (), ("desk",)][: len(requests)]
    )
    builder = run_data.builder(prompt)
    plain = builder.search_prompt(columns, np.arange(3))
    teacher = builder.search_prompt(columns, np.arange(3), keywords=True)
    rows = run_data.featurizer.text_features(["lamp", "red"]).head_rows
    mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
    both = plain.query_head_rows[0].numpy() + mean
    np.testing.assert_allclose(teacher.query_head_rows[0].numpy(), both / np.linalg.norm(both), atol=1e-5)
    np.testing.assert_allclose(teacher.query_head_rows[1].numpy(), plain.query_head_rows[1].numpy(), atol=1e-6)
    assert (teacher.keyword_vectors[1] == 0).all()


def test_runs_that_share_a_cache_think_once(tiny_run, tmp_path, monkeypatch):
    run_data, cache = RunData(tiny_run), tmp_path / "thoughts.sqlite3"
    settings = understand.UnderstandingSettings(producer="market", error=0.1, cache=cache).model_dump()
    asked = []
    plain = understand.run_understand

    def counting(*arguments):
        summary = plain(*arguments)
        asked.append(summary.answered)
        return summary

    monkeypatch.setattr(understand, "run_understand", counting)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        understand.build_understanding(run_data, StageContext("understanding", folder, {}, 0), **settings)
    assert asked[0] > 100 and asked[1] == 0 and cache.is_file()
    first, second = (Thoughts.load(tmp_path / name).table for name in ("one", "two"))
    assert first.equals(second)
