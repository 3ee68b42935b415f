"""The README's commands and Python run as printed, on a tiny run in the place of runs/demo."""

import logging
import re
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from benchmarks import readme_table
from onesearch.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def logger_kept():
    """Commands set the package's logger up for a terminal; other tests read it through pytest."""
    logger = logging.getLogger("onesearch")
    before = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


def blocks(language: str) -> list[str]:
    """Bodies of the fenced blocks of a language; fences pair up from the top of the page."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [body for name, body in fenced if name == language]


def commands(program: str) -> list[str]:
    lines = [line.split("   #")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if line.startswith(f"{program} ")]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert commands("make") == ["make demo", "make test"]
    for command in commands("make"):
        assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE)
    assert "onesearch run configs/demo.yaml" in makefile and "onesearch serve runs/demo" in makefile


@pytest.mark.slow
@pytest.mark.parametrize("command", commands("onesearch"))
def test_shell_commands_run(command: str, tiny_run: Path, tiny_config: Path, tmp_path: Path, monkeypatch):
    arguments = shlex.split(command)[1:]
    if arguments[0] == "run":
        arguments += ["--out", str(tiny_run)]
    if arguments[0] in ("evaluate", "abtest"):
        arguments += ["--out", str(tmp_path / "report")]
        arguments[arguments.index("--page-views") + 1] = "100"
    if arguments[0] == "abtest":
        arguments += ["--splits", "2"]
    arguments = [part.replace("configs/demo.yaml", str(tiny_config)) for part in arguments]
    arguments = [part.replace("runs/demo", str(tiny_run)) for part in arguments]
    served: dict = {}
    monkeypatch.setattr("uvicorn.run", lambda _, **options: served.update(options))
    monkeypatch.setenv("ONESEARCH_ADMIN_TOKEN", "a-token-for-the-test-only")
    if arguments[0] == "serve":
        arguments += ["--store", str(tmp_path / "store.sqlite3")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert arguments[0] != "serve" or served["port"] == 8080


@pytest.mark.slow
def test_the_python_block_runs(tiny_run: Path, capsys: pytest.CaptureFixture[str]):
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    space: dict = {}
    exec(compile(code.replace("runs/demo", str(tiny_run)), "README.md", "exec"), space)
    assert space["codes"].shape == (len(space["dataset"].items), 5)
    assert "(" in capsys.readouterr().out  # at least one result with its semantic ID


def test_the_command_table_names_every_command():
    group = typer.main.get_command(app)
    rows = re.findall(r"^\| (`onesearch .*?) \|", README, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`onesearch (\w+)", row)}
    assert named == set(group.list_commands(None))  # type: ignore[attr-defined]


def test_the_tree_is_the_tree():
    tree = next(block for block in blocks("") if "src/onesearch/" in block)
    shown = {line.split()[0].rstrip("/") for line in tree.splitlines()}
    real = {path.name for path in (ROOT / "src" / "onesearch").iterdir() if not path.name.startswith(("_", "py.typed"))}
    assert real <= shown
    for name in shown - real:
        assert (ROOT / name).is_dir()


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    targets = [link for link in links if "://" not in link and not link.endswith(".png")]
    assert len(targets) >= 5 and all((ROOT / link).is_file() for link in targets)


def test_the_results_table_is_what_the_reports_say():
    assert readme_table.filled(README) == README, "run python -m benchmarks.readme_table"
    assert "| engine |" in readme_table.table()
