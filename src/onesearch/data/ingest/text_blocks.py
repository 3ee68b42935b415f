"""Text files as blocks of whole records (lines), a few megabytes in memory at a time.

A file is cut into blocks at line ends, so that each block can be parsed on its own: a broken line then costs its block
a slower second parse, line by line, and nothing else. Blocks know the line number and the bytes of every record, for
setting it aside.
"""

import gzip
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from onesearch.data.ingest.column_mapping import File
from onesearch.data.ingest.rejected_rows import Rejects

Longs = NDArray[np.int64]
BLOCK = 8 << 20
LONGEST_RECORD = 64 << 20
_NEWLINE, _QUOTE = b"\n"[0], b'"'[0]


@dataclass(frozen=True)
class Records:
    """Records of a block: record i is ``data[starts[i]:ends[i]]``, on line ``lines[i]`` of the file; int64 [n] each."""

    data: bytes
    starts: Longs
    ends: Longs
    lines: Longs

    def __len__(self) -> int:
        return len(self.starts)

    def text(self, i: int) -> bytes:
        """The bytes of record i, without its line end."""
        return self.data[self.starts[i] : self.ends[i]]

    def select(self, keep: NDArray[np.bool_]) -> "Records":
        """The records where ``keep`` [n] holds."""
        return Records(self.data, self.starts[keep], self.ends[keep], self.lines[keep])

    def joined(self) -> bytes:
        """The bytes of these records, one per line."""
        # Neighbours in the block need no copying: their lengths, line ends included, add up to the whole stretch.
        if len(self) and self.ends[-1] - self.starts[0] + 1 == int((self.ends - self.starts + 1).sum()):
            return self.data[self.starts[0] : self.ends[-1] + 1]
        return b"".join(self.text(i) + b"\n" for i in range(len(self)))

    def set_aside(self, bad: Mapping[int, str], table: str, file: str, rejects: Rejects) -> "Records":
        """The other records; those in ``bad`` (number -> reason) go to ``rejects``."""
        if not bad:
            return self
        # By number, [bad], for what is told of them; as a mask, [n], for what stays.
        index = np.fromiter(bad, np.int64, len(bad))
        rejects.add(table, file, self.lines[index].tolist(), list(bad.values()), [self.text(i) for i in bad])
        keep = np.ones(len(self), bool)
        keep[index] = False
        return self.select(keep)


def text_blocks(path: Path, style: File, table: str, rejects: Rejects) -> Iterator[Records]:
    """The records of a CSV or JSON lines file as UTF-8, block by block, empty lines left out.

    Records that are not in the file's encoding are set aside; ``.gz`` files are unpacked on the way.

    Raises:
        ValueError: a line that never ends.
    """
    with _opened(path) as stream:
        for block in _raw_blocks(stream, path, style):
            decoded = _decoded(block, path, style, table, rejects)
            yield decoded.select(_filled(decoded))


def _opened(path: Path) -> BinaryIO:
    return io.BufferedReader(gzip.GzipFile(path, "rb")) if path.suffix == ".gz" else path.open("rb")


def _quoted(style: File) -> bool:
    return style.format == "csv" and style.newlines_in_values


def _raw_blocks(stream: BinaryIO, path: Path, style: File) -> Iterator[Records]:
    """Blocks of whole records in the file's own encoding; what follows the last line end waits for the next piece."""
    rest, line = b"", 1
    while piece := stream.read(BLOCK):
        data = rest + piece
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        block = _cut(data, line, _quoted(style))
        if not len(block) and len(data) > LONGEST_RECORD:
            if not _quoted(style):
                raise ValueError(
                    f"{path}: line {line} is longer than {LONGEST_RECORD >> 20} MiB; is this {style.format}?"
                )
            block = _cut(data, line, False)  # a quote that never closes: cut at line ends, broken lines fall out
        used = 0
        if len(block):
            yield block
            used = int(block.ends[-1]) + 1
        line += data.count(b"\n", 0, used)
        rest = data[used:]
    if rest:  # a last line without an end
        yield _cut(rest + b"\n", line, False)


def _cut(data: bytes, line: int, quoted: bool) -> Records:
    """Cut at line ends; ``quoted`` only at those outside quotes (an even number of quotes before)."""
    # All line ends of the block, [lines]; those of records are these, or some of these.
    array = np.frombuffer(data, np.uint8)
    newlines = np.flatnonzero(array == _NEWLINE)
    ends = newlines
    if quoted:
        odd = np.cumsum(array == _QUOTE, dtype=np.uint8)[newlines] & 1
        ends = newlines[odd == 0]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    return Records(data, starts, ends, line + np.searchsorted(newlines, starts))


def _decoded(block: Records, path: Path, style: File, table: str, rejects: Rejects) -> Records:
    """The block as UTF-8; records that are not in the file's encoding are set aside."""
    try:
        text = block.joined().decode(style.encoding)
    except UnicodeDecodeError:
        # Something in the block is wrong: find the records one by one.
        bad: dict[int, str] = {}
        for i in range(len(block)):
            try:
                block.text(i).decode(style.encoding)
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                bad[i] = f"not valid {style.encoding}: byte 0x{byte:02x} at position {error.start + 1}"
        block = block.set_aside(bad, table, path.name, rejects)
        text = block.joined().decode(style.encoding)
    # UTF-8 already: nothing moves.
    if style.encoding.lower().replace("_", "-") in ("utf-8", "utf8", "ascii"):
        return block
    # Other encodings: the same records lie elsewhere in the UTF-8 bytes.
    again = _cut(text.encode(), 1, _quoted(style))
    return Records(again.data, again.starts, again.ends, block.lines)


def _filled(block: Records) -> NDArray[np.bool_]:
    """False for empty lines, bool [n]."""
    keep = np.ones(len(block), bool)
    # A record of one byte may be the "\r" of an empty line.
    for i in np.flatnonzero(block.ends - block.starts <= 1).tolist():
        keep[i] = bool(block.text(i).strip())
    return keep
