"""`onesearch rules`: out of a store, into it, and what the catalogue has not."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.common.artefact import write_manifest
from onesearch.data.dataset import Dataset
from onesearch.data.records import Item, items_frame
from onesearch.serving.sqlite_store import SqliteStore

RULES = "pins:\n- name: best\n  items:\n  - b\n"


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    Dataset.write(tmp_path / "run" / "data", items_frame([Item("a", "Shoe"), Item("b", "Hat")]))
    write_manifest(tmp_path / "run" / "data", {"fingerprint": "x", "inputs": {}})
    (tmp_path / "rules.yaml").write_text(RULES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return lambda *words: CliRunner().invoke(app, ["rules", *words])


def test_rules_go_in_and_out_again(call, tmp_path):
    assert "no rules were written yet" in call("export", "run").stdout
    result = call("import", "run", "rules.yaml", "--who", "ann")
    assert result.exit_code == 0 and result.stdout == "version 1: 1 pins\n"
    result = call("export", "run")
    head, _, body = result.stdout.partition("\n")
    assert head.startswith("# version 1 by ann, ") and body == RULES
    (tmp_path / "rules.yaml").write_text("")
    assert "version 2: no rules" in call("import", "run", "rules.yaml").stdout
    assert call("export", "run", "--version", "1", "--out", "old.yaml").exit_code == 0
    assert (tmp_path / "old.yaml").read_text() == result.stdout
    missing = call("export", "run", "--version", "9")
    assert missing.exit_code == 1 and "no version 9" in missing.stderr


def test_reading_makes_no_store_and_a_misspelt_one_is_refused(call, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert "no rules were written yet" in call("export", "run").stdout
    assert call("check", "run", "rules.yaml").exit_code == 0
    for words in (("export", "run"), ("check", "run", "rules.yaml"), ("import", "run", "rules.yaml")):
        refused = call(*words, "--store", "typo.sqlite3")
        assert refused.exit_code == 1 and "no store typo.sqlite3" in refused.stderr
    for words in (("export", "no"), ("check", "no", "rules.yaml")):
        assert "no folder no" in call(*words).stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_what_the_catalogue_has_not_is_refused_and_items_of_the_store_count(call, tmp_path):
    with_store = ("--store", "other.sqlite3")
    store = SqliteStore(tmp_path / "other.sqlite3")
    store.change_items([Item("c", "Boot", ("Shoes",)), Item("a", "Shoe", brand="New")], ["b"])
    result = call("check", "run", "rules.yaml", *with_store)
    assert result.exit_code == 1 and "rules.yaml: pins, best: no item 'b' in the catalogue" in result.stderr
    assert call("import", "run", "rules.yaml", *with_store).exit_code == 1 and store.rules() is None
    # What was named while it was there is told, and no fault.
    store.write_rules('{"pins": [{"name": "old", "items": ["b"]}]}', "ann", datetime(2026, 11, 27, tzinfo=UTC))
    result = call("import", "run", "rules.yaml", *with_store)
    assert result.exit_code == 0 and "pins, best: no item 'b' in the catalogue any more" in result.stderr
    good = {"pins": [{"name": "p", "items": ["c"]}], "hides": [{"name": "h", "column": "brand", "values": ["New"]}]}
    (tmp_path / "rules.yaml").write_text(json.dumps(good))
    result = call("check", "run", "rules.yaml", *with_store)
    assert result.exit_code == 0 and result.stdout == "rules.yaml: 1 pins, 1 hides\n"
    (tmp_path / "rules.yaml").write_text("pin: []")
    wrong = call("check", "run", "rules.yaml")
    assert wrong.exit_code == 1 and "unknown key 'pin' in Rules" in wrong.stderr
