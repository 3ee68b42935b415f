"""Which items link to an item, of a catalogue that changes: a video's vector is drawn to its products, and so moves
when one of them changes.
"""

from collections.abc import Iterable, Sequence

from onesearch.data.records import Item
from onesearch.search.item_records import ItemRecords


class LinkingItems:
    """Kept by whoever changes the catalogue. Who once linked to an item is asked again whether it still does.

    Args:
        records: of the catalogue, which are looked through once.
    """

    def __init__(self, records: ItemRecords) -> None:
        self._linking: dict[str, set[str]] = {}  # by the item that is linked to
        for item_id, linked in records.base.links.iter_rows():
            self._note(item_id, linked)
        self.note(records.later)

    def note(self, items: Iterable[Item]) -> None:
        """Items come in, or come in again."""
        for item in items:
            self._note(item.item_id, item.linked)

    def to(self, items: Sequence[Item]) -> list[str]:
        """Ids of the items that link to some, or did so once, without these."""
        coming = {item.item_id for item in items}
        # Sorted, as every shard must have them in one order.
        return sorted(set().union(*(self._linking.get(item_id, ()) for item_id in coming)) - coming)

    def _note(self, item_id: str, linked: Iterable[str]) -> None:
        for one in linked:
            self._linking.setdefault(one, set()).add(item_id)
