"""The pictures in the documents: a run is served, and a headless Chromium searches in our page and in InstantSearch.

Usage: ``python -m benchmarks.screenshot runs/demo docs/page.png docs/instantsearch.png``, after
``npm install --prefix tests/frontend``. The run stays as it is.
"""

import io
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image  # comes with matplotlib
from playwright.sync_api import Page, sync_playwright

QUERY = "waterproof boots for hiking"
FRONTEND = Path("tests/frontend")


def take(run: Path, ours: Path, instantsearch: Path) -> None:
    """Serve ``run``, and save our page with a click and InstantSearch's with a filter as PNGs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # A shop's own page lies on another origin.
    shop = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=FRONTEND))
    threading.Thread(target=shop.serve_forever, daemon=True).start()
    url, origin = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{shop.server_port}"
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "store.sqlite3")
        options = ["--port", str(port), "--store", store, "--currency", "EUR", "--allow-origin", origin]
        server = subprocess.Popen([sys.executable, "-m", "onesearch", "serve", str(run), *options])
        try:
            _wait(f"{url}/readyz")
            with sync_playwright() as tools:
                chromium = shutil.which("chromium") or shutil.which("google-chrome")
                browser = tools.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
                page = browser.new_page(viewport={"width": 1280, "height": 800})
                _search_ours(page, f"{url}/?user=visitor")
                _save(page, ours)
                page.set_viewport_size({"width": 1000, "height": 470})
                _search_instantly(page, f"{origin}/index.html?{urlencode({'server': url})}")
                _save(page, instantsearch)
                browser.close()
        finally:
            server.terminate()
            server.wait()
            shop.shutdown()


def _search_ours(page: Page, address: str) -> None:
    """Search, click a result, and see the next search know it."""
    page.goto(address)
    for action in (None, "click"):
        page.wait_for_selector("main[aria-busy=false]")
        page.fill("#query", QUERY)
        page.press("#query", "Enter")
        page.wait_for_timeout(500)
        page.wait_for_selector("main[aria-busy=false]")
        if action == "click":
            page.locator("#onesearch .card .title").nth(1).click()
            page.wait_for_selector("main[aria-busy=false]")
            page.click("#detail-close")
            page.mouse.move(0, 0)
            page.wait_for_timeout(500)


def _search_instantly(page: Page, address: str) -> None:
    """Search, and choose the first brand."""
    page.goto(address)
    page.fill("#searchbox input", QUERY)
    page.wait_for_selector("#hits mark")
    page.locator("#brands input").first.check()
    page.wait_for_selector("#brands .ais-RefinementList-item--selected")
    page.wait_for_timeout(1000)


def _save(page: Page, picture: Path) -> None:
    """In 256 colours, which take a third of the bytes."""
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
        picture, optimize=True
    )


def _wait(url: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url)
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.3)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    take(*map(Path, sys.argv[1:]))
