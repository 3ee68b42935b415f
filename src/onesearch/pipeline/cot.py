"""The data of the four CoT tasks: thoughts of training queries, and what calibration makes of them for shoppers."""

import numpy as np

from onesearch.data.text import normalise_query
from onesearch.model.generator import Generator
from onesearch.pipeline.settings import RunConfig
from onesearch.pipeline.teacher import personalised, shuffled
from onesearch.pipeline.understand import WORDS
from onesearch.pipeline.workbench import Workbench
from onesearch.search.storage import need
from onesearch.training.cot import KeywordTargets, cot_tasks
from onesearch.training.tasks import Task
from onesearch.understanding.catalogue_words import CatalogueWords


def cot_task_set(bench: Workbench, config: RunConfig, generator: Generator) -> dict[str, Task]:
    """The tasks over training queries that have keywords, and over a sample of their page views."""
    thoughts = bench.thoughts
    if config.distill.shuffle:  # a placebo is one in every task
        thoughts = shuffled(thoughts, config.distill.teach, config.seed)
    words = CatalogueWords.load(need(bench.run, "understanding") / WORDS)
    titles = bench.dataset.items["title"].fill_null("").to_list()
    settings, vocabulary, prompt = config.cot, bench.vocabulary, generator.config.prompt
    texts = list(dict.fromkeys(normalise_query(text) for text in bench.statistics.queries))
    of_query = thoughts.taught_keywords(texts, config.distill.teach)
    kept = [number for number, row in enumerate(of_query) if row]
    if not kept:
        return {}
    page_views = bench.split.train
    of_view = thoughts.taught_keywords(page_views["query"].fill_null("").to_list(), config.distill.teach)
    rows = np.flatnonzero(np.fromiter((len(row) > 0 for row in of_view), np.bool_, len(of_view)))
    if len(rows) > settings.page_views:
        rows = np.sort(np.random.default_rng([config.seed, 72]).choice(rows, settings.page_views, replace=False))
    requests = bench.requests(page_views[rows])
    of_shopper = personalised(thoughts, words, titles, requests, [of_view[row] for row in rows.tolist()])
    written = [of_query[number] for number in kept]
    distinct = sorted({word for row in [*written, *of_shopper] for word in row})
    number = {word: place for place, word in enumerate(distinct)}
    held_out = config.sft3.held_out_vectors
    return cot_tasks(
        bench.builder(prompt),
        bench.featurizer.table(distinct),
        bench.training_table([texts[place] for place in kept], held_out),
        KeywordTargets.of(written, number, vocabulary, settings.keyword_tokens),
        bench.training_columns(page_views[rows], prompt, held_out),
        KeywordTargets.of(of_shopper, number, vocabulary, settings.keyword_tokens),
        settings.keyword_tokens,
    )
