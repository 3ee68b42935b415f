"""InstantSearch with Meilisearch's own client, unchanged, in a real Chromium against our server."""

import shutil
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn
from serving_fakes import FakeEngine, FlakyStore, catalogue

from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
FRONTEND = Path(__file__).parents[1] / "frontend"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    pytest.mark.skipif(
        not (FRONTEND / "node_modules" / "instantsearch.js").is_dir(),
        reason="InstantSearch is not installed: npm install --prefix tests/frontend",
    ),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop(tmp_path):
    """The address of the shop's page, which is told where our server is; and the server's store."""
    pages = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(FRONTEND)))
    threading.Thread(target=pages.serve_forever, daemon=True).start()
    origin = f"http://127.0.0.1:{pages.server_port}"
    store = FlakyStore(tmp_path / "store.sqlite3")
    app = create_app(FakeEngine(catalogue()), store, ServingSettings(allowed_origins=(origin,)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 20
    while not server.started and time.monotonic() < end:
        time.sleep(0.02)
    ours = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield f"{origin}/index.html?server={quote(ours)}"
    server.should_exit = True
    thread.join(10)
    pages.shutdown()


def test_it_searches_filters_sorts_and_pages(shop, tmp_path):
    with playwright.sync_playwright() as tools:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page()
        page.set_default_timeout(15_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(shop)

        def hits() -> list[str]:
            return page.locator("#hits article").all_inner_texts()

        def wait(condition: str) -> None:
            page.wait_for_function(condition)

        # Type.
        page.fill("#searchbox input", "red shoe")
        wait("document.querySelectorAll('#hits article mark').length == 6")
        first = hits()
        assert all("shoe" in title or "red" in title for title in first)
        total = int(page.locator("#stats").inner_text().split()[0])
        # Page.
        page.click("#pages a[aria-label='Page 2']")
        wait(f"!document.querySelector('#hits').innerText.startsWith({first[0]!r})")
        assert not set(hits()) & set(first)
        # Filter by brand: its count is the number of results.
        option = page.locator("#brands li", has_text="Acme")
        count = int(option.locator(".ais-RefinementList-count").inner_text())
        option.locator("input").check()
        wait(f"document.querySelector('#stats').innerText.startsWith('{count} ')")
        assert 0 < count < total
        # A department, then the one below it.
        page.locator("#menu a").first.click()
        page.wait_for_selector("#menu .ais-HierarchicalMenu-list--child a")
        page.locator("#menu .ais-HierarchicalMenu-list--child a").first.click()
        page.wait_for_selector("#menu .ais-HierarchicalMenu-list--child .ais-HierarchicalMenu-item--selected")
        # By price.
        page.select_option("#sort select", "products:price:asc")
        prices = "[...document.querySelectorAll('#hits article')].map(one => Number(one.dataset.price))"
        wait(f"{prices}.length > 0 && {prices}.every((price, at, all) => !at || all[at - 1] <= price)")
        assert problems == []
        browser.close()
