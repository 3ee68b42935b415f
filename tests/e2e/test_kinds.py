"""Kinds end to end: the study's cells over tiny runs, and a search in one of them."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest
from benchmarks.result_files import ResultFiles

from benchmarks import kinds as study
from onesearch.common.artefact import read_json
from onesearch.data.dataset import Dataset
from onesearch.data.records import Item
from onesearch.encoding.linked_items import FILE
from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest
from onesearch.search.run_parts import need

SMALL = (
    "data.market={items: 300, users: 60, days: 30, page_views: 1500, videos: 0.2, live_rooms: 0.3}",
    "encoder.align.epochs=1",
    "khqe.layers=[16,8,8]",
    "khqe.opq_size=16",
    "model.backbone={kind: bart, d_model: 16, heads: 4, encoder_layers: 1, decoder_layers: 1, ffn: 32, dropout: 0.1}",
    "model.text_vocabulary=400",
    "sft1.steps=2",
    "sft2.steps=2",
    "sft1.batch_size=8",
    "sft2.batch_size=8",
    "sft3.epochs=0.05",
    "sft3.batch_size=16",
    "search.width=4",
    "evaluation.fit_requests=50",
)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_the_study_compares_one_id_space_with_an_index_of_each_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(study, "FILES", ResultFiles("kinds", tmp_path / "results"))
    study.FILES.folder.mkdir()
    (study.FILES.folder / "kinds.head.md").write_text("# Head\n")
    study.render()
    assert "Not measured yet" in study.FILES.page.read_text()
    study.run(tmp_path / "runs", small=SMALL, asked=40)
    made, folder = study.FILES.figures(), tmp_path / "runs" / "kinds-31"
    assert set(made["cells"]) == {f"kinds-31/{form.name}" for form in study.FORMS}
    one, separate = (made["cells"][f"kinds-31/{name}"] for name in (study.ONE, study.SEPARATE))
    assert {"video/engine", "all/engine"} <= set(one["figures"])
    assert "all/engine" not in separate["figures"]
    assert set(separate["sids"]) == set(one["sids"]["all"]["icr"]) == set(study.SHOWN)
    # The same page views for all forms, of which pairs are made.
    values = {form.name: dict(np.load(folder / form.name / "values.npz", allow_pickle=False)) for form in study.FORMS}
    for kind in study.SHOWN:
        shapes = {name: array[f"{kind}/engine"].shape for name, array in values.items()}
        assert set(shapes.values()) == {(one["asked"][kind], 2)}
    difference = (values[study.ONE]["video/engine"] - values[study.SEPARATE]["video/engine"]).mean(0)
    pair = made["pairs"]["kinds-31/one - separate"]["video/engine"]
    np.testing.assert_allclose([pair[metric]["value"] for metric in study.METRICS], difference, atol=1e-6)
    # Links pull: a video has more of its products' codes.
    pulled, unpulled = (made["cells"][f"kinds-31/{name}"]["sids"]["all"] for name in (study.ONE, study.UNPULLED))
    assert pulled["linked"][1] > unpulled["linked"][1]
    assert pulled["linked"][3] > pulled["same_category"][3]  # the first codes are those of the category, anyway
    # What is finished is not made again.
    monkeypatch.setattr(study, "_data", None)
    study.run(tmp_path / "runs", "kinds-31/one", SMALL, 40)
    assert study.FILES.figures() == made
    study.render()
    assert "| one less separate, paired |" in study.FILES.page.read_text()
    _searched(folder / study.ONE / "all")


def _searched(run) -> None:
    """A run with kinds is searched as any: filters, what is on, and rooms that come in."""
    assert read_json(need(run, "khqe") / FILE) == {"weight": 0.5}
    items = Dataset.load(need(run, "data")).items
    engine = SearchEngine.load(run, measured=True)
    video = items.filter(pl.col("kind") == "video").row(0, named=True)
    found = engine.search_batch([SearchRequest(video["title"], k=5, filters={"kind": "video"}, facets=["kind"])])[0]
    assert found[0].item == engine.item(found[0].item_id)
    assert {hit.item.kind for hit in found} == {"video"}
    # All rooms of the log are over, whatever they are asked for.
    assert engine.search("boots live room", filters={"kind": "live"}) == []
    vectors = np.load(need(run, "khqe") / "item_vectors.npy", allow_pickle=False)
    rows = {item_id: row for row, item_id in enumerate(items["item_id"].to_list())}
    frame = items.filter(pl.col("item_id") == video["item_id"])
    linked = items.filter(pl.col("item_id").is_in(video["linked"]))
    # Served items are drawn as the stage drew those of the catalogue.
    served = engine.featurizer.item_vectors(frame, linked)[0]
    np.testing.assert_allclose(served, vectors[rows[video["item_id"]]], atol=1e-5)
    now = datetime.now(UTC)
    room = Item("now", video["title"], kind="live", linked=tuple(video["linked"]), start=now)
    engine.upsert([room])
    assert engine.search(f"{video['title']} live room", k=3)[0].item_id == "now"
