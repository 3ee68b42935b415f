"""Pictures in a folder, or in zip and tar archives of it; nothing outside of the folder is ever opened."""

import os
import stat
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Final

from onesearch.encoding.pictures.picture_refusal import PictureRefusedError

_ARCHIVES: Final = (".zip", ".tar")


class LocalPictures:
    """Reads files by their path below a folder: ``shoes/1.jpg``, or ``photos.zip/shoes/1.jpg`` of an archive there.

    May be used from several threads. Archives stay open; a compressed tar has no places to jump to and is refused.

    Args:
        root: the folder.
        most_bytes: of a picture.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root, self._most = root.resolve(), most_bytes
        self._opening = threading.Lock()
        self._zips: dict[Path, zipfile.ZipFile] = {}
        self._tars: dict[Path, tuple[IO[bytes], dict[str, tarfile.TarInfo]]] = {}

    def read(self, name: str) -> bytes:
        """The file's bytes.

        Raises:
            PictureRefusedError: ``path``, ``missing``, ``bytes`` or ``broken``.
        """
        parts = PurePosixPath(name).parts
        if not parts or parts[0] == "/" or ".." in parts or "\0" in name or len(name) > 4000:
            raise PictureRefusedError("path", "a path must lead down from the folder of pictures")
        # The first part that is an archive ends the way through folders.
        for depth, part in enumerate(parts):
            if part.lower().endswith(_ARCHIVES) and depth + 1 < len(parts):
                archive = self._inside(*parts[: depth + 1])
                if archive.is_file():
                    return self._member(archive, "/".join(parts[depth + 1 :]))
        return self._file(self._inside(*parts))

    def _inside(self, *parts: str) -> Path:
        """The real place of a path, links followed.

        Raises:
            PictureRefusedError: it lies outside, or nowhere.
        """
        try:
            place = self._root.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError) as error:  # not there, a name too long, a circle of links
            raise PictureRefusedError("missing", "there is no such file") from error
        if not place.is_relative_to(self._root):
            raise PictureRefusedError("path", "a link leads out of the folder of pictures")
        return place

    def _file(self, place: Path) -> bytes:
        try:
            # Without waiting, as a pipe would have us; links were followed already.
            handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise PictureRefusedError("missing", "it cannot be opened") from error
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            os.close(handle)
            raise PictureRefusedError("path", "not a plain file")
        with os.fdopen(handle, "rb") as file:
            self._refuse_large(about.st_size)
            return self._bounded(file.read(self._most + 1))

    def _member(self, archive: Path, name: str) -> bytes:
        """A file of an archive; what its header says of the size is looked at first, and not relied on."""
        try:
            if archive.suffix.lower() == ".zip":
                opened = self._zip(archive)
                about = opened.getinfo(name)
                self._refuse_large(about.file_size)
                with opened.open(about) as file:
                    return self._bounded(file.read(self._most + 1))
            tar, members = self._tar(archive)
            member = members[name]
            if not member.isreg() or member.sparse is not None:
                raise PictureRefusedError("path", "not a plain file of its archive")
            self._refuse_large(member.size)
            return os.pread(tar.fileno(), member.size, member.offset_data)
        except KeyError as error:
            raise PictureRefusedError("missing", f"{archive.name} has no such file") from error
        except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error) as error:  # encrypted, damaged
            raise PictureRefusedError("broken", f"{archive.name}: {error}"[:200]) from error
        except (zipfile.BadZipFile, tarfile.TarError) as error:
            raise PictureRefusedError("broken", f"{archive.name}: {error}"[:200]) from error

    def _zip(self, archive: Path) -> zipfile.ZipFile:
        with self._opening:
            if archive not in self._zips:
                self._zips[archive] = zipfile.ZipFile(archive)
            return self._zips[archive]

    def _tar(self, archive: Path) -> tuple[IO[bytes], dict[str, tarfile.TarInfo]]:
        with self._opening:
            if archive not in self._tars:
                with tarfile.open(archive, "r:") as opened:
                    members = {member.name: member for member in opened}
                self._tars[archive] = (archive.open("rb"), members)
            return self._tars[archive]

    def _refuse_large(self, size: int) -> None:
        if size > self._most:
            raise PictureRefusedError("bytes", f"{size:,} bytes, and at most {self._most:,} are read")

    def _bounded(self, data: bytes) -> bytes:
        self._refuse_large(len(data))
        return data
