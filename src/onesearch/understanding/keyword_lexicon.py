"""The keyword lexicon of the 18 attribute types: its matching in texts, and its mining from a log (docs/method.md,
section 2).

Texts and keywords are compared as word sequences: a keyword never begins or ends inside a word of a spaced script, and
since every character of an unspaced script is a word of its own, Chinese keywords match anywhere.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import ahocorasick
import numpy as np
import polars as pl

from onesearch.common.ragged import Ragged
from onesearch.data.dataset import rows_of
from onesearch.data.records import ATTRIBUTE_TYPES, known_type
from onesearch.data.text import is_unspaced, normalise_queries, split_words

FILE: Final = "lexicon.parquet"
SCHEMA: Final = {"keyword": pl.String, "type": pl.String, "page_views": pl.Float64}
_LONGEST_PHRASE: Final = 3  # words; characters of unspaced scripts count as half a word
_SHARE_IN_TITLES: Final = 0.5  # of a phrase's page views: the clicked title says it
_COHESION: Final = 0.25  # of the page views of a phrase's rarest word: the query says the whole phrase
_UNITS: Final = frozenset(
    split_words(
        "in inch inches ft feet foot cm mm m yd gal gallon gallons oz lb lbs kg g ml l v volt volts w watt watts "
        "amp amps hp btu gauge ga pack pc pcs piece pieces gb tb mah hz sq psi cfm ton qt pt"
    )
)
_FILLERS: Final = frozenset(
    split_words(
        "a an and any as at be best by can do for from good has have how i in is it me my need not of on or that "
        "the this to under up want what which who with without you your top cheap cheapest"
    )
)
_DIGIT: Final = re.compile(r"\d")


@dataclass(frozen=True)
class Keyword:
    """One keyword, its attribute type and the training page views that speak for it."""

    text: str
    type: str
    page_views: float


class Lexicon:
    """A pool of keywords per attribute type, most page views first; a keyword's number is its place in ``keywords``.

    Matching of all keywords at once (Aho-Corasick), the longest match wins::

        write keywords and text as sequences of words, each word between two marks
        build one automaton of all keywords (once)
        one walk through the text gives every place of every keyword, overlaps included: (end, number, length)
        from the longest to the shortest, of equally long ones the earlier first: keep what overlaps nothing kept before
        the numbers of the kept ones in text order, each once
    """

    def __init__(self, keywords: Sequence[Keyword]) -> None:
        """Order the keywords and drop what equals an earlier one word by word.

        Raises:
            ValueError: a type is not one of the 18.
        """
        for keyword in keywords:
            if keyword.type not in ATTRIBUTE_TYPES:
                known = ", ".join(ATTRIBUTE_TYPES)
                raise ValueError(f"keyword {keyword.text!r} has unknown type {keyword.type!r}; known: {known}")
        ordered = sorted(keywords, key=lambda k: (-k.page_views, ATTRIBUTE_TYPES.index(k.type), k.text))
        # Of the same words ("T-shirt", "t shirt") the keyword with the most page views stays.
        by_words: dict[tuple[str, ...], Keyword] = {}
        for keyword in ordered:
            words = tuple(split_words(keyword.text))
            if words:
                by_words.setdefault(words, keyword)
        self.keywords = list(by_words.values())
        self._words = list(by_words)

    @classmethod
    def from_log(
        cls, items: pl.DataFrame, page_views: pl.DataFrame, per_type: int = 2000, min_page_views: float = 1.0
    ) -> "Lexicon":
        """Mine the pools from attributes and clicked queries.

        A keyword's page views are those whose query says it and whose clicked item has it: as an attribute value, as
        its brand or category, or in its title. A value that items give under several types takes the type of most
        items. To the values come phrases of clicked queries that stand in most of the clicked titles.

        Args:
            items: the item table (columns item_id, title, category, brand, attributes).
            page_views: *training* page views only (columns query, clicked, ordered).
            per_type: keywords kept of each type.
            min_page_views: clicked page views a keyword needs; attribute values with fewer are left out too, unless
                there are no page views at all.
        """
        values = _attribute_values(items)
        clicks = _clicks(items, page_views)
        held = _mentioned(values, clicks)
        phrases = _phrases(items, clicks, known=set(values["keyword"].to_list()), least=max(min_page_views, 2.0))
        mined = pl.concat([held.filter(pl.col("page_views") >= (min_page_views if len(clicks) else 0.0)), phrases])
        # The most clicked of each type, ties by text.
        kept = (
            mined.sort(["page_views", "keyword"], descending=[True, False])
            .with_columns(place=pl.int_range(pl.len()).over("type"))
            .filter(pl.col("place") < per_type)
        )
        return cls([Keyword(*row) for row in kept.select(list(SCHEMA)).iter_rows()])

    def __len__(self) -> int:
        return len(self.keywords)

    @property
    def texts(self) -> list[str]:
        """Keyword texts, by number."""
        return [keyword.text for keyword in self.keywords]

    def texts_of_type(self, attribute: str) -> list[str]:
        """The pool of one attribute type, most page views first."""
        return [keyword.text for keyword in self.keywords if keyword.type == attribute]

    @cached_property
    def _automaton(self) -> Any:
        # Rebuilt at load: the library's own file format is a pickle.
        automaton = ahocorasick.Automaton()
        for number, words in enumerate(self._words):
            pattern = _joined(words)
            automaton.add_word(pattern, (number, len(pattern)))
        automaton.make_automaton()
        return automaton

    def match(self, texts: Sequence[str]) -> Ragged:
        """Keyword numbers found in each text, in text order, each at most once.

        The longest match wins: shorter ones inside it or overlapping it are dropped (equally long: the earlier one).
        """
        if not self.keywords:
            return Ragged.from_lengths(np.zeros(0, np.int32), np.zeros(len(texts), np.int64))
        find = self._automaton.iter
        return Ragged.from_lists(
            [_longest([(end, *found) for end, found in find(_joined(split_words(t)))]) for t in texts]
        )

    def save(self, folder: Path) -> None:
        """Write ``lexicon.parquet``."""
        folder.mkdir(parents=True, exist_ok=True)
        rows = [(keyword.text, keyword.type, keyword.page_views) for keyword in self.keywords]
        pl.DataFrame(rows, schema=SCHEMA, orient="row").write_parquet(folder / FILE)

    @classmethod
    def load(cls, folder: Path) -> "Lexicon":
        """Load what :meth:`save` wrote.

        Raises:
            FileNotFoundError: the folder holds no lexicon.
        """
        path = folder / FILE
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no lexicon ({FILE} is missing); run the lexicon's stage first")
        return cls([Keyword(*row) for row in pl.read_parquet(path).select(list(SCHEMA)).iter_rows()])


def _joined(words: Sequence[str]) -> str:
    """Words with marks on both sides, so that neighbouring keywords share no character of the text."""
    return "".join([f" {word}\n" for word in words])


def _longest(matches: list[tuple[int, int, int]]) -> list[int]:
    """Numbers of the (end, number, length) matches that stay when the longest wins, in text order."""
    kept: list[tuple[int, int, int]] = []
    for end, number, length in sorted(matches, key=lambda match: (-match[2], match[0])):
        start = end - length
        if all(end <= other_start or start >= other_end for other_start, other_end, _ in kept):
            kept.append((start, end, number))
    return list(dict.fromkeys(number for _, _, number in sorted(kept)))


def _attribute_values(items: pl.DataFrame) -> pl.DataFrame:
    """Distinct (keyword, type, row) of all items: attributes, brand as Brand, category names as Entity."""
    rows = items.with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    # One line of (row, keyword, type) for each thing that an item is said to have.
    parts = [
        rows.select("row", pl.col("attributes"))
        .explode("attributes")
        .unnest("attributes")
        .select("row", keyword="value", type="type"),
        rows.select("row", keyword="brand", type=pl.lit("Brand")),
        rows.select("row", keyword=pl.col("category").list.last(), type=pl.lit("Entity")),
    ]
    table = pl.concat([part.select("row", "keyword", pl.col("type").cast(pl.String)) for part in parts]).drop_nulls()
    # Its normal spelling; what is no keyword goes: longer than eight words, a single character, a filler word.
    spelling = table.select(pl.col("keyword").unique())
    words = [split_words(text) for text in spelling["keyword"].to_list()]
    spelling = spelling.with_columns(
        normal=pl.Series(["".join(w) if is_unspaced("".join(w)) else " ".join(w) for w in words], dtype=pl.String),
        words=pl.Series([len(w) for w in words], dtype=pl.Int64),
        letters=pl.Series([sum(map(len, w)) for w in words], dtype=pl.Int64),
    )
    table = table.join(spelling, on="keyword").with_columns(known_type(pl.col("type")).alias("type"))
    table = table.filter(pl.col("words").is_between(1, 8) & (pl.col("letters") > 1))
    table = table.filter(~pl.col("normal").is_in(list(_FILLERS)))
    # One type for each spelling: that of most items.
    types = table.group_by("normal", "type").agg(items=pl.col("row").n_unique())
    commonest = types.sort(["items", "type"], descending=[True, False]).unique("normal", keep="first")
    return (
        table.select("row", "normal")
        .unique()
        .join(commonest.select("normal", "type"), on="normal")
        .select("row", keyword="normal", type="type")
    )


def _clicks(items: pl.DataFrame, page_views: pl.DataFrame) -> pl.DataFrame:
    """Distinct clicked pairs (query, row) with the number of page views."""
    chosen = page_views.with_columns(normalise_queries(page_views["query"]).alias("query")).select(
        "query", item=pl.concat_list("clicked", "ordered").list.unique()
    )
    flat = chosen.explode("item").drop_nulls()
    flat = flat.with_columns(row=rows_of(flat["item"], items["item_id"]).cast(pl.Int64))
    pairs = flat.filter((pl.col("row") >= 0) & (pl.col("query") != ""))
    return pairs.group_by("query", "row", maintain_order=True).agg(page_views=pl.len().cast(pl.Float64))


def _mentioned(values: pl.DataFrame, clicks: pl.DataFrame) -> pl.DataFrame:
    """Page views of each attribute value: query says it, clicked item has it."""
    # Which query says which value, found with a lexicon of all values.
    known = values.select("keyword", "type").unique(maintain_order=True).sort("keyword")
    pool = Lexicon([Keyword(text, kind, 0.0) for text, kind in known.iter_rows()])
    queries = clicks["query"].unique(maintain_order=True)
    found = pool.match(queries.to_list())
    texts = pl.Series("keyword", pool.texts, dtype=pl.String)
    said = pl.DataFrame({"query": queries.gather(found.owners), "keyword": texts.gather(found.values.astype("int64"))})
    # Of those, the page views in which the clicked item has the value.
    counted = (
        said.join(clicks, on="query")
        .join(values.select("row", "keyword"), on=["row", "keyword"])
        .group_by("keyword")
        .agg(pl.col("page_views").sum())
    )
    return known.join(counted, on="keyword", how="left").select(
        "keyword", "type", pl.col("page_views").fill_null(0.0).cast(pl.Float64)
    )


def _phrases(items: pl.DataFrame, clicks: pl.DataFrame, known: set[str], least: float) -> pl.DataFrame:
    """Word runs of clicked queries that stand in most of the clicked titles, with a type guessed from their form."""
    titles = items["title"].gather(clicks["row"]).to_list() if len(clicks) else []
    wrapped: dict[str, str] = {}
    # Of each phrase: page views whose query says it, those whose clicked title does too, those whose query ends in it.
    totals: dict[str, list[float]] = {}
    for query, title, views in zip(clicks["query"].to_list(), titles, clicks["page_views"].to_list(), strict=True):
        if title not in wrapped:
            wrapped[title] = _wrap(split_words(title))
        for phrase, ends in _runs(query):
            if any(part in known for part, _ in _runs(phrase)):
                continue  # the attribute value says it better
            total = totals.setdefault(phrase, [0.0, 0.0, 0.0])
            total[0] += views
            total[1] += views if _wrap(split_words(phrase)) in wrapped[title] else 0.0
            total[2] += views if ends else 0.0
    # A phrase stays that most of its clicked titles say and that is no chance meeting of frequent words.
    rows = [
        (phrase, _guess_type(split_words(phrase), ending / views), inside)
        for phrase, (views, inside, ending) in totals.items()
        if inside >= least and inside >= _SHARE_IN_TITLES * views and _holds_together(phrase, views, totals)
    ]
    return pl.DataFrame(rows, schema={"keyword": pl.String, "type": pl.String, "page_views": pl.Float64}, orient="row")


def _holds_together(phrase: str, views: float, totals: dict[str, list[float]]) -> bool:
    """Whether a phrase of several words makes up a fair share of the page views of its rarest word."""
    words = phrase.split()
    return len(words) == 1 or views >= _COHESION * min(totals.get(word, [views])[0] for word in words)


def _wrap(words: Sequence[str]) -> str:
    return " " + " ".join(words) + " "


def _runs(query: str) -> list[tuple[str, bool]]:
    """Runs of one to three words of a query (two to six characters of an unspaced script); does it end the query?"""
    words = split_words(query)
    unspaced = is_unspaced(query)  # a single character is rarely a word: two to six of them
    shortest, longest = (2, 2 * _LONGEST_PHRASE) if unspaced else (1, _LONGEST_PHRASE)
    out = []
    for size in range(shortest, longest + 1):
        for start in range(len(words) - size + 1):
            run = words[start : start + size]
            # "boots for", "5 in": neither a filler at an end nor a unit or short word alone is a keyword.
            if run[0] in _FILLERS or run[-1] in _FILLERS or (size == 1 and (len(run[0]) < 3 or run[0] in _UNITS)):
                continue
            out.append(("".join(run) if unspaced else " ".join(run), start + size == len(words)))
    return out


def _guess_type(words: Sequence[str], share_at_end: float) -> str:
    """Specifications for numbers with units, Model for other mixes of letters and digits, else Entity or Modifier."""
    if any(_DIGIT.search(word) for word in words):
        return "Specifications" if _UNITS & set(words) or len(words) == 1 else "Model"
    return "Entity" if share_at_end >= 0.5 else "Modifier"
