"""Downloads come from the public internet and from trusted hosts; a real server tries to lead elsewhere."""

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from onesearch.encoding.pictures.picture_download import PictureDownload, is_public
from onesearch.encoding.pictures.picture_reading import PictureReader
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError
from onesearch.encoding.pictures.picture_settings import PictureLimits
from pictures import SVG, picture

PICTURE = picture()
MOST = 5000


class Shop(BaseHTTPRequestHandler):
    """Answers by path; counts who came."""

    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        name, _, rest = self.path.lstrip("/").partition("/")
        getattr(self, f"give_{name}", self.give_missing)(rest)

    def answer(self, data: bytes, status: int = 200, **headers: object) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "image/png", "Content-Length": len(data), **headers}.items():
            if value is not None:
                self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(data)

    def give_picture(self, rest: str) -> None:
        self.answer(PICTURE)

    def give_to(self, rest: str) -> None:
        self.answer(b"", 302, Location=unquote(rest))

    def give_around(self, rest: str) -> None:
        self.answer(b"", 302, Location="/around")

    def give_nowhere(self, rest: str) -> None:
        self.answer(b"", 302)

    def give_missing(self, rest: str) -> None:
        self.answer(b"no", 404)

    def give_angry(self, rest: str) -> None:
        self.answer(b"no", 500)

    def give_svg(self, rest: str) -> None:
        self.answer(SVG, **{"Content-Type": "image/svg+xml; charset=utf-8"})

    def give_page(self, rest: str) -> None:
        self.answer(PICTURE, **{"Content-Type": "text/html"})

    def give_disguised(self, rest: str) -> None:
        self.answer(SVG)

    def give_packed(self, rest: str) -> None:
        self.answer(PICTURE, Content_Encoding="gzip")

    def give_large(self, rest: str) -> None:
        self.answer(bytes(MOST + 1))

    def give_endless(self, rest: str) -> None:
        self.answer(b"", **{"Content-Length": None})
        for _ in range(1000):
            self.wfile.write(bytes(1000))

    def give_short(self, rest: str) -> None:
        self.answer(PICTURE, **{"Content-Length": len(PICTURE) + 10})

    def give_slow(self, rest: str) -> None:
        self.answer(b"", **{"Content-Length": 100})
        for _ in range(100):
            self.wfile.write(b".")
            time.sleep(0.05)

    def give_silent(self, rest: str) -> None:
        time.sleep(2)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def shop() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    server.daemon_threads, server.block_on_close, server.asked = True, False, []
    server.handle_error = lambda *_: None  # whoever hangs up
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def outcome(address: str, *trusted: str, seconds: float = 5.0, **more) -> bytes | str:
    try:
        return PictureDownload(MOST, seconds, trusted, **more).read(address)
    except PictureRefusedError as refused:
        return refused.reason


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("picture", PICTURE),
        ("to//picture", PICTURE),
        ("missing", "missing"),
        ("angry", "http"),
        ("around", "http"),
        ("nowhere", "http"),
        ("svg", "format"),
        ("page", "format"),
        ("packed", "format"),
        ("large", "bytes"),
        ("endless", "bytes"),
        ("short", "http"),
        ("to/file:///etc/passwd", "address"),
        ("to/ftp://localhost/x", "address"),
        ("to/http://user:word@localhost/x", "address"),
    ],
)
def test_what_a_trusted_server_answers(shop: ThreadingHTTPServer, path: str, found: bytes | str):
    assert outcome(f"http://localhost:{shop.server_port}/{path}", "localhost") == found


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.1:{port}/picture",
        "http://[::ffff:127.0.0.1]:{port}/picture",
        "http://127.1:{port}/picture",
        "http://2130706433:{port}/picture",
        "http://0.0.0.0:{port}/picture",
        "//127.0.0.1:{port}/picture",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/x.png",
    ],
)
def test_a_redirect_to_this_machine_or_its_network_is_refused_before_anything_is_sent(
    shop: ThreadingHTTPServer, target: str
):
    """The shop's own server is trusted by name; where it leads to is not."""
    path = "to/" + target.format(port=shop.server_port)
    assert outcome(f"http://localhost:{shop.server_port}/{path}", "localhost") == "address"
    assert [unquote(asked) for asked, _ in shop.asked] == [f"/{path}"]


