import time

from benchmarks.speed.bench_search import BATCH, WARM_UP, latencies, plot_curve, throughputs

from onesearch.data.requests import Requests


def test_systems_answer_each_request_in_turns():
    calls = []
    times = latencies({"a": lambda row: calls.append(("a", row)), "b": lambda row: calls.append(("b", row))}, 7)
    measured = calls[2 * WARM_UP :]
    assert measured == [(name, row) for row in range(7) for name in "ab"]
    assert {name: one.shape for name, one in times.items()} == {"a": (7,), "b": (7,)}


def test_latency_is_the_time_of_the_answer():
    times = latencies({"slow": lambda row: time.sleep(0.01), "fast": lambda row: None}, 3)
    assert times["slow"].min() >= 0.01 > times["fast"].max()


def test_throughput_counts_each_request_once_besides_the_warm_up():
    seen = []
    requests = Requests.anonymous([str(i) for i in range(BATCH + 3)])

    def answer(some):
        seen.append(len(some))
        time.sleep(0.01)

    rate = throughputs({"a": answer}, requests)["a"]
    assert seen == [BATCH, BATCH, 3]
    assert 0 < rate <= (BATCH + 3) / 0.02


def test_plot(tmp_path):
    curve = {"widths": [8, 16], "generator alone": [0.1, 0.2], "engine": [0.2, 0.3], "requests": [50]}
    plot_curve({"run": "demo", "hr10_over_width": curve}, tmp_path / "a" / "b.png")
    assert (tmp_path / "a" / "b.png").read_bytes().startswith(b"\x89PNG")
