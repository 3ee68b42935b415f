"""The studies behind docs/results/quantizers.md at a size whose figures mean nothing."""

from pathlib import Path

import numpy as np
from benchmarks.quantizers import BEHAVIOUR, FIGURES, measure_behaviour, prepare

from benchmarks import short_trainings


def test_variants_of_a_runs_quantizer_are_measured(tiny_run: Path):
    inputs = prepare(tiny_run, 0)
    found = measure_behaviour(tiny_run, inputs, list(BEHAVIOUR)[-1], fits=2, iterations=2, layers=[8, 4])
    assert found["codebooks"].startswith("8-4-") and set(found["figures"]) == set(FIGURES)
    for figures in found["figures"].values():
        assert len(figures) == 2 and all(0 <= figure <= 1 for figure in figures)
    plain = measure_behaviour(tiny_run, inputs, "as configured", fits=1, iterations=2, layers=[8, 4])
    assert plain["figures"]["agreement 1"][0] != found["figures"]["agreement 1"][0]


def test_a_model_is_read_alone_and_as_an_engine_fitted_on_either_half(tiny_run: Path, monkeypatch):
    fitted = []
    fit = short_trainings.fit_weights
    monkeypatch.setattr(short_trainings, "fit_weights", lambda *given: fitted.append(given[1]) or fit(*given))
    values = short_trainings.measure(tiny_run)
    assert set(values) == set(short_trainings.METHODS)
    n = {len(of) for row in values.values() for of in row.values()}
    assert n == {sum(len(valid) for valid in fitted)}
    assert all(0 <= np.nanmean(of) <= 1 for row in values.values() for of in row.values())
