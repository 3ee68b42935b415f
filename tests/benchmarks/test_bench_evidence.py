import time

import pytest
from benchmarks.speed.bench_evidence import PARTS, PartClock, evidence_cost, without_evidence

from onesearch.data.requests import Requests
from small_engine import EVIDENCE, small_engine

REQUESTS = Requests.anonymous(["red tent", "lamp", "boots"])


def busy(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_time_inside_of_another_part_counts_once():
    clock = PartClock()
    inner = clock.timed("bm25", lambda: busy(0.03))
    clock.timed("evidence", lambda: (busy(0.01), inner()))()
    assert 0.03 <= clock.seconds["bm25"] < 0.06 and 0.01 <= clock.seconds["evidence"] < 0.03


def test_every_part_has_a_share_of_both_engines():
    found = evidence_cost(small_engine(model=EVIDENCE), REQUESTS, 2, batches=(1, 2))
    assert found["requests"] == 3 and 0 < found["evidence_items"] <= 9
    for size in (1, 2):
        assert 0 < found[f"ratio_{size}_low"] <= found[f"ratio_{size}"] <= found[f"ratio_{size}_high"]
        for name in ("with", "without"):
            parts = [found[f"{part}_{name}_ms_{size}"] for part in PARTS]
            assert sum(parts) <= found[f"{name}_ms_{size}"] + 0.1
            assert all(parts[1:]) and (parts[0] > 0) == (name == "with"), "only one of them looks for evidence"


def test_the_other_engine_reads_no_evidence():
    engine = small_engine(model=EVIDENCE)
    plain = without_evidence(engine)
    inputs = plain.prompt_inputs(REQUESTS, plain.snapshot)
    assert inputs.evidence is None and plain.generator is engine.generator
    with pytest.raises(ValueError, match="no evidence"):
        evidence_cost(small_engine(), REQUESTS, 2)
