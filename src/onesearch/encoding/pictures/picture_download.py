"""Pictures by http(s), from machines on the public internet alone.

An address is a stranger's word: it may name this machine, its network or a cloud's metadata service, at once or by way
of a redirect or of a name server that answers differently the second time. So each hop's name is resolved once, every
address of the answer must be public, the connection goes to exactly that address, and one that turns out to be this
machine's own is closed before a byte is sent.
"""

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection
from typing import Final
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from onesearch.encoding.pictures.picture_refusal import PictureRefusedError

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_MOST_REDIRECTS: Final = 3
_PORTS: Final = {"http": 80, "https": 443}
_TYPES: Final = ("image/", "application/octet-stream", "binary/octet-stream")
_AT_ONCE: Final = 1 << 16
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_HEADERS: Final = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "onesearch", "Connection": "close"}
Resolve = Callable[[str, int], list[str]]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, also the one that another form of it carries within.

    >>> is_public("10.1.2.3"), is_public("169.254.169.254"), is_public("::ffff:127.0.0.1"), is_public("93.184.216.34")
    (False, False, False, True)
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        # IPv4 in IPv6: mapped, 6to4, Teredo, NAT64.
        within = [ip.ipv4_mapped, ip.sixtofour, *(ip.teredo or ())]
        if ip in _NAT64:
            within.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
        if any(one is not None and not is_public(str(one)) for one in within):
            return False
        if ip.ipv4_mapped is not None:
            return True
    return ip.is_global and not ip.is_multicast


def resolved(host: str, port: int) -> list[str]:
    """All addresses of a name."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class PictureDownload:
    """Fetches one picture at a time; may be used from several threads. Proxies of the environment are not asked.

    Args:
        most_bytes: of a picture.
        seconds: for all of it, redirects too.
        trusted: hosts, or host:port, that may be anywhere, such as a shop's own image server; lower case.
        resolve: host and port → addresses.
    """

    def __init__(
        self, most_bytes: int, seconds: float, trusted: Collection[str] = (), resolve: Resolve = resolved
    ) -> None:
        self._most, self._seconds, self._trusted, self._resolve = most_bytes, seconds, frozenset(trusted), resolve
        self._tls = ssl.create_default_context()

    def read(self, address: str) -> bytes:
        """The body of an address, after at most three redirects.

        Raises:
            PictureRefusedError: ``address``, ``missing``, ``http``, ``late``, ``bytes`` or ``format``.
        """
        end = time.monotonic() + self._seconds
        try:
            for _ in range(_MOST_REDIRECTS + 1):
                found = self._hop(address, end)
                if isinstance(found, bytes):
                    return found
                address = found
        except PictureRefusedError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            # What a closed or silent connection raises differs: the clock says whether it was the time.
            if time.monotonic() >= end - 0.01:
                raise PictureRefusedError("late", f"not there within {self._seconds:g} seconds") from error
            raise PictureRefusedError("http", f"{type(error).__name__}: {error}"[:200]) from error
        raise PictureRefusedError("http", f"redirects more than {_MOST_REDIRECTS} times")

    def _hop(self, address: str, end: float) -> bytes | str:
        """One request: the body, or where it redirects to."""
        parts, host, port = _split(address)
        connection = self._connected(parts.scheme, host, port, end)
        # Whatever trickles in must end in time: every single read could wait as long again.
        watch = threading.Timer(max(end - time.monotonic(), 0.0), _shut, [connection.sock])
        watch.daemon = True
        watch.start()
        try:
            target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._") + (
                "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?") if parts.query else ""
            )
            connection.request("GET", target, headers=_HEADERS)
            answer = connection.getresponse()
            if answer.status in _REDIRECTS:
                return urljoin(address, answer.getheader("Location") or "")
            self._refuse_unfit(answer)
            return self._body(answer, end)
        finally:
            watch.cancel()
            connection.close()

    def _connected(self, scheme: str, host: str, port: int, end: float) -> http.client.HTTPConnection:
        """A connection to an address of ``host`` that was looked at; names are not resolved again."""
        trusted = host in self._trusted or f"{host}:{port}" in self._trusted
        addresses = self._resolve(host, port)
        if not addresses or not (trusted or all(map(is_public, addresses))):
            raise PictureRefusedError("address", f"{host} is not on the public internet")
        left = end - time.monotonic()
        if left <= 0:
            raise PictureRefusedError("late", f"not there within {self._seconds:g} seconds")
        plain = _first_open(addresses, port, left)
        try:
            # An address of this machine's own, though it be a public one.
            if not trusted and plain.getpeername()[0] == plain.getsockname()[0]:
                raise PictureRefusedError("address", f"{host} is this machine")
            connection = http.client.HTTPConnection(host, port, timeout=left)
            connection.sock = self._tls.wrap_socket(plain, server_hostname=host) if scheme == "https" else plain
        except BaseException:
            plain.close()
            raise
        return connection

    def _refuse_unfit(self, answer: http.client.HTTPResponse) -> None:
        """Look at status and headers before the body.

        Raises:
            PictureRefusedError: they say that it is none, or too large.
        """
        if answer.status in (404, 410):
            raise PictureRefusedError("missing", f"the server answers {answer.status}")
        if answer.status != 200:
            raise PictureRefusedError("http", f"the server answers {answer.status}")
        kind = (answer.getheader("Content-Type") or "image/").strip().lower()
        if not kind.startswith(_TYPES) or kind.startswith("image/svg"):
            raise PictureRefusedError("format", f"the server says that it is {kind[:50]}")
        if (answer.getheader("Content-Encoding") or "identity").lower() != "identity":
            raise PictureRefusedError("format", "the server has packed it, which nobody asked for")
        if answer.length is not None and answer.length > self._most:
            raise self._too_large()

    def _body(self, answer: http.client.HTTPResponse, end: float) -> bytes:
        said, parts, size = answer.length, [], 0
        while part := answer.read1(_AT_ONCE):
            parts.append(part)
            size += len(part)
            if size > self._most:
                raise self._too_large()
        if time.monotonic() >= end:
            raise PictureRefusedError("late", f"not there within {self._seconds:g} seconds")
        if said is not None and size < said:
            raise PictureRefusedError("http", f"{size:,} of {said:,} bytes came")
        return b"".join(parts)

    def _too_large(self) -> PictureRefusedError:
        return PictureRefusedError("bytes", f"more than {self._most:,} bytes")


def _split(address: str) -> tuple[SplitResult, str, int]:
    """An address with its host in lower case and its port.

    Raises:
        PictureRefusedError: it is not plain http or https.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError as error:
        raise PictureRefusedError("address", "not an address") from error
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None:
        raise PictureRefusedError("address", "not an http or https address")
    return parts, parts.hostname.lower(), port or _PORTS[parts.scheme]


def _first_open(addresses: list[str], port: int, seconds: float) -> socket.socket:
    """A connection to the first address that takes one, as with a machine that has no IPv6."""
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), timeout=seconds / len(addresses))
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), timeout=seconds)


def _shut(connected: socket.socket) -> None:
    """End a connection that another thread may be reading from, which then sees its end."""
    with contextlib.suppress(OSError):
        # The plain socket's own method: TLS's would take away what the other thread is using.
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
