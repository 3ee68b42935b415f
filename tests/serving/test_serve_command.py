"""`onesearch serve`: what it loads, the admin token, errors."""

import sys

import pytest
import typer
from fastapi.testclient import TestClient
from serving_fakes import FakeEngine, catalogue
from typer.testing import CliRunner

from onesearch.cli import serve_command as command
from onesearch.serving.run_store import open_run_store
from onesearch.serving.store import StoreError


@pytest.fixture
def started(monkeypatch):
    """Runs the command without a port or a trained run; gives what would have been served."""
    served = {}

    def load(run, width=None, model=None, device=None, measured=False):
        served.update(run=run, width=width, model=model, device=device, measured=measured)
        served["engine"] = FakeEngine(catalogue())
        return served["engine"]

    monkeypatch.setattr("onesearch.search.engine.SearchEngine.load", load)
    monkeypatch.setattr(
        "onesearch.search.version_follower.VersionFollower.start", lambda self: served.update(follows=self.run)
    )

    def serve(server, sockets=None):
        served.update(vars(server.config), log=server.config.app)
        served["app"] = served["log"]._app.load()

    monkeypatch.setattr("uvicorn.Server.run", serve)
    return served


def call(*arguments, **environment):
    app = typer.Typer()
    app.command()(command.serve)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def test_serves_a_run(started, tmp_path):
    result = call(tmp_path, "--port", 8123, "--width", 32, "--queue", 7, ONESEARCH_ADMIN_TOKEN="t0ken")
    assert result.exit_code == 0, result.output
    assert "http://127.0.0.1:8123/" in result.output and "t0ken" not in result.output
    assert started["run"] == tmp_path and started["width"] == 32 and started["port"] == 8123
    assert started["host"] == "127.0.0.1", "open to this machine alone unless asked otherwise"
    assert started["app"].state.service.config.max_queue == 7
    assert (tmp_path / "serving.sqlite3").is_file()


def test_the_precision_can_be_chosen(started, tmp_path):
    assert call(tmp_path).exit_code == 0 and started["engine"].precision == "float32"
    assert call(tmp_path, "--precision", "auto").exit_code == 0 and started["engine"].precision == "auto"
    assert call(tmp_path, "--precision", "bf8").exit_code == 2


def test_the_model_can_be_chosen(started, tmp_path, monkeypatch):
    assert call(tmp_path).exit_code == 0 and started["model"] is None, "the run decides"
    assert call(tmp_path, "--model", "v1").exit_code == 0 and started["model"] == "v1"
    assert call(tmp_path, "--model", "v3").exit_code == 2
    assert "follows" not in started, "V1 has no versions"
    monkeypatch.setattr("onesearch.search.run_parts.choose_model", lambda run, model: "v2")
    assert call(tmp_path).exit_code == 0 and started["follows"] == tmp_path and not started["measured"]


def test_the_measured_engine_can_be_asked_for_and_follows_nothing(started, tmp_path, monkeypatch):
    monkeypatch.setattr("onesearch.search.run_parts.choose_model", lambda run, model: "v2")
    assert call(tmp_path, "--measured").exit_code == 0 and started["measured"] and "follows" not in started


def test_the_device_can_be_chosen(started, tmp_path):
    assert call(tmp_path).exit_code == 0 and started["device"] is None
    assert call(tmp_path, "--device", "cuda:1").exit_code == 0 and started["device"] == "cuda:1"


def test_thoughts_are_looked_up_under_the_producers_key(started, tmp_path):
    call(tmp_path)
    assert started["app"].state.service.coverage is None
    cache = tmp_path / "thoughts.sqlite3"
    for producer, name in (("log-expert", "log-expert"), ("llm", "llm:Big-7B"), ("market", "llm:stand-in")):
        result = call(tmp_path, "--thoughts", cache, "--producer", producer, ONESEARCH_LLM_MODEL="Big-7B")
        assert result.exit_code == 0 and name in result.output, result.output
        source = started["app"].state.service.coverage._source
        assert (source.producer, source.version) == (name, "1") and not cache.exists(), "opened off the way"
    source.open().close()
    assert cache.is_file()


def test_api_only_and_another_store(started, tmp_path):
    result = call(tmp_path, "--api-only", "--store", tmp_path / "else.db")
    place = result.output.partition("Open http://127.0.0.1:8000")[2].split()[0]
    with TestClient(started["app"], base_url="http://127.0.0.1:8000") as client:
        assert client.get(place).status_code == 200 and client.get("/docs").status_code == 404
    assert started["app"].state.service.config.page is False
    assert (tmp_path / "else.db").is_file() and not (tmp_path / "serving.sqlite3").exists()


def test_only_the_own_names_are_answered_unless_more_are_given(started, tmp_path):
    own = {"localhost", "127.0.0.1", "::1"}
    for options, expected in (
        ((), own),
        (("--host", "shop.local"), {*own, "shop.local"}),
        (("--host", "0.0.0.0"), set()),
        (("--host", "::", "--allowed-host", "Shop.example", "--allowed-host", "[::2]"), {*own, "shop.example", "::2"}),
        (("--allowed-host", "*"), set()),
    ):
        result = call(tmp_path, *options)
        assert result.exit_code == 0, result.output
        assert set(started["app"].state.service.config.allowed_hosts) == expected, options
        assert ("--allowed-host" in result.output) == (options == ("--host", "0.0.0.0"))


