"""What a report says in words, by arithmetic done by hand, and its charts."""

from dataclasses import replace
from itertools import combinations, product

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from onesearch.evaluation.charts import COLOURS, MARKERS, method_styles, panels
from onesearch.evaluation.evaluate import MeasureSettings, build_report
from onesearch.evaluation.verdict import Question, give_verdict

QUESTION = Question("engine", ("words", "clicks", "not measured"), "engine without")


def values(n=40, **methods):
    """Metric "m" of each method: as given for the first requests, then 0 for all."""
    return {
        name.replace("_", " "): {"m": np.array([*row, *[0] * (n - len(row))], np.float32)}
        for name, row in methods.items()
    }


def test_the_strongest_baseline_is_what_the_engine_is_held_against():
    found = give_verdict(
        values(engine=[1] * 20, words=[1] * 5, clicks=[0] * 10 + [1] * 6, engine_without=[1] * 19),
        ["m"],
        QUESTION,
        2000,
    )
    (baseline,), (control,) = found.baseline, found.control
    assert (baseline.against, control.against) == ("clicks", "engine without")
    assert baseline.difference == pytest.approx((20 - 6) / 40) and baseline.relation == "above"
    assert control.difference == pytest.approx(1 / 40) and control.p == 1 and control.relation == "undecided"
    assert found.best == {"m": ("engine", 0.5)}
    lines = found.lines()
    assert "above in 1 of 1 metrics, below in 0. The engine is the better search here." in lines[0]
    assert "in 1 there are not enough test requests to tell. On these requests nothing shows" in lines[1]
    (row,) = [line for line in lines if line.startswith("| m |")]
    assert row.startswith("| m | engine 0.5000 | clicks | +0.3500 [") and row.count("**above**") == 1
    assert row.endswith("not enough test requests to tell |")


def test_a_better_baseline_and_a_better_control_are_said():
    better = [1] * 20
    found = give_verdict(values(engine=[0], words=better, clicks=[1], engine_without=better), ["m"], QUESTION, 2000)
    assert [one.relation for one in (*found.baseline, *found.control)] == ["below", "below"]
    first, second = found.lines()[:2]
    assert "The baseline is the better search" in first and "`search.generator=false`" in second


def test_what_was_not_measured_is_left_out():
    one = values(engine=[1], engine_without=[1])
    one["engine"]["order"] = one["engine without"]["order"] = np.full(40, np.nan, np.float32)
    found = give_verdict(one, ["m", "order"], QUESTION, 100)
    assert found.baseline == [] and list(found.best) == ["m"] and "nothing to compare" in found.lines()[0]


def test_a_report_has_title_verdict_legend_and_pictures(tmp_path):
    measured = {name: {f"click/{m}@10": row["m"] for m in ("HR", "MRR")} for name, row in QUICK.items()}
    report = build_report(measured, {"kind": np.array(["a", "b"] * 20)}, config=MeasureSettings(resamples=20, flips=50))
    legend = {"words": "common words", "ms per request": "of a slow machine"}
    report = replace(report, title="shop: measured", legend=legend, question=QUESTION)
    report.save(tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# shop: measured\n") and "## Verdict\n\n- **engine and the strongest baseline**" in text
    assert "- **ms per request**: of a slow machine\n" in text
    assert "- *words*: common words\n" in text and "- **click/HR@10**: of the clicked items, share of requests" in text
    for name in ("methods", "slice_kind"):
        assert f"![{name}]({name}.png)" in text and (tmp_path / f"{name}.png").is_file()
    assert "## By kind" not in report.markdown(by_group=False)


QUICK = values(engine=[1] * 4, words=[1] * 2, clicks=[1], engine_without=[1] * 3)


# -- charts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 9, 16, 64])
def test_no_two_methods_look_alike(count):
    styles = method_styles([f"method {number}" for number in range(count)])
    assert len(set(styles.values())) == count == len(styles)
    assert len({colour for colour, _ in list(styles.values())[: len(COLOURS)]}) == min(count, len(COLOURS))


# Machado, Oliveira and Fernandes (2009): how linear RGB looks without one of the three kinds of cones.
SIGHTS = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_differ_to_every_eye(sight):
    linear = np.array([to_rgb(colour) for colour in COLOURS]) ** 2.2
    seen = np.clip(linear @ np.array(SIGHTS[sight]).T, 0, 1) ** (1 / 2.2)
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 0.1


def test_every_method_has_a_line_in_every_panel():
    rows = np.array([[0.5, 0.4, 0.6]] * 7)
    figure = panels([f"metric {n}" for n in range(7)], {"a": rows, "b": rows - 0.1, "c": rows * np.nan}, "title")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert len(shown) == 7
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["a", "b", "c"]  # shared by its row
    for axes in shown:
        points = [line for line in axes.lines if line.get_linestyle() == "None"]
        assert len({(line.get_color(), line.get_marker()) for line in points}) == 3
        assert points[0].get_ydata()[0] > points[1].get_ydata()[0]  # the first one on top
    assert len(list(product(MARKERS, COLOURS))) == 64
