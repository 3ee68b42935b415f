"""A search here beside one at an earlier commit: who answers, what is compared."""

from contextlib import nullcontext

import pytest
from benchmarks.provenance import ROOT
from benchmarks.search_beside import agreement, compare

from benchmarks import search_beside


class Side:
    """Takes twice as long then as now, and leaves the last item out then."""

    def __init__(self, sources, run):
        self.now, self.asked = sources == ROOT / "src", []

    def answer(self, requests):
        self.asked.append([query for query, _ in requests])
        page = [("a", 2.0), ("b", 1.0 + 1e-5 * self.now)]
        pages = [page if self.now or query != "odd" else page[:1] for query, _ in requests]
        return (1.0 if self.now else 2.0) * (3.0 if len(requests) == 1 else 1.0), pages

    def end(self):
        self.asked.append("ended")


def test_both_sides_answer_the_same_requests_and_their_times_are_set_beside_each_other(monkeypatch, tmp_path):
    sides = []
    request = type("Request", (), {"user": None})
    asked = [type("One", (request,), {"query": query})() for query in ("even", "odd", "red", "blue")]
    monkeypatch.setattr(search_beside, "sources_of", lambda commit: nullcontext(tmp_path))
    monkeypatch.setattr(search_beside, "Dataset", type("Dataset", (), {"load": staticmethod(lambda folder: folder)}))
    monkeypatch.setattr(search_beside, "searches", lambda dataset, number: asked[:number])
    monkeypatch.setattr(search_beside, "Side", lambda *given: sides.append(Side(*given)) or sides[-1])
    found = compare("abc", tmp_path, 4)
    assert [side.now for side in sides] == [False, True] and sides[0].asked == sides[1].asked
    assert sides[0].asked == [[one.query for one in asked], *([one.query] for one in asked), sides[0].asked[0], "ended"]
    assert found["single"] == {"then_ms": 6.0, "now_ms": 3.0, "ratio": 0.5} and found["batch"]["ratio"] == 0.5
    assert found["requests"] == 4 and found["same_ids"] == 0.75 and found["largest_difference"] == 1e-5


def test_pages_of_other_items_are_no_measure_of_scores():
    then, now = [("a", 1.0), ("b", 0.5)], [("b", 1.0), ("a", 0.5)]
    assert agreement([(then, now)]) == {"same_ids": 0.0, "largest_difference": 0.0}
    assert agreement([(then, now), (then, [("a", 1.0), ("b", 0.25)])]) == {"same_ids": 0.5, "largest_difference": 0.25}


@pytest.mark.slow
@pytest.mark.long
def test_a_checkout_answers_as_itself(tiny_run, monkeypatch, capfd):
    monkeypatch.setattr(search_beside, "sources_of", lambda commit: nullcontext(ROOT))
    found = compare("HEAD", tiny_run, 3)
    assert found["same_ids"] == 1 and found["largest_difference"] == 0 and found["single"]["then_ms"] > 0
    with pytest.raises(RuntimeError, match="ended with code 1"):
        search_beside.Side(ROOT / "src", tiny_run / "nowhere").answer([("red", None)])
    assert "there is no run folder" in capfd.readouterr().err
