"""What the SFT stages train on (docs/method.md, section 5): from row numbers to batches.

Every task reads a prompt and writes one of three things: the SID of an item, any SID (codebooks), or text. It has the
lengths of its rows (for bucketing), their sampling weights, and a function from row numbers to a :class:`TaskBatch`.
First what a batch holds, then how targets are made, then the tasks: semantic ones (SFT 1, 2) and the search (SFT 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from onesearch.common.ragged import Ragged
from onesearch.model.featurizer import TextFeatures
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import BEGIN, END, PAD, TokenVocabulary
from onesearch.search.path_scoring import OwnClicks

Ints = NDArray[np.integer]
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


@dataclass
class ItemTargets:
    """Items to write: M targets of a batch's prompts.

    Shapes: ``rows`` int64 [M] item rows, ``owner`` int64 [M] prompt of each target, ``weights`` float32 [M],
    ``candidates`` int64 [C] sorted item rows of the contrastive loss, ``column`` int64 [M] the target's place in them.
    ``leave_out`` float32 [M, F], what the page view that is learnt added to the numbers of the target's head row.
    """

    rows: torch.Tensor
    owner: torch.Tensor
    weights: torch.Tensor
    candidates: torch.Tensor
    column: torch.Tensor
    leave_out: torch.Tensor | None = None

    def own_clicks(self, paths: torch.Tensor, prompts: int) -> OwnClicks | None:
        """What each of the ``prompts`` page views added to the rows of its targets; ``paths`` int64 [M, L] theirs."""
        return None if self.leave_out is None else OwnClicks.from_items(paths, self.leave_out, self.owner, prompts)


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


def example_weights(
    clicked: Ragged, ordered: Ragged, order_weight: float, limit: int
) -> tuple[Ragged, NDArray[np.float32]]:
    """Targets of each page view with weights: ordered items ``order_weight``, clicked ones 1; at most ``limit`` each.

    An ordered item counts once, with the higher weight. Returns the targets and float32 [total] weights.
    """
    owners = np.concatenate([ordered.owners, clicked.owners])
    items = np.concatenate([ordered.values, clicked.values])
    weight = np.concatenate([np.full(len(ordered.values), order_weight), np.ones(len(clicked.values))])
    # The first of each page view's equal items stays: a stable sort leaves ordered ones before clicked ones.
    order = np.lexsort((items, owners))
    owners, items, weight = owners[order], items[order], weight[order]
    first = np.ones(len(items), bool)
    first[1:] = (owners[1:] != owners[:-1]) | (items[1:] != items[:-1])
    owners, items, weight = owners[first], items[first], weight[first]
    # Then the heaviest ``limit`` of each page view.
    order = np.lexsort((-weight, owners))
    owners, items, weight = owners[order], items[order], weight[order]
    keep = np.arange(len(owners)) - np.searchsorted(owners, owners) < limit
    lengths = np.bincount(owners[keep], minlength=len(clicked))
    return Ragged.from_lengths(items[keep], lengths.astype(np.int64)), weight[keep].astype(np.float32)


def item_targets(
    rows: Ints,
    owner: Ints,
    weights: NDArray[np.floating],
    n_items: int,
    negatives: int,
    seed: Ints,
    more: Ints | None = None,
) -> ItemTargets:
    """Targets with their contrastive candidates: all items if few, else the batch's targets and random others.

    ``more`` are items that must be among the candidates, such as the prompts' evidence; -1 for none.
    """
    if n_items <= negatives:
        candidates = np.arange(n_items)
    else:
        # The draw depends on the batch's rows alone, so a resumed run draws the same.
        rng = np.random.default_rng(np.asarray(seed, np.int64).astype(np.uint32)[:16])
        known = rows[:0] if more is None else more[more >= 0]
        candidates = np.unique(np.concatenate([rows, rng.integers(0, n_items, negatives), known]))
    return ItemTargets(
        _tensor(rows),
        _tensor(owner),
        torch.from_numpy(weights.astype(np.float32)),
        _tensor(candidates),
        _tensor(np.searchsorted(candidates, rows)),
    )


def text_targets(tokens: Ragged, rows: Ints, limit: int) -> torch.Tensor:
    """Begin, at most ``limit`` subwords, end; padded: int64 [B, T]."""
    # The end stands behind the last subword kept, which need not be the text's last.
    picked = tokens.select(rows)
    lengths = np.minimum(picked.lengths, limit)
    body = picked.padded(limit, fill=PAD, newest=False)
    out = np.concatenate([np.full((len(rows), 1), BEGIN), body, np.full((len(rows), 1), PAD)], 1)
    out[np.arange(len(rows)), lengths + 1] = END
    return _tensor(out[:, : int(lengths.max(initial=0)) + 2])


def category_tokens(vocabulary: TokenVocabulary, paths: Sequence[Sequence[str]], limit: int) -> Ragged:
    """Category paths as text, ``"Shoes > Boots"``, in subwords; empty where a path is empty."""
    return vocabulary.tokens([" > ".join(path) for path in paths], limit)


def _tensor(numbers: Ints) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.int64))


@dataclass(frozen=True)
class _Side:
    """What a semantic task reads or writes: a function of row numbers, and the lengths int64 [n] of all rows' texts.

    A reader takes the task mark as well. SIDs all have the same length: None.
    """

    make: Callable[..., Any]
    lengths: NDArray[np.int64] | None = None


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
    """The tasks of SFT 1 and 2 by name; one without rows is left out.

    Shapes: ``pairs`` int64 [P, 2] (row of ``queries``, item row) from training clicks with ``pair_weights`` [P];
    ``query_categories`` one row of subword ids per query: the category most of its clicks fell in.
    """
    titles, categories, n_items = catalogue.titles, catalogue.categories, len(catalogue.sids)
    width, row_dim = queries.vectors.shape[1], queries.head_rows.shape[1]

    def read_text(texts: TextFeatures) -> _Side:
        lengths = np.minimum(texts.tokens.lengths, builder.config.query_tokens)
        return _Side(lambda rows, mark: builder.text_prompt(texts, rows, mark), lengths)

    def read_sid(sids: Ints) -> _Side:
        return _Side(lambda rows, mark: builder.sid_prompt(sids[rows], mark, width, row_dim))

    def write_text(tokens: Ragged) -> _Side:
        lengths = np.minimum(tokens.lengths, text_limit)
        return _Side(lambda rows: {"text": text_targets(tokens, rows, text_limit)}, lengths)

    def write_item(rows: Ints) -> dict[str, ItemTargets]:
        one_each, weights = np.arange(len(rows)), np.ones(len(rows))
        return {"items": item_targets(rows, one_each, weights, n_items, negatives, rows)}

    # Each text and each SID as something to read and something to write.
    read_query, read_title = read_text(queries), read_text(titles)
    read_query_sid, read_item_sid = read_sid(queries.sids), read_sid(catalogue.sids)
    write_query, write_title, write_category = (write_text(of) for of in (queries.tokens, titles.tokens, categories))
    write_query_sid = _Side(lambda rows: {"sids": _tensor(queries.sids[rows])})
    write_item_sid = _Side(write_item)
    # Row numbers of what is read and of what is written: of queries, of items, and of clicked pairs of both.
    query, item, clicked_query, clicked_item = np.arange(len(queries)), np.arange(n_items), pairs[:, 0], pairs[:, 1]
    with_category, query_with_category = (np.flatnonzero(of.lengths > 0) for of in (categories, query_categories))
    table: dict[str, tuple[_Side, Ints, _Side, Ints]] = {
        "query_to_sid": (read_query, query, write_query_sid, query),
        "sid_to_query": (read_query_sid, query, write_query, query),
        "title_to_sid": (read_title, item, write_item_sid, item),
        "sid_to_title": (read_item_sid, item, write_title, item),
        "query_to_category": (read_query, query_with_category, write_text(query_categories), query_with_category),
        "item_to_category": (read_title, with_category, write_category, with_category),
        "sid_to_category": (read_item_sid, with_category, write_category, with_category),
        "query_to_item": (read_query, clicked_query, write_title, clicked_item),
        "item_to_query": (read_title, clicked_item, write_query, clicked_query),
        "query_sid_to_item_sid": (read_query_sid, clicked_query, write_item_sid, clicked_item),
        "item_sid_to_query_sid": (read_item_sid, clicked_item, write_query_sid, clicked_query),
    }

    def task(name: str, reader: _Side, read: Ints, writer: _Side, written: Ints) -> Task:
        def batch(rows: Ints) -> TaskBatch:
            return TaskBatch(name, reader.make(read[rows], f"task:{name}"), **writer.make(written[rows]))

        # Batches are bucketed by what varies: the prompt, or where all prompts are SIDs the target.
        lengths = np.full(len(read), builder.vocabulary.levels, np.int64)
        if reader.lengths is not None:
            lengths = reader.lengths[read]
        elif writer.lengths is not None:
            lengths = writer.lengths[written]
        return Task(name, lengths, pair_weights if name in STAGE_2 else None, batch)

    return {name: task(name, *sides) for name, sides in table.items() if len(sides[1])}


def search_task(
    name: str,
    builder: PromptBuilder,
    inputs: PromptInputs,
    targets: Ragged,
    weights: NDArray[np.float32],
    n_items: int,
    negatives: int,
    sampling: NDArray[np.float64] | None = None,
    has_teacher: NDArray[np.bool_] | None = None,
    keywords: bool = False,
    own_numbers: NDArray[np.float32] | None = None,
) -> Task:
    """Full input → clicked and ordered items (SFT 3); several targets of a page view share one encoder pass.

    ``targets`` item rows of n page views, ``weights`` float32 [total] one per target; ``has_teacher`` bool [n] says
    which page views have a teacher, whose keywords ``inputs`` then hold. With ``keywords`` these stand in every input.
    ``own_numbers`` float32 [2, N, F] is what a page view adds to the numbers of an item that it clicks, or orders.
    """

    def batch(rows: Ints) -> TaskBatch:
        # The b page views as student input; their M targets, each with its own weight and the place of its prompt.
        prompt = builder.search_prompt(inputs, rows, keywords=keywords)
        picked = targets.select(rows)
        first = np.cumsum(picked.lengths) - picked.lengths
        place = targets.offsets[rows][picked.owners] + np.arange(len(picked.values)) - first[picked.owners]
        evidence = None if prompt.items is None else prompt.items.items[:, prompt.items.history :].numpy()
        items = item_targets(picked.values, picked.owners, weights[place], n_items, negatives, rows, evidence)
        if own_numbers is not None:
            ordered = (weights[place] > 1).astype(np.int64)
            items.leave_out = torch.from_numpy(own_numbers[ordered, picked.values])
            if prompt.items is not None:
                prompt.items = prompt.items.without_own_clicks(items.owner, items.rows, items.leave_out)
        made = TaskBatch(name, prompt, items=items, rows=_tensor(rows))
        # The same page views once more with keywords, where there is a teacher.
        with_teacher = np.flatnonzero(has_teacher[rows]) if has_teacher is not None else rows[:0]
        if len(with_teacher):
            made.teacher = builder.search_prompt(inputs, rows[with_teacher], keywords=True)
            made.with_teacher = _tensor(with_teacher)
            if made.teacher.items is not None and prompt.items is not None:
                made.teacher.items = prompt.items.select(made.with_teacher)
        return made

    return Task(name, builder.search_lengths(inputs), sampling, batch)
