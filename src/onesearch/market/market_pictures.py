"""Pictures of a market's items, drawn from what is true of them, whether a listing says so or not.

The outline tells the product type, its fill the colour, an overlay the pattern, a mark in the corner the brand. Noise
(:class:`PictureParameters`): shifted shades, sizes and places, clutter around the product, and a share of pictures that
show the product in another colour. The first picture stands on white, later ones turned on a pale ground. The pixels
follow from the seed alone; their PNG bytes from Pillow's version, too.
"""

import functools
import zipfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.extras import from_extra
from onesearch.common.progress import track
from onesearch.data.records import PICTURES_ARCHIVE
from onesearch.market.market_catalogue import MarketCatalogue
from onesearch.market.market_vocabulary import SLOTS

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

Color = tuple[int, int, int]
SHOWN: Final = ("Color", "Pattern")
"""Attributes that a picture shows as words would say them."""
_SIDE: Final = 96
_POINTS: Final = 40  # of an outline
_HARMONICS: Final = 5
_COLORS: Final[dict[str, Color]] = {
    "black": (25, 25, 28), "white": (245, 245, 242), "red": (205, 35, 40), "navy": (28, 38, 95),
    "blue": (45, 95, 205), "green": (45, 140, 65), "pink": (245, 150, 185), "grey": (140, 140, 140),
    "beige": (222, 203, 168), "brown": (115, 72, 40), "purple": (120, 50, 150), "yellow": (245, 215, 50),
    "orange": (240, 135, 35), "gold": (205, 165, 60), "silver": (190, 195, 200), "teal": (20, 125, 125),
    "burgundy": (110, 20, 45), "ivory": (250, 243, 220), "khaki": (150, 140, 95), "turquoise": (65, 205, 200),
    "lavender": (185, 165, 225), "coral": (250, 125, 100), "mint": (165, 230, 195), "charcoal grey": (65, 70, 75),
}  # fmt: skip


@dataclass(frozen=True)
class PictureParameters:
    """Noise of pictures."""

    shade: float = 10.0  # standard deviation of each of red, green and blue, of 255
    place: float = 0.05  # of the middle, in sides of the picture
    scale: float = 0.08  # of the size
    clutter: int = 3  # small strokes around the product, at most
    other_color: float = 0.03  # share of pictures of the product in another colour


NOISE: Final = PictureParameters()


def picture_names(items: int, each: int) -> pl.Series:
    """The images of every item, as its record names them: a List(String) column."""
    names = [[f"{PICTURES_ARCHIVE}/i{item}-{number}.png" for number in range(each)] for item in range(items)]
    return pl.Series(names, dtype=pl.List(pl.String))


def draw_pictures(catalogue: MarketCatalogue, each: int, seed: int, folder: Path) -> None:
    """Write ``each`` pictures of every item as PNG into one archive of ``folder``."""
    pens = _Pens(catalogue, seed)
    part = folder / f"{PICTURES_ARCHIVE}.part"
    # One archive: tens of thousands of files would slow down whoever copies or checks the folder.
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for item in track(range(len(catalogue)), "pictures", len(catalogue), "item"):
            rng = np.random.default_rng([seed, 12, item])
            for number in range(each):
                data = BytesIO()
                pens.picture(item, number, rng).save(data, "PNG", compress_level=1)
                archive.writestr(zipfile.ZipInfo(f"i{item}-{number}.png"), data.getvalue())
    part.replace(folder / PICTURES_ARCHIVE)


