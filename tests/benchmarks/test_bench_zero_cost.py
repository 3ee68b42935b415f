import time

from benchmarks.speed.bench_zero_cost import latencies_in_turns


def test_each_system_is_first_equally_often_for_every_request():
    calls = []
    times = latencies_in_turns([lambda row: calls.append(("a", row)), lambda row: calls.append(("b", row))], 3, 2)
    assert times.shape == (2, 2, 3)
    first = calls[::2]
    assert first == [("a", 0), ("b", 1), ("a", 2), ("b", 0), ("a", 1), ("b", 2)]
    assert [row for _, row in calls] == [0, 0, 1, 1, 2, 2] * 2


def test_times_belong_to_their_system_whichever_is_first():
    times = latencies_in_turns([lambda row: time.sleep(0.01), lambda row: None], 2, 2)
    assert times[:, 0].min() >= 0.01 > times[:, 1].max()
