"""What of a thought the catalogue can answer to: its category tree and the words of its items."""

from collections.abc import Sequence
from typing import Protocol


class Grounding(Protocol):
    """The catalogue as a thought may use it; see :class:`~onesearch.understanding.catalogue_words.CatalogueWords`."""

    def category(self, path: Sequence[str]) -> tuple[str, ...] | None:
        """The catalogue's own path for a path or the unambiguous end of one; None if there is none."""

    def keyword(self, text: str) -> str | None:
        """The canonical form of a keyword whose words the catalogue's items use together; None if there is none."""

    def popularity(self, keyword: str) -> float:
        """Clicks of the items that a canonical keyword names."""
