"""The catalogue's category tree and the phrases of its items: what a thought may name.

A phrase is kept in canonical form: folded words with a space between two words of spaced scripts and none next to a
character of an unspaced one, so that splitting a canonical phrase gives back its words.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from onesearch.common.artefact import read_json, write_json
from onesearch.data.records import known_type
from onesearch.data.text import is_unspaced, split_words

PHRASES: Final = "phrases.parquet"
TREE: Final = "categories.json"
STOP_WORDS: Final = frozenset(
    split_words(
        "a an and any are as at be but by can could do does during for from get good had has have help helps how i "
        "if in into is it me my need no nor not of off on or other our should some someone something than that the "
        "their them there these thing things this those to up us want what when where which while who why will with "
        "without would x you your"
    )
)
_LONGEST_TITLE_PHRASE: Final = 6  # half words: a character of an unspaced script is one, any other word is two
_LONGEST_VALUE: Final = 12  # words
_LETTER_THEN_DIGIT: Final = re.compile(r"[a-z]-?\d")
_EDGES: Final = ".,;:()[]{}#\"'/-"


def canonical(words: Sequence[str]) -> str:
    """Words as one phrase; :func:`~onesearch.data.text.split_words` gives them back."""
    parts: list[str] = []
    for i, word in enumerate(words):
        if i and not is_unspaced(word) and not is_unspaced(words[i - 1]):
            parts.append(" ")
        parts.append(word)
    return "".join(parts)


def singular(word: str) -> str:
    """A word without its plural "s" or "es": "boots" gives "boot", "boxes" "box"; "glass" and "gas" stay."""
    if word.endswith(("sses", "shes", "xes", "tches", "nches")):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def model_numbers(text: str) -> list[str]:
    """Space-separated tokens in which a digit follows a letter ("SC-141", "x7b"); sizes such as "12ga" are none."""
    tokens = (token.strip(_EDGES) for token in text.lower().split())
    return [token for token in tokens if 3 <= len(token) <= 24 and _LETTER_THEN_DIGIT.search(token)]


class CatalogueVocabulary:
    """A :class:`~onesearch.understanding.thought.Grounding` made of the item table.

    Attributes:
        phrases: the pool, canonical and sorted; a phrase's number is its place.
        kinds: the attribute type of the phrases that are an attribute value, a brand or a category name.
        paths: all nodes of the category tree as paths, sorted.
    """

    def __init__(
        self,
        phrases: Sequence[str],
        kinds: Mapping[str, str],
        popularity: NDArray[np.floating],
        paths: Sequence[tuple[str, ...]],
    ) -> None:
        self.phrases = list(phrases)
        self.kinds = dict(kinds)
        self.paths = list(paths)
        self._popularity = np.asarray(popularity, np.float32)
        self._number = {phrase: i for i, phrase in enumerate(self.phrases)}
        ends: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
        # Every end of a path leads to the paths that have it: ("Boots",), ("Shoes", "Boots"), ...
        for path in self.paths:
            for start in range(len(path)):
                ends.setdefault(_folded(path[start:]), []).append(path)
        self._ends = ends
        self._whole = {_folded(path): path for path in self.paths}

    @classmethod
    def from_items(cls, items: pl.DataFrame, clicked: NDArray[np.floating] | None = None) -> "CatalogueVocabulary":
        """Collect the pool from an item table.

        The pool holds attribute values, brands and category names; the runs of one to three words of titles (two to
        six characters of an unspaced script) that stand in at least two items; and the model numbers of titles.

        Args:
            items: columns title, brand, category, attributes.
            clicked: *training* clicks of each item [N]; None counts items only.
        """
        # The pool: values, brands and names, title phrases, model numbers.
        kinds = _kinds(items)
        titles = items["title"].fill_null("").to_list()
        pool = {*kinds, *_title_phrases(titles)}
        models = {token for title in titles for token in model_numbers(title)}
        pool.update(canonical(words) for words in map(split_words, models) if 0 < len(words) <= _LONGEST_VALUE)
        # The tree: every path of an item, and every beginning of one.
        paths = {tuple(path[:depth]) for path in items["category"].to_list() for depth in range(1, len(path or ()) + 1)}
        phrases = sorted(pool)
        # Popularity of a phrase: the sum over the items that say it, which a vocabulary without it can tell.
        bare = cls(phrases, kinds, np.zeros(len(phrases)), sorted(paths))
        weight = 1.0 + (np.zeros(len(items)) if clicked is None else np.asarray(clicked, np.float64))
        return cls(phrases, kinds, bare.incidence(items).T @ weight, bare.paths)

    def __len__(self) -> int:
        return len(self.phrases)

    def category(self, path: Sequence[str]) -> tuple[str, ...] | None:
        """The tree's path equal to this one, else the only one ending with it, else the only one with its last name.

        Case, punctuation and spacing do not count. None for an empty, unknown or ambiguous path.
        """
        folded = _folded(path)
        if not folded or not all(folded):
            return None
        if folded in self._whole:
            return self._whole[folded]
        # A model may leave out the upper levels, or invent them: then the last name decides, if only one path has it.
        found = self._ends.get(folded) or self._ends.get(folded[-1:], [])
        return found[0] if len(found) == 1 else None

    def keyword(self, text: str) -> str | None:
        """The pool's phrase for a text, if need be without the plural "s" of the last word; None if there is none."""
        words = split_words(text)
        if not words:
            return None
        phrases = (canonical([*words[:-1], last]) for last in (words[-1], singular(words[-1])))
        return next((phrase for phrase in phrases if phrase in self._number), None)

    def popularity(self, keyword: str) -> float:
        """One plus the clicks, summed over the items that say the phrase; 0 for what is not in the pool."""
        number = self._number.get(keyword)
        return 0.0 if number is None else float(self._popularity[number])

    def incidence(self, items: pl.DataFrame) -> csr_matrix:
        """Which items say which phrase in title, brand, category or attributes: float32 0/1 [N, len(self)]."""
        # Each (row, text) that an item says.
        rows = items.with_row_index("row")
        lists = pl.col("category"), pl.col("attributes").list.eval(pl.element().struct.field("value"))
        parts = [rows.select("row", text=pl.col(name)) for name in ("title", "brand")]
        parts += [rows.select("row", text=values).explode("text") for values in lists]
        said = pl.concat([part.cast({"text": pl.String}) for part in parts]).drop_nulls().unique(maintain_order=True)
        # Distinct texts are matched once, then handed to the items that say them: [N, texts] @ [texts, phrases].
        texts = said.select(pl.col("text").unique(maintain_order=True)).with_row_index("number")
        number = said.join(texts, on="text", how="left", maintain_order="left")["number"].to_numpy()
        owner = said["row"].to_numpy()
        ones = np.ones(len(owner), np.float32)
        holds = csr_matrix((ones, (owner, number)), shape=(len(items), len(texts)))
        out = holds @ self.matches(texts["text"].to_list())
        out.data[:] = 1.0  # however often it is said
        return out

    def matches(self, texts: Sequence[str]) -> csr_matrix:
        """Which texts hold which phrase as a run of words, also inside longer ones: float32 0/1 [n, len(self)]."""
        owners, phrases = self._trie.find([split_words(text) for text in texts])
        shape = (len(texts), len(self))
        out = csr_matrix((np.ones(len(owners), np.float32), (owners, phrases)), shape=shape)
        out.data[:] = 1.0
        return out

    def save(self, folder: Path) -> None:
        """Write ``phrases.parquet`` and ``categories.json``."""
        folder.mkdir(parents=True, exist_ok=True)
        columns = {
            "keyword": pl.Series(self.phrases, dtype=pl.String),
            "type": pl.Series([self.kinds.get(phrase) for phrase in self.phrases], dtype=pl.String),
            "popularity": pl.Series(self._popularity, dtype=pl.Float32),
        }
        pl.DataFrame(columns).write_parquet(folder / PHRASES)
        write_json(folder / TREE, {"paths": [list(path) for path in self.paths]})

    @classmethod
    def load(cls, folder: Path) -> "CatalogueVocabulary":
        """Load what :meth:`save` wrote.

        Raises:
            FileNotFoundError: a file is missing.
        """
        for name in (PHRASES, TREE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no catalogue words ({name} is missing)")
        table = pl.read_parquet(folder / PHRASES)
        typed = table.drop_nulls("type")
        kinds = dict(zip(typed["keyword"].to_list(), typed["type"].to_list(), strict=True))
        paths = [tuple(path) for path in read_json(folder / TREE)["paths"]]
        return cls(table["keyword"].to_list(), kinds, table["popularity"].to_numpy(), paths)

    @cached_property
    def _trie(self) -> "_Trie":
        return _Trie([split_words(phrase) for phrase in self.phrases])


class _Trie:
    """All runs of words of given phrases in many texts at once: one array step per length instead of a loop over texts.

    A level of the trie is a sorted array of keys, parent node * words + word; a node's number is its key's place.
    """

    def __init__(self, phrases: Sequence[Sequence[str]]) -> None:
        self._words: dict[str, int] = {}
        get = self._words
        # All words of all phrases as numbers, one after the other.
        lengths = np.fromiter(map(len, phrases), np.int64, len(phrases))
        flat = np.fromiter((get.setdefault(w, len(get)) for p in phrases for w in p), np.int64, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        self._levels: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []  # sorted keys; phrase of each or -1
        node = np.zeros(len(phrases), np.int64)
        for depth in range(int(lengths.max(initial=0))):
            # Phrases that go on, by their node and their next word.
            alive = np.flatnonzero(lengths > depth)
            keys, inverse = np.unique(node[alive] * len(get) + flat[starts[alive] + depth], return_inverse=True)
            node[alive] = inverse
            # Those that end here.
            phrase = np.full(len(keys), -1, np.int64)
            ending = alive[lengths[alive] == depth + 1]
            phrase[node[ending]] = ending
            self._levels.append((keys, phrase))

    def find(self, texts: Sequence[Sequence[str]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(text, phrase) numbers of all occurrences, int64 [m] each; repeats are possible."""
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        # The texts as numbers of words, -1 for words of no phrase; where each text ends.
        get = self._words.get
        flat = np.fromiter((get(word, -1) for text in texts for word in text), np.int64, int(lengths.sum()))
        owner = np.repeat(np.arange(len(texts)), lengths)
        end = np.repeat(np.cumsum(lengths), lengths)
        # A run may begin at every word; those that leave the trie or their text fall away level by level.
        at = np.arange(len(flat))
        node = np.zeros(len(flat), np.int64)
        found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
        for depth, (keys, phrase) in enumerate(self._levels):
            keep = at + depth < end[at]
            at, node = at[keep], node[keep]
            word = flat[at + depth]
            key = node * len(self._words) + word
            place = np.minimum(np.searchsorted(keys, key), len(keys) - 1)
            keep = (word >= 0) & (keys[place] == key)
            at, node = at[keep], place[keep]
            hit = phrase[node] >= 0
            found.append((owner[at[hit]], phrase[node[hit]]))
        empty = [np.zeros(0, np.int64)]
        owners, phrases = ([*empty, *(pair[i] for pair in found)] for i in (0, 1))
        return np.concatenate(owners), np.concatenate(phrases)


def _folded(path: Sequence[str]) -> tuple[str, ...]:
    return tuple(canonical(split_words(name)) for name in path)


def _fit(words: Sequence[str]) -> bool:
    """Whether words can be a keyword: not only a number or a letter, no stop word at either end."""
    if not words or words[0] in STOP_WORDS or words[-1] in STOP_WORDS:
        return False
    return sum(map(len, words)) > 1 and any(not word[0].isdigit() for word in words)


def _kinds(items: pl.DataFrame) -> dict[str, str]:
    """The type that most items give to each attribute value; brands are Brand, category names Entity."""
    # One line of (text, type) for each thing that an item is said to have.
    parts = [
        items.select(pl.col("attributes")).explode("attributes").unnest("attributes").select(text="value", type="type"),
        items.select(text="brand", type=pl.lit("Brand")),
        items.select(text=pl.col("category")).explode("text").with_columns(type=pl.lit("Entity")),
    ]
    table = pl.concat([part.cast(pl.String) for part in parts]).drop_nulls()
    counted = table.group_by("text", known_type(pl.col("type")).alias("type")).len()
    # Counts by spelling, since "T-Shirt" and "t shirt" are one phrase; of equal counts the first type by name.
    totals: dict[str, Counter[str]] = {}
    for text, kind, count in counted.iter_rows():
        words = split_words(text)
        if _fit(words) and len(words) <= _LONGEST_VALUE and len(text) <= 80:
            totals.setdefault(canonical(words), Counter())[kind] += count
    return {text: min(kinds, key=lambda kind: (-kinds[kind], kind)) for text, kinds in totals.items()}


def _title_phrases(titles: Sequence[str]) -> list[str]:
    """Runs of one to three words that stand in at least two titles; a run grows only from one that does."""
    # All words of all titles as numbers; what a word costs of the longest phrase; where each title ends.
    split = [split_words(title) for title in titles]
    flat = [word for words in split for word in words]
    numbers: dict[str, int] = {}
    ids = np.fromiter((numbers.setdefault(word, len(numbers)) for word in flat), np.int64, len(flat))
    half_words = np.fromiter((1 if is_unspaced(word) else 2 for word in numbers), np.int64, len(numbers))
    lengths = np.fromiter(map(len, split), np.int64, len(split))
    owner, end = np.repeat(np.arange(len(split)), lengths), np.repeat(np.cumsum(lengths), lengths)
    # A run may begin at every word: its place, its node in the tree of all runs so far, its length in half words.
    at, node = np.arange(len(flat)), np.zeros(len(flat), np.int64)
    cost = np.zeros(len(flat), np.int64)
    out: list[str] = []
    for depth in range(_LONGEST_TITLE_PHRASE):
        # One word more, if the title has one.
        keep = at + depth < end[at]
        at, node, cost = at[keep], node[keep], cost[keep]
        word = ids[at + depth]
        cost = cost + half_words[word]
        _, first, node = np.unique(node * max(len(numbers), 1) + word, return_index=True, return_inverse=True)
        # Distinct (run, title) pairs tell in how many titles a run stands.
        pairs = np.unique(node * max(len(split), 1) + owner[at])
        often = np.bincount(pairs // max(len(split), 1), minlength=len(first)) >= 2
        for start in at[first[often & (cost[first] >= 2) & (cost[first] <= _LONGEST_TITLE_PHRASE)]].tolist():
            words = flat[start : start + depth + 1]
            if _fit(words):
                out.append(canonical(words))
        # A run that stands in one title only cannot grow into one that stands in two.
        keep = often[node] & (cost < _LONGEST_TITLE_PHRASE)
        at, node, cost = at[keep], node[keep], cost[keep]
    return out
