"""The tools of agents, asked by the client of the ``mcp`` package: over standard input and output, and over HTTP."""

import asyncio
import json
import os
import sys
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from serving_fakes import served
from typer.testing import CliRunner

from onesearch.cli import app as command_line
from onesearch.serving.access import Keys
from onesearch.serving.agent_tools import ADMIN_TOOLS, TOOLS
from onesearch.serving.http_app import create_app
from onesearch.serving.mcp_server import ToolServer, http_app
from onesearch.serving.service_client import CallRefusedError, ServiceClient
from onesearch.serving.serving_settings import ServingSettings

TOKEN = "correct horse battery staple"
READING = ["search", "item", "similar", "filters"]
CHANGING = ["upsert_item", "rules", "set_rules"]
NEW = {"item_id": "new", "title": "violet lamp", "price": 3.5}


def words(result):
    assert result.is_error and result.structured_content is None
    return result.content[0].text


def found(result):
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


@pytest.fixture
def service(engine, store):
    """A running service, with an admin token."""
    with served(create_app(engine, store, admin_token=TOKEN)) as url:
        yield url


def stdio(url, *options, **environment):
    # The client's process inherits little of ours by itself.
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    arguments = ["-m", "onesearch", "-q", "mcp", "--url", url, *options]
    return StdioServerParameters(command=sys.executable, args=arguments, env={**kept, **environment})


@asynccontextmanager
async def over_http(url, key=None):
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=20) as http,
        Client(streamable_http_client(f"{url}mcp", http_client=http), cache=None) as client,
    ):
        yield client


@pytest.mark.timeout(120)
def test_a_process_offers_tools_that_only_read(service, engine, store):
    async def talk():
        async with Client(stdio(service, "--user", "ann")) as client:
            tools = (await client.list_tools()).tools
            assert [tool.name for tool in tools] == READING
            assert all(tool.annotations.read_only_hint and tool.output_schema for tool in tools)
            page = found(await client.call_tool("search", {"query": "lamp", "k": 2, "budget": 40}))
            item = found(await client.call_tool("item", {"item_id": page["items"][0]["item_id"]}))
            like = found(await client.call_tool("similar", {"item_id": item["item_id"], "k": 2}))
            filters = found(await client.call_tool("filters", {}))
            refused = [
                await client.call_tool("search", {"query": "lamp", "k": 21}),
                await client.call_tool("search", {"qery": "lamp"}),
                await client.call_tool("item", {"item_id": "nothing"}),
                await client.call_tool("upsert_item", NEW),
            ]
            return page, item, like, filters, [words(one) for one in refused]

    before = dict(engine.items)
    page, item, like, filters, refused = asyncio.run(talk())
    assert len(page["items"]) == 2 and page["ask"] and all(one["price"] <= 40 for one in page["items"])
    assert engine.items[item["item_id"]].title == item["title"] and item["description"] is None
    assert len(like["items"]) == 2 and item["item_id"] not in {one["item_id"] for one in like["items"]}
    assert filters["attributes"] == [{"value": "Color", "items": 60}]
    assert "less than or equal to 20" in refused[0] and refused[0].startswith("search: k")
    assert "the nearest valid key is 'query'" in refused[1]
    assert "no item 'nothing'" in refused[2]
    assert refused[3] == "there is no tool 'upsert_item'; there are search, item, similar, filters"
    # The search was that of the shopper named at the start, and nothing was written down of it.
    assert any(one.user == "ann" and one.history.clicked for one in engine.requests)
    assert store.history("ann").recent_queries == () and engine.items == before


