"""Every code block of README and docs and every example of a command's help runs: on a tiny run in the place of
runs/demo and with smaller numbers.

A block marked ``network``, ``docker`` or ``gpu`` is only read: its options must exist. So are commands that never end,
and the studies in ``benchmarks``.
"""

import json
import logging
import os
import re
import shutil
import tomllib
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import typer
import typer.main
import yaml
from benchmarks.speed.__main__ import app as speed
from tests.docs.code_blocks import Block, blocks
from tests.docs.code_references import ROOT
from tests.docs.help_texts import help_texts, studies
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.data.ingest.importer import import_mapping
from onesearch.market.kuaisearch_export import export_kuaisearch
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.understanding_stage import stand_in
from onesearch.search.rules import Rules
from onesearch.serving.sqlite_store import SqliteStore
from onesearch.training.rewards import RewardSettings

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
HELP = help_texts(typer.main.get_command(app))
WrongOption = typer.BadParameter.__base__  # of the library below typer, or of the copy that typer brings
SLOW_PAGES = ("agents.md", "alignment.md", "batch.md")
MARKS = {"network", "docker", "gpu"}
SMALLER = {
    "--items": 300,
    "--users": 60,
    "--page-views": 150,
    "--rows": 1000,
    "--workers": 1,
    "--sessions": 40,
}  # of commands; 900 page views of a market
SETTINGS = {"dpo.steps": ["dpo.batch_size=16"], "grpo.steps": ["grpo.prompts=8", "grpo.rollouts=4"]}
ANEW = ("seed", "sft3.epochs")  # with these a run would train for long: it stops after its data


def page_name(page: Path) -> str:
    return page.name


# -- what is only read ------------------------------------------------------------------------------------------------


