"""The stage ``pictures``: a vector for each item that has one; and how the encoder stage joins them with texts."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from onesearch.common.array_files import map_array
from onesearch.common.artefact import write_json
from onesearch.common.progress import track
from onesearch.encoding.encoder_alignment import Around
from onesearch.encoding.pictures.item_pictures import ENCODER_FOLDER, READ, READING, ItemPictures, Refusal
from onesearch.encoding.pictures.item_towers import ConcatTower, PictureProjection, UnifiedTower
from onesearch.encoding.pictures.picture_encoder_loading import open_picture_encoder
from onesearch.encoding.pictures.picture_reading import PictureReader
from onesearch.encoding.pictures.picture_settings import PictureLimits, PictureSettings, TowerSettings
from onesearch.encoding.pictures.picture_space import PictureSpace
from onesearch.encoding.text_encoder import TextEncoder
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.stage_runner import StageContext

log = logging.getLogger("onesearch")
Floats = NDArray[np.float32]
VECTORS, THERE, REFUSED = "item_pictures.npy", "has_picture.npy", "refused.parquet"
_MOST_REFUSED: Final = 100_000  # pictures that are written down; all are counted


def build_pictures(run_data: RunData, context: StageContext, pictures: PictureSettings) -> Mapping[str, Any]:
    """Read and encode the pictures of all items: vectors float32 [N, p], which items have one, bool [N].

    What cannot be read, or is not to be, stops nothing: it is counted by reason, and written down.
    """
    folder, items = context.folder, run_data.dataset.items
    reader = PictureReader(pictures, pictures.root or context.inputs["data"], pictures.cache, pictures.threads)
    encoder = open_picture_encoder(pictures)
    encoder.save(folder / ENCODER_FOLDER)
    limits = {name: getattr(pictures, name) for name in PictureLimits.model_fields if name != "private_hosts"}
    write_json(folder / READING, {"limits": limits, "most": pictures.most, "each": pictures.each})
    # Part by part into the file, so that memory holds the pictures of a few items.
    shape = (len(items), encoder.dimension)
    vectors = np.lib.format.open_memmap(folder / VECTORS, mode="w+", dtype=np.float32, shape=shape)
    there, outcomes = np.zeros(len(items), bool), Counter[str]()
    refused: list[Refusal] = []
    parts = ItemPictures(reader, encoder, pictures.most, pictures.each).in_parts(items["images"].to_list())
    start = 0
    for part in track(parts, "pictures", unit="part"):
        end = start + len(part.there)
        vectors[start:end], there[start:end] = part.vectors, part.there
        outcomes.update(part.outcomes)
        refused += [one._replace(item=start + one.item) for one in part.refused[: _MOST_REFUSED - len(refused)]]
        start = end
    vectors.flush()
    np.save(folder / THERE, there, allow_pickle=False)
    table = {name: [getattr(one, name) for one in refused] for name in ("source", "reason", "words")}
    ids = items["item_id"].gather([one.item for one in refused])
    pl.DataFrame({"item_id": ids, **table}, schema_overrides=dict.fromkeys(table, pl.String)).write_parquet(
        folder / REFUSED
    )
    if lost := {reason: number for reason, number in sorted(outcomes.items()) if reason != READ}:
        counted = ", ".join(f"{number:,} {reason}" for reason, number in lost.items())
        log.warning("%d pictures were refused (%s); %s has them", sum(lost.values()), counted, folder / REFUSED)
    return {"items": len(items), "items_with_picture": there.sum(), "dimension": shape[1], "pictures": dict(outcomes)}


class PictureTowers:
    """Joins the catalogue's pictures, as the stage left them in ``folder``, with texts that are trained."""

    def __init__(
        self, folder: Path, encoding: Literal["unified", "concat"], settings: TowerSettings, seed: int
    ) -> None:
        self._encoding, self._settings = encoding, settings
        self._vectors, self._there = map_array(folder / VECTORS), np.asarray(map_array(folder / THERE), bool)
        self._space = PictureSpace.fit(self._vectors, self._there, settings.dimension, seed)
        self._tower: UnifiedTower | ConcatTower

    def projection(self, dimension: int) -> PictureProjection | None:
        """What is trained beside a text encoder of this dimension, anew for each; nothing where both stay apart."""
        if self._encoding == "concat":
            return None
        reduced = self._space.reduce(self._vectors, self._there)
        return PictureProjection(reduced, dimension, self._settings.learning_rate)

    def joined(self, text: TextEncoder, trained: PictureProjection | None) -> UnifiedTower | ConcatTower:
        """The tower over a text encoder and what was trained beside it."""
        if trained is None:
            self._tower = ConcatTower(text, self._space, self._settings.share)
        else:
            self._tower = UnifiedTower(text, self._space, trained.weight)
        return self._tower

    def item_vectors(self, texts: Sequence[str]) -> Floats:
        """Unit vectors of the catalogue's items in the tower that was joined last, float32 [N, d]."""
        return self._tower.encode_items(texts, self._vectors, self._there)

    def trained_beside(self, dimension: int) -> Callable[[], Around] | None:
        """As :meth:`projection`, for each of several encoders of which the projection itself is not kept."""
        if self._encoding == "concat":
            return None

        def around() -> Around:
            projection = self.projection(dimension)
            assert projection is not None
            return projection.around

        return around