@pytest.mark.timeout(120)
def test_a_process_with_the_admin_key_changes_items_and_rules(service, engine):
    async def talk(key):
        async with Client(stdio(service, "--admin", ONESEARCH_ADMIN_TOKEN=key)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            changed = await client.call_tool("upsert_item", NEW)
            rules = await client.call_tool("set_rules", {"rules": "pins:\n- {name: p, items: [new]}\n", "base": 0})
            stale = await client.call_tool("set_rules", {"rules": "{}", "base": 0})
            return names, changed, rules, stale

    names, changed, rules, stale = asyncio.run(talk(TOKEN))
    assert names == READING + CHANGING and found(changed)["upserted"] == 1
    assert engine.items["new"].title == "violet lamp" and found(rules)["version"] == 1 and engine.rules.pins
    assert "version 1" in words(stale) or "newest" in words(stale)
    # The service looks at the key, whatever this process was told.
    engine.delete(["new"])
    _, changed, rules, _ = asyncio.run(talk("guessed"))
    assert words(changed) == words(rules) == "wrong admin token" and "new" not in engine.items


def tools(engine, store, admin=True, search_key=None):
    inner = create_app(engine, store, ServingSettings(page=False), admin_token=TOKEN, search_key=search_key)
    client = ServiceClient(inner, search_key, TOKEN if admin else None)
    return ToolServer(client, Keys(search_key, None, TOKEN), admin)


@pytest.mark.timeout(120)
def test_over_http_each_request_needs_its_own_key(engine, store):
    async def names(url, key=None):
        async with over_http(url, key) as client:
            listed = [tool.name for tool in (await client.list_tools()).tools]
            return (
                listed,
                await client.call_tool("upsert_item", NEW),
                await client.call_tool("search", {"query": "lamp"}),
            )

    with served(http_app(tools(engine, store, search_key="s3cret"), ("127.0.0.1",))) as url:
        assert httpx2.post(f"{url}mcp", json={}).status_code == 401
        assert httpx2.post(f"{url}mcp", json={}, headers={"Authorization": "Bearer no"}).status_code == 403
        listed, changed, page = asyncio.run(names(url, "s3cret"))
        assert listed == READING and "there is no tool" in words(changed) and found(page)["items"]
        assert "new" not in engine.items
        listed, changed, page = asyncio.run(names(url, TOKEN))
        assert listed == READING + CHANGING and found(changed)["items"] == 61 and found(page)["items"]
        assert "new" in engine.items
        # A page elsewhere leads a browser here by a name of its own.
        strange = {
            "Authorization": "Bearer s3cret",
            "Host": "evil.example",
            "Accept": "application/json, text/event-stream",
        }
        assert httpx2.post(f"{url}mcp", json={}, headers=strange).status_code == 421


@pytest.mark.timeout(120)
def test_over_http_without_admin_nobody_changes_anything(engine, store):
    async def talk(url, key):
        async with over_http(url, key) as client:
            return [tool.name for tool in (await client.list_tools()).tools], await client.call_tool("upsert_item", NEW)

    with served(http_app(tools(engine, store, admin=False))) as url:
        for key in (None, TOKEN):
            listed, changed = asyncio.run(talk(url, key))
            assert listed == READING and "there is no tool" in words(changed) and "new" not in engine.items
        assert httpx2.post(f"{url}mcp", content=b"x" * (1 << 20) + b"x").status_code == 413


def test_with_admin_and_no_key_for_searches_a_wrong_key_is_told(engine, store):
    with served(http_app(tools(engine, store))) as url:
        assert httpx2.post(f"{url}mcp", json={}, headers={"Authorization": "Bearer no"}).status_code == 403


async def in_process(engine, store, name, arguments, **more):
    server = tools(engine, store, **more)
    async with server.client, Client(server.server) as client:
        return await client.call_tool(name, arguments)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("search", {}, "search: query"),
        ("search", {"query": "x", "record": True}, "unknown key 'record'"),
        ("search", {"query": "x", "user": "ann"}, "unknown key 'user'"),
        ("search", {"query": "x", "filters": {"price": [9, 1]}}, "is above the highest"),
        ("search", {"query": "lamp", "filters": {"seller": "nobody"}}, "no item has a seller"),
        ("search", {"query": 5}, "search: query"),
        ("item", {"item_id": ""}, "item: item_id"),
        ("item", {"item_id": "a\nb"}, "control characters"),
        ("similar", {"item_id": "i1", "k": "2"}, "must be a number"),
        ("similar", {"item_id": "../users/ann"}, "no item '../users/ann'"),
        ("filters", {"most": 0}, "filters: most"),
        ("upsert_item", {"item_id": "a"}, "upsert_item: title"),
        ("set_rules", {"rules": "x"}, "set_rules: base"),
        ("set_rules", {"rules": "pins: 5", "base": 0}, "pins"),
        ("rules", {"x": 1}, "rules: "),
    ],
)
def test_every_tool_names_what_is_wrong(engine, store, name, arguments, told):
    assert told in words(asyncio.run(in_process(engine, store, name, arguments)))
    assert engine.changes == 0 and engine.live_rules is None


