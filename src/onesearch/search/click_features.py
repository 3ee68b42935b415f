"""What the click log says of a query's candidates, beside what the model and BM25 say.

Three sources, from the most exact to the most general::

    clicks of the pair          how often was this item clicked for this query?
    clicks of the query's words how much likelier is this item, or one of its category, clicked for the query's words?
    clicks of traits            ... and an item with its attributes and its title words?

A query that nobody typed before has words that others typed, and the items they clicked have traits (attributes, brand,
category, title words) in common with items that nobody clicked. So the last two are the back-off of click counts to new
queries *and* new items.

Features are per candidate, contexts per request (:mod:`onesearch.search.ranking_weights`). None depends on which other
candidates there are, so a filter removes items from a ranking and changes nothing else. All counts are those of the
training part. Clicks that a service records while it runs are a feature of their own, whose weight is not fitted: the
weights of the others hold for counts as the training log has them, and a query that is clicked a hundred times in an
hour may be like none of its queries.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse

from onesearch.common.layered_table import ChangedRows, LayeredTable
from onesearch.common.ragged import Ragged
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.live_clicks import LiveClicks
from onesearch.data.pair_counts import Lift, counted
from onesearch.search.text_analyzer import STEMMER, Analyzer

Floats = NDArray[np.float32]
_MOST_TRAITS = 24  # of an item that count
_FEWEST_ITEMS, _LARGEST_SHARE = 3, 0.2  # rarer traits cannot be learned, commoner ones say nothing
_SMOOTHING = np.float32(5.0)  # clicks added to a word's, spread as all clicks are
_WORDS = 8  # distinct words of a query that count
_LOG_SCALE = np.float32(3.0)  # contexts are of order one
LIVE: Final = "live_clicks"  # the feature of the clicks since the log


# -- queries and items as the features need them ---------------------------------------------------------------------


@dataclass(frozen=True)
class QueryFacts:
    """What is known of n queries before anything is searched; each part is found once and read by all features.

    Attributes:
        texts: as typed.
        terms: their analysed words, in order, repetitions kept.
        click_rows: int64 [n], the query's row of the click statistics, -1 for one without clicks.
        words: int32 [n, 8], numbers of its distinct words among those of the log, -1 for none.
        live_rows: int64 [n], its row among the clicks since the log, -1 for none.
    """

    texts: list[str]
    terms: list[list[str]]
    click_rows: NDArray[np.int64]
    words: NDArray[np.int32]
    live_rows: NDArray[np.int64]

    def select(self, rows: NDArray[np.integer]) -> "QueryFacts":
        """The given queries, in the given order."""
        index = rows.tolist()
        texts, terms = [self.texts[i] for i in index], [self.terms[i] for i in index]
        return QueryFacts(texts, terms, self.click_rows[rows], self.words[rows], self.live_rows[rows])


def category_keys(items: pl.DataFrame) -> list[str]:
    """The category path of every item as one text; "" where unknown."""
    return items.select(pl.col("category").list.join("\x1f", ignore_nulls=True).fill_null("")).to_series().to_list()


def attributes(items: pl.DataFrame) -> pl.Series:
    """Attribute values with their types, brand and leaf category of every item, as lists of texts."""
    typed = pl.concat_str(pl.element().struct.field("type"), pl.element().struct.field("value"), separator="=")
    of_item = pl.concat_list(
        pl.col("attributes").list.eval(typed).fill_null([]),
        pl.concat_str(pl.lit("brand="), pl.col("brand")),
        pl.concat_str(pl.lit("category="), pl.col("category").list.last()),
    )
    lower = of_item.list.eval(pl.element().str.to_lowercase()).list.drop_nulls()
    return items.select(lower.list.unique(maintain_order=True).alias("traits")).to_series()


def title_words(items: pl.DataFrame, analyze: Callable[[str], list[str]]) -> pl.Series:
    """The distinct terms of every title, as lists of texts."""
    pieces = items.select(pl.col("title").fill_null("").str.split(" ").alias("piece")).with_row_index("row")
    exploded = pieces.explode("piece")
    distinct = exploded.select(pl.col("piece").unique()).to_series()
    # Each distinct piece of a title is analysed once.
    terms = [(piece, term) for piece in distinct.to_list() for term in analyze(piece)]
    known = {"piece": [piece for piece, _ in terms], "traits": [term for _, term in terms]}
    table = pl.DataFrame(known, schema={"piece": pl.String, "traits": pl.String})
    joined = exploded.join(table, on="piece", how="left", maintain_order="left_right")
    lists = joined.group_by("row", maintain_order=True).agg(pl.col("traits").drop_nulls().unique(maintain_order=True))
    return lists["traits"]


@dataclass(frozen=True)
class TraitLists:
    """The numbers of every item's traits: N lists that stay, and int32 [., 24], -1 padded, of rows that changed."""

    lists: Ragged
    changed: LayeredTable

    @classmethod
    def over(cls, lists: Ragged) -> "TraitLists":
        """Lists with no changes yet."""
        return cls(lists, LayeredTable.over(torch.zeros(0, _MOST_TRAITS, dtype=torch.int32)))

    def rows(self, items: NDArray[np.int64]) -> NDArray[np.int32]:
        """Traits of the items [n, C] alone: int32 [n, C, 24], -1 for none."""
        inside = (items >= 0) & (items < len(self.lists))
        out = np.where(inside[..., None], self.lists.heads(np.where(inside, items, 0), _MOST_TRAITS), np.int32(-1))
        changed, _ = self.changed.changed.find(torch.from_numpy(items))
        if bool(changed.any()):
            at = changed.numpy()
            out[at] = self.changed.take(items[at])
        return out

    def flat(self, n: int) -> "TraitLists":
        """The lists of ``n`` rows without layers."""
        rows = self.rows(np.arange(n)[:, None])[:, 0]
        known = rows >= 0
        return TraitLists.over(Ragged.from_lengths(rows[known], known.sum(1)))

    def with_rows(self, changed: ChangedRows, lists: Ragged) -> "TraitLists":
        """With other ``lists`` of the rows that changed last, as :meth:`LayeredTable.with_rows`."""
        values = torch.from_numpy(lists.padded(_MOST_TRAITS, newest=False))
        return TraitLists(self.lists, self.changed.with_rows(changed, values))


