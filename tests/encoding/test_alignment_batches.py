"""What a step of alignment reads: the texts of each term, and losses over batches by hand."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from onesearch.encoding.click_pairs import Edges, Pairs, Triples
from onesearch.encoding.encoder_alignment import (
    EncoderAlignmentSettings,
    _Batches,
    _Sampler,
    _Texts,
    contrastive,
    rank_margin,
    relevance_regression,
)

QUERIES = ["q0", "q1", "q2"]
ITEMS = ["alpha beta gamma", "delta epsilon", "zeta eta theta iota"]


def edges(left, right, weight=None):
    ones = np.ones(len(left)) if weight is None else weight
    return Edges(np.asarray(left, np.int64), np.asarray(right, np.int64), np.asarray(ones, np.float32))


def numbers(*values):
    return np.asarray(values, np.int64)


def drawn(pairs: Pairs, clicked: int, pseudo: int, **changes):
    """(texts of the rows, loss) of every active term of one step."""
    none = {name: 0.0 for name in ("q2i", "q2q", "i2i", "rank", "relevance")}
    settings = EncoderAlignmentSettings(**{**none, "batch_size": 16, "pseudo_typos": 0.0, "nested": (), **changes})
    texts = _Texts.from_pairs(pairs, 3 * pseudo, settings)
    batches = _Batches(pairs, texts, clicked, pseudo, settings, np.random.default_rng(0))
    return [([texts.texts[row] for row in rows], loss) for rows, loss in batches.draw()]


def test_a_q2i_batch_is_clicked_pairs_then_titles_with_parts_of_them():
    pairs = Pairs(QUERIES, ITEMS, edges([0, 1, 2], [2, 0, 1]))
    ((texts, _),) = drawn(pairs, 6, 10, q2i=1.0)
    left, right = texts[:16], texts[16:]
    clicked = {("q0", ITEMS[2]), ("q1", ITEMS[0]), ("q2", ITEMS[1])}
    assert set(zip(left[:6], right[:6], strict=True)) == clicked
    for query, title in zip(left[6:], right[6:], strict=True):
        assert query and set(query.split()) <= set(title.split())
    assert len(set(right[6:])) == 3 and len(set(left[6:])) > 3  # every title, in several wordings


def test_the_other_terms_read_the_texts_of_their_pairs():
    pairs = Pairs(
        QUERIES,
        ITEMS,
        edges([0], [0]),
        q2q=edges([0], [2]),
        i2i=edges([1], [2]),
        rank=Triples(numbers(1), numbers(0), numbers(2)),
        relevance=edges([2], [1], [3.0]),
    )
    terms = drawn(pairs, 2, 0, q2q=1.0, i2i=1.0, rank=1.0, relevance=1.0)
    assert [texts for texts, _ in terms] == [
        ["q0"] * 4 + ["q2"] * 4,
        [ITEMS[1]] * 4 + [ITEMS[2]] * 4,
        ["q1"] * 4 + [ITEMS[0]] * 4 + [ITEMS[2]] * 4,
        ["q2"] * 4 + [ITEMS[1]] * 4,
    ]


def test_weights_and_arithmetic_of_the_terms():
    pairs = Pairs(
        QUERIES,
        ITEMS,
        edges([0], [0]),
        rank=Triples(numbers(1), numbers(0), numbers(2)),
        relevance=edges([2], [1], [3.0]),
    )
    (_, rank), (_, relevance) = drawn(pairs, 2, 0, rank=0.5, relevance=0.25, margin=2.0)
    torch.manual_seed(0)
    vectors, line = 3 * torch.randn(12, 5), torch.tensor([0.7, 0.2])
    query, better, worse = normalize(vectors, dim=1).chunk(3)
    torch.testing.assert_close(rank(vectors, line), 0.5 * rank_margin(query, better, worse, 2.0))
    levels = torch.full((4,), 3.0)
    expected = 0.25 * relevance_regression(query, better, levels, line)
    torch.testing.assert_close(relevance(vectors[:8], line), expected)


def test_nested_losses_read_the_leading_dimensions_and_are_averaged():
    pairs = Pairs(QUERIES, ITEMS, edges([0, 1, 2], [2, 0, 1]))
    ((_, loss),) = drawn(pairs, 3, 0, q2i=2.0, nested=(2, 9), temperature=0.5)
    torch.manual_seed(0)
    vectors = torch.randn(6, 4)
    parts = [normalize(vectors[:, :width], dim=1).chunk(2) for width in (2, 4)]  # 9 is wider than the vectors
    expected = 2.0 * sum(contrastive(left, right, 0.5) for left, right in parts) / 2
    torch.testing.assert_close(loss(vectors, torch.zeros(2)), expected)


@pytest.mark.parametrize(("left", "right"), [([0, 0], [0, 1]), ([0, 1], [2, 2])])
def test_pairs_that_share_a_text_are_no_negatives(left, right):
    ((_, loss),) = drawn(Pairs(QUERIES, ITEMS, edges(left, right)), 2, 0, q2i=1.0)
    assert loss(torch.randn(4, 3), torch.zeros(2)).item() == pytest.approx(0.0, abs=1e-6)


def test_pairs_of_equal_weight_are_drawn_in_passes_and_others_by_weight():
    rng = np.random.default_rng(0)
    equal = _Sampler(edges(range(6), range(6)), 4, rng)
    seen = np.concatenate([equal.next() for _ in range(3)])
    assert np.bincount(seen, minlength=6).tolist() == [2] * 6
    heavy = _Sampler(edges([0, 1], [0, 1], [1.0, 3.0]), 4000, rng).next()
    assert abs((heavy == 1).mean() - 0.75) < 0.03
