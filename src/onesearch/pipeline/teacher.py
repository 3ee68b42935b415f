"""Which keywords the teacher reads for each training page view, and the tasks that teach to write them.

The keywords are the thought's, calibrated, injected, or a placebo's.

Everything here is for training. Injected keywords, which tell of the clicked item, exist only as the return value of
:func:`teacher_keywords` on training page views; evaluation and serving never call it.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.data.text import normalise_query
from onesearch.model.generator import Generator
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.shopper_keywords import Calibrated, history_texts, load_calibrated
from onesearch.pipeline.understanding_stage import WORDS
from onesearch.search.run_parts import need
from onesearch.training.cot_tasks import KeywordTargets, cot_tasks
from onesearch.training.self_distillation import DistillationSettings
from onesearch.training.sft_settings import CoTSettings
from onesearch.training.tasks import Task
from onesearch.understanding.calibration_worker import shopper_key
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.preference_calibration import TitlePreferences, calibrate, inject
from onesearch.understanding.thought_table import Taught, Thoughts

log = logging.getLogger("onesearch")
Keywords = list[tuple[str, ...]]
_INJECTED = 4  # keywords of the clicked item, so that half of the thought's own stay


def keyword_source(
    run_data: RunData, thoughts: Thoughts, settings: DistillationSettings, seed: int
) -> Callable[[Requests, Ragged], Keywords]:
    """:func:`teacher_keywords` of a run, as a function of requests and what was clicked in them."""
    words, calibrated = _words(run_data), load_calibrated(need(run_data.run, "understanding"))
    titles = run_data.dataset.items["title"].fill_null("").to_list()
    return lambda requests, clicked: teacher_keywords(
        thoughts, words, calibrated, titles, requests, clicked, settings, seed
    )


def teacher_keywords(
    thoughts: Thoughts,
    words: CatalogueVocabulary,
    calibrated: Calibrated,
    titles: Sequence[str],
    requests: Requests,
    clicked: Ragged,
    settings: DistillationSettings,
    seed: int,
) -> Keywords:
    """The keywords of each training page view, [n]; empty where it has no teacher.

    Args:
        thoughts: of the log's queries.
        words: the catalogue's keywords.
        calibrated: a language model's calibrated keywords; a placebo does without them.
        titles: of all items.
        requests: the page views with what was known before each, n.
        clicked: items clicked in each, n rows; read for injection only.
        settings: calibration, injection and placebo.
        seed: of the placebo's permutation.
    """
    source = shuffled(thoughts, settings.teach, seed) if settings.shuffle else thoughts
    found = source.taught_keywords(requests.query, settings.teach)
    if settings.personal:
        found = personalised(source, words, {} if settings.shuffle else calibrated, titles, requests, found)
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
    thoughts: Thoughts,
    words: CatalogueVocabulary,
    calibrated: Calibrated,
    titles: Sequence[str],
    requests: Requests,
    keywords: Keywords,
) -> Keywords:
    """Step 3 for each request that has ``keywords``: calibrated by recent searches, clicked items and profile.

    A language model's answer where ``calibrated`` has one with keywords, else the rule of equation 4.2.
    """
    preferences = TitlePreferences(words)
    rows, by_model, by_rule = thoughts.rows(requests.query).tolist(), 0, 0
    out: Keywords = []
    for query, row, own, history in zip(requests.query, rows, keywords, history_texts(requests, titles), strict=True):
        answer = calibrated.get(shopper_key(query, history)) if own and calibrated else None
        by_model, by_rule = by_model + bool(answer), by_rule + (bool(own) and not answer)
        out.append(() if not own else answer or calibrate(thoughts.thought(row), history, words, preferences))
    log.info("keywords calibrated for %s page views by the language model, %s by rule", f"{by_model:,}", f"{by_rule:,}")
    return out


def _words(run_data: RunData) -> CatalogueVocabulary:
    return CatalogueVocabulary.load(need(run_data.run, "understanding") / WORDS)


def _injected(words: CatalogueVocabulary, titles: Sequence[str], clicked: Ragged, keywords: Keywords) -> Keywords:
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


def cot_task_set(
    run_data: RunData,
    generator: Generator,
    settings: CoTSettings,
    teach: Taught,
    shuffle: bool,
    held_out: bool,
    seed: int,
) -> dict[str, Task]:
    """The CoT tasks over training queries that have keywords, and over a sample of their page views.

    Args:
        run_data: of the run.
        generator: whose prompts the tasks are in.
        settings: how many page views, and how much of a text.
        teach: which queries have keywords.
        shuffle: take the placebo's keywords.
        held_out: training queries use vectors of an encoder that never saw them.
        seed: of the sample of page views and of the placebo.

    Returns:
        By name; empty where no query has keywords.
    """
    thoughts = run_data.thoughts
    if shuffle:  # a placebo is one in every task
        thoughts = shuffled(thoughts, teach, seed)
    words = _words(run_data)
    calibrated = {} if shuffle else load_calibrated(need(run_data.run, "understanding"))
    titles = run_data.dataset.items["title"].fill_null("").to_list()
    vocabulary, prompt = run_data.vocabulary, generator.config.prompt
    # Tasks of a query alone: distinct training queries that have keywords.
    texts = list(dict.fromkeys(normalise_query(text) for text in run_data.statistics.queries))
    of_query = thoughts.taught_keywords(texts, teach)
    kept = [number for number, row in enumerate(of_query) if row]
    if not kept:
        return {}
    # Tasks of a query by a shopper: page views of such queries; calibration makes the keywords the shopper's.
    page_views = run_data.split.train
    of_view = thoughts.taught_keywords(page_views["query"].fill_null("").to_list(), teach)
    rows = np.flatnonzero(np.fromiter((len(row) > 0 for row in of_view), np.bool_, len(of_view)))
    if len(rows) > settings.page_views:
        rows = np.sort(np.random.default_rng([seed, 72]).choice(rows, settings.page_views, replace=False))
    requests = run_data.requests(page_views[rows])
    of_shopper = personalised(thoughts, words, calibrated, titles, requests, [of_view[row] for row in rows.tolist()])
    # Every distinct keyword gets a number: of its features, and in the targets.
    written = [of_query[number] for number in kept]
    distinct = sorted({word for row in [*written, *of_shopper] for word in row})
    number = {word: place for place, word in enumerate(distinct)}
    return cot_tasks(
        run_data.builder(prompt),
        run_data.featurizer.text_features(distinct),
        run_data.training_text_features([texts[place] for place in kept], held_out),
        KeywordTargets.from_keywords(written, number, vocabulary, settings.keyword_tokens),
        run_data.training_columns(page_views[rows], prompt, held_out),
        KeywordTargets.from_keywords(of_shopper, number, vocabulary, settings.keyword_tokens),
        settings.keyword_tokens,
    )
