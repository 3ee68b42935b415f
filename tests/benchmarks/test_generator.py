"""The generator's study: its grid without a run, pooled tests by hand, and the page of a complete JSON made up here."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from benchmarks.generator_page import HR, MRR, Ahead, NotBelow, Reach, Study, Valid
from benchmarks.grid import CELL, VALUES, Cell, DataSet
from benchmarks.request_values import save_values
from benchmarks.result_files import ResultFiles

from benchmarks import generator_grid as study
from benchmarks import generator_page, readme_table
from onesearch.common.artefact import read_json, write_json

ENGINE, WITHOUT = "engine", "engine without generator"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "generator.head.md").write_text("# Head\n")
    return ResultFiles("generator", tmp_path / "results")


def made_cell(data, seed, cell, methods, requests=10):
    """What a cell's file says, as far as pages read it."""
    rows = {
        method: {
            metric: {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "n": requests} for metric in study.TESTED
        }
        for method, mean in methods.items()
    }
    about = {"what": cell, "command": "python -m ...", "config": f"configs/{data}.yaml", "sets": ["seed=1"]}
    made = {"commit": "abc", "date": "2026-11-28", "machine": "2 cores", "level": 0.95, "sizes": {"items": 1234}}
    trained = {"epochs": 3.0, "samples": 999, "seconds": {"sft3": 600.0, "report": 60.0}, "valid_sid_share": 0.95}
    curve = [[100, 0.5, 0.3], [200, 0.6, 0.4]]
    return {
        **{
            "data": data,
            "seed": seed,
            "cell": cell,
            "requests": requests,
            "methods": rows,
            "slices": {},
            "curve": curve,
        },
        **{"milliseconds": dict.fromkeys(methods, 1.5), **about, **made, **trained},
    }


def put(grid, name, seed, cell, values):
    """A finished cell with values of its requests, {method: {metric: [n]}}."""
    folder = grid.folder(name, seed, cell)
    methods = {method: float(np.mean(rows[HR])) for method, rows in values.items()}
    requests = len(next(iter(values.values()))[HR])
    write_json(folder / CELL, made_cell(name, seed, cell, methods, requests))
    save_values(folder / VALUES, values, {})


# -- the grid ---------------------------------------------------------------------------------------------------------


def test_flagships_come_first_one_per_set_before_further_seeds(tmp_path):
    order = [(name, seed, cell.name) for name, seed, cell in study.GeneratorGrid(tmp_path).cells()]
    flagships = [one for one in order if one[2] == "flagship"]
    assert order[: len(flagships)] == flagships
    assert [name for name, _, _ in flagships[:4]] == ["homedepot", "market", "toys", "bestbuy"]
    assert [(name, seed) for name, seed, _ in flagships[4:]] == [
        (name, seed)
        for place in (1, 2)
        for name, seed in (("homedepot", 11 + place), ("market", 11 + place), ("bestbuy", 1 + place))
    ]
    trials = order[len(flagships) :]
    assert {one[:2] for one in trials} == {("toys", 0), ("bestbuy", 1)}
    assert [cell for _, _, cell in trials[:4]] == ["short", "short", "paper-long", "paper-long"]
    only = [f"{name}-{seed}/{cell.name}" for name, seed, cell in study.GeneratorGrid(tmp_path).cells("toys-0/no-")]
    assert only and all(name.startswith("toys-0/no-") for name in only)


