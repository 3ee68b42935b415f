"""Pictures as items name them, paths and addresses, read side by side; what cannot be read is a value, no error."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as LateError
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from onesearch.encoding.pictures.local_pictures import LocalPictures
from onesearch.encoding.pictures.picture_cache import PictureCache
from onesearch.encoding.pictures.picture_decoding import decode_picture
from onesearch.encoding.pictures.picture_download import PictureDownload, Resolve, resolved
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError
from onesearch.encoding.pictures.picture_settings import PictureLimits

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureReader:
    """Reads pictures; safe to use from several threads.

    Args:
        limits: of sizes and time, and the hosts that may be private.
        root: folder of local ones; None refuses all paths.
        cache: where downloads are kept; None keeps none.
        threads: pictures that are read at once.
        resolve: names of hosts → addresses.
    """

    def __init__(
        self,
        limits: PictureLimits,
        root: Path | None = None,
        cache: Path | None = None,
        threads: int = 8,
        resolve: Resolve = resolved,
    ) -> None:
        self.limits, self._root, self._cached, self._threads, self._resolve = limits, root, cache, threads, resolve
        self._local = None if root is None else LocalPictures(root, limits.most_bytes)
        self._cache = None if cache is None else PictureCache(cache)
        self._download = PictureDownload(limits.most_bytes, limits.seconds, limits.private_hosts, resolve)

    def trusting(self, hosts: Sequence[str]) -> "PictureReader":
        """The same reader, which takes pictures of these private hosts, too."""
        limits = self.limits.updated(private_hosts=(*self.limits.private_hosts, *hosts))
        return PictureReader(limits, self._root, self._cached, self._threads, self._resolve)

    def read(self, source: str) -> "Image":
        """One picture, RGB.

        Raises:
            PictureRefusedError: it cannot be had, or is not to be; with the reason.
        """
        most = self.limits.most_pixels
        if not _is_address(source):
            if self._local is None:
                raise PictureRefusedError("path", "there is no folder of pictures")
            return decode_picture(self._local.read(source), most)
        if self._cache is not None and (kept := self._cache.get(source)) is not None:
            return decode_picture(kept, most)
        data = self._download.read(source)
        image = decode_picture(data, most)
        if self._cache is not None:  # only what is a picture
            self._cache.put(source, data)
        return image

    def read_many(self, sources: Sequence[str], seconds: float | None = None) -> "list[Image | PictureRefusedError]":
        """Each picture, or why there is none; what is not there after ``seconds`` for all of them is ``late``."""
        if not sources:
            return []
        pool = ThreadPoolExecutor(min(self._threads, len(sources)), thread_name_prefix="pictures")
        try:
            waiting = [pool.submit(self._tried, source) for source in sources]
            end = None if seconds is None else time.monotonic() + seconds
            found: list[Image | PictureRefusedError] = []
            for one in waiting:
                try:
                    found.append(one.result(None if end is None else max(end - time.monotonic(), 0.0)))
                except LateError:
                    one.cancel()
                    found.append(PictureRefusedError("late", f"not there within {seconds:g} seconds for all"))
            return found
        finally:  # who is late is not waited for: its own limit ends it
            pool.shutdown(wait=False, cancel_futures=True)

    def _tried(self, source: str) -> "Image | PictureRefusedError":
        try:
            return self.read(source)
        except PictureRefusedError as refused:
            return refused


def _is_address(source: str) -> bool:
    """Whether a text has a scheme, of whatever kind, or a host: all else is a path."""
    try:
        parts = urlsplit(source)
    except ValueError:
        return True  # "http://[" is no path either
    return bool(parts.netloc or parts.scheme)
