"""Items → one picture vector each, in the stage and for items that come in while a service runs."""

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onesearch.common.artefact import read_json
from onesearch.encoding.pictures.picture_encoder import PictureEncoder, unit_rows
from onesearch.encoding.pictures.picture_encoder_loading import load_picture_encoder
from onesearch.encoding.pictures.picture_reading import PictureReader
from onesearch.encoding.pictures.picture_refusal import PictureRefusedError, Reason
from onesearch.encoding.pictures.picture_settings import PictureLimits

Floats = NDArray[np.float32]
Images = Sequence[Sequence[str]]
ENCODER_FOLDER: Final = "picture_encoder"
READING: Final = "reading.json"
LIVE_SECONDS: Final = 20.0
"""For the pictures of all items of a change together; what is not there then is not waited for."""
_ITEMS_AT_ONCE: Final = 128  # whose pictures are in memory together
_REMEMBERED: Final = 4096  # items whose vectors are kept between being prepared and being asked for
READ: Final = "read"


class Refusal(NamedTuple):
    """A picture that was not taken: place of its item among those asked for, its source, why."""

    item: int
    source: str
    reason: Reason
    words: str


@dataclass
class PictureVectors:
    """What came of the pictures of n items.

    Attributes:
        vectors: unit vectors float32 [n, p]; zeros where an item has no picture.
        there: which items have one, bool [n].
        outcomes: number of pictures that were ``read``, and that were refused, by reason.
        refused: each of these.
    """

    vectors: Floats
    there: NDArray[np.bool_]
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: list[Refusal] = field(default_factory=list)


class ItemPictures:
    """Reads and encodes the pictures of items.

    Args:
        reader: of single ones.
        encoder: the vision model.
        most: pictures of an item that are read, the first ones.
        each: the mean of an item's pictures, or the first one that can be read.
    """

    def __init__(
        self, reader: PictureReader, encoder: PictureEncoder, most: int = 2, each: Literal["mean", "main"] = "mean"
    ) -> None:
        self._reader, self._encoder, self._most, self._each = reader, encoder, most, each
        self._encoding = threading.Lock()
        self._prepared: OrderedDict[tuple[str, ...], Floats] = OrderedDict()

    @classmethod
    def load(cls, folder: Path, root: Path | None, trusted: Sequence[str] = ()) -> "ItemPictures":
        """What a run's ``pictures`` stage left in ``folder``, to read pictures of new items.

        A run may be a stranger's: of what it says, limits alone are taken over. Paths start from ``root``, and hosts of
        private addresses are those that the caller trusts.
        """
        about = read_json(folder / READING)
        limits = PictureLimits.model_validate({**about["limits"], "private_hosts": tuple(trusted)})
        encoder = load_picture_encoder(folder / ENCODER_FOLDER)
        each: Literal["mean", "main"] = "main" if about["each"] == "main" else "mean"
        return cls(PictureReader(limits, root), encoder, int(about["most"]), each)

    @property
    def dimension(self) -> int:
        """p, the length of the vectors."""
        return self._encoder.dimension

    def trust(self, hosts: Sequence[str]) -> None:
        """Download from these hosts, too, though their addresses are private."""
        self._reader = self._reader.trusting(hosts)

    def vectors(self, images: Images, seconds: float | None = None) -> PictureVectors:
        """The pictures of items; ``seconds`` bounds the time for all of them.

        Args:
            images: sources of each item's pictures, n of them.
            seconds: for all of them; what is not there then is refused as ``late``.
        """
        # The first few of each item; where the main one alone counts, the others stand in for one that is refused.
        sources = [(item, source) for item, some in enumerate(images) for source in list(some or ())[: self._most]]
        found = self._reader.read_many([source for _, source in sources], seconds)
        read, owners, refused = [], [], []
        for (item, source), one in zip(sources, found, strict=True):
            if isinstance(one, PictureRefusedError):
                refused.append(Refusal(item, source, one.reason, str(one)))
            else:
                read.append(one)
                owners.append(item)
        outcomes = Counter({READ: len(read)} if read else {})
        outcomes.update(one.reason for one in refused)
        # Main: the first readable picture alone. Mean: of unit vectors, at length one again.
        if self._each == "main":
            first = [at for at, item in enumerate(owners) if at == 0 or owners[at - 1] != item]
            read, owners = [read[at] for at in first], [owners[at] for at in first]
        sums = np.zeros((len(images), self.dimension), np.float32)
        if read:
            with self._encoding:
                np.add.at(sums, owners, self._encoder.encode(read))
        there = np.zeros(len(images), bool)
        there[owners] = True
        return PictureVectors(unit_rows(sums), there, outcomes, refused)

    def in_parts(self, images: Images) -> Iterator[PictureVectors]:
        """:meth:`vectors` of some items after others, so that few pictures are in memory; without a limit of time."""
        for start in range(0, len(images), _ITEMS_AT_ONCE):
            yield self.vectors(images[start : start + _ITEMS_AT_ONCE])

    # -- items that come in ------------------------------------------------------------------------------------------

    def prepare(self, images: Images, seconds: float = LIVE_SECONDS) -> Mapping[str, int]:
        """Read and encode ahead what :meth:`remembered` will be asked for; the outcomes, by name.

        ``items_without`` counts the items that have pictures of which none could be read.
        """
        unique = dict.fromkeys(key for some in images if (key := tuple(some or ())))
        with self._encoding:  # what could not be read gets another chance
            wanted = [key for key in unique if key not in self._prepared or not self._prepared[key].any()]
        return self._read(wanted, seconds)[1]

    def remembered(self, images: Images) -> tuple[Floats, NDArray[np.bool_]]:
        """Vectors float32 [n, p] and which items have one, bool [n]; what was not prepared is read now."""
        keys = [tuple(some or ()) for some in images]
        with self._encoding:
            known = {key: self._prepared[key] for key in keys if key in self._prepared}
        known |= self._read([key for key in dict.fromkeys(keys) if key and key not in known], LIVE_SECONDS)[0]
        out = np.zeros((len(keys), self.dimension), np.float32)
        for at, key in enumerate(keys):
            out[at] = known.get(key, out[at])
        return out, np.asarray(out.any(1), bool)

    def _read(
        self, keys: Sequence[tuple[str, ...]], seconds: float
    ) -> tuple[dict[tuple[str, ...], Floats], Counter[str]]:
        """The vectors of items by their sources, zeros where there is none, which are kept for a while; outcomes."""
        found = self.vectors(keys, seconds)
        vectors = dict(zip(keys, found.vectors, strict=True))
        with self._encoding:
            self._prepared |= vectors
            while len(self._prepared) > _REMEMBERED:
                self._prepared.popitem(last=False)
        return vectors, +(found.outcomes + Counter({"items_without": int((~found.there).sum())}))
