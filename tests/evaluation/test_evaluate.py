import json
from dataclasses import dataclass
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest
import torch

from onesearch.common.ragged import Ragged
from onesearch.data.histories import Targets
from onesearch.data.requests import Requests
from onesearch.evaluation.evaluate import (
    MeasureSettings,
    build_report,
    evaluate,
    measure,
    pool_reports,
    valid_sid_share,
)
from onesearch.index.sid_index import SidIndex
from onesearch.search.hits import Hits

CONFIG = MeasureSettings(k=(1, 3), resamples=200, flips=500, batch=2)


@dataclass
class Fixed:
    """Gives request i (its query is its number) the i-th row."""

    rows: list

    def rank(self, requests, k):
        items = np.array([(self.rows[int(query)] + [-1] * k)[:k] for query in requests.query], np.int32)
        return Hits(items, np.where(items < 0, -np.inf, -np.arange(k)).astype(np.float32))


REQUESTS = Requests.anonymous(["0", "1", "2", "3"])
SHOWN = Ragged.from_lists([[], [], [], []])
TARGETS = Targets(SHOWN, Ragged.from_lists([[5], [6, 7], [], [8]]), Ragged.from_lists([[5], [], [], []]))
GOOD, BAD = Fixed([[5, 1, 2], [1, 6, 7], [1], [1, 2, 8]]), Fixed([[1, 5, 2], [1, 2, 6], [1], [1, 2, 3]])


def run(**changes):
    arguments = {
        "slices": {"kind": np.array(["a", "a", "a", "b"], dtype=object)},
        "extra": lambda ranked: {"true/first": ranked[:, 0].astype(np.float32)},
        "compare": [("good", "bad")],
        "config": CONFIG,
    } | changes
    return evaluate({"good": GOOD, "bad": BAD}, REQUESTS, TARGETS, **arguments)


def test_figures_equal_the_arithmetic_done_by_hand():
    report = run()
    assert report["good", "click/HR@1"].mean == pytest.approx(1 / 3)
    assert report["good", "click/HR@3"].mean == pytest.approx(1)
    assert report["good", "click/MRR@3"].mean == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert report["bad", "click/HR@3"].mean == pytest.approx(2 / 3)
    assert report["bad", "click/Recall@3"].mean == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert report["bad", "click/NDCG@3"].n == 3 and report["bad", "order/HR@1"].n == 1
    assert report["good", "true/first"].mean == pytest.approx((5 + 1 + 1 + 1) / 4)
    estimate = report["good", "click/MRR@3"]
    assert estimate.low <= estimate.mean <= estimate.high


def test_comparisons_overall_and_within_slices():
    report = run()
    overall = report.comparison("good", "bad", "click/HR@3")
    assert (overall.wins, overall.ties, overall.losses, overall.n) == (1, 2, 0, 3)
    within = report.comparison("good", "bad", "click/HR@3", ("kind", "b"))
    assert within.difference == pytest.approx(1) and within.n == 1
    assert report.slices["kind"]["a"].methods["good"]["click/HR@1"].mean == pytest.approx(1 / 2)
    with pytest.raises(KeyError, match="compare"):
        report.comparison("bad", "good", "click/HR@3")


def test_sizes_that_do_not_match_are_refused_with_the_fix():
    with pytest.raises(ValueError, match=r"targets.clicked has 3 rows but there are 4 requests; build both"):
        evaluate({"good": GOOD}, REQUESTS, Targets(SHOWN, Ragged.from_lists([[1]] * 3), TARGETS.ordered), config=CONFIG)
    with pytest.raises(ValueError, match=r"targets.ordered has 3 rows"):
        evaluate({"good": GOOD}, REQUESTS, Targets(SHOWN, TARGETS.clicked, Ragged.from_lists([[1]] * 3)), config=CONFIG)
    with pytest.raises(ValueError, match=r"ranked items of method 'good' has 3 rows but there are 4 requests"):
        measure([("good", np.zeros((3, 3), np.int32), 1.0)], TARGETS, config=CONFIG)
    with pytest.raises(ValueError, match="slice 'kind'"):
        run(slices={"kind": np.array(["a"])})
    with pytest.raises(ValueError, match=r"true/x.*good"):
        run(extra={"good": {"true/x": np.zeros(3)}})
    with pytest.raises(ValueError, match=r"'best'.*good, bad"):
        run(compare=[("best", "bad")])
    with pytest.raises(ValueError, match="pad missing hits"):

        class Short:
            def rank(self, requests, k):
                return Hits(np.zeros((len(requests), 1), np.int32), np.zeros((len(requests), 1), np.float32))

        evaluate({"short": Short()}, REQUESTS, TARGETS, config=CONFIG)


