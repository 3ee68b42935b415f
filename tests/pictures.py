"""Small pictures and hostile files, made here."""

import struct
import zlib
from io import BytesIO

from PIL import Image, ImageDraw

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script><rect width="9" height="9"/></svg>'


def picture(color="red", size=(40, 30), kind="PNG", **more) -> bytes:
    """A rectangle on white."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).rectangle((5, 5, size[0] - 6, size[1] - 6), fill=color)
    data = BytesIO()
    image.save(data, kind, **more)
    return data.getvalue()


def bomb(width=10_000, height=10_000) -> bytes:
    """A PNG of 100 megapixels in some kilobytes: one bit each, all of them zero."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = zlib.compress(bytes((width // 8 + 1) * height), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
