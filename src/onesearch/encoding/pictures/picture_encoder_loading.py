"""A vision model of whichever kind is opened for a stage, and found again in a run."""

from pathlib import Path

from onesearch.common.artefact import read_json
from onesearch.encoding.pictures.efficientnet_lite0 import EfficientNetPictures
from onesearch.encoding.pictures.picture_encoder import PICTURE_ENCODER, PictureEncoder
from onesearch.encoding.pictures.picture_settings import PictureSettings
from onesearch.encoding.pictures.vision_models import ClipPictures, TransformersPictures


def open_picture_encoder(settings: PictureSettings) -> PictureEncoder:
    """The model that the settings name.

    Raises:
        MissingExtraError: a library or the package of weights is not installed.
        FileNotFoundError, ValueError: there is no such file, or it is not the one that is read.
    """
    if settings.kind == "efficientnet-lite0":
        return EfficientNetPictures.open(settings.model, settings.size)
    name = str(settings.model)  # which the settings have made sure of
    return ClipPictures.open(name) if settings.kind == "sentence-transformers" else TransformersPictures.open(name)


def load_picture_encoder(folder: Path) -> PictureEncoder:
    """Load whichever model was saved in ``folder``; needs no network, and runs no code of the folder's.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: its kind is unknown.
    """
    path = folder / PICTURE_ENCODER
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no picture encoder ({PICTURE_ENCODER} missing); run the pictures stage"
        )
    kind = read_json(path).get("kind")
    if kind == "efficientnet-lite0":
        return EfficientNetPictures.load(folder)
    if kind == "sentence-transformers":
        return ClipPictures.load(folder)
    if kind == "transformers":
        return TransformersPictures.load(folder)
    raise ValueError(
        f"{path}: unknown kind {kind!r}; expected 'efficientnet-lite0', 'sentence-transformers' or 'transformers'"
    )