def test_what_a_configuration_has_already_is_no_trial(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "a.yaml").write_text("data: {market: {items: 200}}\nmodel: {item_memory: true}\n")
    more = ("model.prompt.evidence.clicked=5",)
    monkeypatch.setattr(study, "ROOT", tmp_path)
    sets = {"a": DataSet("configs/a.yaml", (study.FLAGSHIP, *study.TRIALS), seeds=(7,))}
    names = [cell.name for _, _, cell in study.GeneratorGrid(tmp_path / "runs", more, sets=sets).cells()]
    assert {"no-evidence", "no-memory", "free-codes", "row-items", "half", "double", "paper", "paper-long"} <= set(
        names
    )
    # Off already; and the only kind that is on is all evidence there is.
    assert not {"memory", "no-free-codes", "sid-items", "no-lexical", "no-clicked"} & set(names)
    # Trials change what the flagship ran with, whatever the file says later.
    run = tmp_path / "runs" / "a-7" / "flagship"
    write_json(run / "config.json", {"data": {"market": {"items": 200}}, "model": {"free_codes": True}})
    names = [cell.name for _, _, cell in study.GeneratorGrid(tmp_path / "runs", sets=sets).cells()]
    assert {"memory", "no-free-codes"} <= set(names) and not {"no-memory", "free-codes", "no-evidence"} & set(names)


def test_the_paper_form_has_every_part_of_ours_off():
    from onesearch.pipeline.config_files import load_settings
    from onesearch.pipeline.run_settings import RunSettings

    for data in study.SETS.values():
        made = load_settings(RunSettings, study.ROOT / data.config, study.PAPER_FORM)
        model, prompt = made.model, made.model.prompt
        assert not any((model.anchored, model.legal_softmax, model.item_score, model.free_codes, model.item_memory))
        assert not prompt.evidence.any and not prompt.query_vector and not prompt.has_item_tokens
        assert prompt.fill == "missing" and not made.sft3.held_out_vectors and not made.sft3.pseudo_share
        assert not made.pseudo.searches and not model.word_rows


def test_trials_are_as_long_as_their_minutes_allow_at_the_flagships_speed(tmp_path):
    grid = study.GeneratorGrid(tmp_path)
    flagship = grid.folder("toys", 0, "flagship")
    write_json(flagship / "config.json", {"data": {"market": {"items": 200}}, "sft3": {"epochs": 6}})
    write_json(flagship / "sft3" / "manifest.json", {"seconds": 100.0})
    # Killed in the middle: the manifest counts from the last start on, the log from the first.
    (flagship / "sft3" / "log.jsonl").write_text('{"step": 20, "seconds": 5400.0}\n{"step": 20, "valid/hr10": 0.5}\n')
    assert study.stage_seconds(flagship / "sft3") == 5400
    for times, epochs in ((1, "1"), (0.5, "0.5"), (2, "2")):
        assert f"sft3.epochs={epochs}" in grid._sets("toys", 0, Cell("x", "", times=times))
    (flagship / "sft3" / "log.jsonl").unlink()
    assert {"seed=0", "sft3.epochs=6", "evaluation.test_requests=5000"} <= set(grid._sets("toys", 0, Cell("x", "")))


def test_a_trial_of_a_flagship_that_is_gone_is_as_long_as_its_record_says(tmp_path, files):
    grid = study.GeneratorGrid(tmp_path, files=files)
    assert grid.after("toys", 0, Cell("x", "")) == "flagship"
    record = made_cell("toys", 0, "flagship", {ENGINE: 0.5}) | {"epochs": 1.5, "seconds": {"sft3": 1800.0}}
    files.write_figures({"cells": {"toys-0/flagship": record}})
    assert grid.after("toys", 0, Cell("x", "")) == "" and grid.after("bestbuy", 1, Cell("x", "")) == "flagship"
    made = {"seed=0", "model.item_score=false", "sft3.epochs=0.75", "evaluation.test_requests=5000"}
    assert set(grid._sets("toys", 0, Cell("x", "", ("model.item_score=false",)))) == made


