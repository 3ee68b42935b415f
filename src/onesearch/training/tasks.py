"""What each SFT stage trains on (specification section 5, V1 tasks): from row numbers to batches.

Every task reads a prompt and writes one of three things: the SID of an item, any SID (codebooks), or text. A task is
rows with lengths (for bucketing) and sampling weights, and a function from row numbers to a :class:`TaskBatch`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.model.featurizer import TextFeatures
from onesearch.model.prompt import PromptBatch, PromptBuilder, PromptInputs
from onesearch.model.token_vocabulary import BEGIN, END, PAD, TokenVocabulary


def example_weights(
    clicked: Ragged, ordered: Ragged, order_weight: float, limit: int
) -> tuple[Ragged, NDArray[np.float32]]:
    """Targets of each page view with weights: ordered items ``order_weight``, clicked ones 1; at most ``limit`` each.

    An ordered item counts once, with the higher weight. Returns the targets and float32 [total] weights.
    """
    owners = np.concatenate([ordered.owners, clicked.owners])
    items = np.concatenate([ordered.values, clicked.values])
    weight = np.concatenate([np.full(len(ordered.values), order_weight), np.ones(len(clicked.values))])
    order = np.lexsort((np.arange(len(items)), items, owners))  # ordered items come first among equals
    owners, items, weight = owners[order], items[order], weight[order]
    fresh = np.ones(len(items), bool)
    fresh[1:] = (owners[1:] != owners[:-1]) | (items[1:] != items[:-1])
    owners, items, weight = owners[fresh], items[fresh], weight[fresh]
    order = np.lexsort((-weight, owners))
    owners, items, weight = owners[order], items[order], weight[order]
    starts = np.searchsorted(owners, np.arange(len(clicked)))
    keep = np.arange(len(owners)) - starts[owners] < limit
    lengths = np.bincount(owners[keep], minlength=len(clicked))
    return Ragged.from_lengths(items[keep], lengths.astype(np.int64)), weight[keep].astype(np.float32)


Ints = NDArray[np.integer]


@dataclass
class ItemTargets:
    """Items to write: M targets of a batch's prompts.

    Shapes: ``rows`` int64 [M] item rows, ``owner`` int64 [M] prompt of each target, ``weights`` float32 [M],
    ``candidates`` int64 [C] sorted item rows of the contrastive loss, ``column`` int64 [M] the target's place in them.
    """

    rows: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor
    candidates: torch.Tensor
    column: torch.Tensor


@dataclass
class TaskBatch:
    """A prompt batch and what shall be written: exactly one of items, SIDs int64 [B, L] or text int64 [B, T].

    With ``owner`` int64 [M], the prompt of each, there are SIDs int64 [M, L] instead, any number per prompt.
    With ``subwords`` int64 [W], ascending, text is chosen among these only.

    ``teacher`` is the input with keywords of some of the prompts, ``with_teacher`` int64 [b] says which, ascending.
    ``rows`` int64 [B] are the task's rows that the prompts were made of, where a loss looks something up for them.
    """

    task: str
    prompt: PromptBatch
    items: ItemTargets | None = None
    sids: torch.Tensor | None = None
    text: torch.Tensor | None = None
    owner: torch.Tensor | None = None
    subwords: torch.Tensor | None = None
    teacher: PromptBatch | None = None
    with_teacher: torch.Tensor | None = None
    rows: torch.Tensor | None = None


@dataclass(frozen=True)
class Task:
    """A named set of training rows.

    Attributes:
        name: the task's name in logs and settings.
        lengths: tokens of each row's prompt (of its target where all prompts are alike), int64 [n], for length-bucketed
            batches.
        weights: sampling weight of each row, float64 [n], or None for uniform.
        batch: row numbers to a batch.
    """

    name: str
    lengths: NDArray[np.int64]
    weights: NDArray[np.float64] | None
    batch: Callable[[Ints], TaskBatch]


@dataclass(frozen=True)
class TaskItems:
    """Item-side columns the tasks write or read.

    Shapes: ``sids`` int32 [N, L]; ``titles`` a text table of N rows; ``categories`` N rows of subword ids (empty where
    unknown).
    """

    sids: NDArray[np.int32]
    titles: TextFeatures
    categories: Ragged


def item_targets(
    rows: Ints, owner: Ints, weights: NDArray[np.floating], n_items: int, negatives: int, seed: Ints
) -> ItemTargets:
    """Targets with their contrastive candidates: all items if few, else the batch's targets and random others."""
    if n_items <= negatives:
        candidates = np.arange(n_items)
    else:
        # The draw depends on the batch's rows alone, so a resumed run draws the same.
        rng = np.random.default_rng(np.asarray(seed, np.int64).astype(np.uint32)[:16])
        candidates = np.unique(np.concatenate([rows, rng.integers(0, n_items, negatives)]))
    return ItemTargets(
        torch.from_numpy(rows.astype(np.int64)),
        torch.from_numpy(owner.astype(np.int64)),
        torch.from_numpy(weights.astype(np.float32)),
        torch.from_numpy(candidates.astype(np.int64)),
        torch.from_numpy(np.searchsorted(candidates, rows).astype(np.int64)),
    )


