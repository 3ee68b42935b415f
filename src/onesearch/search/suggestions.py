"""The words while a shopper types: completions of what is typed so far, and corrections of what was mistyped.

Completions are queries of the log that led to clicks on items that are still there, categories, and titles. What the
log gives is gathered when first asked for, what the items give by the run; both follow the catalogue from then on.
"""

import heapq
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.memory import give_back
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.records import Item, items_frame
from onesearch.data.text import completion_key, one_letter
from onesearch.index.item_filters import ItemMask
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.catalogue_words import BEGINNING_COLUMNS, Beginnings, sorted_keys
from onesearch.search.current_snapshot import CurrentSnapshot
from onesearch.search.lexical_search import LexicalSearcher, WordStatus
from onesearch.search.spelling import Correction, Spelling, has_unknown

Kind = Literal["query", "category", "item"]
Ints = NDArray[np.int32]
_BLOCK: Final = 64  # texts whose heaviest is known ahead
_MOST_UNREAD: Final = 1000  # items whose words are told to the spelling together
_MOST_LATER: Final = 4096  # texts that are looked through one by one; more are sorted in
_SHARE: Final = 4  # of so many places one is kept for categories and one for items


MaskOf = Callable[[Snapshot], ItemMask | None]


class Suggestion(NamedTuple):
    """A completion: the text to search for, what it is, and of a title the item's id."""

    text: str
    kind: Kind
    item_id: str | None = None