def test_files_of_a_report(tmp_path):
    report = run(notes={"width": 32}, extra={"good": {"true/x": np.ones(4)}, "bad": {"true/x": np.zeros(4)}})
    report.save(tmp_path)
    value = json.loads((tmp_path / "report.json").read_text())
    assert value["schema"] == 1 and value["requests"] == 4 and value["notes"] == {"width": 32}
    assert value["methods"]["good"]["true/x"]["mean"] == 1
    assert value["slices"]["kind"]["b"]["methods"]["good"]["order/HR@1"]["mean"] is None  # no order there: not NaN
    text = (tmp_path / "report.md").read_text()
    assert "| good | 1.0000 [" in text and "By kind" in text and "good − bad" in text
    assert (tmp_path / "methods.png").read_bytes()[:4] == b"\x89PNG" == (tmp_path / "slice_kind.png").read_bytes()[:4]
    assert pl.read_parquet(tmp_path / "values.parquet")["good|click/HR@3"].to_list()[:2] == [1, 1]


def test_pooling_seeds_concatenates_or_averages():
    first, second = run(), run()
    joined = pool_reports([first, second], [("good", "bad")], config=CONFIG)
    assert joined.requests == 8 and joined.slices["kind"]["b"].requests == 2
    averaged = pool_reports([first, second], same_requests=True, config=CONFIG)
    assert averaged.requests == 4
    for report in (joined, averaged):
        assert report["good", "click/MRR@3"].mean == pytest.approx(first["good", "click/MRR@3"].mean)


def test_the_same_seed_gives_the_same_report():
    one, two = run(), run()
    assert one.to_json()["methods"] == two.to_json()["methods"]
    assert one.comparisons == two.comparisons
    assert build_report(one.values, one.labels, config=CONFIG).methods == one.methods


class SpellsOut:
    """Stands for a generator whose codebook head writes the given SID for each request."""

    levels, anchored, begin = 3, False, torch.zeros(1)
    config = SimpleNamespace(prompt=SimpleNamespace(clicked_for_query=0))

    def __init__(self, sids):
        self.sids = torch.tensor(sids)

    def encode(self, rows):
        return rows

    def start(self, memory, beams):
        return memory

    def token_embedding(self, level, codes, vectors=None):
        return None

    def step(self, state, embeds, mask):
        return state

    def codebook_logits(self, level, rows):
        return torch.nn.functional.one_hot(self.sids[rows, level], 4)[:, None].float()


def test_valid_sids_are_those_of_items():
    index = SidIndex.build(np.array([[0, 0, 0], [1, 2, 3], [3, 3, 3]]), np.zeros((3, 2), np.float32), (4, 4, 4))
    written = [[0, 0, 0], [1, 2, 2], [1, 2, 3], [2, 0, 0], [3, 3, 3]]
    builder = SimpleNamespace(search_prompt=lambda inputs, rows: torch.tensor(rows))
    engine = Mock(generator=SpellsOut(written), snapshot=SimpleNamespace(index=index, builder=builder))
    requests = Requests.anonymous(["a"] * 5)
    assert valid_sid_share(engine, requests, most=9, batch=2) == pytest.approx(3 / 5)
    assert valid_sid_share(engine, requests, most=4, batch=2) == pytest.approx(2 / 4)
    assert np.isnan(valid_sid_share(engine, requests, most=0))