def search_task(
    name: str,
    builder: PromptBuilder,
    columns: PromptInputs,
    targets: Ragged,
    weights: NDArray[np.float32],
    n_items: int,
    negatives: int,
    sampling: NDArray[np.float64] | None = None,
    has_teacher: NDArray[np.bool_] | None = None,
    keywords: bool = False,
) -> Task:
    """Full input → clicked and ordered items (stage 3); several targets of a page view share one encoder pass.

    ``targets`` n rows of item rows, ``weights`` float32 [total] one per target value; ``has_teacher`` bool [n] says
    which rows have a teacher, whose keywords the columns then hold. With ``keywords`` these stand in every input.
    """
    starts = targets.offsets[:-1]

    def batch(rows: Ints) -> TaskBatch:
        picked = targets.select(rows)
        lengths = picked.lengths
        offset = np.repeat(starts[rows], lengths) + _within(lengths)
        owned = item_targets(picked.values, picked.owners, weights[offset], n_items, negatives, rows)
        prompt = builder.search_prompt(columns, rows, keywords=keywords)
        made = TaskBatch(name, prompt, items=owned, rows=torch.from_numpy(rows.astype(np.int64)))
        with_teacher = np.flatnonzero(has_teacher[rows]) if has_teacher is not None else rows[:0]
        if len(with_teacher):
            made.teacher = builder.search_prompt(columns, rows[with_teacher], keywords=True)
            made.with_teacher = torch.from_numpy(with_teacher.astype(np.int64))
        return made

    return Task(name, builder.search_lengths(columns), sampling, batch)


