"""A saved encoder of whatever kind is found again."""

from pathlib import Path

from onesearch.common.artefact import read_json
from onesearch.encoding.pictures.item_towers import TEXT_FOLDER, ConcatTower, UnifiedTower
from onesearch.encoding.static_encoder import StaticEncoder
from onesearch.encoding.text_encoder import DESCRIPTION, TextEncoder
from onesearch.encoding.transformer_encoder import TransformerEncoder


def load_encoder(folder: str | Path) -> TextEncoder:
    """Load whichever encoder was saved in ``folder``.

    Raises:
        FileNotFoundError: the folder holds no encoder.
        ValueError: the encoder's kind is unknown.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no text encoder ({DESCRIPTION} missing); run the encoder stage first")
    kind = read_json(path).get("kind")
    if kind == "static":
        return StaticEncoder.load(folder)
    if kind == "transformer":
        return TransformerEncoder.load(folder)
    if kind == "unified":
        return UnifiedTower.load(folder, load_encoder(folder / TEXT_FOLDER))
    if kind == "concat":
        return ConcatTower.load(folder, load_encoder(folder / TEXT_FOLDER))
    raise ValueError(f"{path}: unknown encoder kind {kind!r}; expected 'static', 'transformer', 'unified' or 'concat'")
