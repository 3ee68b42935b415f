"""axe-core finds nothing serious on our pages: contrast, names of controls, roles, landmarks, keyboard."""

from pathlib import Path

import pytest
from serving_fakes import CHROMIUM, CHROMIUM_FLAGS, FakeEngine, FlakyStore, catalogue, served

from onesearch.serving.http_app import create_app

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
AXE = Path(__file__).parents[1] / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
    pytest.mark.skipif(not AXE.is_file(), reason="axe-core is not installed: npm install --prefix tests/frontend"),
]
TOKEN = "page token"


def faults(page) -> list[str]:
    """What axe-core calls serious or critical, with the first place of each."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found if one["impact"] in ("serious", "critical")]


def settle(page) -> None:
    page.wait_for_selector("main[aria-busy=false]")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1440), ("dark", 360)])
def test_nothing_serious_on_the_search_page_and_on_that_of_rules(tmp_path, scheme, width):
    store = FlakyStore(tmp_path / "store.sqlite3")
    app = create_app(FakeEngine(catalogue()), store, admin_token=TOKEN)
    with served(app) as url, playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(15_000)
        # Results, completions, a history, and what a click does to the order.
        page.goto(url + "?q=red+lmap&user=ann")
        settle(page)
        page.locator("#onesearch .title").nth(3).click()
        settle(page)
        page.locator("#detail .why summary").click()
        page.wait_for_selector("#detail .why table")
        settle(page)
        assert faults(page) == []
        page.click("#detail-close")
        page.locator("aside details").evaluate_all("(panels) => panels.forEach((panel) => { panel.open = true; })")
        page.locator("#query").press_sequentially(" r")
        page.fill("#query", "red")
        page.wait_for_selector("#suggestions li")
        page.press("#query", "ArrowDown")
        assert faults(page) == []
        # The rules' page, before and after it is opened.
        page.goto(url + "admin")
        assert faults(page) == []
        page.fill("#token", TOKEN)
        page.click("#open button")
        page.wait_for_selector("#rules:enabled")
        page.fill("#rules", "pins: [{name: best, items: [i6], when: {query: lamp}}]")
        page.fill("#query", "lamp")
        page.click("#preview-button")
        page.wait_for_selector("#after li")
        assert faults(page) == []
        browser.close()
