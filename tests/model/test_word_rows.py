"""Rows of words: each subword of the query, and nothing else of the prompt, moves the query's row."""

import torch

from onesearch.model.backbones import BackboneSettings
from onesearch.model.generator import Generator, Sizes
from onesearch.model.model_settings import ModelSettings
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.token_vocabulary import MARKS

TEXT, ROW = 20, 6
CODEBOOKS = (4, 4, 4, 4, 4)


def generator(word_rows=True):
    torch.manual_seed(0)
    backbone = BackboneSettings(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, ffn=16, max_positions=32)
    centroids = [torch.randn(4, 8) for _ in range(3)]
    return Generator(ModelSettings(backbone=backbone, word_rows=word_rows), Sizes(TEXT, CODEBOOKS, 8, ROW), centroids)


def mark(name):
    return TEXT + MARKS.index(name)


def batch(rows):
    width = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return PromptBatch(tokens, mask, torch.zeros(len(rows), 8), torch.randn(len(rows), ROW), None)


def one(rows):
    return torch.nn.functional.normalize(rows, dim=-1)


def test_only_subwords_of_the_query_count_and_each_time():
    model = generator()
    with torch.no_grad():
        model.word_rows.weight.copy_(torch.randn(TEXT, ROW + 1))
        model.word_bias.fill_(0.5)
    rows = model.word_rows.weight
    code = TEXT + len(MARKS) + 3
    given = batch(
        [
            [mark("task:search"), mark("q"), 5, 7, 5, mark("sid_q"), code, mark("seq_q"), 9, mark("profile"), 4],
            [mark("task:search"), mark("sid_q"), code, mark("seq_q"), 9, 6],
            [mark("q"), 8],
        ]
    )
    sums, gate = model.words(given)
    wanted = torch.stack([2 * rows[5] + rows[7], torch.zeros(ROW + 1), rows[8]])
    torch.testing.assert_close(sums, wanted[:, :ROW])
    torch.testing.assert_close(gate, wanted[:, ROW] + torch.tensor([0.5, 0.0, 0.5]))
    torch.testing.assert_close(model.encode(given).query_head_rows, model.query_head_rows(given))


def test_a_row_is_fused_where_the_gate_is_open_and_untouched_elsewhere():
    model = generator()
    with torch.no_grad():
        model.word_rows.weight.copy_(torch.randn(TEXT, ROW + 1))
        model.word_rows.weight[:, ROW] = torch.where(torch.arange(TEXT) == 5, 1.0, -1.0)
    given = batch([[mark("q"), 5], [mark("q"), 6], [mark("q"), 5, 6]])
    found = model.query_head_rows(given)
    torch.testing.assert_close(found[0], one(given.query_head_rows[0] + one(model.word_rows.weight[5, :ROW])))
    torch.testing.assert_close(found[1:], given.query_head_rows[1:])
    assert not found.requires_grad  # clicks do not train the words' rows


def test_a_teacher_has_keywords_instead():
    model = generator()
    with torch.no_grad():
        model.word_rows.weight.fill_(1.0)
    given = batch([[mark("q"), 5, mark("short"), mark("kw"), 6, 7, 8], [mark("q"), 5, mark("short")]])
    given.keyword_vectors = torch.zeros(2, 8)  # a batch of students and teachers, of which the second has none
    sums, gate = model.words(given)
    torch.testing.assert_close(sums, torch.tensor([[0.0] * ROW, [1.0] * ROW]))
    torch.testing.assert_close(gate, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(model.query_head_rows(given)[0], given.query_head_rows[0])


def test_an_untrained_model_and_one_without_them_are_dense_search():
    given = batch([[mark("q"), 5, 6]])
    for model in (generator(), generator(word_rows=False)):
        torch.testing.assert_close(model.query_head_rows(given), given.query_head_rows)
    assert not any("word_" in name for name, _ in generator(word_rows=False).named_parameters())