def _within(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def text_targets(tokens: Ragged, rows: Ints, limit: int) -> torch.Tensor:
    """Begin, at most ``limit`` subwords, end; padded: int64 [B, T]."""
    picked = tokens.select(rows)
    body = picked.padded(limit, fill=PAD, newest=False)
    out = np.concatenate([np.full((len(rows), 1), BEGIN), body, np.full((len(rows), 1), PAD)], 1)
    out[np.arange(len(rows)), np.minimum(picked.lengths, limit) + 1] = END
    width = int(np.minimum(picked.lengths, limit).max(initial=0)) + 2
    return torch.from_numpy(out[:, :width].astype(np.int64))


def semantic_tasks(
    builder: PromptBuilder,
    catalogue: TaskItems,
    queries: TextFeatures,
    pairs: NDArray[np.int64],
    pair_weights: NDArray[np.float64],
    query_categories: Ragged,
    text_limit: int,
    negatives: int,
) -> dict[str, Task]:
    """The tasks of stages 1 and 2 by name.

    Shapes: ``pairs`` int64 [P, 2] (row of ``queries``, item row) from training clicks with ``pair_weights`` [P];
    ``query_categories`` one row of subword ids per query: the category most of its clicks fell in.
    """
    n_items, titles = len(catalogue.sids), catalogue.titles
    width, row_dim = queries.vectors.shape[1], queries.head_rows.shape[1]
    has_category = np.flatnonzero(catalogue.categories.lengths > 0)
    query_has_category = np.flatnonzero(query_categories.lengths > 0)

    def lengths(of: TextFeatures, numbers: Ints) -> NDArray[np.int64]:
        return np.asarray(np.minimum(of.tokens.lengths[numbers], builder.config.query_tokens), np.int64)

    def constant(n: int) -> NDArray[np.int64]:
        return np.full(n, builder.vocabulary.levels, np.int64)

    def written(of: Ragged) -> NDArray[np.int64]:
        return np.minimum(of.lengths, text_limit)

    def sid_prompt(sids: Ints, task: str) -> PromptBatch:
        return builder.sid_prompt(sids, f"task:{task}", width, row_dim)

    def single(items: Ints) -> ItemTargets:
        return item_targets(items, np.arange(len(items)), np.ones(len(items)), n_items, negatives, items)

    def query_to_sid(rows: Ints) -> TaskBatch:
        prompt = builder.text_prompt(queries, rows, "task:query_to_sid")
        return TaskBatch("query_to_sid", prompt, sids=torch.from_numpy(queries.sids[rows].astype(np.int64)))

    def sid_to_query(rows: Ints) -> TaskBatch:
        text = text_targets(queries.tokens, rows, text_limit)
        return TaskBatch("sid_to_query", sid_prompt(queries.sids[rows], "sid_to_query"), text=text)

    def title_to_sid(rows: Ints) -> TaskBatch:
        return TaskBatch("title_to_sid", builder.text_prompt(titles, rows, "task:title_to_sid"), items=single(rows))

    def sid_to_title(rows: Ints) -> TaskBatch:
        text = text_targets(titles.tokens, rows, text_limit)
        return TaskBatch("sid_to_title", sid_prompt(catalogue.sids[rows], "sid_to_title"), text=text)

    def query_to_category(rows: Ints) -> TaskBatch:
        picked = query_has_category[rows]
        text = text_targets(query_categories, picked, text_limit)
        return TaskBatch("query_to_category", builder.text_prompt(queries, picked, "task:query_to_category"), text=text)

    def item_to_category(rows: Ints) -> TaskBatch:
        picked = has_category[rows]
        text = text_targets(catalogue.categories, picked, text_limit)
        return TaskBatch("item_to_category", builder.text_prompt(titles, picked, "task:item_to_category"), text=text)

    def sid_to_category(rows: Ints) -> TaskBatch:
        picked = has_category[rows]
        text = text_targets(catalogue.categories, picked, text_limit)
        return TaskBatch("sid_to_category", sid_prompt(catalogue.sids[picked], "sid_to_category"), text=text)

    def query_to_item(rows: Ints) -> TaskBatch:
        text = text_targets(titles.tokens, pairs[rows, 1], text_limit)
        return TaskBatch("query_to_item", builder.text_prompt(queries, pairs[rows, 0], "task:query_to_item"), text=text)

    def item_to_query(rows: Ints) -> TaskBatch:
        text = text_targets(queries.tokens, pairs[rows, 0], text_limit)
        return TaskBatch("item_to_query", builder.text_prompt(titles, pairs[rows, 1], "task:item_to_query"), text=text)

    def query_sid_to_item_sid(rows: Ints) -> TaskBatch:
        prompt = sid_prompt(queries.sids[pairs[rows, 0]], "query_sid_to_item_sid")
        return TaskBatch("query_sid_to_item_sid", prompt, items=single(pairs[rows, 1]))

    def item_sid_to_query_sid(rows: Ints) -> TaskBatch:
        prompt = sid_prompt(catalogue.sids[pairs[rows, 1]], "item_sid_to_query_sid")
        sids = torch.from_numpy(queries.sids[pairs[rows, 0]].astype(np.int64))
        return TaskBatch("item_sid_to_query_sid", prompt, sids=sids)

    all_queries, all_items = np.arange(len(queries)), np.arange(n_items)
    plain: list[tuple[Callable[[Ints], TaskBatch], NDArray[np.int64], NDArray[np.float64] | None]] = [
        (query_to_sid, lengths(queries, all_queries), None),
        (sid_to_query, written(queries.tokens), None),
        (title_to_sid, lengths(titles, all_items), None),
        (sid_to_title, written(titles.tokens), None),
        (query_to_category, lengths(queries, query_has_category), None),
        (item_to_category, lengths(titles, has_category), None),
        (sid_to_category, written(catalogue.categories)[has_category], None),
        (query_to_item, lengths(queries, pairs[:, 0]), pair_weights),
        (item_to_query, lengths(titles, pairs[:, 1]), pair_weights),
        (query_sid_to_item_sid, constant(len(pairs)), pair_weights),
        (item_sid_to_query_sid, constant(len(pairs)), pair_weights),
    ]
    return {f.__name__: Task(f.__name__, length, weight, f) for f, length, weight in plain if len(length)}


STAGE_1: tuple[str, ...] = (
    "query_to_sid",
    "sid_to_query",
    "title_to_sid",
    "sid_to_title",
    "query_to_category",
    "item_to_category",
    "sid_to_category",
)
STAGE_2: tuple[str, ...] = ("query_to_item", "item_to_query", "query_sid_to_item_sid", "item_sid_to_query_sid")


def category_tokens(vocabulary: TokenVocabulary, paths: Sequence[Sequence[str]], limit: int) -> Ragged:
    """Category paths as text, ``"Shoes > Boots"``, in subwords; empty where a path is empty."""
    return vocabulary.tokens([" > ".join(path) for path in paths], limit)
