"""The README shows the project as it is: commands, tree, results. Its code blocks run in test_code_blocks.py."""

import re

import typer.main
from tests.docs.code_blocks import blocks
from tests.docs.code_references import ROOT, SOURCES

from benchmarks import readme_table
from onesearch.cli import app

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"^make (\w+)", README, re.MULTILINE)
    assert {"demo", "test", "docs"} <= set(targets)
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_command_table_names_every_command():
    group = typer.main.get_command(app)
    rows = re.findall(r"^\| (`onesearch .*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`onesearch (\w+)", row)}
    assert named == set(group.list_commands(None))  # type: ignore[attr-defined]


def test_the_tree_is_the_tree():
    tree = next(block.body for block in blocks(ROOT / "README.md") if "src/onesearch/" in block.body)
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    real = {path.name for path in SOURCES.iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert real <= shown
    assert all((ROOT / name).is_dir() for name in shown - real)


def test_the_python_block_is_short():
    (code,) = (block.body for block in blocks(ROOT / "README.md") if block.language == "python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12


def test_the_results_table_is_what_the_reports_say():
    assert readme_table.filled(README) == README, "run python -m benchmarks.readme_table"
    table = readme_table.table()
    assert "| engine |" in table and "| cascade |" in table and "simulated" in table
