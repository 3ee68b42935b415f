import json
import logging
import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import onesearch.cli
from onesearch.cli import app
from onesearch.cli.search_command import parse_filters
from onesearch.cli.terminal import FriendlyGroup, short, show_json, show_table

COMMANDS = ("data", "market", "understand", "run", "update", "evaluate", "abtest", "search", "serve")


@pytest.fixture(autouse=True)
def logger_kept():
    """Commands set the package's logger up for a terminal; other tests read it through pytest."""
    logger = logging.getLogger("onesearch")
    before = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


@pytest.fixture
def invoke(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def test_help_teaches(invoke):
    shown = invoke("--help").output
    assert all(name in shown for name in COMMANDS) and "onesearch run configs/demo.yaml" in shown
    for name in COMMANDS:
        result = invoke(name, "--help")
        assert result.exit_code == 0 and len(result.output) > 200
    assert "import" in invoke("data", "--help").output and "make" in invoke("market", "--help").output


def test_help_waits_for_no_heavy_library():
    code = (
        "import sys; from onesearch.cli import app\n"
        "from typer.testing import CliRunner\n"
        "shown = CliRunner().invoke(app, ['--help']).output\n"
        "assert 'market' in shown and 'evaluate' in shown, shown\n"
        "heavy = {'torch', 'polars', 'numpy', 'transformers', 'faiss', 'fastapi', 'lightgbm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_reader_who_has_had_enough_is_no_error():
    code = (
        "import typer\n"
        "from onesearch.cli import app\n"
        "def many(): [typer.echo('line ' * 1000) for _ in range(1000)]\n"
        "app.command('many')(many)\n"
        "app(['many'])"
    )
    shell = f'{sys.executable} -c "$CODE" | head -1 > /dev/null'
    done = subprocess.run(["sh", "-c", shell], env={**os.environ, "CODE": code}, stderr=subprocess.PIPE, check=False)
    assert b"error" not in done.stderr, done.stderr


def test_version_and_unknown_commands(invoke):
    assert invoke("--version").output.strip() == "0.1.0"
    result = invoke("serch")
    assert result.exit_code == 2 and "search" in result.output


def failing_app(error):
    inner = typer.Typer(cls=FriendlyGroup)

    @inner.callback()
    def main():
        pass

    @inner.command()
    def fail():
        raise error

    return inner


def test_expected_errors_are_shown_without_traceback(monkeypatch):
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    error = ValueError("items.csv, row 7: no title. Map one with 'title: name'")
    error.add_note("in stage 'data'")
    result = CliRunner().invoke(failing_app(error), ["fail"])
    assert result.exit_code == 1
    assert "error: items.csv, row 7: no title" in result.stderr and "in stage 'data'" in result.stderr
    assert "Traceback" not in result.output
    monkeypatch.setenv("ONESEARCH_DEBUG", "1")
    assert isinstance(CliRunner().invoke(failing_app(error), ["fail"]).exception, ValueError)


def test_bugs_keep_their_traceback():
    assert isinstance(CliRunner().invoke(failing_app(TypeError("a bug")), ["fail"]).exception, TypeError)


def test_exit_codes_of_commands_pass_through():
    assert CliRunner().invoke(failing_app(typer.Exit(3)), ["fail"]).exit_code == 3


def test_filters():
    given = ["brand=Acme", "price=[10, null]", "in_stock=true", "category=[Shoes, Boots]", "seller=123"]
    assert parse_filters(given) == {
        "brand": "Acme",
        "price": [10, None],
        "in_stock": True,
        "category": ["Shoes", "Boots"],
        "seller": "123",
    }
    with pytest.raises(ValueError, match="not of the form key=value"):
        parse_filters(["brand"])
    with pytest.raises(ValueError, match="given twice"):
        parse_filters(["brand=a", "brand=b"])


def test_tables_json_and_short_figures(capsys):
    show_json({"naïve": [1, 2]})
    assert json.loads(capsys.readouterr().out) == {"naïve": [1, 2]}
    show_table("title", ("name", "value"), [("a", 1), ("b", None)], right=("value",))
    assert "name" in capsys.readouterr().out
    assert short({"hr": 0.123456, "n": 3, "text": "x"}) == "hr 0.1235, n 3"


def test_quiet_hides_progress():
    logger = logging.getLogger("onesearch")
    onesearch.cli.terminal.start_logging(quiet=True)
    assert not logger.isEnabledFor(logging.INFO)
    onesearch.cli.terminal.start_logging()
    assert logger.isEnabledFor(logging.INFO)
