"""Which keywords the teacher reads for each training page view: of the thought, calibrated, injected, or a placebo's.

Everything here is for training. Injected keywords, which tell of the clicked item, exist only as the return value of
:func:`teacher_keywords` on training page views; evaluation and serving never call it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from onesearch.data.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.pipeline.settings import RunConfig
from onesearch.pipeline.understand import WORDS
from onesearch.pipeline.workbench import Workbench
from onesearch.search.storage import need
from onesearch.training.distill import DistillationConfig
from onesearch.understanding.calibration import History, calibrate, inject
from onesearch.understanding.catalogue_words import CatalogueWords
from onesearch.understanding.thoughts import Taught, Thoughts

Keywords = list[tuple[str, ...]]
_ITEMS_OF_HISTORY = 10
_INJECTED = 4  # keywords of the clicked item, so that half of the thought's own stay


def keyword_source(bench: Workbench, config: RunConfig, thoughts: Thoughts) -> Callable[[Requests, Ragged], Keywords]:
    """:func:`teacher_keywords` of a run, as a function of requests and what was clicked in them."""
    words = CatalogueWords.load(need(bench.run, "understanding") / WORDS)
    titles = bench.dataset.items["title"].fill_null("").to_list()
    return lambda requests, clicked: teacher_keywords(
        thoughts, words, titles, requests, clicked, config.distill, config.seed
    )


def teacher_keywords(
    thoughts: Thoughts,
    words: CatalogueWords,
    titles: Sequence[str],
    requests: Requests,
    clicked: Ragged,
    settings: DistillationConfig,
    seed: int,
) -> Keywords:
    """The keywords of each training page view, [n]; empty where it has no teacher.

    Args:
        thoughts: of the log's queries.
        words: the catalogue's keywords.
        titles: of all items.
        requests: the page views with what was known before each, n.
        clicked: items clicked in each, n rows; read for injection only.
        settings: calibration, injection and placebo.
        seed: of the placebo's permutation.
    """
    source = shuffled(thoughts, settings.teach, seed) if settings.shuffle else thoughts
    found = source.taught_keywords(requests.query, settings.teach)
    if settings.personal:
        found = personalised(source, words, titles, requests, found)
    if settings.inject:
        found = _injected(words, titles, clicked, found)
    return found


def shuffled(thoughts: Thoughts, teach: Taught, seed: int) -> Thoughts:
    """The same thoughts with keywords exchanged among the queries that have a teacher: each gets another one's."""
    queries = thoughts.table["query"].to_list()
    rows = np.flatnonzero(thoughts.taught(queries, teach))
    # A cyclic shift of a random order: nobody keeps its own.
    order = np.random.default_rng([seed, 71]).permutation(rows)
    source = np.arange(len(queries))
    source[order] = np.roll(order, 1)
    return Thoughts(thoughts.table.with_columns(keywords=thoughts.table["keywords"][source.tolist()]))


def personalised(
    thoughts: Thoughts, words: CatalogueWords, titles: Sequence[str], requests: Requests, keywords: Keywords
) -> Keywords:
    """Step 3 for each request that has ``keywords``: calibrated by recent searches, clicked items and profile."""
    rows = thoughts.rows(requests.query)
    out: Keywords = []
    for number, row in enumerate(rows.tolist()):
        if not keywords[number]:
            out.append(())
            continue
        items = requests.clicked[number, -_ITEMS_OF_HISTORY:]
        history = History(
            requests.recent_queries[number],
            tuple(titles[item] for item in items.tolist() if item >= 0),
            requests.profile[number],
        )
        out.append(calibrate(thoughts.thought(row), history, words))
    return out


def _injected(words: CatalogueWords, titles: Sequence[str], clicked: Ragged, keywords: Keywords) -> Keywords:
    """The keywords with the most popular ones of the first clicked item, where there is one."""
    taught = [number for number, row in enumerate(keywords) if row]
    first = {number: int(items[0]) for number in taught if len(items := clicked[number])}
    distinct = sorted(set(first.values()))
    of_item: dict[int, tuple[str, ...]] = {}
    holds = words.matches([titles[item] for item in distinct])
    for place, item in enumerate(distinct):
        phrases = [words.phrases[at] for at in holds.indices[holds.indptr[place] : holds.indptr[place + 1]]]
        of_item[item] = tuple(sorted(phrases, key=lambda phrase: (-words.popularity(phrase), phrase))[:_INJECTED])
    out = list(keywords)
    for number, item in first.items():
        out[number] = inject(keywords[number], of_item[item]).keywords
    return out
