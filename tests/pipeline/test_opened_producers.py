"""Who thinks over a run speaks by its training part; a data set has none."""

from contextlib import contextmanager

from onesearch.common.artefact import write_json
from onesearch.pipeline import opened_producers
from onesearch.pipeline.opened_producers import catalogue_words, opened_dataset, opened_producer
from onesearch.pipeline.run_settings import RunSettings


def test_a_run_speaks_by_its_training_part_a_dataset_has_none(data):
    assert opened_dataset(data / "given")[1] is None
    dataset, statistics = opened_dataset(data)
    assert dataset.folder == data / "data"
    assert statistics is not None and sorted(statistics.queries) == ["train 0", "train 1"]


def test_words_are_those_of_the_catalogue_by_clicks_of_the_training_part(data):
    assert catalogue_words(data).keyword("kind 1") == "kind 1"
    assert catalogue_words(data).popularity("kind 1") > catalogue_words(data / "given").popularity("kind 1")


def test_a_log_without_parts_speaks_as_a_whole_and_that_is_said(data, caplog):
    with opened_producer("log-expert", data / "given", {}) as thinker:
        assert thinker.name == "log-expert"
    assert "has no training part: all of its log speaks" in caplog.text


def test_a_runs_stand_in_misunderstands_what_it_did_in_training(data, monkeypatch):
    thinks = {"producer": "market", "error": 0.4}
    config = RunSettings.model_validate({"data": {"market": {}}, "seed": 3, "understanding": thinks})
    write_json(data / "config.json", config.model_dump(mode="json"))
    asked = []

    @contextmanager
    def noted(*given):
        asked.append(given)
        yield "http://127.0.0.1:9/v1"

    monkeypatch.setattr(opened_producers, "stand_in", noted)
    for catalogue in (data, data / "given"):
        with opened_producer("market", catalogue, {}):
            pass
    assert asked == [(data / "data", 0.4, 3, False), (data / "given", 0.15, 0, False)]
