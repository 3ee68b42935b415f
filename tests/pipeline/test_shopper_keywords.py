"""Step 3 by a language model: who is asked, and when the teacher reads the answer."""

from pathlib import Path

import pytest

from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.shopper_keywords import (
    history_texts,
    load_calibrated,
    save_calibrated,
    shoppers_to_calibrate,
)
from onesearch.pipeline.teacher import teacher_keywords
from onesearch.pipeline.understanding_stage import UnderstandingSettings
from onesearch.training.self_distillation import DistillationSettings
from onesearch.understanding.calibration_worker import shopper_key
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_table import Thoughts

from .conftest import TRAIN


def thought(query: str, kind: str, *keywords: str) -> Thought:
    analysis = Analysis(intent="merchandise", query_type=kind)
    return Thought(query=query, analysis=analysis, keywords=keywords, producer="p", version="1")


@pytest.fixture
def thoughts() -> Thoughts:
    return Thoughts.from_thoughts([thought("train 0", "question", "things"), thought("train 1", "negation", "kind 0")])


def test_complex_queries_of_training_shoppers_with_a_history_are_drawn(run_data: RunData, thoughts: Thoughts):
    every = shoppers_to_calibrate(run_data, thoughts, 1000, 3)
    # Three shoppers; the first page view of each has no history, and some later ones share theirs.
    requests = run_data.requests(run_data.split.train)
    pairs = list(zip(requests.query, history_texts(requests, run_data.dataset.items["title"].to_list()), strict=True))
    assert sum(not history.queries for _, history in pairs) == 3 and len(pairs) == TRAIN
    assert set(every) == {shopper_key(query, history) for query, history in pairs if history.queries}
    assert {query for query, _ in every} == {"train 0", "train 1"}
    for key, (one, history) in every.items():
        assert key == shopper_key(one.query, history) and history.queries and history.items
    assert list(shoppers_to_calibrate(run_data, thoughts, 7, 3)) == list(every)[:7]
    assert list(shoppers_to_calibrate(run_data, thoughts, 7, 4)) != list(every)[:7]
    plain = Thoughts.from_thoughts([thought("train 0", "plain", "things"), thought("train 1", "question")])
    assert shoppers_to_calibrate(run_data, plain, 1000, 3) == {}


def test_the_teacher_reads_the_answer_where_there_is_one_and_else_the_rule(
    run_data: RunData, thoughts: Thoughts, tmp_path: Path
):
    items = run_data.dataset.items
    words, titles = CatalogueVocabulary.from_items(items), items["title"].to_list()
    asked = list(shoppers_to_calibrate(run_data, thoughts, 9, 3))
    save_calibrated({**dict.fromkeys(asked[:8], ("acme",)), asked[8]: ()}, tmp_path)
    answers = load_calibrated(tmp_path)
    assert len(answers) == 9 and load_calibrated(tmp_path / "elsewhere") == {}
    page_views = run_data.split.train
    requests, clicked = run_data.requests(page_views), run_data.targets(page_views).clicked

    def read(calibrated, **settings):
        settings = DistillationSettings(personal=True, **settings)
        return teacher_keywords(thoughts, words, calibrated, titles, requests, clicked, settings, 0)

    by_rule, found = read({}), read(answers)
    keys = [shopper_key(*pair) for pair in zip(requests.query, history_texts(requests, titles), strict=True)]
    answered = set(asked[:8])
    # An empty answer is none: the rule speaks for that shopper.
    assert found == [("acme",) if key in answered else rule for key, rule in zip(keys, by_rule, strict=True)]
    assert ("acme",) not in by_rule and found.count(("acme",)) >= 8
    assert read(answers, shuffle=True) == read({}, shuffle=True)


def test_only_a_language_model_calibrates():
    assert UnderstandingSettings(producer="llm", calibrate=3).calibrate == 3
    with pytest.raises(ValueError, match="calibrate asks a language model, and producer is log-expert"):
        UnderstandingSettings(producer="log-expert", calibrate=3)