@dataclass(frozen=True)
class ItemTraits:
    """Of every item: the number of its category, int64 [N] (-1 for unknown), and the numbers of its traits."""

    categories: LayeredTable
    attributes: TraitLists
    title: TraitLists

    def flat(self, n: int) -> "ItemTraits":
        """The traits of ``n`` rows without layers."""
        categories = LayeredTable.over(self.categories.flat())
        return ItemTraits(categories, self.attributes.flat(n), self.title.flat(n))

    def of_rows(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], Ragged, Ragged]:
        """Categories, attributes and title words of some rows, as :meth:`with_rows` takes them."""
        lists = []
        for one in (self.attributes, self.title):
            numbers = one.rows(rows[:, None])[:, 0]
            known = numbers >= 0
            lists.append(Ragged.from_lengths(numbers[known], known.sum(1)))
        return self.categories.take(rows), lists[0], lists[1]

    def with_rows(
        self, changed: ChangedRows, categories: NDArray[np.int64], attributes: Ragged, title: Ragged
    ) -> "ItemTraits":
        """With those of the rows that changed last, as :meth:`LayeredTable.with_rows`."""
        return ItemTraits(
            self.categories.with_rows(changed, torch.from_numpy(categories)),
            self.attributes.with_rows(changed, attributes),
            self.title.with_rows(changed, title),
        )


