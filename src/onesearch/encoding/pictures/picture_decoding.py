"""Bytes of strangers → a picture: known formats alone, sizes looked at before anything is unpacked."""

from io import BytesIO
from typing import TYPE_CHECKING, Final

from onesearch.common.extras import from_extra
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError

if TYPE_CHECKING:
    from PIL.Image import Image

_SIGNS: Final = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"))
MEDIA_TYPES: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
SIDE: Final = 512
"""Pixels of the longer side of what is handed on, at most: vision models read less."""


def picture_format(data: bytes) -> str | None:
    """JPEG, PNG, GIF or WEBP by the first bytes, whatever name or header says; None for all else, SVG too."""
    for sign, name in _SIGNS:
        if data.startswith(sign):
            return name
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def decode_picture(data: bytes, most_pixels: int) -> "Image":
    """The picture (of several frames the first) as RGB on white, upright, its longer side at most :data:`SIDE`.

    Args:
        data: the file.
        most_pixels: width times height, as the header says it.

    Raises:
        PictureRefusedError: ``format``, ``pixels`` or ``broken``.
    """
    with from_extra("pictures"):
        from PIL import Image, ImageOps

    kind = picture_format(data)
    if kind is None:
        raise PictureRefusedError("format", "not JPEG, PNG, WebP or GIF by its first bytes")
    try:
        # The header alone; only the one decoder that the first bytes name is tried.
        with Image.open(BytesIO(data), formats=[kind]) as image:
            if image.width * image.height > most_pixels:
                raise _too_large(f"{image.width} x {image.height} pixels", most_pixels)
            if kind == "JPEG":
                image.draft("RGB", (SIDE, SIDE))  # a large photo is decoded at half or less of its size
            upright = ImageOps.exif_transpose(image)
            upright.thumbnail((SIDE, SIDE), reducing_gap=2.0)
            # What shines through is the shop's white page.
            if upright.mode == "P" or upright.has_transparency_data:
                upright = upright.convert("RGBA")
                white = Image.new("RGBA", upright.size, "white")
                return Image.alpha_composite(white, upright).convert("RGB")
            return upright.convert("RGB")
    except PictureRefusedError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # beyond Pillow's own limits
        raise _too_large("more pixels", most_pixels) from error
    except Exception as error:  # decoders raise anything at damaged files
        words = f"a {kind} that cannot be decoded ({type(error).__name__}: {str(error)[:100]})"
        raise PictureRefusedError("broken", words) from error


def _too_large(what: str, most: int) -> PictureRefusedError:
    return PictureRefusedError("pixels", f"{what}, and at most {most:,} are decoded")