def test_origins_are_those_that_browsers_send(started, tmp_path):
    given = ["https://Shop.example/", "http://[::1]:3000", "https://b.example:443", "*"]
    call(tmp_path, *(part for one in given for part in ("--allow-origin", one)))
    found = started["app"].state.service.config.allowed_origins
    assert found == ("https://shop.example", "http://[::1]:3000", "https://b.example", "*")
    for wrong in (
        "null",
        "shop.example",
        "https://shop.example/page",
        "https://me@shop.example",
        "ftp://shop.example",
        "",
    ):
        result = call(tmp_path, "--allow-origin", wrong)
        assert "allowed_origins.0: must be scheme and host alone" in str(result.exception), wrong


def test_pictures_of_named_hosts_and_a_currency(started, tmp_path):
    hosts = ("--image-hosts", "https://IMG.shop.example:443/", "--image-hosts", "http://127.0.0.1:9000")
    assert call(tmp_path, *hosts, "--currency", "EUR").exit_code == 0
    assert started["app"].state.service.engine.trusted == ["img.shop.example:443", "127.0.0.1:9000"]
    with TestClient(started["app"], base_url="http://localhost") as client:
        policy = client.get("/").headers["content-security-policy"]
        shown = client.get("/filters").json()
    assert "; img-src 'self' https://img.shop.example http://127.0.0.1:9000; " in policy
    assert shown["image_hosts"] == ["https://img.shop.example", "http://127.0.0.1:9000"] and shown["currency"] == "EUR"
    for option, where, wrong in (
        *(
            ("--image-hosts", "image_hosts.0: must be scheme and host alone, such as https://img.shop.example", wrong)
            for wrong in ("img.shop.example", "https://a.example/x", "https://a.example; script-src *", "*", "null")
        ),
        *(("--currency", "currency: must be a currency's three capital letters", wrong) for wrong in ("euro", "€", "")),
    ):
        refused = call(tmp_path, option, wrong)
        assert refused.exit_code == 1, wrong
        assert str(refused.exception).startswith(f"onesearch serve: {where}") and repr(wrong) in str(refused.exception)


def test_keys_come_from_the_environment_and_go_with_no_page(started, tmp_path):
    keys = {"ONESEARCH_SEARCH_KEY": "s3cret", "ONESEARCH_EVENTS_KEY": "s4cret"}
    refused = call(tmp_path, **keys)
    assert refused.exit_code == 1 and "--api-only" in str(refused.exception)
    result = call(tmp_path, "--api-only", **keys)
    assert result.exit_code == 0 and "cret" not in result.output
    with TestClient(started["app"], base_url="http://localhost") as client:
        assert client.post("/search", json={"query": "lamp"}).status_code == 401
        answer = client.post("/search", json={"query": "lamp"}, headers={"Authorization": "Bearer s3cret"})
        assert answer.status_code == 200


def test_the_server_has_deadlines(started, tmp_path):
    assert call(tmp_path, "--keep-days", 30).exit_code == 0
    assert started["timeout_graceful_shutdown"] == 10 and started["http"].limits.max_connections == 512
    assert started["app"].state.service.config.keep_days == 30


def test_a_made_token_is_shown_on_a_terminal_and_never_in_a_log(monkeypatch, capsys):
    monkeypatch.delenv(command.TOKEN_VARIABLE, raising=False)
    assert command.admin_token() is None, "no terminal: the output may be a file"
    assert command.TOKEN_VARIABLE in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    token = command.admin_token()
    assert token and len(token) >= 32 and token in capsys.readouterr().err
    assert token != command.admin_token()


def test_missing_run_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"onesearch run configs/demo\.yaml"):
        open_run_store(tmp_path / "no", str(tmp_path / "no" / "x.db"), make=True)
    assert not (tmp_path / "no").exists()


def test_a_link_in_the_stores_place_is_not_written_through(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "serving.sqlite3").symlink_to(tmp_path / "victim")
    with pytest.raises(ValueError, match=r"serving\.sqlite3 is a link"):
        open_run_store(tmp_path / "run", None, make=True)
    assert not (tmp_path / "victim").exists()


def test_store_address_is_checked(tmp_path):
    with pytest.raises(StoreError, match=r"could not open.*--store names another place"):
        open_run_store(tmp_path, str(tmp_path), make=True)  # a folder


@pytest.mark.parametrize("days", ["100001", "1e300"])
def test_days_that_no_calendar_has_are_refused_at_the_start(tmp_path, days):
    """Later the task that forgets what is old would end, and with it that which follows item changes."""
    done = call(str(tmp_path), "--keep-days", days)
    assert done.exit_code == 1 and "keep_days: Input should be less than or equal to 100000" in str(done.exception)


def test_help_teaches():
    text = call("--help").output
    assert "ONESEARCH_ADMIN_TOKEN" in text and "onesearch serve runs/demo" in text
