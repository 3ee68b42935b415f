"""Downloads kept on disk, by the hash of their address."""

import hashlib
import os
import tempfile
from pathlib import Path


class PictureCache:
    """One file for each address, written at once; what is there is taken without a look at the server.

    Any number of threads and processes may share a folder. Nothing is ever removed: that is left to who owns it.

    Args:
        folder: made when the first download is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, address: str) -> bytes | None:
        """The bytes of an address; None where they are not kept."""
        try:
            return self._place(address).read_bytes()
        except OSError:
            return None

    def put(self, address: str, data: bytes) -> None:
        """Keep the bytes of an address. A disk that is full keeps none, and that is no error."""
        place = self._place(address)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=place.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                Path(name).replace(place)
            finally:
                Path(name).unlink(missing_ok=True)
        except OSError:
            pass

    def _place(self, address: str) -> Path:
        digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / digest[:2] / digest
