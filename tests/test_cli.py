import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import onesearch.cli
from onesearch.cli import app
from onesearch.cli.search_command import parse_filters
from onesearch.cli.terminal import FriendlyGroup, short, show_json, show_table
from onesearch.cli.understand_command import read_queries
from onesearch.data.dataset import Dataset
from onesearch.data.records import Item, PageView, items_frame, page_views_frame
from onesearch.pipeline.ranked_parts import WorkerPool
from onesearch.search.results import SearchRequest, SearchResult, SearchResults
from onesearch.search.suggestions import Suggestion

COMMANDS = (
    "data",
    "events",
    "market",
    "understand",
    "run",
    "update",
    "evaluate",
    "abtest",
    "search",
    "suggest",
    "serve",
    "rules",
)
COMMANDS = ("data", "market", "understand", "run", "update", "evaluate", "abtest", "batch", "search", "serve", "store")


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


def test_threads_that_wait_go_to_sleep_unless_the_user_says_otherwise(invoke, monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert invoke("search", "no-run", "boots").exit_code == 1 and os.environ["GOMP_SPINCOUNT"] == "3000"
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert invoke("search", "no-run", "boots").exit_code == 1 and os.environ["GOMP_SPINCOUNT"] == "7"


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


def test_the_kind_of_an_error_is_told_where_it_says_something(monkeypatch):
    monkeypatch.delenv("ONESEARCH_DEBUG", raising=False)
    for error, line in (
        (FileNotFoundError("no folder runs/x"), "error: no folder runs/x\n"),
        (KeyError("no such item"), "error: KeyError: no such item\n"),
        (ZeroDivisionError("no page views"), "error: ZeroDivisionError: no page views\n"),
    ):
        result = CliRunner().invoke(failing_app(error), ["fail"])
        assert result.exit_code == 1 and result.stderr.startswith(line)


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
    assert short({name: 1 for name in "abcdef"}) == "a 1, b 1, c 1, d 1 …"


def test_quiet_hides_progress():
    logger = logging.getLogger("onesearch")
    onesearch.cli.terminal.start_logging(quiet=True)
    assert not logger.isEnabledFor(logging.INFO)
    onesearch.cli.terminal.start_logging()
    assert logger.isEnabledFor(logging.INFO)


def test_what_a_stranger_wrote_forges_no_line_of_the_log_and_no_colour(capsys, monkeypatch):
    logger = logging.getLogger("onesearch")
    monkeypatch.setattr(logger, "handlers", [])
    onesearch.cli.terminal.start_logging()
    evil = "evil\n12:00:00 admin logged in \u001b[31m\x9b1m\u202e\u2028\r靴子é"
    logger.warning("%s was made from another %s", "run", evil)
    logger.warning(evil)
    told = capsys.readouterr().err
    assert told.count("\n") == 4 and told.count("\n  12:00:00 admin logged in \\x1b[31m\\x9b1m") == 2
    assert not {"\u001b", "\x9b", "\u202e", "\u2028", "\r"} & set(told) and told.count("靴子é") == 2
    app = typer.Typer(cls=FriendlyGroup)

    @app.command()
    def fails() -> None:
        raise ValueError(f"{evil}\nsecond line")

    @app.command()
    def other() -> None: ...

    shown = CliRunner().invoke(app, ["fails"]).output
    assert "\\x1b[31m" in shown and "\nsecond line" in shown and not {"\u001b", "\x9b", "\r"} & set(shown)


@pytest.fixture
def shop(tmp_path):
    log = [PageView(str(n), query, clicked=("a",)) for n, query in enumerate(["boot", "Shoe", "hat", "", "shoe "])]
    return Dataset.write(tmp_path / "data", items_frame([Item("a", "Shoe")]), page_views=page_views_frame(log))


@pytest.mark.parametrize(("rank", "level"), [("0", logging.INFO), ("1", logging.WARNING)])
def test_of_several_processes_the_first_one_speaks(monkeypatch, rank, level):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    onesearch.cli.terminal.start_logging()
    assert logging.getLogger("onesearch").level == level


def test_queries_of_a_log_begin_with_the_most_searched_those_of_a_file_stay_in_order(shop, tmp_path):
    assert read_queries(shop.folder) == ["shoe", "boot", "hat"]
    (tmp_path / "queries.txt").write_text("\ufeffhat\n\nBoot\nboot \nshoe\n", encoding="utf-8")
    assert read_queries(tmp_path / "queries.txt") == ["hat", "boot", "shoe"]
    (tmp_path / "queries.txt").write_text("hat\ngr\u00f6\u00dfe\n", encoding="cp1252")
    with pytest.raises(ValueError, match=r"queries\.txt: line 2 is not valid UTF-8"):
        read_queries(tmp_path / "queries.txt")


def test_workers_that_rank_are_those_asked_for(invoke, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("onesearch.pipeline.evaluate_run", lambda *given: (asked.append(given), "")[1], raising=False)
    invoke("evaluate", str(tmp_path))
    invoke("evaluate", str(tmp_path), "--workers", "3", "--engine", "ray", "--address", "auto", "--out", "there")
    assert asked == [
        (tmp_path, tmp_path / "evaluation-valid", "valid", None, None),
        (tmp_path, Path("there"), "valid", None, WorkerPool(3, "ray", "auto")),
    ]
    assert invoke("evaluate", str(tmp_path), "--engine", "ray").exit_code == 2
    assert invoke("evaluate", str(tmp_path), "--workers", "3", "--address", "auto").exit_code == 1
    assert len(asked) == 2


def test_an_import_tells_what_it_did_and_a_check_what_is_wrong(invoke, tmp_path):
    (tmp_path / "items.csv").write_text("id,name,price\n1,shoe,cheap\n1,again,2\n,none,3\n,none,3\n")
    (tmp_path / "log.csv").write_text("q,seen,who\nshoe,1 9,ann\nboot,9,bob\n")
    (tmp_path / "m.yaml").write_text(
        "source: shop\n"
        "items: {file: items.csv, columns: {item_id: id, title: name, price: price}}\n"
        "page_views: {file: log.csv, columns: {query: q, shown: seen, user_id: who}, separators: {shown: ' '}}\n"
    )
    result = invoke("data", "import", str(tmp_path / "m.yaml"), "--out", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    words = [line.strip("│ ").split() for line in result.stdout.splitlines()]
    lines = [" ".join(word for word in line if word != "│") for line in words]
    for line in (
        "items 1 3",
        "page_views 1 1",
        "users 1 -",
        "items: duplicate item_id, the first one is kept 1",
        "items: no item id 2",
        "page_views: no known item left 1",
        "items.price: not a number, or negative 1",
        "page_views.shown 2",
        "page_views.shown -> items 3 1 33.3%",
    ):
        assert line in lines, (line, lines)
    assert invoke("data", "check", str(tmp_path / "out")).exit_code == 0
    items_frame([Item("2", "boot")]).write_parquet(tmp_path / "out" / "items.parquet")
    result = invoke("data", "check", str(tmp_path / "out"))
    assert result.exit_code == 1 and "1 errors" in result.stdout and "such as '1'" in result.stdout


def test_a_run_to_take_over_must_be_there(invoke, tmp_path):
    result = invoke("run", "configs/demo.yaml", "--out", str(tmp_path / "r"), "--from", str(tmp_path / "nowhere"))
    assert result.exit_code == 2 and "nowhere" in result.output and not (tmp_path / "r").exists()


def test_an_import_is_of_one_kind(invoke, tmp_path):
    for arguments in ((), ("m.yaml", "--kuaisearch", str(tmp_path))):
        result = invoke("data", "import", *arguments)
        assert result.exit_code == 2 and "either a mapping file or --kuaisearch" in result.output
    result = invoke("data", "import", str(tmp_path / "none.yaml"))
    assert result.exit_code == 1 and "none.yaml" in result.stderr


def test_search_hands_everything_on_and_counts_from_one(tmp_path, monkeypatch):
    asked = []

    class Engine:
        def search_batch(self, requests):
            asked.extend(requests)
            found = [SearchResult(f"i{n}", 1.0, (1, 2), Item(f"i{n}", f"lamp {n}")) for n in range(2)]
            facets = {"brand": [("b", 7)]} if requests[0].facets else None
            return [SearchResults(found, confidence=0.004, total=7, facets=facets)]

    load = lambda *given, **more: asked.append((*given, more)) or Engine()  # noqa: E731
    monkeypatch.setattr("onesearch.search.engine.SearchEngine.load", load)
    words = [
        "search",
        str(tmp_path),
        "lamp",
        "-k",
        "2",
        "--user",
        "u7",
        "--width",
        "9",
        "--filter",
        "brand=b",
        "--json",
        "--measured",
        "--offset",
        "4",
    ]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    wanted = SearchRequest("lamp", "u7", 2, {"brand": "b"}, offset=4)
    assert asked == [(tmp_path, 9, None, {"measured": True}), wanted]
    assert [found["rank"] for found in json.loads(result.stdout)] == [5, 6]
    assert "nothing fits this search well (confidence 0.004)" in result.stderr
    more = ["search", str(tmp_path), "lamp", "--sort", "price", "--facet", "brand", "--facet", "price", "--explain"]
    result = CliRunner().invoke(app, more)
    assert asked[-1] == SearchRequest("lamp", sort="price", facets=["brand", "price"], count=True, explain=True)
    assert "2 results of 7" in result.stdout and "brand" in result.stdout


def test_suggest_shows_completions(invoke, tmp_path, monkeypatch):
    class Engine:
        def suggest(self, text, k):
            return [Suggestion(f"{text}mp {k}", "query"), Suggestion(f"{text}mp no 1", "item", "i1")]

    monkeypatch.setattr("onesearch.search.engine.load_engine", lambda *_, **more: Engine())
    result = invoke("suggest", str(tmp_path), "la", "-k", "3", "--json")
    assert json.loads(result.stdout)[0] == {"text": "lamp 3", "kind": "query", "item_id": None}
    assert "lamp no 1" in invoke("suggest", str(tmp_path), "la").stdout


def test_the_store_of_a_strangers_run_is_no_link(tmp_path):
    """It leads to a database of another program, or to nothing: neither is written."""
    run, victim = tmp_path / "run", tmp_path / "victim.db"
    run.mkdir()
    (run / "serving.sqlite3").symlink_to(victim)
    calls = (
        ["nightly", str(run)],
        ["rules", "export", str(run)],
        ["understand", str(run), "--coverage", "day", "--cache", str(tmp_path / "cache"), "--producer", "log-expert"],
    )
    for content in (b"", b"precious"):
        victim.write_bytes(content)
        for call in calls:
            done = CliRunner().invoke(app, call)
            assert done.exit_code == 1 and "serving.sqlite3 is a link" in done.output, done.output
        assert victim.read_bytes() == content and [path.name for path in run.iterdir()] == ["serving.sqlite3"]