class Completions:
    """Texts by how they begin, the heaviest first::

        texts with the same beginning are neighbours in alphabetical order: places [begin, end)
        the k heaviest of its whole blocks are in the k blocks whose heaviest texts are the heaviest
        so the k heaviest are in these, or in the parts of blocks at its ends

    Args:
        keys: beginnings are compared with, sorted.
        numbers: int32 [n], that of the text of each key.
        weights: of each text, [n], by its number; of equal ones the first in alphabetical order is better.
    """

    def __init__(self, keys: Sequence[str], numbers: Ints, weights: NDArray[np.floating]) -> None:
        self._keys, self._numbers = keys, numbers
        # How many are heavier than each, int32 [n], and the least of these in each block.
        self._rank = np.empty(len(keys), np.int32)
        self._rank[np.argsort(-weights[self._numbers], kind="stable")] = np.arange(len(keys), dtype=np.int32)
        self._best = np.minimum.reduceat(self._rank, np.arange(0, len(keys), _BLOCK)) if keys else self._rank

    @classmethod
    def of(cls, texts: Sequence[str], weights: NDArray[np.floating]) -> "Completions":
        """Of texts, compared as :func:`completion_key` has them, which are numbered in their order."""
        return cls(*sorted_keys(texts), weights)

    def best(self, key: str, k: int) -> Ints:
        """Numbers of the ``k`` heaviest texts that begin with a key, heaviest first, int32 [k] or fewer."""
        begin, end = bisect_left(self._keys, key), bisect_left(self._keys, key + chr(0x10FFFF))
        places, first, last = np.arange(begin, end), -(-begin // _BLOCK), end // _BLOCK
        if last - first > k:
            blocks = first + np.argpartition(self._best[first:last], k)[:k]
            inside = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
            places = np.concatenate([np.arange(begin, first * _BLOCK), inside, np.arange(last * _BLOCK, end)])
        return self._numbers[places[np.argsort(self._rank[places])[:k]]]

    def has(self, text: str, number: int) -> bool:
        """Whether the text with this number is this one."""
        key = completion_key(text)
        return number in self._numbers[bisect_left(self._keys, key) : bisect_right(self._keys, key)]


class _Texts:
    """What completions are made of.

    Attributes:
        queries: numbered as in the statistics, by their clicks.
        categories: numbered as ``names``, by their items.
        titles: numbered by item rows, by their popularity.
        later: titles and categories that came since, with their keys.
    """

    def __init__(self, snapshot: Snapshot, beginnings: Beginnings, statistics: ClickStatistics) -> None:
        """``beginnings`` are those of the first items of a snapshot, or of all of them."""
        self.queries = Completions.of(statistics.queries, statistics.query_clicks[:-1])
        self.names, self._known = beginnings.categories, frozenset(beginnings.categories)
        self.categories = Completions.of(self.names, beginnings.counts)
        popularity = snapshot.popularity.flat().cpu().numpy()[: len(beginnings.rows)]
        self.titles = Completions(beginnings.keys, beginnings.rows, popularity)
        self.later: dict[Suggestion, str] = {}

    def new(self, item: Item, row: int) -> dict[Suggestion, str]:
        """What an item, whose row is given, has that is not known yet, with its keys."""
        names = [Suggestion(name, "category") for name in item.category if name not in self._known]
        titles = [] if self.titles.has(item.title, row) else [Suggestion(item.title, "item", item.item_id)]
        return {text: completion_key(text.text) for text in (*names, *titles)}


class Suggestions:
    """Completions and corrections for an engine; any number of threads may ask at once.

    Args:
        current: the catalogue.
        statistics: of the log.
    """

    def __init__(self, current: CurrentSnapshot, statistics: ClickStatistics) -> None:
        self._current, self._statistics = current, statistics
        self._writing = threading.Lock()
        self._texts: _Texts | None = None
        self._spelling: Spelling | None = None
        self._unread: list[Item] = []  # whose words the spelling does not know yet

    def add(self, items: Sequence[Item]) -> None:
        """Follow items that are new in the catalogue or have another text. Of those that left it nothing is said."""
        with self._writing:
            snapshot, texts = self._current.value, self._texts
            if texts is not None:
                # Another table, since others read the old one.
                later = _and_new(texts, snapshot, items)
                if len(later) > _MOST_LATER:
                    self._texts = self._all_texts(snapshot)
                else:
                    texts.later = later
            if self._spelling is not None:
                self._unread += items
                if len(self._unread) >= _MOST_UNREAD:
                    self._read_items(self._spelling)

    def complete(self, text: str, k: int = 8, mask_of: MaskOf = lambda _: None) -> list[Suggestion]:
        """The ``k`` best completions of a text, fewer where there are no more; "" gives what is searched for most.

        Queries come first, then categories and titles, for each of which a quarter of the places is kept. Where nothing
        begins as the text does, it is taken with one letter for "oe" and the like, then corrected. Only items count
        that ``mask_of`` the catalogue allows: those that a query led to, those of a category, and titles.
        """
        key = completion_key(text)
        found = self._completions(mask_of, key, k) or self._completions(mask_of, one_letter(key), k)
        if not found and (correction := self.corrected(text)) is not None:
            found = self._completions(mask_of, completion_key(correction.text), k)
        return found

    def corrected(self, text: str, kept: frozenset[str] = frozenset()) -> Correction | None:
        """The text with the words that neither items nor log have as they were meant; None where nothing changes.

        Folded words that are ``kept`` stay as they are.
        """
        snapshot = self._current.value
        lexical = snapshot.lexical
        # Most texts are known to the items: then the words of all items and queries need not be gathered.
        if lexical is None or not has_unknown(text, items := _WordsOfAll(lexical, snapshot)):
            return None
        if self._spelling is None:
            with self._writing:
                self._spelling = self._spelling or self._new_spelling()
            give_back()  # texts of items and log were Python's for a moment
        if self._unread:
            with self._writing:
                self._read_items(self._spelling)
        return self._spelling.corrected(text, items, kept)

    def _new_spelling(self) -> Spelling:
        records, statistics = self._current.value.records, self._statistics
        spelling = Spelling.of(*records.base.words(), statistics.queries, statistics.query_clicks[:-1].tolist())
        if records.later:
            spelling.add_items(items_frame(records.later))
        return spelling

    def _new_texts(self) -> _Texts:
        snapshot = self._current.value
        later = snapshot.records.later
        if len(later) > _MOST_LATER:
            return self._all_texts(snapshot)
        texts = _Texts(snapshot, snapshot.records.base.beginnings(), self._statistics)
        texts.later = _and_new(texts, snapshot, later)
        return texts

    def _all_texts(self, snapshot: Snapshot) -> _Texts:
        return _Texts(snapshot, Beginnings.of(snapshot.records.columns(*BEGINNING_COLUMNS)), self._statistics)

    def _read_items(self, spelling: Spelling) -> None:
        """Tell the spelling of items that came since; many at once, and only where somebody asks, as it takes time."""
        spelling.add_items(items_frame(self._unread))
        self._unread = []

    def _completions(self, mask_of: MaskOf, key: str, k: int) -> list[Suggestion]:
        if self._texts is None:
            with self._writing:
                self._texts = self._texts or self._new_texts()
        texts = self._texts
        snapshot = self._current.value  # after the texts, whose items it has
        items = _Shown(snapshot, mask_of(snapshot))
        later = [text for text, of_text in texts.later.items() if of_text.startswith(key)]
        # The best of each kind; what an earlier kind has is left out of the later ones.
        seen: set[str] = set()
        queries = list(islice(_distinct(self._queries(items, texts, key, k), seen), k))
        categories = list(islice(_distinct(self._categories(items, texts, key, k, later), seen), k))
        free = max(k - len(queries) - len(categories), k // _SHARE)
        titles = list(islice(_distinct(self._titles(items, texts, key, k, later), seen), free))
        # Each kind's share is kept for it; queries take what is left over first.
        kept = [min(len(found), k // _SHARE) for found in (categories, titles)]
        queries = queries[: k - sum(kept)]
        categories = categories[: k - len(queries) - kept[1]]
        return [*queries, *categories, *titles[: k - len(queries) - len(categories)]]

    def _queries(self, items: "_Shown", texts: _Texts, key: str, k: int) -> Iterator[Suggestion]:
        """Queries that led to items that are still there and shown, the heaviest first."""
        for numbers in _widening(texts.queries, key, 2 * k):
            clicked = self._statistics.items.select(numbers)
            live = numbers[np.bincount(clicked.owners, items.there(clicked.values), len(numbers)) > 0]
            yield from (Suggestion(self._statistics.queries[i], "query") for i in live.tolist())

    @staticmethod
    def _categories(
        items: "_Shown", texts: _Texts, key: str, k: int, later: Iterable[Suggestion]
    ) -> Iterator[Suggestion]:
        """Categories with an item that is shown, those with the most items first; then ``later`` ones."""
        for numbers in _widening(texts.categories, key, 2 * k):
            yield from items.having([Suggestion(texts.names[i], "category") for i in numbers.tolist()])
        yield from items.having([text for text in later if text.kind == "category"])

    @staticmethod
    def _titles(items: "_Shown", texts: _Texts, key: str, k: int, later: Iterable[Suggestion]) -> Iterator[Suggestion]:
        """Titles of the items that are shown, most popular first; ``later`` are those that came since."""
        snapshot = items.snapshot

        def by_popularity(rows: Ints) -> list[tuple[float, int]]:
            rows = rows if items.mask is None else rows[items.there(rows)]
            return list(zip((-snapshot.popularity.take(rows)).tolist(), rows.tolist(), strict=True))

        known = chain.from_iterable(by_popularity(rows) for rows in _widening(texts.titles, key, k))
        ids = [text.item_id for text in later if text.item_id is not None and text.item_id in snapshot.number]
        new = sorted(by_popularity(np.array([snapshot.number[i] for i in ids], np.int32)))
        for _, row in heapq.merge(known, new):
            item = snapshot.item(row)
            if item.item_id in snapshot.number and completion_key(item.title).startswith(key):
                yield Suggestion(item.title, "item", item.item_id)


def _and_new(texts: _Texts, snapshot: Snapshot, items: Iterable[Item]) -> dict[Suggestion, str]:
    """What came since the texts were gathered, and what items of a snapshot have beside that."""
    later = dict(texts.later)
    for item in items:
        if (row := snapshot.number.row_of(item.item_id)) is not None:
            later |= texts.new(item, row)
    return later


@dataclass(frozen=True)
class _Shown:
    """The items of a snapshot that a mask allows; all of it without one."""

    snapshot: Snapshot
    mask: ItemMask | None

    def there(self, rows: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of some item rows are among them, bool [m]."""
        return self.snapshot.there(rows, self.mask)

    def having(self, categories: Sequence[Suggestion]) -> Iterator[Suggestion]:
        """The categories that one of them has."""
        masks = [self.snapshot.filters.mask({"category": one.text}) for one in categories]
        counts = [(one if self.mask is None else one & self.mask).count for one in masks]
        some = self.snapshot.shards.gathered(torch.tensor(counts, dtype=torch.long) > 0).any(0)
        return (one for one, has_some in zip(categories, some.tolist(), strict=True) if has_some)


def _widening(completions: Completions, key: str, k: int) -> Iterator[Ints]:
    """Numbers of the texts that begin with a key, heaviest first: ``k`` of them, then four times as many, ..."""
    asked, done = k, 0
    while len(numbers := completions.best(key, asked)[done:]):
        yield numbers
        if len(numbers) < asked - done:
            return
        asked, done = 4 * asked, asked


@dataclass(frozen=True)
class _WordsOfAll:
    """The words of the items of all shards; each of them knows all words, and counts the texts of its own items."""

    lexical: LexicalSearcher
    snapshot: Snapshot

    def status(self, words: Sequence[str]) -> list[WordStatus]:
        return self.lexical.status(words, self.snapshot.shards if self.snapshot.version else None)

    def together(self, one: str, other: str) -> int:
        return self.snapshot.shards.total(self.lexical.together(one, other))


def _distinct(suggestions: Iterable[Suggestion], seen: set[str]) -> Iterator[Suggestion]:
    """Those whose text is not among the ``seen`` ones, which they join."""
    for suggestion in suggestions:
        key = completion_key(suggestion.text)
        if key not in seen:
            seen.add(key)
            yield suggestion
