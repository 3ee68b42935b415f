"""Which known word a mistyped one was meant to be, by the words of the items and of the searches that led somewhere.

::

    a word of a spaced script:      too short, or known to items or log  ->  as it is
                                    else the likeliest of the near known words: few slips, the same first letter,
                                    common, and in items together with the words before and behind
    a run of unspaced characters:   all neighbours known  ->  as it is
                                    else the commonest known run one slip away, if it keeps all known neighbours

A slip is a character more, less, another, or two that changed places (optimal string alignment, by ``rapidfuzz``).
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Protocol

import polars as pl
from rapidfuzz import process
from rapidfuzz.distance import OSA, Levenshtein

from onesearch.data.text import is_unspaced, split_words, unspaced_runs, with_runs, with_words
from onesearch.search.lexical_search import KNOWN, LOST, WordStatus

_SHORTEST: Final = 4  # letters of a word that may be mistyped: shorter ones are often names
_LONG: Final = 8  # letters from which on two slips are looked for
_MOST_WORDS: Final = 100  # of a query; a few letters of some scripts are folded to hundreds of words
_SURE_RUN: Final = 3  # characters of a run from which on one of them leaves no doubt
# What is added to the logarithm of how common a word is; chosen on the demo's queries with one slip in them.
_TOGETHER: Final = 2.0  # for each neighbour, times the logarithm of how many items have both
_OTHER_START: Final = -3.0
_SLIP: Final = -8.0


class ItemWords(Protocol):
    """What is asked of the items' texts (:class:`onesearch.search.lexical_search.LexicalSearcher`)."""

    def status(self, words: Sequence[str]) -> list[WordStatus]:
        """Of each word whether a search finds it, or found it once."""
        ...

    def together(self, one: str, other: str) -> int:
        """How many texts have both words."""
        ...


class Correction(NamedTuple):
    """A query with other words.

    Attributes:
        text: the whole query, folded.
        sure: whether it can be searched for without asking.
    """

    text: str
    sure: bool


class _KnownTexts:
    """Texts with how often they occur. They only grow: one writer at a time, any number of readers."""

    def __init__(self) -> None:
        self.count: dict[str, float] = {}
        self._by_length: dict[int, list[str]] = defaultdict(list)

    def add(self, text: str, count: float) -> None:
        """A text that occurs so often, or so often more."""
        if text not in self.count:
            self._by_length[len(text)].append(text)
        self.count[text] = self.count.get(text, 0) + count

    def near(self, text: str, slips: int) -> list[tuple[str, int]]:
        """The texts at most so many slips away, with how many."""
        lengths = range(len(text) - slips, len(text) + slips + 1)
        found = [
            process.extract(text, self._by_length.get(length, ()), scorer=OSA.distance, score_cutoff=slips, limit=None)
            for length in lengths
        ]
        return [(near, int(distance)) for of_length in found for near, distance, _ in of_length]