def check_options(words: list[str], command: Any) -> None:
    """Follow the words from command to subcommand and read the rest as that command's options, running nothing."""
    while hasattr(command, "get_command") and words:
        found = command.get_command(command.context_class(command), words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    command.make_parser(command.context_class(command)).parse_args(list(words))


def check_command(words: list[str]) -> None:
    """Whether a command could be given like this: its options, targets, modules and extras exist."""
    words = [word for word in words if not re.match(r"^[A-Z_]+=", word)]
    if words[0] in ("accelerate", "torchrun"):  # launchers of several processes, whose own options are theirs
        script = next((at for at, word in enumerate(words) if word.startswith("examples/")), None)
        words = words[words.index("-m") + 1 :] if script is None else ["python", *words[script:]]
    if words[0] == "onesearch":
        check_options(words[1:], typer.main.get_command(app))
        changes = [words[at + 1] for at, word in enumerate(words[:-1]) if word == "--set"]
        load_settings(RunSettings, ROOT / "configs" / "demo.yaml", changes)
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[:2] == ["python", "-m"]:
        module = ROOT / words[2].replace(".", "/")
        assert module.with_suffix(".py").is_file() or (module / "__main__.py").is_file()
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file() and words[1].startswith("examples/")  # each has a test of its own
    elif words[:2] == ["pip", "install"]:
        extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
        assert {name for part in re.findall(r"\[([\w,-]+)\]", " ".join(words)) for name in part.split(",")} <= extras
    elif words[0] == "serve":  # Ray's command: its file is ours
        assert words[1] in ("run", "deploy", "status") and all((ROOT / word).is_file() for word in words[2:])
    else:
        assert words[0] in ("curl", "docker", "mkdocs", "git"), f"nobody has looked at {words[0]}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_marks_and_options_exist(page: Path):
    for block in blocks(page):
        assert set(block.marks) <= MARKS
        for words in block.commands if block.language == "sh" else []:
            check_command(words)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_within_sentences_have_these_options(page: Path):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for command in re.findall(r"`(onesearch [^`]+)`", text):
        check_command(command.split())


@pytest.mark.parametrize("name", HELP)
def test_commands_in_help_exist(name: str):
    text, examples = HELP[name]
    for words in [*examples.commands, *(line.split() for line in re.findall(r"`(onesearch [^`]+)`", text))]:
        check_command(words)


def test_commands_of_studies_exist():
    """Each names a module that there is; its options and what it is told to do stand there."""
    found = list(studies())
    assert len({path for path, _ in found}) > 10
    shared = "".join(
        (ROOT / "benchmarks" / name).read_text(encoding="utf-8") for name in ("grid.py", "run_or_render.py")
    )
    for path, words in found:
        module = (ROOT / words[2].replace(".", "/")).with_suffix(".py")
        assert module.is_file(), (path, words)
        code = module.read_text(encoding="utf-8") + shared
        for word in " ".join(words[3:]).replace("[", "").replace("]", "").split():
            if word.startswith("--"):
                assert f'"{word}"' in code or f"{word[2:]}: Annotated" in code, words
        assert words[3:4] not in (["run"], ["list"], ["save"], ["render"]) or f'"{words[3]}"' in code, words


def test_wrong_commands_are_found():
    for line in ("onesearch serch runs/demo", "onesearch run c.yaml --form x", "make coffee", "python -m benchmarks.x"):
        with pytest.raises((AssertionError, WrongOption)):
            check_command(line.split())
    with pytest.raises(ValueError, match=r"training\.sft3\.epochs"):
        check_command(["onesearch", "run", "c.yaml", "--set", "training.sft3.epochs=1"])


# -- what runs --------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def logger_kept():
    """Commands set the package's logger up for a terminal; other tests read it through pytest."""
    logger = logging.getLogger("onesearch")
    before = logger.level, list(logger.handlers), logger.propagate
    yield
    logger.setLevel(before[0])
    logger.handlers, logger.propagate = before[1], before[2]


@pytest.fixture
def place(tiny_run: Path, tiny_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the documents speak of: configs, a run, files of a shop, new page views."""
    shutil.copytree(tiny_run, tmp_path / "runs" / "demo")
    (tmp_path / "configs").mkdir()
    shutil.copy(tiny_config, tmp_path / "configs" / "demo.yaml")
    shutil.copy(ROOT / "configs" / "paper.yaml", tmp_path / "configs")  # which is planned, not run
    files = tmp_path / "files"
    files.mkdir()
    (files / "products.csv").write_text("sku,name,brand,price_eur\n1,red shoe,Acme,10\n2,blue boot,Acme,20\n")
    searches = [
        {"q": "boot", "customer": "c", "ts": 1700000000000 + i, "results": ["1", "2"], "clicks": ["2"]} for i in (1, 2)
    ]
    (files / "searches.jsonl").write_text("\n".join(map(json.dumps, searches)))
    log = pl.read_parquet(tmp_path / "runs" / "demo" / "data" / "page_views.parquet").sort("time")[-900:]
    fresh = pl.concat_str(pl.lit("new-"), "page_view_id")
    later = log.with_columns(page_view_id=fresh, time=pl.col("time") + pl.duration(days=30))
    later.write_parquet(tmp_path / "new.parquet")
    SqliteStore(tmp_path / "runs" / "demo" / "serving.sqlite3").close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONESEARCH_ADMIN_TOKEN", "a-token-for-the-test-only")
    return tmp_path


@pytest.fixture
def help_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the help of commands speaks of beside: markets, a run of another set, data sets at home, a log of a test."""
    monkeypatch.setenv("HOME", str(place))
    for folder in ("data/market", "data/shop"):
        shutil.copytree(place / "runs" / "demo" / "data", place / folder)
    shutil.copytree(place / "runs" / "demo", place / "runs" / "homedepot")
    shutil.copytree(ROOT / "configs" / "mappings", place / "configs" / "mappings")
    shutil.copy(place / "configs" / "demo.yaml", place / "configs" / "homedepot.yaml")
    read_yaml(
        Block("yaml", (), 0, "source: my-shop\nitems: {file: products.csv, columns: {item_id: sku, title: name}}"),
        place,
    )
    import_mapping(load_mapping(place / "my-shop.yaml"), place / "data" / "my-shop")
    (place / "backups").mkdir()
    (place / "rules.yaml").write_text("synonyms: [{name: sofas, words: [sofa, couch]}]\n")
    (place / "queries.txt").write_text("red shoe\nboot\n")
    homedepot = place / "datasets" / "homedepot"
    homedepot.mkdir(parents=True)
    (homedepot / "products.csv").write_text("product_uid,title,brand,color,material\n1,hammer,Acme,red,steel\n")
    (homedepot / "judgments.csv").write_text("query,product_uid,relevance\nhammer,1,3\n")
    SqliteStore(place / "backups" / "monday.sqlite3").close()
    export_kuaisearch(place / "data" / "market", place / "datasets" / "KuaiSearch")
    log = pl.read_parquet(place / "new.parquet").select("user_id", "shown", "clicked", "ordered")
    log.with_columns(arm=pl.col("user_id").hash(0) % 2).write_parquet(place / "exposures.parquet")
    return place


def smaller(words: list[str]) -> list[str]:
    """The command with numbers that fit a test, and ``~`` resolved as a shell does."""
    out = [os.path.expanduser(word) for word in words]  # noqa: PTH111 - any word, not a path
    for at, word in enumerate(out[:-1]):
        if word in SMALLER:
            out[at + 1] = str(900 if "market" in words and word == "--page-views" else SMALLER[word])
        if word == "--set" and (key := out[at + 1].split("=")[0]) in SETTINGS:
            out[at + 1] = f"{key}=2"
            out += [part for setting in SETTINGS[key] for part in ("--set", setting)]
        if word == "--set" and key in ANEW:
            out += ["--until", "data"]
    if words[1] == "abtest":
        out += ["--splits", "2"]
    if words[1] == "update" and "--events" in words:
        out += ["--steps", "2", *(part for setting in SETTINGS["grpo.steps"] for part in ("--set", setting))]
    return out


def run_shell(block: Block, served: dict) -> None:
    for words in block.commands:
        if words[0] == "curl":
            post(words, served)
        if words[:3] == ["python", "-m", "benchmarks.speed"]:
            result = CliRunner().invoke(speed, words[3:])
            assert result.exit_code == 0, result.output
        if words[0] != "onesearch" or "--watch" in words:
            continue
        result = CliRunner().invoke(app, smaller(words)[1:])
        if "no version to go back" in result.output:  # a round that was not better was not published
            continue
        if "a round needs" in result.output and "sessions.parquet" in words:  # few of a tiny market's agents order
            continue
        assert result.exit_code == 0, f"line {block.line}: {' '.join(words)}\n{result.output}\n{result.exception!r}"


def post(words: list[str], served: dict) -> None:
    """Send a printed curl command to the application that ``onesearch serve`` has just made.

    A page's commands share a client, as they would a server: an application that has stopped does not start again.
    """
    from fastapi.testclient import TestClient

    path, body = re.sub(r"^http://[\d.:]+", "", words[1]), json.loads(words[words.index("-d") + 1])
    given = [os.path.expandvars(words[i + 1]) for i, word in enumerate(words) if word == "-H"]
    headers = dict(header.split(": ", 1) for header in given)
    if served.get("of") is not served["app"]:
        served.update(
            of=served["app"],
            client=served["stack"].enter_context(TestClient(served["app"], base_url="http://127.0.0.1:8000")),
        )
    answer = served["client"].post(path, json=body, headers=headers)
    assert answer.status_code == 200, answer.text


def end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers that never end by themselves: those of tools are made, and then do not serve."""

    async def made(tools: Any) -> None:
        assert tools.server is not None

    monkeypatch.setattr("uvicorn.run", lambda made, **options: None)
    monkeypatch.setattr("onesearch.serving.mcp_server.serve_stdio", made)
    monkeypatch.setattr("onesearch.serving.mcp_server.serve_http", lambda tools, *address: None)


def run_python(block: Block, space: dict) -> None:
    exec(compile("\n" * block.line + block.body, "block", "exec"), space)


def read_yaml(block: Block, place: Path) -> None:
    """A whole mapping becomes my-shop.yaml, a part of one is completed; other settings are those of rewards."""
    values = yaml.safe_load(block.body)
    if {"items", "page_views"} & set(values):
        whole = {
            "source": "my-shop",
            "folder": "files",
            "items": {"file": "products.csv", "columns": {"item_id": "sku", "title": "name"}},
        }
        path = place / ("my-shop.yaml" if "source" in values else "part.yaml")
        if "from" in values.get("page_views", {}):
            whole["judgments"] = {"file": "judged.csv", "columns": {"query": "q", "item_id": "sku", "score": "s"}}
        path.write_text(yaml.safe_dump({**whole, **values}))
        load_mapping(path)
    elif "data" in values:
        RunSettings.model_validate(values)
    elif "pins" in values:
        Rules.model_validate(values)
    else:
        RewardSettings.model_validate(values)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, examples) in HELP.items() if examples.commands])
def test_examples_of_help_run(name: str, help_place: Path, monkeypatch: pytest.MonkeyPatch):
    end_at_once(monkeypatch)
    monkeypatch.setattr("uvicorn.Server.run", lambda server: server.config.app._app.load())
    examples = HELP[name][1]
    if "--base-url" not in examples.body:
        run_shell(examples, {})
        return
    with stand_in(help_place / "data" / "market", error=0.1, seed=0) as address:
        run_shell(replace(examples, body=re.sub(r"http://\S+/v1", address, examples.body)), {})


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=[pytest.mark.long] if page.name in SLOW_PAGES else [])
        for page in PAGES
        if page.name != "method.md"
    ],
    ids=page_name,
)
def test_blocks_run(page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    found = [block for block in blocks(page) if block.language and not set(block.marks) & MARKS]
    if not found:
        return
    place = request.getfixturevalue("place")
    served: dict = {"stack": ExitStack()}
    request.addfinalizer(served["stack"].close)
    end_at_once(monkeypatch)
    # The application behind the one that opens the port and the one that logs requests.
    monkeypatch.setattr("uvicorn.Server.run", lambda server: served.update(app=server.config.app._app.load()))
    space: dict = {}
    for block in sorted(found, key=lambda block: block.language != "yaml"):  # commands read the files
        if block.language == "sh":
            run_shell(block, served)
        elif block.language == "python":
            run_python(block, space)
        elif block.language == "yaml":
            read_yaml(block, place)
        else:
            assert block.language in ("text", "json"), f"line {block.line}: nobody runs {block.language}"
    if "codes" in space:
        assert space["codes"].shape == (len(space["dataset"].items), 5)