def test_without_trust_no_connection_is_made_at_all(shop: ThreadingHTTPServer):
    port = shop.server_port
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert outcome(f"http://{host}:{port}/picture") == "address"
    assert outcome(f"http://localhost:{port}/picture", f"localhost:{port + 1}") == "address", "trust may name a port"
    assert outcome(f"http://localhost:{port}/picture", f"localhost:{port}") == PICTURE and len(shop.asked) == 1


def test_a_name_is_resolved_once_and_the_address_that_was_looked_at_is_the_one_connected_to(
    shop: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
):
    """A name server that says another address the second time (rebinding) is not asked a second time."""
    asked, connected, plain = [], [], socket.create_connection

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["93.184.216.34"] if len(asked) == 1 else ["127.0.0.1"]

    def create_connection(place, **more):
        connected.append(place)
        return plain(("127.0.0.1", shop.server_port), **more)

    monkeypatch.setattr(socket, "create_connection", create_connection)
    address = f"http://img.shop.example:{shop.server_port}/picture"
    # It is this machine after all, which only the connection tells.
    assert outcome(address, resolve=resolve) == "address" and shop.asked == []
    assert asked == ["img.shop.example"] and connected == [("93.184.216.34", shop.server_port)]


def test_the_host_header_has_the_name_and_one_private_address_among_public_ones_refuses(
    shop: ThreadingHTTPServer, monkeypatch: pytest.MonkeyPatch
):
    port = shop.server_port
    trusted = outcome(f"http://Img.Shop.example:{port}/picture", "img.shop.example", resolve=lambda *_: ["127.0.0.1"])
    assert trusted == PICTURE and shop.asked == [("/picture", f"img.shop.example:{port}")]
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    mixed = outcome(f"http://img.shop.example:{port}/picture", resolve=lambda *_: ["93.184.216.34", "127.0.0.1"])
    assert mixed == "address" and len(shop.asked) == 1
    assert outcome("http://img.shop.example/x", resolve=lambda *_: []) == "address"


def test_an_address_that_takes_no_connection_is_passed_over(shop: ThreadingHTTPServer):
    url = f"http://img.shop.example:{shop.server_port}/picture"
    assert outcome(url, "img.shop.example", resolve=lambda *_: ["::1", "127.0.0.1"]) == PICTURE


@pytest.mark.parametrize("path", ["slow", "silent"])
def test_what_trickles_in_or_stays_silent_ends_in_time(shop: ThreadingHTTPServer, path: str):
    start = time.monotonic()
    assert outcome(f"http://localhost:{shop.server_port}/{path}", "localhost", seconds=0.4) == "late"
    assert time.monotonic() - start < 1.5


def test_who_cannot_be_reached_is_counted_as_such():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert outcome(f"http://localhost:{port}/x", "localhost") == "http"
    assert outcome("https://localhost:bad/x", "localhost") == "address"
    assert outcome("http://", "") == "address"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("::ffff:93.184.216.34", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
        ("no address", False),
    ],
)
def test_public_addresses(address: str, public: bool):
    assert is_public(address) is public


def test_a_reader_keeps_downloads_that_are_pictures_and_takes_them_without_asking_again(shop, tmp_path):
    limits = PictureLimits(most_bytes=MOST, private_hosts=("localhost",))
    reader = PictureReader(limits, cache=tmp_path / "cache")
    url = f"http://localhost:{shop.server_port}"
    for _ in range(2):
        assert reader.read(f"{url}/picture").size == (40, 30)
        with pytest.raises(PictureRefusedError, match="first bytes"):
            reader.read(f"{url}/disguised")
    assert [path for path, _ in shop.asked] == ["/picture", "/disguised", "/disguised"]
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in kept] == [PICTURE]
    assert PictureReader(PictureLimits(), cache=tmp_path / "cache").read(f"{url}/picture"), "kept for all readers"


def test_several_are_read_side_by_side_and_who_is_late_for_all_is_not_waited_for(shop, tmp_path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    reader = PictureReader(PictureLimits(private_hosts=("localhost",)), tmp_path)
    url, start = f"http://localhost:{shop.server_port}", time.monotonic()
    sources = [f"{url}/silent", "a.png", f"{url}/picture", "b.png", "data:image/png;base64,AA", "http://["]
    found = reader.read_many(sources, seconds=0.5)
    assert time.monotonic() - start < 1.5
    reasons = [one.reason if isinstance(one, PictureRefusedError) else one.size for one in found]
    assert reasons == ["late", (40, 30), (40, 30), "missing", "address", "address"]
    with pytest.raises(PictureRefusedError, match="no folder"):
        PictureReader(PictureLimits()).read("a.png")
    assert reader.read_many([]) == []