# -- lifts of words --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TraitClicks:
    """How much likelier an item with a trait is clicked when a word is searched for.

    Attributes:
        names: trait to number.
        unseen: float32 [W], log lift of any trait never clicked for the word; ``seen`` float32 [W, T], what is to be
            added where it was.
    """

    names: Mapping[str, int]
    unseen: Floats
    seen: sparse.csr_matrix

    @classmethod
    def from_clicks(cls, traits: pl.Series, words_of_items: sparse.csr_matrix) -> "TraitClicks":
        """From lists of traits [N] and clicks of words on items, [W, N].

        The lift is ``log(P(trait | word) / P(trait))``, smoothed towards 0.
        """
        # Keep the traits that are neither rare nor everywhere.
        counts = (
            traits.explode(empty_as_null=False)
            .value_counts()
            .filter(pl.col("count").is_between(_FEWEST_ITEMS, max(_FEWEST_ITEMS, _LARGEST_SHARE * len(traits))))
        )
        names = {name: i for i, name in enumerate(sorted(counts[counts.columns[0]].to_list()))}
        numbered = _numbered(traits, names)
        ones = np.ones(len(numbered.values), np.float32)
        # Clicks of each word on items with each trait, [W, T].
        pairs = words_of_items @ sparse.csr_matrix(
            (ones, numbered.values, numbered.offsets), shape=(len(traits), len(names))
        )
        of_word, of_trait = (np.asarray(pairs.sum(axis), np.float32).ravel() for axis in (1, 0))
        # A trait never clicked for a word has one lift per word; only pairs that were clicked are stored.
        share = (of_trait + 1) / (of_trait.sum() + len(of_trait)) if len(of_trait) else of_trait
        seen = sparse.csr_matrix(pairs, dtype=np.float32, copy=True)
        seen.data = np.log1p(seen.data / (_SMOOTHING * share[seen.indices])).astype(np.float32)
        return cls(names, np.log(_SMOOTHING / (of_word + _SMOOTHING)), seen)

    def numbers(self, traits: pl.Series) -> Ragged:
        """The known ones of each item's traits, by number."""
        return _numbered(traits, self.names)

    def lifts(self, words: NDArray[np.int32], traits: TraitLists, items: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Of candidates, float32 [n, C] each: the mean lift over their traits, and the sum of the positive ones.

        A trait's lift is its mean over the query's ``words`` int32 [n, Q], -1 for none. ``traits`` of all item rows,
        ``items`` int64 [n, C] rows, -1 for none.
        """
        n = len(words)
        present = words >= 0
        share = 1.0 / np.maximum(present.sum(1), 1, dtype=np.float32)
        row, _ = present.nonzero()
        # Lift of every trait for each query: the mean over its words, [n, T + 1].
        mean = sparse.csr_matrix((share[row], (row, words[present])), shape=(n, len(self.unseen)))
        of_trait = np.zeros((n, len(self.names) + 1), np.float32)  # the last column answers for 'none'
        of_trait[:, :-1] = (mean @ self.seen).toarray() + (mean @ self.unseen)[:, None]
        of_item = traits.rows(items)
        values = of_trait[np.arange(n)[:, None, None], of_item]
        known = np.maximum((of_item >= 0).sum(2), 1)
        return (values.sum(2) / known).astype(np.float32), np.maximum(values, 0).sum(2)


def _numbered(traits: pl.Series, names: Mapping[str, int]) -> Ragged:
    """Lists of texts as rows of numbers; unknown ones, and those beyond the first few, left out."""
    # Only what these items have is looked up: a few that change must not cost what the whole catalogue has.
    given = pl.DataFrame({"trait": traits}).with_row_index("row").explode("trait")
    distinct = given["trait"].drop_nulls().unique()
    numbers = [names.get(trait) for trait in distinct.to_list()]
    known = pl.DataFrame({"trait": distinct, "number": numbers}, schema={"trait": pl.String, "number": pl.Int32})
    known = known.drop_nulls()
    found = given.join(known, on="trait", how="inner", maintain_order="left")
    row = found["row"].to_numpy().astype(np.int64)
    lengths = np.bincount(row, minlength=len(traits))
    place = np.arange(len(row)) - (np.cumsum(lengths) - lengths)[row]
    kept = place < _MOST_TRAITS
    return Ragged.from_lengths(found["number"].to_numpy()[kept], np.minimum(lengths, _MOST_TRAITS))


@dataclass(frozen=True)
class WordClicks:
    """How much likelier an item, or one of a category or with a trait, is clicked when a word is searched for.

    The back-off of click counts to queries nobody typed before: a new query's words are known.

    Attributes:
        words: term to number; categories: category text to number.
        of_item, of_category, of_attribute, of_title: log lifts.
    """

    words: Mapping[str, int]
    categories: Mapping[str, int]
    of_item: Lift
    of_category: Lift
    of_attribute: TraitClicks
    of_title: TraitClicks

    @classmethod
    def from_statistics(
        cls, statistics: ClickStatistics, items: pl.DataFrame, analyze: Callable[[str], list[str]]
    ) -> "WordClicks":
        """Count the words of clicked queries: a click on an item is one for each distinct word of the query."""
        categories = category_keys(items)
        # Number the words of all clicked queries, and the categories.
        terms = [list(dict.fromkeys(analyze(query)))[:_WORDS] for query in statistics.queries]
        # Words in sorted order, so that the same log gives the same numbers.
        words = {term: i for i, term in enumerate(sorted({term for row in terms for term in row}))}
        names = {name: i for i, name in enumerate(sorted(set(categories) - {""}))}
        category = np.fromiter((names.get(name, -1) for name in categories), np.int64, len(categories))
        of_query = Ragged.from_lists([[words[term] for term in row] for row in terms])
        # One entry for each (word, clicked item) of each query, with its clicks.
        pairs = statistics.items
        lengths = of_query.lengths[pairs.owners]
        word = of_query.select(pairs.owners).values.astype(np.int64)
        item, times = np.repeat(pairs.values.astype(np.int64), lengths), np.repeat(statistics.counts, lengths)
        clicks = sparse.csr_matrix((times.astype(np.float32), (word, item)), shape=(len(words), len(items)))
        return cls(
            words,
            names,
            Lift.from_pairs(word, item, len(words) + 1, len(categories), 5.0, times),
            Lift.from_pairs(word, category[item], len(words) + 1, max(len(names), 1), 5.0, times),
            TraitClicks.from_clicks(attributes(items), clicks),
            TraitClicks.from_clicks(title_words(items, analyze), clicks),
        )

    def traits_of(
        self, items: pl.DataFrame, analyze: Callable[[str], list[str]]
    ) -> tuple[NDArray[np.int64], Ragged, Ragged]:
        """Categories, attributes and title words of items by number; those that the log does not know are left out."""
        title = title_words(items, analyze)
        return self.category_numbers(items), self.of_attribute.numbers(attributes(items)), self.of_title.numbers(title)

    def category_numbers(self, items: pl.DataFrame) -> NDArray[np.int64]:
        """Numbers of the items' categories, int64 [N]; -1 for none and for those that the log does not know."""
        number = self.categories.get
        return np.fromiter((number(name, -1) for name in category_keys(items)), np.int64, len(items))

    def word_numbers(self, terms: Sequence[Sequence[str]]) -> NDArray[np.int32]:
        """Numbers of the first distinct terms of each query that the log knows, int32 [n, 8], -1 padded."""
        known = [[self.words.get(term, -1) for term in dict.fromkeys(query)][:_WORDS] for query in terms]
        lists = Ragged.from_lists([[number for number in query if number >= 0] for query in known])
        return lists.padded(_WORDS, newest=False)

    def lifts(
        self,
        words: NDArray[np.int32],
        items: NDArray[np.integer],
        categories: NDArray[np.int64] | LayeredTable,
        own: Ragged | None = None,
    ) -> tuple[Floats, Floats]:
        """Mean log lifts over the query's words on items and on their categories, float32 [n, C] each.

        Args:
            words: word numbers of each query, int32 [n, 8], -1 for none.
            items: item rows [n, C], -1 for none.
            categories: of every item row, int64 [N].
            own: for training page views the items clicked in each, left out of the counts.
        """
        # Items that are newer than the log have a category, but no clicks of their own.
        logged = np.where(items < len(self.of_item.things), items, -1)
        category = np.where(items >= 0, categories.take(np.maximum(items, 0)), -1)
        n_words = (words >= 0).sum(1)
        count = np.maximum(n_words, 1).astype(np.float32)[:, None]
        # Own clicks on each item and each category [n, C], in all [n, 1], and the words that each is counted under.
        own_clicks: tuple[Floats, ...] = ()
        own_in_category = own_clicks
        if own is not None:
            own_clicks = counted(own, logged), own.lengths[:, None].astype(np.float32), count
            of_own = categories.take(own.values)
            known = Ragged.from_lengths(
                of_own[of_own >= 0].astype(np.int32), np.bincount(own.owners[of_own >= 0], minlength=len(own))
            )
            own_in_category = counted(known, category), known.lengths[:, None].astype(np.float32), count
        # Sum over the words; one column at a time keeps the arrays [n, C].
        of_item, of_category = np.zeros(items.shape, np.float32), np.zeros(items.shape, np.float32)
        for column in range(int(n_words.max(initial=0))):
            word = words[:, column, None]
            of_item += self.of_item.score(word, logged, *own_clicks)
            of_category += self.of_category.score(word, category, *own_in_category)
        return of_item / count, of_category / count

    def features(self, words: NDArray[np.int32], items: NDArray[np.int64], traits: ItemTraits) -> dict[str, Floats]:
        """Mean log lifts over the query's words, float32 [n, C] each.

        Args:
            words: word numbers of each query, int32 [n, 8], -1 for none.
            items: candidates, item rows [n, C], -1 for none.
            traits: of every item row.
        """
        found = dict(zip(("word_item", "word_category"), self.lifts(words, items, traits.categories), strict=True))
        found["word_attribute"], found["word_attribute_sum"] = self.of_attribute.lifts(words, traits.attributes, items)
        found["word_title"], found["word_title_sum"] = self.of_title.lifts(words, traits.title, items)
        return found


class ClickFeatures:
    """Features of one training log over one catalogue.

    Attributes:
        statistics, words: of the training log.
        live: of the clicks since; None where there are none.
    """

    def __init__(self, statistics: ClickStatistics, words: WordClicks) -> None:
        self.statistics, self.words = statistics, words
        self.live: ClickStatistics | None = None
        self.analyze = Analyzer(STEMMER)

    @classmethod
    def from_log(cls, statistics: ClickStatistics, items: pl.DataFrame) -> "ClickFeatures":
        """Count what the statistics of a log say of words, over its catalogue."""
        return cls(statistics, WordClicks.from_statistics(statistics, items, Analyzer(STEMMER)))

    def with_live(self, live: LiveClicks, rows: NDArray[np.int64], items: int) -> "ClickFeatures":
        """The same log with other clicks since, as :meth:`LiveClicks.statistics` takes them."""
        found = copy(self)
        found.live = live.statistics(rows, items)
        return found

    def traits_of(self, items: pl.DataFrame) -> tuple[NDArray[np.int64], Ragged, Ragged]:
        """As :meth:`WordClicks.traits_of`."""
        return self.words.traits_of(items, self.analyze)

    def item_traits(self, items: pl.DataFrame) -> ItemTraits:
        """What the features need to know of a catalogue."""
        categories, of_attributes, of_title = self.traits_of(items)
        table = LayeredTable.over(torch.from_numpy(categories))
        return ItemTraits(table, TraitLists.over(of_attributes), TraitLists.over(of_title))

    def query_facts(self, queries: Sequence[str], in_log: Sequence[str] = ()) -> QueryFacts:
        """Analyse each query and look it up in the log: the one place where that is done for a search.

        ``in_log``: what is looked up instead, where a query was changed.
        """
        terms = [self.analyze(query) for query in queries]
        rows = self.statistics.query_numbers(in_log or queries)
        live = np.full(len(queries), -1) if self.live is None else self.live.query_numbers(in_log or queries)
        return QueryFacts(list(queries), terms, rows, self.words.word_numbers(terms), live)

    def contexts(self, queries: QueryFacts) -> dict[str, Floats]:
        """What the weights may depend on, float32 [n]: is the query known, how well, and how long is it."""
        n_terms = np.fromiter(map(len, queries.terms), np.float32, len(queries.terms))
        return {
            "known": (queries.click_rows >= 0).astype(np.float32),
            "frequency": (np.log1p(self.statistics.query_clicks[queries.click_rows]) / _LOG_SCALE).astype(np.float32),
            "words": np.minimum(n_terms / _LOG_SCALE, _LOG_SCALE).astype(np.float32),
        }

    def features(self, queries: QueryFacts, items: NDArray[np.int64], traits: ItemTraits) -> dict[str, Floats]:
        """Clicks of the pair, their share of the query's clicks, and the lifts of the query's words; [n, C] each."""
        clicks = self.statistics.pair_counts(queries.click_rows, items)
        share = clicks / np.maximum(self.statistics.query_clicks[queries.click_rows], 1)[:, None]
        live = {} if self.live is None else {LIVE: np.log1p(self.live.pair_counts(queries.live_rows, items))}
        return {
            **live,
            "clicks": np.log1p(clicks),
            "click_share": share.astype(np.float32),
            "click_share_root": np.sqrt(share).astype(np.float32),
            **self.words.features(queries.words, items, traits),
        }
