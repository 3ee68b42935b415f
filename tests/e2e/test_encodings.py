"""A cell of docs/results/encodings.md at a size whose figures mean nothing."""

from pathlib import Path

import pytest
import yaml
from benchmarks.encodings_page import SIDS, VECTORS
from benchmarks.grid import CELL, DataSet

from onesearch.common.artefact import read_json
from tiny_run import TINY
from tiny_vision import make_tiny_vit


@pytest.mark.long
def test_a_cell_without_a_generator_has_figures_of_vectors_and_sids(tmp_path: Path):
    from benchmarks import encodings

    config = {
        **TINY,
        "data": {"market": {**TINY["data"]["market"], "pictures": 2, "picture_only": 0.5}},
        "pictures": {"kind": "transformers", "model": str(make_tiny_vit(tmp_path / "vit"))},
        "encoder": {**TINY["encoder"], "pictures": {"dimension": 8}},
        "understanding": {"producer": "none"},
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    sets = {"market.50": DataSet(str(tmp_path / "tiny.yaml"), encodings._BETWEEN, (), seeds=(1,), same_requests=False)}
    grid = encodings.EncodingsGrid(tmp_path / "runs", sets=sets)
    grid.run("market.50-1/static-unified")
    found = read_json(grid.folder("market.50", 1, "static-unified") / CELL)
    assert set(found["methods"]) == {VECTORS, SIDS} and found["milliseconds"]["picture"] > 0
    assert 0 < found["icr"] <= 1 and len(found["prefix_agreement"]) == 5
