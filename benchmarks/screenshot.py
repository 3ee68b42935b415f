"""The picture of the page in the README: a run is served, and a headless Chromium searches in it.

Usage: ``python -m benchmarks.screenshot runs/demo docs/page.png``
"""

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

QUERY = "waterproof boots for hiking"


def take(run: Path, picture: Path) -> None:
    """Serve ``run``, search as its most active shopper, click a result and save the page as a PNG."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(["onesearch", "serve", str(run), "--port", str(port)])
    try:
        _wait(f"{url}/healthz")
        with sync_playwright() as tools:
            browser = tools.chromium.launch(
                executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{url}/?user=visitor")
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
                    page.wait_for_timeout(500)
            page.screenshot(path=picture)
            browser.close()
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, seconds: float = 60.0) -> None:
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
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    take(Path(sys.argv[1]), Path(sys.argv[2]))