class _Pens:
    """Draws items: outlines by type and marks by brand are drawn once."""

    def __init__(self, catalogue: MarketCatalogue, seed: int) -> None:
        self._catalogue = catalogue
        rng = np.random.default_rng([seed, 13])
        types = int(catalogue.types.max()) + 1
        # A closed curve for each type: the radius by the angle, a few harmonics of it, and how much wider than high.
        size = rng.normal(0, 0.2, (types, _HARMONICS)) / np.sqrt(np.arange(1, _HARMONICS + 1))
        phase = rng.uniform(0, 2 * np.pi, (types, _HARMONICS))
        angle = np.linspace(0, 2 * np.pi, _POINTS, endpoint=False)
        waves = np.cos(angle[:, None, None] * np.arange(2, _HARMONICS + 2) + phase)  # [points, types, harmonics]
        radius = np.clip(1 + (size * waves).sum(2), 0.35, 1.6).T  # [types, points]
        wide = np.exp(rng.normal(0, 0.35, types))[:, None]
        curves = np.stack([radius * np.cos(angle) * wide, radius * np.sin(angle) / wide], 2)
        self._curves = curves / np.abs(curves).max((1, 2), keepdims=True)  # [types, points, 2] in -1..1
        self._brand_color = rng.integers(20, 236, (len(catalogue.value_names), 3))
        self._brand_corners = rng.integers(3, 7, len(catalogue.value_names))
        self._colors = list(_COLORS.values())

    def picture(self, item: int, number: int, rng: np.random.Generator) -> "Image":
        """The picture of an item with this number, RGB."""
        with from_extra("pictures"):
            from PIL import Image, ImageDraw

        values = dict(zip(SLOTS, self._catalogue.values[item].tolist(), strict=True))
        names = self._catalogue.value_names
        # Ground, and what lies about on it.
        ground = (255, 255, 255) if number == 0 else tuple(rng.integers(215, 246, 3).tolist())
        image = Image.new("RGB", (_SIDE, _SIDE), ground)
        pen = ImageDraw.Draw(image)
        for _ in range(int(rng.integers(0, NOISE.clutter + 1))):
            x, y, dx, dy = rng.integers(0, _SIDE, 4).tolist()
            pen.line((x, y, x + dx // 8, y + dy // 8), fill=tuple(rng.integers(120, 230, 3).tolist()), width=2)
        # The product: its type's outline, turned in later pictures, filled in its colour.
        curve = self._curves[self._catalogue.types[item]]
        turn = 0.0 if number == 0 else float(rng.normal(0, 0.5))
        turned = curve @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        scale = 0.38 * _SIDE * float(np.clip(1 + rng.normal(0, NOISE.scale), 0.7, 1.2))
        middle = _SIDE * (0.5 + rng.normal(0, NOISE.place, 2))
        points = [tuple(point) for point in (turned * scale + middle).tolist()]
        mask = Image.new("1", image.size)
        ImageDraw.Draw(mask).polygon(points, fill=1)
        image.paste(self._filled(names, values, rng), mask=mask)
        pen.line([*points, points[0]], fill=(60, 60, 60), width=2)
        self._mark(pen, values["Brand"])
        return image

    def _filled(self, names: list[str], values: dict[str, int], rng: np.random.Generator) -> "Image":
        """A sheet in the item's colour with its pattern."""
        with from_extra("pictures"):
            from PIL import Image

        known = _COLORS.get(names[values["Color"]], (128, 128, 128)) if values["Color"] >= 0 else (128, 128, 128)
        if rng.random() < NOISE.other_color:
            known = self._colors[int(rng.integers(len(self._colors)))]
        shade = np.clip(np.array(known) + rng.normal(0, NOISE.shade, 3), 0, 255)
        # Lines of the pattern are darker than a light colour, and lighter than a dark one.
        lines = np.where(shade.mean() > 110, shade * 0.55, shade * 0.5 + 127)
        drawn = pattern(names[values["Pattern"]]) if values["Pattern"] >= 0 else pattern("solid")
        sheet = np.where(drawn[:, :, None], lines, shade).astype(np.uint8)
        return Image.fromarray(sheet)

    def _mark(self, pen: "ImageDraw", brand: int) -> None:
        """The brand's small polygon in a corner of the picture."""
        angles = 2 * np.pi * np.arange(self._brand_corners[brand]) / self._brand_corners[brand]
        points = np.stack([_SIDE - 11 + 8 * np.sin(angles), 11 - 8 * np.cos(angles)], 1)
        pen.polygon([tuple(point) for point in points.tolist()], fill=tuple(self._brand_color[brand].tolist()))


@functools.cache
def pattern(name: str) -> NDArray[np.bool_]:
    """Where a pattern has its lines or dots, bool [side, side]; nowhere for plain ones."""
    y, x = np.mgrid[0:_SIDE, 0:_SIDE]
    known: dict[str, NDArray[np.bool_]] = {
        "striped": x % 14 < 5,
        "plaid": (x % 18 < 5) | (y % 18 < 5),
        "polka dot": (x % 16 - 8) ** 2 + (y % 16 - 8) ** 2 < 20,
        "checkered": (x // 12 + y // 12) % 2 == 0,
        "herringbone": (x + np.where(y // 16 % 2, y, -y)) % 14 < 4,
        "geometric": (abs(x % 24 - 12) + abs(y % 24 - 12)) % 12 < 3,
        "leopard": ((x * 7 + y * 13 + x * y // 9) % 31 < 7) & ((x // 6 + y // 6) % 2 == 0),
        "camouflage": np.sin(x / 7.0) + np.cos(y / 9.0) + np.sin((x + 2 * y) / 13.0) > 0.7,
        "floral": np.cos(np.hypot(x % 32 - 16, y % 32 - 16) - 3 * np.cos(5 * np.arctan2(y % 32 - 16, x % 32 - 16)))
        > 0.6,
        "paisley": np.sin(np.hypot(x % 28 - 10, y % 28 - 18) * 0.9) > 0.7,
        "tie dye": np.sin(np.hypot(x - 48, y - 48) / 3.0 + 2 * np.arctan2(y - 48, x - 48)) > 0.3,
        "marbled": np.sin(x / 5.0 + 4 * np.sin(y / 11.0)) > 0.8,
        "animal print": np.sin(x / 4.0 + 3 * np.sin(y / 8.0)) > 0.3,
        "embroidered": (x % 20 < 12) & (y % 20 < 12) & ((x + y) % 4 == 0),
        "quilted pattern": ((x + y) % 22 < 2) | ((x - y) % 22 < 2),
    }
    return known.get(name, np.zeros((_SIDE, _SIDE), bool))
