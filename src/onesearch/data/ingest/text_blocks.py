"""Text files as blocks of whole records (lines), a few megabytes in memory at a time.

A file is cut into blocks at line ends, so that each block can be parsed on its own: a broken line then costs its block
a slower second parse, line by line, and nothing else. Blocks know the line number and the bytes of every record, for
setting it aside.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onesearch.data.ingest.column_mapping import File
from onesearch.data.ingest.file_opening import text_pieces
from onesearch.data.ingest.rejected_rows import Rejects

Longs = NDArray[np.int64]
BLOCK = 8 << 20
LONGEST_RECORD = 64 << 20
_NEWLINE = b"\n"[0]


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


def text_blocks(path: Path, style: File, table: str, rejects: Rejects, label: str | None = None) -> Iterator[Records]:
    """The records of a CSV or JSON lines file as UTF-8, block by block, empty lines left out.

    Records that are not in the file's encoding are set aside, under ``label`` (the file's name); packed files are
    unpacked on the way.

    Raises:
        ValueError: a line that never ends, a header line in another encoding, or a file that cannot be unpacked.
    """
    pieces, encoding = text_pieces(path, style.encoding, BLOCK)
    for block in _raw_blocks(pieces, path, style):
        decoded = _decoded(block, path, style, encoding, table, rejects, label or path.name)
        yield decoded.select(_filled(decoded))


def _raw_blocks(pieces: Iterator[bytes], path: Path, style: File) -> Iterator[Records]:
    """Blocks of whole records in the file's own encoding; what follows the last line end waits for the next piece."""
    quoted = _quoted_values(style.separator) if style.format == "csv" and style.newlines_in_values else None
    rest, line = b"", 1
    for piece, last in _with_last(pieces):
        data = rest + piece
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if last and not data.endswith(b"\n"):
            data += b"\n"
        block = _cut(data, line, quoted, whole=last)
        if not len(block) and len(data) > LONGEST_RECORD:
            # A quote that never closes is none; without it there are line ends again.
            block = _cut(data, line, quoted, whole=True)
            if not len(block):
                raise ValueError(
                    f"{path}: line {line} is longer than {LONGEST_RECORD >> 20} MiB; is this {style.format}?"
                )
        used = 0
        if len(block):
            yield block
            used = int(block.ends[-1]) + 1
        line += data.count(b"\n", 0, used)
        rest = data[used:]


def _with_last(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each piece, and whether it is the last one."""
    piece = next(pieces, None)
    while piece is not None:
        after = next(pieces, None)
        yield piece, after is None
        piece = after


def _quoted_values(separator: str) -> re.Pattern[bytes]:
    """Matches a quoted CSV value: from a quote that begins a value to the one before a separator or line end.

    A quote within a value (15" sleeve) is a character. So is one that begins a value and has no such end: its line is
    broken, and the lines after it are not. The end of the data counts as one in group 1 alone.
    """
    sign = re.escape(separator.encode())
    # Possessive, so that a quote without end costs one look ahead and no search for another end.
    return re.compile(rb'(?<![^%b\n])"[^"]*+(?:""[^"]*+)*+(?:"(?=[%b\r\n])|("?\Z))' % (sign, sign))


def _cut(data: bytes, line: int, quoted: re.Pattern[bytes] | None, whole: bool) -> Records:
    """Cut at line ends, with ``quoted`` only at those outside of quoted values.

    ``whole``: nothing follows the data, so that a value that does not end in it never ends.
    """
    # All line ends of the block, [lines]; those of records are these, or some of these.
    newlines = np.flatnonzero(np.frombuffer(data, np.uint8) == _NEWLINE)
    ends = newlines
    if quoted is not None:
        spans = [match.span() for match in _values(quoted, data, whole)]
        opened, closed = np.array(spans, np.int64).reshape(-1, 2).T
        inside = np.searchsorted(opened, newlines) - np.searchsorted(closed, newlines, side="right")
        ends = newlines[inside == 0]
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    return Records(data, starts, ends, line + np.searchsorted(newlines, starts))


def _values(quoted: re.Pattern[bytes], data: bytes, whole: bool) -> Iterator[re.Match[bytes]]:
    """The quoted values one after another; in ``whole`` data one without end is passed over."""
    at = 0
    while match := quoted.search(data, at):
        open_ended = match.group(1) is not None
        if whole and open_ended:
            at = match.start() + 1
            continue
        yield match
        at = match.end()


def _decoded(
    block: Records, path: Path, style: File, encoding: str, table: str, rejects: Rejects, label: str
) -> Records:
    """The block as UTF-8; records that are not in the file's encoding are set aside."""
    utf8 = encoding.lower().replace("_", "-") in ("utf-8", "utf8", "ascii")
    if utf8:
        try:
            block.joined().decode(encoding)
            return block
        except UnicodeDecodeError:
            pass  # Something in the block is wrong: find the records one by one.
    bad: dict[int, str] = {}
    texts: list[bytes] = []
    for i in range(len(block)):
        try:
            texts.append(block.text(i).decode(encoding).encode())
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            bad[i] = f"not valid {encoding}: byte 0x{byte:02x} at position {error.start + 1}"
    if style.format == "csv" and 0 in bad and block.lines[0] == 1:
        raise ValueError(f"{path}: the header line is {bad[0]}; set encoding, for example cp1252")
    block = block.set_aside(bad, table, label, rejects)
    # The same records lie elsewhere in the UTF-8 bytes.
    lengths = np.fromiter((len(text) for text in texts), np.int64, len(texts))
    ends = np.cumsum(lengths + 1) - 1
    return Records(b"".join(text + b"\n" for text in texts), ends - lengths, ends, block.lines)


def _filled(block: Records) -> NDArray[np.bool_]:
    """False for empty lines, bool [n]."""
    keep = np.ones(len(block), bool)
    # A record of one byte may be the "\r" of an empty line.
    for i in np.flatnonzero(block.ends - block.starts <= 1).tolist():
        keep[i] = bool(block.text(i).strip())
    return keep
