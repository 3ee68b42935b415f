"""A text file as pieces of bytes, whatever it is packed in: told by its first bytes, since endings are often wrong."""

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

import pyarrow as pa

PACKED: Final = (".gz", ".zst", ".zstd", ".zip", ".bz2", ".xz")
# A packed file may unpack to this much whatever its size, and beyond it to so many times its size.
ALWAYS_UNPACKED: Final = 1 << 30
MOST_TIMES: Final = 250
# UTF-32's mark begins as UTF-16's does, so it is looked for first.
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def inner_name(path: Path) -> str:
    """The file's name without the endings of packing; of a ``.zip`` the name of the one file inside."""
    name = path.name
    if path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            name = _only_member(path, archive)
    while name.lower().endswith(PACKED):
        name = name.rpartition(".")[0]
    return name


def text_pieces(path: Path, encoding: str, size: int) -> tuple[Iterator[bytes], str]:
    """The unpacked file in pieces of about ``size`` bytes whose lines end in a line feed, and their encoding.

    A file that begins with the mark of UTF-16 or UTF-32, or whose encoding has no one-byte line ends, comes as UTF-8;
    other encodings stay as they are. Lines of old spreadsheets end in a carriage return alone; they get a
    line feed.

    Raises:
        ValueError: when iterated: the file is no text (a workbook, Parquet, a web page), is cut short or damaged, or
            unpacks to so much that it cannot be data.
    """
    raw = _unpacked(path, size)
    first = next(raw, b"")
    _refuse_other_formats(path, first)
    wide = next((name for mark, name in _MARKS if first.startswith(mark)), None)
    if wide is None and "\n".encode(encoding) != b"\n":
        wide = encoding
    if wide is None and first.count(0) > len(first) // 4:
        raise ValueError(f"{path}: a quarter of its bytes are zero, as in UTF-16; set encoding: utf-16-le or utf-16-be")
    pieces = _chained(first, raw)
    if wide is not None:
        pieces, encoding = _as_utf8(path, pieces, wide), "utf-8"
    return _line_ends(pieces), encoding


def most_unpacked(path: Path) -> int:
    """How many bytes a packed file may unpack to; one that has more is taken for an archive bomb."""
    return max(ALWAYS_UNPACKED, MOST_TIMES * path.stat().st_size)


def _chained(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _unpacked(path: Path, size: int) -> Iterator[bytes]:
    """The unpacked bytes; errors of any unpacker as one that says what is wrong."""
    packed, bound = path.stat().st_size, most_unpacked(path)
    total = 0
    try:
        with _stream(path) as stream:
            while piece := stream.read(size):
                total += len(piece)
                if total > bound:
                    raise ValueError(
                        f"{path}: {packed:,} bytes unpack to more than {bound:,}, which looks like an archive bomb; "
                        "if it is data, unpack it yourself and import the unpacked file"
                    )
                yield piece
    except (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, gzip.BadGzipFile, NotImplementedError) as error:
        raise ValueError(f"{path}: {_broken(error)}") from error
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path}: {_broken(error)}") from error
    except RuntimeError as error:  # what zipfile raises of a file with a password
        raise ValueError(f"{path}: cannot be unpacked: {error}") from error
    except OSError as error:
        if error.errno is not None:  # the disk's or the system's; else an unpacker's
            raise
        raise ValueError(f"{path}: {_broken(error)}") from error


def _broken(error: Exception) -> str:
    short = isinstance(error, EOFError) or "runcated" in str(error) or "ended before" in str(error)
    return "the file ends early (broken download?)" if short else f"the packed file is damaged: {error}"


def _stream(path: Path) -> BinaryIO:
    """The file, unpacked as its first bytes say."""
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(path, "rb"))
    if head.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(path))
    if head.startswith(b"\xfd7zXZ\x00"):
        return cast(BinaryIO, lzma.LZMAFile(path))
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return cast(BinaryIO, pa.input_stream(str(path), compression="zstd"))
    if head.startswith(b"PK\x03\x04"):
        archive = zipfile.ZipFile(path)
        return cast(BinaryIO, archive.open(_only_member(path, archive)))
    return path.open("rb")


def _only_member(path: Path, archive: zipfile.ZipFile) -> str:
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if "[Content_Types].xml" in names:
        raise ValueError(f"{path}: an Excel workbook; save its sheet as CSV (UTF-8) and import that")
    if len(names) != 1:
        there = ", ".join(sorted(names)[:10]) or "nothing"
        raise ValueError(f"{path}: holds {len(names)} files ({there}); unpack it, and name one file or a pattern")
    return names[0]


def _refuse_other_formats(path: Path, first: bytes) -> None:
    """Say what a file is that is neither CSV nor JSON lines."""
    start = first[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if first.startswith(b"PAR1"):
        raise ValueError(f"{path}: a Parquet file; set format: parquet")
    if first.startswith(b"\xd0\xcf\x11\xe0"):
        raise ValueError(f"{path}: an Excel workbook; save its sheet as CSV (UTF-8) and import that")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise ValueError(f"{path}: a web page or XML, not a table; export CSV, JSON lines or Parquet")


def _as_utf8(path: Path, pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Pieces of another encoding as UTF-8. Lone surrogates stay as they are, and are set aside with their record."""
    decoder = codecs.getincrementaldecoder(encoding)("surrogatepass" if encoding.startswith("utf") else "strict")
    try:
        for piece in pieces:
            yield decoder.decode(piece).encode("utf-8", "surrogatepass")
        yield decoder.decode(b"", final=True).encode("utf-8", "surrogatepass")
    except UnicodeError as error:
        raise ValueError(f"{path}: not valid {encoding}, or it ends early: {error}") from error


def _line_ends(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Pieces whose lines end in a line feed, also of a file whose first piece has carriage returns only."""
    first = next(pieces, b"")
    old = b"\r" in first and b"\n" not in first
    for piece in _chained(first, pieces):
        yield piece.replace(b"\r", b"\n") if old else piece