def test_trials_wait_for_their_flagship_and_a_failing_cell_does_not_stop_the_others(
    tmp_path, files, monkeypatch, capsys
):
    grid = study.GeneratorGrid(tmp_path, files=files, sets={name: study.SETS[name] for name in ("toys", "bestbuy")})
    made = []

    def train(self, name, seed, cell):
        if (name, cell.name) == ("toys", "flagship"):
            raise ValueError("no such file")
        made.append((name, seed, cell.name))
        write_json(self.folder(name, seed, cell.name) / CELL, {})

    monkeypatch.setattr(study.GeneratorGrid, "_train", train)
    monkeypatch.setattr(study.GeneratorGrid, "_measure", lambda *_: None)
    with pytest.raises(SystemExit, match="failed: toys-0/flagship"):
        grid.run()
    assert made[:3] == [("bestbuy", seed, "flagship") for seed in (1, 2, 3)]
    assert {name for name, _, _ in made} == {"bestbuy"}
    out = capsys.readouterr()
    assert "toys-0/paper-long waits for flagship" in out.out and "no such file" in out.err


# -- pooled tests -----------------------------------------------------------------------------------------------------


def exact(differences):
    """Two-sided p of the mean over all sign vectors."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float(np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-9))


@pytest.mark.parametrize("same", [True, False])
def test_tests_are_pooled_over_seeds_by_hand(tmp_path, files, same):
    sets = {"toys": DataSet("configs/toys.yaml", (study.FLAGSHIP,), seeds=(1, 2), same_requests=same)}
    grid = study.GeneratorGrid(tmp_path, files=files, sets=sets)
    first, second = np.array([1, 1, 0, 1, 0, 1, 1, 0.0]), np.array([1, 1, 1, 1, 0, 1, 0, 0.0])
    without = np.array([0, 1, 0, 0, 0, 0, 0, 0.0])
    for seed, hits in ((1, first), (2, second)):
        put(grid, "toys", seed, "flagship", {ENGINE: {HR: hits}, WITHOUT: {HR: without}})
    grid.save()
    found = files.figures()
    (test,) = found["tests"][f"toys: flagship/{ENGINE} - flagship/{WITHOUT}"]["tests"]
    # The same requests: a request's difference is its mean over seeds. Samples of their own: one after the other.
    a, b = first - without, second - without
    differences = (a + b) / 2 if same else np.concatenate([a, b])
    assert test["difference"] == pytest.approx(differences.mean()) and test["n"] == len(differences)
    assert test["p"] == pytest.approx(exact(differences), abs=0.015)
    if not same:
        samples = (np.concatenate([first, second]), np.concatenate([without, without]))
        other = scipy.stats.permutation_test(
            samples, lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf
        )
        assert test["p"] == pytest.approx(other.pvalue, abs=0.015)
    pooled = found["pooled"]["toys"]
    assert pooled["seeds"] == [1, 2] and pooled["requests"] == len(differences)
    assert pooled["methods"][ENGINE][HR]["mean"] == pytest.approx((first.mean() + second.mean()) / 2)
    assert found["open"] == {}


def test_what_was_saved_stays_when_the_runs_are_gone(tmp_path, files):
    sets = {"toys": DataSet("configs/toys.yaml", (study.FLAGSHIP, Cell("short", "")), seeds=(1, 2))}
    grid = study.GeneratorGrid(tmp_path / "one", files=files, sets=sets)
    put(grid, "toys", 1, "flagship", {ENGINE: {HR: np.ones(4)}, WITHOUT: {HR: np.zeros(4)}})
    grid.save()
    before = files.figures()
    assert set(before["open"]) == {"toys-2/flagship", "toys-1/short"}
    study.GeneratorGrid(tmp_path / "two", files=files, sets=sets).save()
    assert files.figures() == before


# -- the page ---------------------------------------------------------------------------------------------------------


def paired(difference, p, metric=HR):
    rest = {"slice": None, "low": difference - 0.01, "high": difference + 0.01}
    return {"metric": metric, "difference": difference, "p": p, **rest}


def judged(files, goal, tests=(), methods=None):
    """What a goal says of paired tests (engine against without) and pooled means."""
    pair = f"{goal.data}: flagship/{ENGINE} - flagship/{WITHOUT}"
    means = {method: {metric: {"mean": one} for metric, one in row.items()} for method, row in (methods or {}).items()}
    pooled = {goal.data: {"seeds": [1], "requests": 1, "methods": means}}
    files.write_figures({"tests": {pair: {"seeds": [1], "tests": list(tests)}}, "pooled": pooled})
    ((_, holds, _),) = goal.rows(Study(files))
    return {"yes": True, "**no**": False, "not measured": None}[holds]


def test_goals_judge_by_the_figures(files):
    gain = Ahead("toys", ENGINE, (WITHOUT,), by=0.01, in_one=True, sure=1)
    assert judged(files, gain, [paired(0.02, 0.01), paired(0.001, 0.5, MRR)]) is True
    assert judged(files, gain, [paired(0.02, 0.06), paired(0.009, 0.01, MRR)]) is False  # sure where it is too small
    assert judged(files, gain, [paired(0.02, 0.01)]) is None
    both = Ahead("toys", ENGINE, (WITHOUT,), sure=1)
    assert judged(files, both, [paired(0.001, 0.5), paired(0.002, 0.04, MRR)]) is True
    assert judged(files, both, [paired(0.001, 0.5), paired(0.002, 0.06, MRR)]) is False
    assert judged(files, both, [paired(-0.001, 0.5), paired(0.02, 0.001, MRR)]) is False
    assert judged(files, both, [paired(0.0, 1.0), paired(0.02, 0.001, MRR)]) is False  # level is not ahead
    below = NotBelow("toys", ENGINE, WITHOUT)
    assert judged(files, below, [paired(-0.001, 0.5), paired(0.002, 0.04, MRR)]) is True
    assert judged(files, below, [paired(0.001, 0.5), paired(-0.002, 0.04, MRR)]) is False
    reach = Reach("toys", ENGINE, {HR: 0.1, MRR: 0.05})
    assert judged(files, reach, methods={ENGINE: {HR: 0.1, MRR: 0.06}}) is True
    assert judged(files, reach, methods={ENGINE: {HR: 0.1, MRR: 0.04}}) is False
    assert judged(files, reach, methods={ENGINE: {HR: 0.1}}) is None
    files.write_figures({"cells": {"toys-0/paper": made_cell("toys", 0, "paper", {ENGINE: 0.5})}})
    assert [Valid("toys", "paper", least).rows(Study(files))[0][1] for least in (0.95, 0.96)] == ["yes", "**no**"]
    assert Valid("toys", "other", 0.9).rows(Study(files))[0][1] == "not measured"


def test_the_page_of_nothing_says_what_is_missing(tmp_path, files):
    study.GeneratorGrid(tmp_path / "runs", files=files).save()
    generator_page.render(files)
    page = files.page.read_text()
    assert "- `toys-0/flagship`: as shipped" in page and "- `homedepot-13/flagship`: as shipped" in page
    assert "| yes |" not in page and "| **no** |" not in page and page.count("| not measured |") >= 20
    assert not files.charts.exists()


def test_the_page_of_a_complete_study(files):
    """Every method of every set has a figure of its own, so that a wrong place would be seen."""
    cells, tests, pooled = {}, {}, {}
    for number, (data, found) in enumerate(study.SETS.items()):
        methods = {method: round(0.1 * (number + 1) + 0.001 * place, 4) for place, method in enumerate(study.METHODS)}
        for seed in found.seeds:
            cells[f"{data}-{seed}/flagship"] = made_cell(data, seed, "flagship", methods)
        for cell in found.cells[1:]:
            cells[f"{data}-{found.seeds[0]}/{cell.name}"] = made_cell(data, found.seeds[0], cell.name, methods)
        for a, b in study.GeneratorGrid(files.folder, files=files).pairs(found):
            made = [
                paired(methods[a.split("/")[1]] - methods[b.split("/")[1]], 0.03, metric) for metric in study.TESTED
            ]
            tests[f"{data}: {a} - {b}"] = {"seeds": list(found.seeds), "tests": made}
        means = cells[f"{data}-{found.seeds[0]}/flagship"]["methods"]
        pooled[data] = {"seeds": list(found.seeds), "requests": 30, "methods": means}
    files.write_figures({"cells": cells, "tests": tests, "pooled": pooled, "open": {}})
    generator_page.render(files)
    page = files.page.read_text()
    assert "not measured" not in page and "Not run yet" not in page and "None" not in page and "nan" not in page
    # Toys is the third set, the engine the last of twelve methods; its difference from the one before the last but one.
    assert "| engine | 0.3110 [0.3010, 0.3210] |" in page
    assert "| engine − engine without generator | +0.0020 [-0.0080, +0.0120], p = 0.0300 |" in page
    assert "| TIGER, published | 0.0521 | 0.0371 | 0.0712 | 0.0432 |" in page and "| engine, here | 0.3110 |" in page
    assert "valid SIDs without constraint ≥ 90%, cell `paper-long` | yes | 95.0% | 0 |" in page
    # Without one of its seeds Best Buy is judged all the same, and the page says so.
    pooled["bestbuy"]["seeds"] = [1, 3]
    files.write_figures(
        {"cells": cells, "tests": tests, "pooled": pooled, "open": {"bestbuy-2/flagship": "as shipped"}}
    )
    generator_page.render(files)
    part = files.page.read_text()
    assert "| Best Buy | engine above dense in HR@10 and MRR@10 | yes, so far |" in part
    assert "Seeds 1, 3 (still to come: 2)" in part and "Not run yet:\n\n- `bestbuy-2/flagship`: as shipped" in part
    # Home Depot's engine is above .755 nowhere, Best Buy's baselines are below its engine.
    assert (
        "| Home Depot | one model: HR@10 ≥ 0.755, MRR@10 ≥ 0.49 | **no** | HR@10 0.1080, MRR@10 0.1080 | 11, 12, 13 |"
        in page
    )
    assert "| Best Buy | engine above dense in HR@10 and MRR@10 | yes |" in page
    assert (
        "## Toys: one setting changed" in page
        and "(`no-evidence`) | 3 | 11 | 95.0% | 0.3070 (**+0.0000 ± 0.0100**) |" in page
    )
    assert "so far" not in page and "still to come" not in page
    assert sorted(path.name for path in files.charts.iterdir()) == [f"{data}.png" for data in sorted(study.SETS)]


def test_the_readme_shows_the_controls_of_a_set_that_the_study_has(files, monkeypatch):
    methods = {"BM25": 0.2, "most clicked": 0.3, "cascade": 0.4, "generator alone": 0.1, "one model": 0.5}
    methods |= {ENGINE: 0.6, WITHOUT: 0.7, "engine without BM25": 0.65}
    cells = {f"bestbuy-{seed}/flagship": made_cell("bestbuy", seed, "flagship", methods) for seed in (2, 1)}
    files.write_figures({"cells": cells})
    monkeypatch.setattr(readme_table.generator_grid, "FILES", files)
    part, rest = readme_table.table().split("**Home Depot**")
    rows = [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| ")][1:]
    assert rows == ["most clicked", "cascade", "generator alone", "one model", WITHOUT, ENGINE]
    assert "1,234 items, 10 test page views (seed 1)" in part
    assert "| engine without generator | **0.700 (0.690–0.710)** |" in part
    assert "| BM25 x popularity |" in rest  # what the study has not stays as V1's study left it


def test_the_first_figures_are_read_back_as_they_stand():
    """A page rendered today from the repository's own figures names each set that its JSON has."""
    figures = replace(study.FILES).figures()
    page = study.FILES.page.read_text(encoding="utf-8")
    for data in figures.get("pooled", {}):
        assert f"## {generator_page.ABOUT[data][0]}" in page
    assert all(f"`{name}`" in page for name in figures.get("open", {}))
    assert read_json(study.FILES.folder / "generator.json") == figures
