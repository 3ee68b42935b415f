"""One batch of every task, read back as words and SIDs: what stands in the prompt, and what is to be written."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from onesearch.common.ragged import Ragged
from onesearch.model.evidence import EVIDENCE_NUMBERS, Evidence
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import PromptSettings
from onesearch.model.prompt import PromptBuilder
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import BEGIN, END, MARKS, PAD, TokenVocabulary
from onesearch.training.cot_tasks import COT, KeywordTargets, cot_tasks
from onesearch.training.tasks import (
    STAGE_1,
    STAGE_2,
    TaskItems,
    category_tokens,
    search_task,
    semantic_tasks,
)

TITLES = ["red hiking boots", "tent", "green lamp", "warm wool socks"]
QUERIES = ["boots", "lamp for reading", "tent"]
KEYWORDS = ["hiking", "wool", "green"]
PATHS = [["Shoes", "Boots"], [], ["Home"], ["Clothing", "Socks"]]
CODEBOOKS, LEVELS, LIMIT = (7, 6, 5, 4, 3), 5, 12
VOCABULARY = TokenVocabulary.train(
    [*TITLES, *QUERIES, *KEYWORDS, "shoes > boots", "home", "clothing > socks"], 400, CODEBOOKS
)
PAIRS = np.array([[0, 3], [1, 2], [2, 1], [0, 0]])
PAIR_WEIGHTS = np.array([1.0, 2.0, 3.0, 4.0])


def sids(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.stack([rng.integers(0, size, n) for size in CODEBOOKS], 1).astype(np.int32)


def features(texts: list[str], seed: int) -> TextFeatures:
    rng = np.random.default_rng(seed)
    vectors, head_rows = (rng.normal(size=(len(texts), width)).astype(np.float32) for width in (4, 3))
    return TextFeatures(texts, VOCABULARY.tokens(texts, 24), vectors, sids(len(texts), seed), head_rows)


ITEM_SIDS = sids(len(TITLES), 1)
TABLE, ITEM_TABLE, KEYWORD_TABLE = features(QUERIES, 2), features(TITLES, 3), features(KEYWORDS, 4)
BUILDER = PromptBuilder(VOCABULARY, PromptSettings(long=0), ITEM_SIDS)
HISTORY = np.array([[-1, 3], [-1, -1], [0, 2]], np.int32)
INPUTS = PromptInputs(
    texts=TABLE,
    query=np.array([2, 0, 1], np.int32),
    profile=np.full(3, -1, np.int32),
    recent=np.full((3, 1), -1, np.int32),
    clicked=HISTORY,
    clicked_query=np.full((3, 2), -1, np.int32),
    ordered=np.full((3, 2), -1, np.int32),
    clicked_for_query=np.full((3, 0), -1, np.int32),
    keywords=np.array([[1, -1], [-1, -1], [0, 2]], np.int32),
)


def read(tokens: torch.Tensor) -> list[str]:
    """Marks by name, SIDs as tuples of codes, subwords between them as text."""
    out, text, codes = [], [], []
    for token in [*tokens.tolist(), VOCABULARY.text_size]:  # a mark at the end closes the last text
        if token < VOCABULARY.text_size:
            text.append(token)
            continue
        if text:
            out.append(VOCABULARY.text(text).strip())
            text = []
        if token >= VOCABULARY.sid_offsets[0]:
            codes.append(int(token - VOCABULARY.sid_offsets[len(codes)]))
            if len(codes) == LEVELS:
                out.append(tuple(codes))
                codes = []
        else:
            out.append(MARKS[token - VOCABULARY.text_size])
    return out[:-1]


def prompts(batch) -> list[list[str]]:
    return [read(row[mask]) for row, mask in zip(batch.prompt.tokens, batch.prompt.mask, strict=True)]


def written(text: torch.Tensor) -> list[str]:
    """The texts to write; each begins, ends and is padded as it should."""
    out = []
    for row in text.tolist():
        end = row.index(END)
        assert row[0] == BEGIN and set(row[end + 1 :]) <= {PAD}
        out.append(VOCABULARY.text(row[1:end]).strip())
    return out


def as_tuples(table: np.ndarray, rows) -> list[tuple[int, ...]]:
    return [tuple(line) for line in np.asarray(table)[list(rows)].tolist()]


@pytest.fixture(scope="module")
def tasks():
    categories = category_tokens(VOCABULARY, PATHS, LIMIT)
    query_categories = category_tokens(VOCABULARY, [["Shoes", "Boots"], ["Home"], []], LIMIT)
    items = TaskItems(ITEM_SIDS, ITEM_TABLE, categories)
    return semantic_tasks(BUILDER, items, TABLE, PAIRS, PAIR_WEIGHTS, query_categories, LIMIT, 100)


Q_SIDS, I_SIDS = as_tuples(TABLE.sids, range(3)), as_tuples(ITEM_SIDS, range(4))
CATEGORIES = ["shoes > boots", "home", "clothing > socks"]  # of items 0, 2 and 3
# What each task reads and writes for its rows in order; items are item rows, SIDs tuples, texts texts.
CONTENT = {
    "query_to_sid": (QUERIES, Q_SIDS),
    "sid_to_query": (Q_SIDS, QUERIES),
    "title_to_sid": (TITLES, [0, 1, 2, 3]),
    "sid_to_title": (I_SIDS, TITLES),
    "query_to_category": (QUERIES[:2], CATEGORIES[:2]),
    "item_to_category": ([TITLES[0], TITLES[2], TITLES[3]], CATEGORIES),
    "sid_to_category": ([I_SIDS[0], I_SIDS[2], I_SIDS[3]], CATEGORIES),
    "query_to_item": ([QUERIES[0], QUERIES[1], QUERIES[2], QUERIES[0]], [TITLES[3], TITLES[2], TITLES[1], TITLES[0]]),
    "item_to_query": ([TITLES[3], TITLES[2], TITLES[1], TITLES[0]], [QUERIES[0], QUERIES[1], QUERIES[2], QUERIES[0]]),
    "query_sid_to_item_sid": ([Q_SIDS[0], Q_SIDS[1], Q_SIDS[2], Q_SIDS[0]], [3, 2, 1, 0]),
    "item_sid_to_query_sid": (
        [I_SIDS[3], I_SIDS[2], I_SIDS[1], I_SIDS[0]],
        [Q_SIDS[0], Q_SIDS[1], Q_SIDS[2], Q_SIDS[0]],
    ),
}


def test_every_task_of_both_stages_is_looked_at(tasks):
    assert list(tasks) == [*STAGE_1, *STAGE_2] == list(CONTENT)


@pytest.mark.parametrize("name", CONTENT)
def test_a_semantic_task_reads_and_writes_what_its_name_says(tasks, name):
    reads, writes = CONTENT[name]
    rows = np.array([len(reads) - 1, 0, 1])  # out of order, so that a place is not taken for a row
    batch = tasks[name].batch(rows)
    assert batch.task == name
    marks = [f"task:{name}"] if isinstance(reads[0], tuple) else [f"task:{name}", "q"]
    assert prompts(batch) == [[*marks, reads[row]] for row in rows]
    wanted = [writes[row] for row in rows]
    if isinstance(wanted[0], str):
        assert written(batch.text) == wanted and batch.sids is None and batch.items is None
    elif isinstance(wanted[0], tuple):
        assert as_tuples(batch.sids, range(3)) == wanted and batch.text is None and batch.items is None
    else:
        items = batch.items
        assert items.rows.tolist() == wanted and items.owner.tolist() == [0, 1, 2] and batch.text is None
        assert items.weights.tolist() == [1, 1, 1]
        assert items.candidates[items.column].tolist() == wanted and items.candidates.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", CONTENT)
def test_lengths_are_those_of_what_varies_and_pairs_come_by_weight(tasks, name):
    task, (reads, writes) = tasks[name], CONTENT[name]
    text = reads if isinstance(reads[0], str) else writes if isinstance(writes[0], str) else None
    wanted = [LEVELS] * len(reads) if text is None else VOCABULARY.tokens(text, 24).lengths.tolist()
    assert task.lengths.tolist() == wanted
    assert task.weights is None if name in STAGE_1 else task.weights.tolist() == PAIR_WEIGHTS.tolist()


def test_texts_are_cut_at_the_limit():
    items = TaskItems(ITEM_SIDS, ITEM_TABLE, category_tokens(VOCABULARY, PATHS, LIMIT))
    short = semantic_tasks(BUILDER, items, TABLE, PAIRS, PAIR_WEIGHTS, Ragged.from_lists([[], [], []]), 1, 100)
    assert short["sid_to_title"].batch(np.arange(4)).text.shape == (4, 3)  # begin, one subword, end
    assert short["sid_to_title"].lengths.tolist() == [1, 1, 1, 1]
    assert "query_to_category" not in short  # no query has a category, so there is nothing to train on


def test_candidates_of_a_large_catalogue_are_targets_and_random_others():
    many = np.tile(ITEM_SIDS, (250, 1))
    titles = features([f"lamp {n}" for n in range(1000)], 5)
    items = TaskItems(many, titles, Ragged.from_lists([[]] * 1000))
    task = semantic_tasks(BUILDER, items, TABLE, PAIRS, PAIR_WEIGHTS, Ragged.from_lists([[]] * 3), LIMIT, 50)[
        "title_to_sid"
    ]
    first, again, other = (task.batch(np.array(rows)).items for rows in ([700, 3], [700, 3], [3, 701]))
    assert {3, 700} <= set(first.candidates.tolist()) and 45 <= len(first.candidates) <= 52
    assert torch.equal(first.candidates, again.candidates)  # a resumed run draws the same
    assert not torch.equal(first.candidates, other.candidates)
    assert first.candidates[first.column].tolist() == [700, 3] and (first.candidates.diff() > 0).all()


@pytest.fixture(scope="module")
def cot():
    number = {word: place for place, word in enumerate(KEYWORDS)}
    of_query = KeywordTargets.from_keywords([["wool", "hiking"], ["green"], ["hiking"]], number, VOCABULARY, LIMIT)
    of_shopper = KeywordTargets.from_keywords([["hiking"], ["green", "wool"], ["wool"]], number, VOCABULARY, LIMIT)
    return cot_tasks(BUILDER, KEYWORD_TABLE, TABLE, of_query, INPUTS, of_shopper, LIMIT)


def test_cot_tasks_write_keywords_as_text_or_as_sids(cot):
    assert tuple(cot) == COT
    rows = np.array([2, 0])
    by_query, by_shopper = [["hiking"], ["wool", "hiking"]], [["wool"], ["hiking"]]
    place = {word: as_tuples(KEYWORD_TABLE.sids, range(3))[n] for n, word in enumerate(KEYWORDS)}
    for name, keywords in zip(COT, (by_query, by_query, by_shopper, by_shopper), strict=True):
        batch = cot[name].batch(rows)
        assert batch.task == name and batch.prompt.tokens[:, 0].tolist() == [VOCABULARY.mark(f"task:{name}")] * 2
        if name.endswith("keywords"):
            assert written(batch.text) == [", ".join(words) for words in keywords]
            assert set(batch.text.unique().tolist()) <= set(batch.subwords.tolist())
        else:
            assert as_tuples(batch.sids, range(len(batch.sids))) == [
                place[word] for words in keywords for word in words
            ]
            assert batch.owner.tolist() == [row for row, words in enumerate(keywords) for _ in words]


def test_cot_tasks_read_the_query_or_its_sid_and_the_shopper(cot):
    rows = np.array([2, 0])
    found = {name: prompts(cot[name].batch(rows)) for name in COT}
    assert found["query_to_keywords"] == [["task:query_to_keywords", "q", QUERIES[row]] for row in rows]
    assert found["query_sid_to_keyword_sids"] == [["task:query_sid_to_keyword_sids", Q_SIDS[row]] for row in rows]
    for place, row in enumerate(rows):  # of page views
        query = INPUTS.query[row]
        text, sid = (found[name][place] for name in COT[2:])
        assert QUERIES[query] in text and QUERIES[query] not in sid and Q_SIDS[query] in sid
        clicked = [I_SIDS[item] for item in HISTORY[row] if item >= 0]
        assert (
            text[text.index("short") + 1 :][: len(clicked)] == sid[sid.index("short") + 1 :][: len(clicked)] == clicked
        )


def test_a_search_batch_has_its_targets_weights_and_teachers():
    targets, weights = Ragged.from_lists([[3], [1, 2], [0]]), np.array([2.0, 2.0, 1.0, 1.0], np.float32)
    task = search_task("search", BUILDER, INPUTS, targets, weights, 4, 100, np.ones(3), np.array([True, False, True]))
    batch = task.batch(np.array([1, 2, 0]))
    assert batch.items.rows.tolist() == [1, 2, 0, 3] and batch.items.owner.tolist() == [0, 0, 1, 2]
    assert batch.items.weights.tolist() == [2, 1, 1, 2] and batch.rows.tolist() == [1, 2, 0]
    for place, row in enumerate([1, 2, 0]):
        student = prompts(batch)[place]
        assert student[0] == "task:search" and QUERIES[INPUTS.query[row]] in student and "kw" not in student
    # Page views 2 and 0 have a teacher, whose prompt is the student's with the keywords behind it.
    assert batch.with_teacher.tolist() == [1, 2]
    for row, (tokens, mask) in enumerate(zip(batch.teacher.tokens, batch.teacher.mask, strict=True)):
        teacher, student = read(tokens[mask]), prompts(batch)[row + 1]
        assert teacher[: len(student)] == student and teacher[len(student)] == "kw" and len(teacher) == len(student) + 2
    assert search_task("search", BUILDER, INPUTS, targets, weights, 4, 100).batch(np.arange(3)).teacher is None
    always = search_task("search", BUILDER, INPUTS, targets, weights, 4, 100, keywords=True).batch(np.array([0]))
    assert "kw" in prompts(always)[0] and always.teacher is None


def test_a_clicked_items_token_does_not_tell_of_the_click():
    """The rows of tokens are those before the page view: in history and evidence, of student and teacher."""
    head_rows = torch.arange(16, dtype=torch.float32).view(4, 4)
    evidence = lambda rows: Evidence(  # noqa: E731
        np.tile(np.array([[0, 1, 3, -1]], np.int32), (len(rows), 1)),
        np.zeros((len(rows), 4, len(EVIDENCE_NUMBERS)), np.float32),
    )
    settings = PromptSettings(long=0, short=2, item_tokens="row", fill="none", evidence={"nearest": 4})
    builder = PromptBuilder(VOCABULARY, settings, ITEM_SIDS, head_rows)
    inputs = replace(INPUTS, evidence=evidence)
    # a click adds .25 and .5 to the last two columns, an order twice as much
    own = np.stack([np.tile([0.25, 0.5], (4, 1)), np.tile([0.5, 1.0], (4, 1))]).astype(np.float32)
    targets, weights = Ragged.from_lists([[3], [1, 2], [0]]), np.array([2.0, 2.0, 1.0, 1.0], np.float32)
    has_teacher = np.array([True, False, True])
    task = search_task("search", builder, inputs, targets, weights, 4, 100, None, has_teacher, False, own)
    batch = task.batch(np.array([0, 1, 2]))
    tokens = batch.prompt.items
    taken = head_rows[tokens.items.clamp(min=0)] * (tokens.items >= 0).unsqueeze(-1) - tokens.head_rows
    # [history of two, four of evidence]; item 3 was ordered in the first page view, where it is in the history as well
    click, order, none = [0.25, 0.5], [0.5, 1.0], [0.0, 0.0]
    assert taken[..., 2:].tolist() == [
        [none, order, none, none, order, none],
        [none, none, none, order, none, none],
        [click, none, click, none, none, none],
    ]
    assert taken[..., :2].abs().max() == 0
    torch.testing.assert_close(batch.teacher.items.head_rows, tokens.head_rows[[0, 2]])
    plain = search_task("search", builder, inputs, targets, weights, 4, 100).batch(np.array([0, 1, 2]))
    assert plain.prompt.items.head_rows[0, 1].tolist() == [12, 13, 14, 15]