def test_every_tool_is_refused_something_above():
    refused = {"search", "item", "similar", "filters", "upsert_item", "set_rules", "rules"}
    assert refused == {tool.name for tool in (*TOOLS, *ADMIN_TOOLS)}


def test_what_fails_inside_stays_inside(engine, store, monkeypatch):
    answer = words(asyncio.run(in_process(engine, store, "search", {"query": "explode"})))
    assert answer == "internal error; see the server's log"


def test_an_answer_that_is_too_long_is_refused(engine, store, monkeypatch):
    monkeypatch.setattr("onesearch.serving.mcp_server._MOST_ANSWER", 500)
    assert "ask for fewer" in words(asyncio.run(in_process(engine, store, "search", {"query": "lamp"})))


def test_a_client_without_the_admin_key_makes_no_admin_calls(engine, store):
    async def talk():
        async with ServiceClient(create_app(engine, store, admin_token=TOKEN), search_key=TOKEN) as client:
            await client.call("POST", "/items", {"delete": ["i1"]}, admin=True)

    with pytest.raises(CallRefusedError, match="changes need the admin key"):
        asyncio.run(talk())
    assert "i1" in engine.items


def test_what_is_no_service_is_told():
    async def talk(url):
        async with ServiceClient(url) as client:
            await client.call("GET", "/agent/filters")

    with pytest.raises(CallRefusedError, match="does not answer"):
        asyncio.run(talk("http://127.0.0.1:9"))
    for address in ("127.0.0.1:8000", "file:///etc/passwd", "http://", "http://me:secret@host"):
        with pytest.raises(ValueError, match="address"):
            ServiceClient(address)


async def _stranger(scope, receive, send):
    """A server that is no service of ours."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"<html>"})


async def _endless(scope, receive, send):
    """A server whose answer has no end."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})


def test_an_answer_is_read_no_further_than_it_may_go():
    async def talk(url):
        async with ServiceClient(url) as client:
            await client.call("GET", "/agent/filters")

    with served(_endless) as url, pytest.raises(CallRefusedError, match="more than the 4,194,304 bytes"):
        asyncio.run(asyncio.wait_for(talk(url), 20))


def test_an_answer_of_another_program_is_told():
    async def talk(url):
        async with ServiceClient(url) as client:
            await client.call("GET", "/agent/filters")

    with served(_stranger) as url, pytest.raises(CallRefusedError, match="is no onesearch service"):
        asyncio.run(talk(url))


def test_the_command_wants_one_place_and_a_key_for_the_admin(monkeypatch):
    monkeypatch.delenv("ONESEARCH_ADMIN_TOKEN", raising=False)
    run = CliRunner().invoke
    for arguments in (["mcp"], ["mcp", "runs/demo", "--url", "http://x"]):
        assert "and not both" in run(command_line, arguments).stderr
    assert "set ONESEARCH_ADMIN_TOKEN" in run(command_line, ["mcp", "--url", "http://x", "--admin"]).stderr
    with pytest.raises(ValueError, match="ONESEARCH_ADMIN_TOKEN"):
        ToolServer(ServiceClient("http://x"), Keys(), admin=True)
