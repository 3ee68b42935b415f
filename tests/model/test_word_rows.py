"""Rows of words: each subword of the query, and nothing else of the prompt, moves the query's row."""

import torch

from onesearch.model.backbones import BackboneConfig
from onesearch.model.config import ModelConfig
from onesearch.model.generator import Generator, Sizes
from onesearch.model.prompt import PromptBatch
from onesearch.model.vocabulary import MARKS

TEXT, ROW = 20, 6
CODEBOOKS = (4, 4, 4, 4, 4)


def generator(word_rows=True):
    torch.manual_seed(0)
    backbone = BackboneConfig(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, ffn=16, max_positions=32)
    centroids = [torch.randn(4, 8) for _ in range(3)]
    return Generator(ModelConfig(backbone=backbone, word_rows=word_rows), Sizes(TEXT, CODEBOOKS, 8, ROW), centroids)


def mark(name):
    return TEXT + MARKS.index(name)


def batch(rows):
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return PromptBatch(tokens, mask, torch.zeros(len(rows), 8), torch.randn(len(rows), ROW), None)


def test_only_subwords_of_the_query_count_and_each_time():
    model = generator()
    with torch.no_grad():
        model.word_rows.weight.copy_(torch.randn(TEXT, ROW))
    rows = model.word_rows.weight
    code = TEXT + len(MARKS) + 3
    given = batch([
        [mark("task:search"), mark("q"), 5, 7, 5, mark("sid_q"), code, mark("seq_q"), 9, mark("profile"), 4],
        [mark("task:search"), mark("sid_q"), code, mark("seq_q"), 9, 6],
        [mark("q"), 8],
    ])  # fmt: skip
    moved = model.query_rows(given) - given.query_rows
    torch.testing.assert_close(moved[0], 2 * rows[5] + rows[7])
    torch.testing.assert_close(moved[1], torch.zeros(ROW))
    torch.testing.assert_close(moved[2], rows[8])
    torch.testing.assert_close(model.encode(given).query_rows, model.query_rows(given))


def test_a_teacher_has_keywords_instead():
    model = generator()
    with torch.no_grad():
        model.word_rows.weight.fill_(1.0)
    given = batch([[mark("q"), 5, mark("short"), mark("kw"), 6, 7, 8], [mark("q"), 5, mark("short")]])
    given.keyword_vectors = torch.zeros(2, 8)  # a batch of students and teachers, of which the second has none
    torch.testing.assert_close(model.query_rows(given) - given.query_rows, torch.tensor([[0.0] * ROW, [1.0] * ROW]))


def test_an_untrained_model_and_one_without_them_are_dense_search():
    given = batch([[mark("q"), 5, 6]])
    for model in (generator(), generator(word_rows=False)):
        torch.testing.assert_close(model.query_rows(given), given.query_rows)
    assert not any("word_rows" in name for name, _ in generator(word_rows=False).named_parameters())


def test_only_the_distance_of_rows_trains_them():
    model = generator()
    given = batch([[mark("q"), 5, 6]])
    assert not model.query_rows(given).requires_grad
    model.moves(given).sum().backward()
    assert model.word_rows.weight.grad is not None
    assert torch.count_nonzero(model.word_rows.weight.grad.sum(1)) == 2
