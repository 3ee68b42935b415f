"""InstantSearch with Meilisearch's own client, unchanged, in a real Chromium against our server."""

import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from serving_fakes import CHROMIUM, CHROMIUM_FLAGS, FakeEngine, FlakyStore, catalogue, served

from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
FRONTEND = Path(__file__).parents[1] / "frontend"
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
    with served(create_app(FakeEngine(catalogue()), store, ServingSettings(allowed_origins=(origin,)))) as ours:
        yield f"{origin}/index.html?server={quote(ours.removesuffix('/'))}&user=newcomer", store
    pages.shutdown()


def test_it_searches_filters_sorts_pages_and_tells_of_clicks(shop):
    address, store = shop
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page()
        page.set_default_timeout(15_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
        page.goto(address)

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
        # Click and buy: events of the search that is shown, of its shopper.
        hit = page.locator("#hits article").last
        with page.expect_response("**/events"):
            hit.click()
        with page.expect_response("**/events"):
            hit.locator("button").click()
        events, searches = store.events()[0], {one.search_id: one for one in store.searches()[0]}
        assert [event.kind for event in events] == ["click", "order"]
        for event in events:
            search = searches[event.search_id]
            assert (event.user, event.query) == (search.user, search.query) == ("newcomer", "red shoe")
            assert event.item_id == search.shown[-1] == hit.get_attribute("data-item")
        assert problems == []
        browser.close()
