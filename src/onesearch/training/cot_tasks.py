"""The four CoT tasks (docs/method.md, section 4): the model learns to write what was thought of a query.

Keywords as text are one sequence, in the order of the thought. Keyword SIDs are a set: each is a target of its own
beside the same prompt, because a SID tells nothing of the place it has among the others. A thought's keywords come from
a few thousand phrases, so the text head is read at their subwords only: over the whole vocabulary it would cost more
than the rest of the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.model.featurizer import TextFeatures
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import BEGIN, END, PAD, TokenVocabulary
from onesearch.training.tasks import Task, TaskBatch, text_targets

Ints = NDArray[np.integer]
COT: tuple[str, ...] = (
    "query_to_keywords",
    "query_sid_to_keyword_sids",
    "user_query_to_keywords",
    "user_query_sid_to_keyword_sids",
)
SEPARATOR = ", "


@dataclass(frozen=True)
class KeywordTargets:
    """What is written for each of n rows.

    Shapes: ``numbers`` n rows of keyword numbers, ``tokens`` n rows of subwords of their text, ``subwords`` int64 [W],
    ascending, those that such texts are made of.
    """

    numbers: Ragged
    tokens: Ragged
    subwords: NDArray[np.int64]

    @classmethod
    def from_keywords(
        cls, keywords: Sequence[Sequence[str]], number: dict[str, int], vocabulary: TokenVocabulary, limit: int
    ) -> "KeywordTargets":
        """Targets of rows of keywords; ``number`` gives the row of each keyword in the table of keywords."""
        tokens = vocabulary.tokens([SEPARATOR.join(row) for row in keywords], limit)
        numbers = Ragged.from_lists([[number[word] for word in row] for row in keywords])
        # Every target ends and is padded, so these marks are among its subwords.
        subwords = np.union1d(tokens.values, [PAD, BEGIN, END]).astype(np.int64)
        return cls(numbers, tokens, subwords)


def cot_tasks(
    builder: PromptBuilder,
    keywords: TextFeatures,
    queries: TextFeatures,
    of_query: KeywordTargets,
    inputs: PromptInputs,
    of_shopper: KeywordTargets,
    limit: int,
) -> dict[str, Task]:
    """The four tasks by name.

    Args:
        builder: of prompts.
        keywords: table of distinct keywords, which give the keyword SIDs.
        queries: distinct queries with keywords, Q rows.
        of_query: their targets.
        inputs: n page views as model input.
        of_shopper: personalised targets of each.
        limit: subwords kept of a text target.
    """
    width, row_dim = queries.vectors.shape[1], queries.head_rows.shape[1]

    # What is written: the keywords' text as one sequence, or each keyword's SID as a target beside the same prompt.
    def text(targets: KeywordTargets, rows: Ints, prompt: PromptBatch, task: str) -> TaskBatch:
        subwords = torch.from_numpy(targets.subwords)
        ids = text_targets(targets.tokens, rows, limit)
        return TaskBatch(task, prompt, text=ids, subwords=subwords)

    def sids(targets: KeywordTargets, rows: Ints, prompt: PromptBatch, task: str) -> TaskBatch:
        picked = targets.numbers.select(rows)
        wanted = torch.from_numpy(keywords.sids[picked.values].astype(np.int64))
        return TaskBatch(task, prompt, sids=wanted, owner=torch.from_numpy(picked.owners.astype(np.int64)))

    # What is read: the query or its SID; or the page view, with the query's text or with its SID alone.
    def query_to_keywords(rows: Ints) -> TaskBatch:
        return text(of_query, rows, builder.text_prompt(queries, rows, "task:query_to_keywords"), "query_to_keywords")

    def query_sid_to_keyword_sids(rows: Ints) -> TaskBatch:
        prompt = builder.sid_prompt(queries.sids[rows], "task:query_sid_to_keyword_sids", width, row_dim)
        return sids(of_query, rows, prompt, "query_sid_to_keyword_sids")

    def user_query_to_keywords(rows: Ints) -> TaskBatch:
        prompt = builder.search_prompt(inputs, rows, "task:user_query_to_keywords")
        return text(of_shopper, rows, prompt, "user_query_to_keywords")

    def user_query_sid_to_keyword_sids(rows: Ints) -> TaskBatch:
        prompt = builder.search_prompt(inputs, rows, "task:user_query_sid_to_keyword_sids", query_text=False)
        return sids(of_shopper, rows, prompt, "user_query_sid_to_keyword_sids")

    # For bucketing: tokens of the prompt, of which a SID alone always has L.
    lengths = np.minimum(queries.tokens.lengths, builder.config.query_tokens).astype(np.int64)
    constant = np.full(len(queries), builder.vocabulary.levels, np.int64)
    of_user = builder.search_lengths(inputs)
    plain: list[tuple[Callable[[Ints], TaskBatch], NDArray[np.int64]]] = [
        (query_to_keywords, lengths),
        (query_sid_to_keyword_sids, constant),
        (user_query_to_keywords, of_user),
        (user_query_sid_to_keyword_sids, of_user),
    ]
    return {f.__name__: Task(f.__name__, length, None, f) for f, length in plain if len(length)}
