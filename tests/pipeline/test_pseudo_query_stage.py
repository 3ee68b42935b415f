import numpy as np
import pytest

from onesearch.pipeline import pseudo_query_stage
from onesearch.pipeline.final_stage import FinalData
from onesearch.pipeline.pseudo_query_stage import build_pseudo_queries, load_pseudo_queries, softmax, written
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.hits import Hits
from onesearch.search.search_settings import SearchSettings
from onesearch.training.sft_settings import PseudoQuerySettings

ALL = PseudoQuerySettings(searches=90, items=2, temperature=0.5)


@pytest.fixture
def fields(run_data, monkeypatch):
    monkeypatch.setattr(type(run_data), "fields", ("title", "brand"))
    return run_data


def test_softmax_by_hand():
    found = softmax(np.log(np.array([[1.0, 3.0, 9.0], [1.0, 1.0, 1.0]])), np.array([[1, 1, 0], [0, 0, 0]], bool))
    np.testing.assert_allclose(found, [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]])


def test_each_source_gives_its_share_and_no_later_query_is_written(fields):
    texts, source = written(fields, ALL, 0)
    assert [source.count(name) for name in ("titles", "traits")] == [30, 30]
    # the log's two queries, "train 0" and "train 1", share a word: what can be made of them is one of their words
    assert {text for text, one in zip(texts, source, strict=True) if one == "rewritten"} == {"train", "0", "1"}
    with pytest.raises(ValueError, match="all 0"):
        written(fields, PseudoQuerySettings(searches=9, titles=0, traits=0, rewritten=0), 0)


def test_what_the_validation_part_asks_is_left_out(fields, monkeypatch):
    monkeypatch.setattr(pseudo_query_stage, "rewritten_queries", lambda *_: ["valid", "Test ", "", "new"])
    texts, source = written(fields, PseudoQuerySettings(searches=4, titles=0, traits=0), 0)
    assert (texts, source) == (["new"], ["rewritten"])


class Teacher:
    """Ranks items 3 and 1 for every search, the first with a score .5 · log 3 higher."""

    def __init__(self):
        self.asked = []
        self.snapshot = type("S", (), {"popularity": np.zeros(12, np.float32)})

    def candidates(self, requests):
        self.asked.append(requests)
        return requests


def test_the_teacher_has_no_generator_and_its_ranking_is_the_target(fields, tmp_path, monkeypatch):
    teacher, made = Teacher(), []

    def from_parts(parts, stage, search, weights):
        made.append((stage, search))
        return teacher

    def ordered(found, weights, k, popularity):
        scores = np.tile(np.array([0.5 * np.log(3), 0.0], np.float32), (len(found), 1))
        items = np.tile([3, 1], (len(found), 1))
        items[0] = -1  # the first search finds nothing
        return Hits(items.astype(np.int32), scores)

    fitted = []
    monkeypatch.setattr(pseudo_query_stage, "SearchEngine", type("E", (), {"from_parts": from_parts}))
    monkeypatch.setattr(
        pseudo_query_stage, "fit_engine", lambda *a: (fitted.append(a[2]["query"].unique().to_list()), None)
    )
    monkeypatch.setattr(pseudo_query_stage, "ordered", ordered)
    stage = tmp_path / "pseudo"
    stage.mkdir()
    said = build_pseudo_queries(fields, StageContext("pseudo", stage, {}, 5), "sft2", ALL, SearchSettings(), 9, 0)
    assert made == [("sft2", SearchSettings(generator=False))] and fitted == [["valid"]]
    assert said == {"searches": 63, "titles": 30, "traits": 30, "rewritten": 3}

    monkeypatch.setattr(pseudo_query_stage, "need", lambda run, name: run / name)
    requests, targets, weights = load_pseudo_queries(fields, stage)
    assert len(requests) == 62 and set(targets.values.tolist()) == {3, 1} and set(targets.lengths.tolist()) == {2}
    np.testing.assert_allclose(weights[:2], [0.75, 0.25], rtol=1e-6)
    # asked by the shoppers of the log, as each was before a training page view
    again = teacher.asked[0].select(np.arange(1, 63))
    assert requests.query == again.query and requests.user.tolist() == again.user.tolist()
    np.testing.assert_array_equal(requests.clicked, again.clicked)
    assert len({row.tobytes() for row in requests.clicked}) > 5
    # The final engine trains on other page views, and is asked by the same shoppers.
    np.testing.assert_array_equal(load_pseudo_queries(FinalData(fields.run, 0), stage)[0].clicked, requests.clicked)
