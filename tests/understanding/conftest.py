"""A catalogue, and a small OpenAI-compatible server that counts, fails, babbles and restarts on request."""

import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import polars as pl
import pytest

from onesearch.data.records import Item, items_frame
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary

GOOD = {
    "intent": "merchandise",
    "query_type": "plain",
    "category": ["Shoes"],
    "attributes": [],
    "topics": ["hiking boots"],
    "keywords": ["hiking boots", "leather"],
}


class FakeLLM:
    """Answers with ``reply(task)``: a dict (as JSON), a text, or a status. The port stays the same over restarts."""

    def __init__(self):
        self.reply = lambda task: GOOD
        self.asked = Counter()
        self.bodies = []
        self.headers = []
        self.lock = threading.Lock()
        self.port = 0
        self.server = None
        self.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    def start(self):
        self.server = _Server(("127.0.0.1", self.port), _Handler)
        self.server.fake = self
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self):
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """A client that was killed in the middle of a request is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        fake = self.server.fake
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        task = json.loads(body["messages"][-1]["content"])
        with fake.lock:
            fake.asked[task["query"]] += 1
            fake.bodies.append(body)
            fake.headers.append({name.lower(): value for name, value in self.headers.items()})
            reply = fake.reply(task)
        more = {}
        if isinstance(reply, int):
            status, out, more = reply, {"error": {"message": "no"}}, {"Retry-After": "0.01"}
        else:
            text = reply if isinstance(reply, str) else json.dumps(reply)
            message = {"role": "assistant", "content": text}
            usage = {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            status, out = (
                200,
                {
                    "id": "c",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "m",
                    "choices": [choice],
                    "usage": usage,
                },
            )
        data = json.dumps(out).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data)), **more}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def fake_llm(monkeypatch):
    for name in ("ONESEARCH_LLM_BASE_URL", "ONESEARCH_LLM_MODEL", "ONESEARCH_LLM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = FakeLLM()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shop_items() -> pl.DataFrame:
    return items_frame(
        Item(f"i{n}", title, (root, leaf), brand, attributes={"Material": (material,)})
        for n, (title, root, leaf, brand, material) in enumerate(
            [
                ("Acme leather hiking boots", "Shoes", "Boots", "Acme", "leather"),
                ("Acme suede hiking boots", "Shoes", "Boots", "Acme", "suede"),
                ("Orbit leather sandals", "Shoes", "Sandals", "Orbit", "leather"),
                ("Orbit cotton tent", "Camping", "Tents", "Orbit", "cotton"),
                ("红色登山鞋", "Shoes", "Boots", "Acme", "leather"),
                ("黑色登山鞋", "Shoes", "Boots", "Acme", "suede"),
            ]
        )
    )


@pytest.fixture(scope="session")
def shop_words(shop_items) -> CatalogueVocabulary:
    return CatalogueVocabulary.from_items(shop_items)
