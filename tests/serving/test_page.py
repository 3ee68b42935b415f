"""The page in a real headless Chromium: search, filter, click, buy, and see the history and the ranking change."""

import os
import re
import zipfile
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving_fakes import CHROMIUM, CHROMIUM_FLAGS, FakeEngine, FlakyStore, catalogue, served

from onesearch.data.records import Item
from onesearch.serving.http_app import create_app
from onesearch.serving.serving_settings import ServingSettings
from pictures import picture

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
expect = playwright.expect
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH"),
]
HOSTILE = "<img src=x onerror=document.title='owned'> cap"


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The application behind a real HTTP server."""
    texts = {"Material": ("<img src=y onerror=document.title='owned'>",)}
    more = {"seller": "<s>Shop</s>", "description": "<script>document.title='owned'</script>", "attributes": texts}
    engine = FakeEngine([*catalogue(), Item("evil", HOSTILE, ("<b>Home</b>",), "<i>Evil</i>", 1.0, **more)])
    store = FlakyStore(tmp_path_factory.mktemp("page") / "store.sqlite3")
    with served(create_app(engine, store, admin_token="page token")) as url:
        yield url, engine, store


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with playwright.sync_playwright() as tools:
        context = tools.chromium.launch_persistent_context(
            str(tmp_path_factory.mktemp("chromium")),
            executable_path=CHROMIUM,
            args=CHROMIUM_FLAGS,
            headless=True,
            viewport={"width": 1440, "height": 900},
        )
        context.set_default_timeout(15_000)
        yield context
        context.close()


@pytest.fixture
def page(browser, service):
    url, _, store = service
    store.broken = frozenset()
    page = browser.new_page()
    problems, outside = [], []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda line: problems.append(line.text) if line.type == "error" else None)
    page.on("request", lambda request: None if request.url.startswith(url) else outside.append(request.url))
    page.problems = problems
    yield page
    page.close()
    assert not outside, "the page must load nothing from elsewhere"


def settle(page):
    """Wait until both columns show answers and nothing is on its way."""
    page.wait_for_selector("main[aria-busy=false]")


def titles(page, column="onesearch"):
    return page.locator(f"#{column} .card .title").all_inner_texts()


def search(page, text):
    page.fill("#query", text)
    page.press("#query", "Enter")
    settle(page)


def test_search_filter_click_buy_and_see_the_ranking_change(page, service):
    url, engine, _ = service
    page.goto(url + "?user=newcomer")
    settle(page)
    search(page, "lamp")
    first = titles(page)
    assert len(first) == 10 and all("lamp" in title for title in first)
    assert titles(page, "bm25") == first, "a stranger's ranking is BM25's here"
    card = page.locator("#onesearch .card").first
    best = page.request.post(url + "search", data={"query": "lamp", "record": False}).json()["results"][0]
    assert card.locator(".chip").all_inner_texts() == best["sid_tokens"] and len(best["sid_tokens"]) == 5
    assert "ms" in page.locator("#onesearch .facts").inner_text()
    assert card.locator(".price").inner_text() and card.locator(".score").inner_text()

    # Pointing at a token lights up those that share the path so far.
    card.locator(".chip").first.hover()
    page.wait_for_selector("#onesearch .card.shared")
    page.mouse.move(0, 0)

    # A click opens the item, enters the history and changes the next ranking, but not BM25's.
    target = titles(page)[6]
    page.locator("#onesearch .card .title").nth(6).click()
    settle(page)
    assert page.locator("#detail-title").inner_text() == target
    page.click("#detail-close")
    history = page.locator("#history")
    assert target in history.locator("ul.click li").first.inner_text()
    assert titles(page).index(target) < 6
    assert titles(page, "bm25") == first
    assert page.locator("[data-part=personal]").is_visible()
    assert page.locator("#onesearch .moved").count() >= 1

    bought = page.locator("#onesearch .card", has=page.locator(".buy:enabled")).nth(2)
    name = bought.locator(".title").inner_text()
    bought.locator(".buy").click()
    settle(page)
    assert name in history.locator("ul.order li").first.inner_text()

    page.select_option("#brand", "Acme")
    settle(page)
    assert titles(page) and all("Acme" in title for title in titles(page) + titles(page, "bm25"))
    page.fill("#price-high", "20")
    page.press("#in-stock", "Space")  # by key: the price's search may move what a pointer aims at
    assert page.is_checked("#in-stock")
    settle(page)
    prices = [float(text) for text in page.locator("#onesearch .price").all_inner_texts()]
    assert prices and max(prices) <= 20 and page.locator(".meta .out").count() == 0
    # Two fields changed, so two searches were sent; the server may have answered the overtaken one last.
    assert {"brand": "Acme", "price": [None, 20], "in_stock": True} in [request.filters for request in engine.requests]
    page.click("#reset")
    settle(page)
    assert len(titles(page)) == 10

    # The history belongs to this shopper; nobody else has it.
    page.select_option("#shopper", "")
    settle(page)
    assert "Anonymous" in history.inner_text() and titles(page) == first
    assert not page.locator("[data-part=personal]").is_visible()
    assert page.problems == []


def test_history_survives_a_reload_and_queries_can_be_repeated(page, service):
    url, *_ = service
    page.goto(url + "?q=mug&user=returner")
    settle(page)
    page.locator("#onesearch .buy:enabled").first.click()
    settle(page)
    search(page, "drill")
    page.reload()
    settle(page)
    assert page.input_value("#query") == "drill" and page.input_value("#shopper") == "returner"
    assert page.locator("#history ul.order li.live").count() == 1
    page.locator("#history .pill", has_text="mug").click()
    settle(page)
    assert "mug" in titles(page)[0]


def test_new_shopper_starts_empty(page, service):
    page.goto(service[0])
    settle(page)
    assert page.input_value("#shopper"), "a shopper with a history is chosen at first"
    page.select_option("#shopper", label="New shopper")
    settle(page)
    assert page.input_value("#shopper").startswith("guest-")
    assert "Nothing yet" in page.locator("#history").inner_text()


def test_catalogue_text_is_never_markup(page, service):
    page.goto(service[0] + "?q=cap")
    settle(page)
    assert HOSTILE in titles(page)
    page.locator("#onesearch .title", has_text="<img").click()
    settle(page)
    assert page.locator("#detail-title").inner_text() == HOSTILE
    assert page.locator("img").count() == 0 and page.locator("#onesearch .meta i").count() == 0
    shown = page.locator("#detail").inner_text()
    for text in ("<s>Shop</s>", "<img src=y", "<b>Home</b>", "<i>Evil</i>"):
        assert text in shown
    assert page.locator("#detail s, #detail script, #detail b b, #detail i").count() == 0
    assert "owned" not in page.title() and page.problems == []


def test_more_results_and_another_order(page, service):
    url, engine, _ = service
    page.goto(url + "?q=red+shoe")
    settle(page)
    first, more = titles(page), page.locator("#more")
    total = page.request.post(url + "search", data={"query": "red shoe", "count": True, "record": False}).json()[
        "total"
    ]
    assert total > 20 and f"10 of {total}" in more.inner_text()
    assert f"{total} results" in page.locator("#onesearch .facts").inner_text()
    more.click()
    settle(page)
    both = titles(page)
    assert len(both) == 20 and both[:10] == first and not set(both[10:]) & set(first)
    assert page.locator("#onesearch .card .tile span").last.inner_text() == "20"
    while more.is_visible():
        more.click()
        settle(page)
    assert len(titles(page)) == total
    page.select_option("#sort", "-price")
    settle(page)
    assert engine.requests[-1].sort == "-price" and engine.requests[-1].count and engine.requests[-1].offset == 0
    assert len(titles(page)) == 10 and page.locator("#reset").is_visible()
    page.click("#reset")
    settle(page)
    assert titles(page) == first and page.problems == []


def test_choices_count_the_results_and_the_link_says_them(page, service):
    url = service[0]
    page.goto(url + "?q=red+shoe")
    settle(page)
    hits = page.request.post(url + "search", data={"query": "red shoe", "k": 100, "record": False}).json()["results"]
    brands = Counter(hit["item"]["brand"] for hit in hits)

    def shown() -> dict[str, str]:
        options = page.locator("#brand option").all_inner_texts()[1:]
        return dict(option.removesuffix(")").rsplit(" (", 1) for option in options)

    assert shown() == {brand: str(count) for brand, count in brands.items()} and len(brands) > 1
    # A chosen brand leaves the others their numbers; the category's are those of this brand.
    brand, count = brands.most_common()[-1]
    page.select_option("#brand", brand)
    settle(page)
    assert shown() == {brand: str(count) for brand, count in brands.items()} and page.input_value("#brand") == brand
    categories = page.locator("#category option").all_inner_texts()[1:]
    leaves = [text for text in categories if " > " in text]
    assert sum(int(text.rsplit("(", 1)[1][:-1]) for text in leaves) == count
    page.select_option("#sort", "-price")
    settle(page)
    before = titles(page)
    page.goto(page.url)  # by its link alone
    settle(page)
    assert page.input_value("#brand") == brand and page.input_value("#sort") == "-price" and titles(page) == before
    page.goto(url + "?q=red+shoe&brand=Nobody&sort=secret&in-stock=yes")
    settle(page)
    assert titles(page) == [] and page.input_value("#sort") == "" and page.is_checked("#in-stock")
    assert page.problems == []


def test_words_are_marked_and_a_result_says_why_it_is_here(page, service):
    page.goto(service[0] + "?q=red+shoe")
    settle(page)
    assert page.locator("#onesearch .card mark").all_inner_texts() == [title[:3] for title in titles(page)]
    score = float(page.locator("#onesearch .score").nth(2).inner_text())
    page.locator("#onesearch .title").nth(2).click()
    settle(page)
    page.click("#detail .why summary")
    page.wait_for_selector("#detail .why table")
    assert "Found by BM25." in page.locator("#detail .why").inner_text()
    cells = page.locator("#detail .why td").all_inner_texts()
    assert cells[0] == "words" and float(cells[2]) == pytest.approx(score, abs=0.01)
    page.click("#detail-close")
    page.locator("#bm25 .title").first.click()
    settle(page)
    assert page.locator("#detail .why").count() == 0
    assert page.problems == []


def test_completions_by_keyboard_and_pointer(page, service):
    page.goto(service[0])
    settle(page)
    box, shown = page.locator("#query"), page.locator("#suggestions li")
    box.press_sequentially("red")
    page.wait_for_selector("#suggestions li")
    assert shown.count() == 8 and "item" in shown.nth(1).inner_text()
    assert box.get_attribute("aria-expanded") == "true" and box.get_attribute("aria-activedescendant") is None
    # Up from the box is the last one, down from there the box again.
    for key, place in (("ArrowUp", 7), ("ArrowDown", -1), ("ArrowDown", 0), ("ArrowDown", 1), ("ArrowUp", 0)):
        box.press(key)
        marked = page.locator("#suggestions [aria-selected=true]")
        assert marked.count() == (place >= 0)
        assert box.get_attribute("aria-activedescendant") == (
            shown.nth(place).get_attribute("id") if marked.count() else None
        )
    box.press("Enter")
    settle(page)
    assert box.input_value() == "red shoe" and "red shoe" in titles(page)[0]
    assert page.locator("#suggestions").is_hidden() and box.get_attribute("aria-expanded") == "false"
    # Escape leaves what is typed; a pointer takes what it points at.
    box.fill("clo")
    page.wait_for_selector("#suggestions li")
    box.press("Escape")
    assert page.locator("#suggestions").is_hidden() and box.input_value() == "clo"
    box.press("t")
    page.locator("#suggestions li", has_text="Clothing").click()
    settle(page)
    assert box.input_value() == "Clothing"
    box.fill("evil" * 3)
    page.wait_for_timeout(300)
    assert page.locator("#suggestions").is_hidden() and page.problems == []


def test_the_page_says_what_it_corrected(page, service):
    url, engine, _ = service
    page.goto(url)
    settle(page)
    search(page, "red lmap")
    said = page.locator("#correction")
    assert said.inner_text() == "Showing results for red lamp. Search instead for red lmap"
    assert "lamp" in titles(page)[0]
    said.locator("button").click()
    settle(page)
    assert [request.correct for request in engine.requests[-2:]].count(False) == 1
    assert said.inner_text() == "Did you mean red lamp?"
    said.locator("button").click()
    settle(page)
    assert page.input_value("#query") == "red lamp" and said.is_hidden() and page.problems == []


def test_the_page_says_when_nothing_fits(page, service):
    page.goto(service[0] + "?q=lamp")
    settle(page)
    search(page, "qwertyzxcv")
    assert "Nothing fits" in page.locator("#notice").inner_text()
    search(page, "lamp")
    assert page.locator("#notice").is_hidden()


def test_failing_store_is_said_on_the_page(page, service):
    url, _, store = service
    page.goto(url + "?q=lamp&user=ann")
    settle(page)
    assert page.locator("#notice").is_hidden()
    store.broken = frozenset({"history", "record", "record_search"})
    search(page, "lamp")
    assert "anonymous" in page.locator("#notice").inner_text() and len(titles(page)) == 10
    page.locator("#onesearch .buy:enabled").first.click()
    settle(page)
    assert "Not recorded" in page.locator("#notice").inner_text()


PICTURES = {
    "i0": ("https://img.shop.example/a.svg", "https://IMG.shop.example:443/b.svg", "https://other.example/c.svg"),
    "i5": ("https://img.shop.example/gone.svg",),
    "i10": ("https://other.example/c.svg", "images/d.svg", "//img.shop.example/e.svg"),
    "i15": ("http://img.shop.example/f.svg", "https://img.shop.example.other.example/g.svg", "javascript:alert(1)"),
    "i20": ("blob:https://img.shop.example/h", "data:image/svg+xml,<svg/>"),
}


def test_pictures_come_from_named_hosts_alone_and_prices_have_a_currency(browser, tmp_path):
    items = [replace(item, images=PICTURES.get(item.item_id, ())) for item in catalogue(25)]
    config = ServingSettings(image_hosts=("https://img.shop.example/",), currency="EUR")
    app = create_app(FakeEngine(items), FlakyStore(tmp_path / "store.sqlite3"), config)
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="400"><rect width="90" height="400"/></svg>'
    asked = []

    def answer(route):
        asked.append(route.request.url)
        there = "gone" not in route.request.url
        route.fulfill(status=200 if there else 404, content_type="image/svg+xml", body=svg if there else "")

    refused = []
    with served(app) as url, browser.new_page() as page:
        page.on("console", lambda line: refused.append(line.text) if "Content Security Policy" in line.text else None)
        page.route(lambda address: not address.startswith(url), answer)
        page.goto(url + "?q=shoe&user=ann")
        settle(page)
        picture = page.locator("#onesearch img")
        page.wait_for_selector("#onesearch img.there")
        expect(picture).to_have_count(1)  # the one that is gone has left its letter
        assert picture.get_attribute("src") == PICTURES["i0"][0] and picture.get_attribute("loading") == "lazy"
        title = page.locator("#onesearch .card", has=page.locator("img")).locator(".title").inner_text()
        assert picture.get_attribute("alt") == title
        sizes = page.evaluate("[...document.querySelectorAll('.tile')].map((one) => one.getBoundingClientRect().width)")
        assert set(sizes) == {52}
        assert set(page.locator("#onesearch .tile b").all_inner_texts()) <= {"S", "A", "L"}
        price = page.locator("#onesearch .price").first.inner_text()
        assert re.fullmatch(r"€\d+\.\d\d", price) and page.locator("legend").inner_text() == "Price in EUR"
        # All of an item's pictures are in its detail.
        page.locator("#onesearch .title", has_text=title).click()
        settle(page)
        page.wait_for_selector("#detail img.there")
        words = [one.get_attribute("alt") for one in page.locator("#detail img").all()]
        assert words == [f"{title}, picture 1 of 2", f"{title}, picture 2 of 2"]
        # What the page does not ask for, the browser would refuse.
        assert refused == []
        page.evaluate("document.body.append(Object.assign(new Image(), { src: 'https://other.example/c.svg' }))")
        page.wait_for_timeout(100)
        assert len(refused) == 1
    assert {address.split("/")[2] for address in asked} == {"img.shop.example"} and len(asked) >= 3


def test_the_pictures_that_a_run_brings_are_shown_without_a_named_host(browser, tmp_path):
    """Those that lie in its archive; a name that leads elsewhere is not asked for, one that is not there leaves."""
    names = ("i0-0.png", "i0-1.png", "../secret.png", "a/b.png", "x?y.png", "gone.png")
    images = tuple(f"pictures.zip/{name}" for name in names)
    items = [replace(item, images=images if item.item_id == "i0" else ()) for item in catalogue(5)]
    with zipfile.ZipFile(tmp_path / "pictures.zip", "w") as archive:
        for name in names[:2]:
            archive.writestr(name, picture())
    app = create_app(FakeEngine(items), FlakyStore(tmp_path / "s.sqlite3"), pictures=tmp_path / "pictures.zip")
    asked = []
    with served(app) as url, browser.new_page() as page:
        page.on("request", lambda request: asked.append(request.url) if "pictures/" in request.url else None)
        page.goto(url + "?q=shoe")
        settle(page)
        page.wait_for_selector("#onesearch img.there")
        assert page.locator("#onesearch img").evaluate_all("all => all.map((one) => one.naturalWidth)") == [40]
        page.locator("#onesearch .card", has=page.locator("img")).locator(".title").click()
        settle(page)
        expect(page.locator("#detail img.there")).to_have_count(2)
        expect(page.locator("#detail img")).to_have_count(2)
    assert {address.removeprefix(url) for address in asked} == {f"pictures/{name}" for name in (*names[:2], names[5])}


def test_on_a_phone_filters_stand_above_the_results_and_nothing_scrolls_sideways(page, service):
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(service[0] + "?q=red+shoe&user=ann")
    settle(page)
    panel = page.locator("aside details").first
    assert page.locator("#brand").is_hidden()
    assert panel.bounding_box()["y"] < page.locator("#onesearch .card").first.bounding_box()["y"] < 740
    # By keyboard alone: open the panel, choose.
    panel.locator("summary").press("Enter")
    page.locator("#brand").press("A")
    page.locator("#brand").press("Tab")
    settle(page)
    assert page.input_value("#brand") == "Acme" and "brand=Acme" in page.url
    assert page.locator("#filters-set").inner_text() == "1 set"
    sideways = """[...document.querySelectorAll("*")].filter((one) => one.scrollWidth > one.clientWidth
        && (one === document.documentElement || ["auto", "scroll"].includes(getComputedStyle(one).overflowX)))
        .map((one) => `${one.tagName} ${one.className} ${one.scrollWidth} > ${one.clientWidth}`)"""
    for action in ("#onesearch .title", "#detail .why summary", "#detail-close"):
        assert page.evaluate(sideways) == []
        page.locator(action).first.click()
        settle(page)
    page.goto(service[0] + "admin")
    assert page.evaluate(sideways) == [] and page.problems == []


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (1440, "dark"), (1000, "light"), (390, "dark")])
def test_fits_every_screen(page, service, width, scheme):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme)
    page.goto(service[0] + "?q=red+shoe&user=ann")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out to the right"
    shots = os.environ.get("ONESEARCH_SCREENSHOTS")
    if shots:
        page.screenshot(path=str(Path(shots) / f"page-{width}-{scheme}.png"))


def test_rules_are_edited_previewed_and_saved(page, service):
    url, engine, _ = service
    page.goto(url + "admin")
    page.fill("#token", "wrong")
    page.click("#open button")
    page.wait_for_selector("#notice:visible")
    assert "wrong admin token" in page.locator("#notice").inner_text() and page.locator("#rules").is_disabled()
    page.problems.clear()  # the browser itself notes that it was refused

    page.fill("#token", "page token")
    page.click("#open button")
    page.wait_for_selector("#rules:enabled")
    page.fill("#rules", "pins: [{name: <b>best</b>, items: [i6], when: {query: lamp}}]")
    page.fill("#query", "lamp")
    page.click("#preview-button")
    page.wait_for_selector("#after li")
    first = page.locator("#after li").first.inner_text()
    assert "i6 new <b>best</b>" in first and "i6" not in page.locator("#before li").first.inner_text()
    assert not engine.rules.pins, "a preview changes nothing"

    page.fill("#who", "ann")
    page.click("#save-button")
    expect(page.locator("#version")).to_contain_text("Version 1 by ann")
    assert [pin.items for pin in engine.rules.pins] == [("i6",)] and "i6" in page.locator("#rules").input_value()
    page.fill("#rules", "pins: [{name: best, items: [nobody]}]")
    page.click("#save-button")
    expect(page.locator("#notice")).to_contain_text("no item 'nobody'")
    page.problems.clear()
    page.fill("#rules", "")
    page.click("#save-button")
    expect(page.locator("#version")).to_contain_text("Version 2")
    page.select_option("#versions", "1")
    expect(page.locator("#rules")).to_have_value(re.compile("i6"))
    assert not engine.rules.pins and page.problems == []
    shots = os.environ.get("ONESEARCH_SCREENSHOTS")
    if shots:
        page.screenshot(path=str(Path(shots) / "rules.png"))


def test_rules_about_what_is_gone_are_told_and_saved(browser, tmp_path):
    page, problems = browser.new_page(), []
    page.on("pageerror", lambda error: problems.append(str(error)))
    engine, store = FakeEngine(catalogue()), FlakyStore(tmp_path / "store.sqlite3")
    store.write_rules('{"pins": [{"name": "best", "items": ["i6"]}]}', "ann", datetime(2026, 11, 27, tzinfo=UTC))
    store.write_rules("{", "a newer onesearch", datetime(2026, 11, 28, tzinfo=UTC))
    engine.delete(["i6"])
    gone = "no item 'i6' in the catalogue any more."
    with served(create_app(engine, store, admin_token="page token")) as url:
        page.goto(url + "admin")
        page.fill("#token", "page token")
        page.click("#open button")
        expect(page.locator("#warnings")).to_contain_text("Version 2 is the newest, and this server cannot read it")
        expect(page.locator("#warnings")).to_contain_text(gone)
        page.fill("#who", "bob")
        page.fill("#rules", "pins: [{name: best, items: [i6]}]\nhides: [{name: h, column: item_id, values: [i7]}]")
        page.click("#save-button")
        expect(page.locator("#version")).to_contain_text("Version 3 by bob")
        expect(page.locator("#warnings")).to_have_text(f"pins, best: {gone}")
        page.fill("#rules", "")
        page.click("#preview-button")
        expect(page.locator("#warnings")).to_be_hidden()
        page.close()
    assert problems == []


def test_api_page_needs_no_other_server(page, service):
    page.goto(service[0] + "docs")
    page.wait_for_selector("text=/search")
    text = page.locator("#docs").inner_text()
    assert "≤ 200 characters" in text and "/items" in text and "Authorization: Bearer" in text
    assert page.problems == []
    shots = os.environ.get("ONESEARCH_SCREENSHOTS")
    if shots:
        page.screenshot(path=str(Path(shots) / "docs.png"))
