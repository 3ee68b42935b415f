"""Bytes of strangers become a picture, or a reason."""

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from onesearch.encoding.pictures.picture_decoding import SIDE, decode_picture, picture_format
from onesearch.encoding.pictures.picture_refusal import REASONS, PictureRefusedError
from pictures import SVG, bomb, picture

MOST = 1_000_000


def refusal(data: bytes, most: int = MOST) -> str:
    with pytest.raises(PictureRefusedError) as told:
        decode_picture(data, most)
    return told.value.reason


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_every_format_is_told_by_its_first_bytes_and_decoded_as_rgb(kind: str):
    data = picture("red", kind=kind)
    assert picture_format(data) == kind
    image = decode_picture(data, MOST)
    assert image.mode == "RGB" and image.size == (40, 30)
    red, green, blue = image.getpixel((20, 15))
    assert red > 200 and green < 60 and blue < 60 and min(image.getpixel((1, 1))) > 230


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SVG, "format"),
        (b"", "format"),
        (b"<html>not found</html>", "format"),
        (b"BM" + bytes(60), "format"),
        (b"RIFF\0\0\0\0WAVE", "format"),
        (picture()[:60], "broken"),
        (picture(kind="JPEG")[:-200], "broken"),
        (picture(kind="GIF")[:40], "broken"),
        (b"\x89PNG\r\n\x1a\n" + SVG, "broken"),
        (bomb(), "pixels"),
        (bomb(20_000, 20_000), "pixels"),
    ],
)
def test_all_else_is_refused_with_a_reason(data: bytes, reason: str):
    assert refusal(data) == reason


def test_pixels_are_counted_by_the_header_and_up_to_the_limit(monkeypatch: pytest.MonkeyPatch):
    data = picture(size=(100, 50))
    assert decode_picture(data, 5000).size == (100, 50)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("nothing is unpacked before the limit"))
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", lambda self: pytest.fail("unpacked"))
    assert refusal(data, 4999) == "pixels"


def test_large_ones_are_made_smaller_and_keep_their_shape():
    assert decode_picture(picture(size=(2000, 400), kind="JPEG"), MOST).size == (SIDE, round(SIDE / 5))


def test_of_several_frames_the_first_on_white_where_it_is_transparent():
    first, second = Image.new("RGBA", (20, 20), (0, 0, 0, 0)), Image.new("RGBA", (20, 20), "blue")
    first.paste((0, 200, 0, 255), (0, 0, 10, 20))
    for kind in ("GIF", "WEBP", "PNG"):
        data, several = BytesIO(), {"save_all": True, "append_images": [second]} if kind == "GIF" else {}
        first.save(data, kind, lossless=True, **several)
        image = decode_picture(data.getvalue(), MOST)
        assert image.getpixel((15, 10)) == (255, 255, 255), kind
        assert image.getpixel((4, 10))[1] > 150 and image.getpixel((4, 10))[2] < 60


def test_a_photo_stands_upright():
    image, data = Image.new("RGB", (40, 20), "white"), BytesIO()
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(data, "JPEG", exif=exif)
    assert decode_picture(data.getvalue(), MOST).size == (20, 40)


@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP"]), st.data())
def test_damaged_files_give_a_picture_or_a_reason_and_nothing_else(kind: str, draw: st.DataObject):
    data = bytearray(picture(kind=kind))
    for _ in range(draw.draw(st.integers(1, 8))):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    cut = draw.draw(st.integers(1, len(data)))
    try:
        image = decode_picture(bytes(data[:cut]), MOST)
        assert image.mode == "RGB" and np.asarray(image).size <= 3 * MOST
    except PictureRefusedError as refused:
        assert refused.reason in REASONS