class Spelling:
    """The known words, and what they make of a mistyped query.

    Args:
        words: with how often each occurs.
        runs: known texts in scripts without spaces, with how often.
    """

    def __init__(self, words: Mapping[str, float], runs: Mapping[str, float]) -> None:
        self._words, self._runs = _KnownTexts(), _KnownTexts()
        self._neighbours: set[str] = set()
        self._in_log: frozenset[str] = frozenset()
        self.add(words, runs)

    @classmethod
    def from_items(cls, items: pl.DataFrame, queries: Sequence[str], clicks: Sequence[float]) -> "Spelling":
        """Of an item table and a log: distinct queries that led to clicks, and how many to each.

        Runs are the queries', and names of brands, sellers, categories and attributes: titles say too much at once.
        """
        return cls.of(*item_words(items), queries, clicks)

    @classmethod
    def of(
        cls, words: Mapping[str, float], runs: Mapping[str, float], queries: Sequence[str], clicks: Sequence[float]
    ) -> "Spelling":
        """As :meth:`from_items`, of what :func:`item_words` says of the items."""
        spelling = cls(words, runs)
        log = pl.DataFrame({"text": list(queries), "count": clicks}, {"text": pl.String, "count": pl.Float64})
        words, runs = _words(log), _runs(log)
        spelling.add(words, runs)
        spelling._in_log = frozenset(words).union(runs)
        return spelling

    def add_items(self, items: pl.DataFrame) -> None:
        """The new words of items. Known ones become no more frequent: items are often sent again."""
        words, runs = item_words(items)
        self.add(
            {word: count for word, count in words.items() if word not in self._words.count},
            {run: count for run, count in runs.items() if run not in self._runs.count},
        )

    def add(self, words: Mapping[str, float], runs: Mapping[str, float]) -> None:
        """More words and runs, with how often."""
        for word, count in words.items():
            if not is_unspaced(word):
                self._words.add(word, count)
        for run, count in runs.items():
            self._runs.add(run, count)
            self._neighbours.update(one + other for one, other in pairwise(run))

    def corrected(self, text: str, items: ItemWords, kept: frozenset[str] = frozenset()) -> Correction | None:
        """A query with its unknown words as they were most likely meant; None where there is nothing to correct.

        Args:
            text: what was typed.
            items: their words as they are now.
            kept: folded words that are meant as they are; so is a run of unspaced characters that holds one.
        """
        words = [word for word in split_words(text) if not is_unspaced(word)]
        if len(words) > _MOST_WORDS:
            return None
        place, sure = iter(range(len(words))), True

        def word(typed: str) -> str:
            at = next(place)
            if typed in kept:
                return typed
            return self._word(typed, words[max(at - 1, 0) : at] + words[at + 1 : at + 2], items)

        def run(typed: str) -> str:
            nonlocal sure
            if not kept.isdisjoint(typed):  # each character is a word
                return typed
            meant, certain = self._run(typed, items)
            sure = sure and certain
            return meant

        meant = with_runs(with_words(text, word), run)
        return None if meant == with_words(text, str) else Correction(meant, sure)

    def _word(self, typed: str, around: Sequence[str], items: ItemWords) -> str:
        """The known word that one was meant to be, itself if known or like none; ``around``: the words beside it."""
        if len(typed) < _SHORTEST or not typed.isalpha() or self._is_known(typed, items):
            return typed

        def likely(one: tuple[str, int]) -> tuple[float, str]:
            word, slips = one
            together = sum(math.log1p(items.together(word, other)) for other in around)
            common, other_start = math.log1p(self._words.count[word]), word[0] != typed[0]
            return common + _TOGETHER * together + _OTHER_START * other_start + _SLIP * slips, word

        near = [one for one in self._words.near(typed, 2 if len(typed) >= _LONG else 1) if len(one[0]) >= _SHORTEST]
        # In one order everywhere: shards count together, word by word, and each has read the words in its own order.
        near.sort()
        there = self._there([word for word, _ in near], items)
        near = [one for one, is_there in zip(near, there, strict=True) if is_there]
        return max(near, key=likely)[0] if near else typed

    def _is_known(self, word: str, items: ItemWords) -> bool:
        """Whether items have a word, now, or a query of the log has it."""
        return (word in self._words.count and self._there([word], items)[0]) or items.status([word])[0] == KNOWN

    def _there(self, words: Sequence[str], items: ItemWords) -> list[bool]:
        """Which of the words that were read are still there: not those of texts alone that all left the catalogue.

        Words that search finds in no text, such as values of attributes, stay.
        """
        found = zip(words, items.status(words), strict=True)
        return [word in self._in_log or status != LOST for word, status in found]

    def _run(self, typed: str, items: ItemWords) -> tuple[str, bool]:
        """The known run that one was meant to be, itself if there is none, and whether that is sure."""
        pairs = [one + other for one, other in pairwise(typed)]
        known = items.status(pairs)
        strange = [pair not in self._neighbours and one != KNOWN for pair, one in zip(pairs, known, strict=True)]
        if not any(strange) or typed in self._runs.count:
            return typed, True
        # A slip makes both neighbours of its place strange: "red tent" is no slip of "blue tent".
        near = [
            run
            for run in sorted(run for run, _ in self._runs.near(typed, 1) if _only_changes(typed, run, strange))
            if run in self._in_log or LOST not in items.status([one + other for one, other in pairwise(run)])
        ]
        if not near:
            return typed, True
        meant = min(near, key=lambda run: (-self._runs.count[run], run))
        inside = typed[0] == meant[0] and typed[-1] == meant[-1]
        return meant, inside and len(typed) >= _SURE_RUN


def has_unknown(text: str, items: ItemWords) -> bool:
    """Whether a text has a word, or two neighbouring unspaced characters, that are not in the items."""
    words = (word for word in split_words(text) if not is_unspaced(word))
    pairs = (one + other for run in unspaced_runs(text) for one, other in pairwise(run))
    return any(one != KNOWN for one in items.status([*words, *pairs]))


def _only_changes(typed: str, meant: str, strange: Sequence[bool]) -> bool:
    """Whether each place where two runs differ lies between neighbours of the first that are strange."""
    for slip in Levenshtein.editops(typed, meant):
        at = slip.src_pos
        # Neighbour pairs that the place is part of: one where a character is missing, else that before and after.
        around = strange[max(at - 1, 0) : at if slip.tag == "insert" else at + 1]
        if not all(around):
            return False
    return True


def item_words(items: pl.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    """Words of items' titles, names and values, with how often, and the runs of their names and values.

    ``items`` is an item table, or its columns title, brand, seller, category and attributes.
    """
    values = items["attributes"].explode().struct.field("value")
    names = pl.concat([items["brand"], items["seller"], items["category"].explode(), values])
    counted = [
        texts.alias("text").drop_nulls().value_counts(name="count")
        for texts in (pl.concat([items["title"], names]), names)
    ]
    return _words(counted[0]), _runs(counted[1])


def _words(texts: pl.DataFrame) -> dict[str, float]:
    """Words of ``text``, each with the sum of the ``count`` of the texts that have it."""
    # Each distinct piece between blanks is split once: texts repeat their words.
    pieces = (
        texts.with_columns(pl.col("text").str.split(" ")).explode("text").group_by("text").agg(pl.col("count").sum())
    )
    words: dict[str, float] = defaultdict(float)
    for piece, count in pieces.iter_rows():
        for word in split_words(piece):
            words[word] += count
    return words


def _runs(texts: pl.DataFrame) -> dict[str, float]:
    """Runs of unspaced characters of ``text``, as :func:`_words`."""
    runs: dict[str, float] = defaultdict(float)
    for text, count in texts.filter(pl.col("text").str.len_bytes() > pl.col("text").str.len_chars()).iter_rows():
        for run in unspaced_runs(text):
            runs[run] += count
    return runs
