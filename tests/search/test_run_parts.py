"""Which engine of a run is served."""

import json
import multiprocessing
import time

import pytest

from onesearch.common.artefact import write_json, write_manifest
from onesearch.search.engine_file import load_about
from onesearch.search.run_parts import RunParts, choose_model, engine_name, own_place
from onesearch.search.served_versions import Served, origin, publish, roll_back, served_place


@pytest.fixture
def run(tmp_path):
    write_manifest(tmp_path / "index", {"fingerprint": "i1", "inputs": {}})
    write_manifest(tmp_path / "engine", {"fingerprint": "e1", "inputs": {"index": "i1"}})
    return tmp_path


def test_v2_is_served_where_there_is_one(run):
    assert choose_model(run) == "v1"
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i1"}})
    assert choose_model(run) == choose_model(run, "v2") == "v2" and choose_model(run, "v1") == "v1"


def test_a_run_without_v2_says_what_makes_one(run):
    (run / "engine_v2").mkdir()  # begun, not finished
    assert choose_model(run) == "v1"
    with pytest.raises(FileNotFoundError, match=r"has no V2 engine.*understanding\.producer"):
        choose_model(run, "v2")


def test_a_v2_engine_of_an_earlier_index_is_not_served_unasked(run, caplog):
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i0"}})
    with caplog.at_level("WARNING"):
        assert choose_model(run) == "v1"
    assert "another index" in caplog.text and choose_model(run, "v2") == "v2"


def test_a_manifest_leads_nowhere_outside(run, tmp_path):
    (tmp_path.parent / f"{tmp_path.name}-outside").mkdir()
    for name in (f"../{tmp_path.name}-outside", "/etc", ".."):
        inputs = {"index": "i1", name: "y"}
        for stage, look in (("engine_v2", lambda: choose_model(run)), ("final", lambda: own_place(run, "v1"))):
            write_manifest(run / stage, {"fingerprint": "x", "inputs": inputs | {"engine": "e1"}})
            with pytest.raises(ValueError, match=r"names .* as a folder of its own, and it is none"):
                look()


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"weights": {"log_prob": float("inf")}}, "the weight 'log_prob' is 'inf'"),
        ({"weights": {"log_prob": float("nan")}}, "the weight 'log_prob' is 'nan'"),
        ({"weights": {"log_prob": 1e39}}, "must be a usual number"),
        ({"weights": {"log_prob": "1"}}, "must be a usual number"),
        ({"match": {"quantiles": [], "margin": 0.1}}, "no quantiles"),
        ({"match": {"quantiles": [0.1, float("nan")], "margin": 0.1}}, "match has no quantiles, or other"),
        ({"match": {"quantiles": [0.3, 0.1], "margin": 0.1}}, "ascending"),
        ({"match": {"quantiles": [0.1, 0.3], "margin": float("inf")}}, "usual numbers"),
    ],
)
def test_numbers_that_no_stage_writes_are_refused(run, part, words):
    """Each answer of such an engine would have scores or a confidence of null."""
    good = {"weights": {"log_prob": 1.0, "clicks": 0}, "match": {"quantiles": [0.1, 0.1, 0.3], "margin": 0.1}}
    write_json(run / "engine" / "engine.json", good)
    assert load_about(run, "engine") == good
    write_json(run / "engine" / "engine.json", {**good, "match": None})
    assert load_about(run, "engine")["match"] is None
    (run / "engine" / "engine.json").write_text(json.dumps({**good, **part}))
    with pytest.raises(ValueError, match=rf"engine\.json: .*{words}"):
        load_about(run, "engine")


def test_the_final_engine_is_what_its_model_serves(run):
    assert own_place(run, "v1") == "engine" and engine_name(run, "v1", "engine") == f"{run.name}/v1"
    write_manifest(run / "final", {"fingerprint": "f1", "inputs": {"index": "i1", "engine": "e1"}})
    assert served_place(run, "v1") == own_place(run, "v1") == "final"
    assert engine_name(run, "v1", "final") == f"{run.name}/v1@final"
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i1"}})
    assert own_place(run, "v2") == "engine_v2", "the final engine is another model's"


def test_a_final_engine_of_what_was_built_again_since_is_not_served(run, caplog):
    write_manifest(run / "final", {"fingerprint": "f1", "inputs": {"index": "i1", "engine": "e0"}})
    with caplog.at_level("WARNING"):
        assert own_place(run, "v1") == "engine"
    assert "another engine, so the measured" in caplog.text
    (run / "final" / "manifest.json").unlink()  # begun, not finished
    assert own_place(run, "v1") == "engine"


def test_versions_belong_to_the_engine_that_they_started_from(run):
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {"index": "i1"}})
    assert origin(run) == "e2" and publish(run, "versions/0001", Served.now(run))
    assert served_place(run, "v2") == "versions/0001" and served_place(run, "v1") == "engine"
    write_manifest(run / "final", {"fingerprint": "f1", "inputs": {"index": "i1", "engine_v2": "e2"}})
    assert origin(run) == "f1" and served_place(run, "v2") == "final", "the version started from the measured one"
    assert publish(run, "versions/0002", Served.now(run)) and served_place(run, "v2") == "versions/0002"


def test_no_file_of_a_run_leads_out_of_it(run, tmp_path_factory):
    """The model of an engine, its counts, the published version: names in JSON that somebody else may have written."""
    other = tmp_path_factory.mktemp("other")
    write_manifest(other / "sft3", {"fingerprint": "s3", "inputs": {}})
    outside = f"../{other.name}/sft3"
    for name in (outside, str(other / "sft3")):
        with pytest.raises(ValueError, match="folder of its own"):
            RunParts(run).generator(name)
        with pytest.raises(ValueError, match="folder of its own"):
            _ = RunParts(run, counts=name).statistics
        write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {}})
        write_json(run / "versions" / "published.json", {"from": "e2", "served": [name]})
        with pytest.raises(ValueError, match="folder of its own"):
            load_about(run, served_place(run, "v2"))


def test_a_run_that_holds_links_is_not_read(run, tmp_path_factory):
    (run / "data").symlink_to(tmp_path_factory.mktemp("elsewhere"))
    with pytest.raises(ValueError, match="data is a link"):
        RunParts(run)
    with pytest.raises(ValueError, match="data is a link"):
        roll_back(run)


def test_publishing_that_is_killed_leaves_the_old_or_the_new(run):
    """SIGKILL at any moment: what is served can be read, is one of the two, and the next one can be published."""
    write_manifest(run / "engine_v2", {"fingerprint": "e2", "inputs": {}})
    for number in (1, 2):
        write_manifest(run / "versions" / f"000{number}", {"fingerprint": number})
    publish(run, "versions/0001", Served.now(run))
    fork = multiprocessing.get_context("fork")

    def back_and_forth():
        while True:
            publish(run, "versions/0002", Served.now(run))
            roll_back(run)

    for turn in range(15):
        child = fork.Process(target=back_and_forth)
        child.start()
        time.sleep(0.005 + 0.003 * turn)
        child.kill()
        child.join()
        assert served_place(run, "v2") in ("versions/0001", "versions/0002")
        if served_place(run, "v2") == "versions/0002":
            assert roll_back(run) == "versions/0001"
