"""What stands in a batch, token by token, against a prompt written down for one request at a time."""

import math

import numpy as np
import pytest
import torch

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.model import token_vocabulary
from onesearch.model.featurizer import TextFeatures
from onesearch.model.model_settings import EvidenceSettings, PromptSettings
from onesearch.model.prompt import PromptBuilder, longest_prompt
from onesearch.model.prompt_batch import PromptBatch
from onesearch.model.prompt_inputs import PromptInputs
from onesearch.model.token_vocabulary import MARKS, TokenVocabulary

CODEBOOKS = (9, 9, 9, 9, 9)
N_ITEMS = 12
SIDS = np.random.default_rng(0).integers(0, 9, (N_ITEMS, 5))
VOCABULARY = TokenVocabulary.train(["red lamp", "blue sofa", "garden bench f 24-30"], 300, CODEBOOKS)
CLICKED_FOR = np.array([[3, 4, 5], [7, -1, -1], [8, 9, 1], [-1, -1, -1]], np.int32)  # best first
KEYWORDS = [["tent", "sofa"], [], ["lamp"], []]


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def featurize(texts):
    """Every text has features of its own, a function of the text."""
    rngs = [np.random.default_rng(sum(map(ord, text))) for text in texts]
    vectors = unit(np.stack([rng.standard_normal(3) for rng in rngs]))
    sids = np.stack([rng.integers(0, 9, 5) for rng in rngs]).astype(np.int32)
    head_rows = unit(np.stack([rng.standard_normal(4) for rng in rngs]))
    return TextFeatures(list(texts), VOCABULARY.tokens(texts, 24), vectors, sids, head_rows)


def requests() -> Requests:
    return Requests(
        query=["red lamp", "sofa", "", "garden bench"],
        user=np.array([0, 1, 2, -1]),
        profile=["f 24-30", "", "f 24-30", ""],
        recent_queries=[("sofa", "blue sofa", "tent", "bench"), (), ("lamp",), ()],
        clicked=np.array([[-1, 0, 1, 2], [5, 6, 0, 11], [-1, -1, -1, 4], [-1, -1, -1, -1]], np.int32),
        clicked_queries=np.array([[-1, 0, 1, 2], [1, 1, 0, -1], [-1, -1, -1, 0], [-1, -1, -1, -1]], np.int32),
        ordered=np.array([[-1, 2], [6, 5], [-1, -1], [-1, -1]], np.int32),
        query_texts=["red lamp", "sofa", "unheard of"],
    )


def plain_uid(items: list[int]) -> list[int]:
    weights = [math.exp(math.sqrt(i)) for i in range(1, len(items) + 1)]
    sums = [sum(w * int(SIDS[i][level]) for w, i in zip(weights, items, strict=True)) for level in range(5)]
    return [math.ceil(total / sum(weights) - 1e-9) for total in sums]


def plain_prompt(settings: PromptSettings, made: Requests, i: int, keywords: list[str] | None = None) -> list[int]:
    """One prompt as a list of tokens."""

    def sid(code):
        return [VOCABULARY.text_size + len(MARKS) + 9 * level + int(c) for level, c in enumerate(code)]

    def words(text, limit):
        return VOCABULARY.tokens([text], limit)[0].tolist() if text else []

    def marked(name, tokens):
        return [VOCABULARY.mark(name), *tokens] if tokens else []

    def items(rows):
        return [token for row in rows for token in sid(SIDS[row])]

    filler = [int(row) for row in CLICKED_FOR[i][: settings.clicked_for_query][::-1] if row >= 0]
    filler = [] if settings.fill == "none" else filler
    long = max(settings.long, settings.short)
    clicked = [int(row) for row in made.clicked[i][-long:] if row >= 0] if long else []
    ordered = [int(row) for row in made.ordered[i][-long:] if row >= 0] if long else []
    short = (filler + clicked)[-settings.short :] if settings.short else []
    orders = (filler + ordered)[-max(settings.short, 1) :]
    out = [VOCABULARY.mark("task:search")]
    if settings.uid:
        out += marked("uid", [token for part in (short, orders) if part for token in sid(plain_uid(part))])
    out += marked("q", words(made.query[i], settings.query_tokens))
    if settings.query_sid and made.query[i]:
        out += marked("sid_q", sid(featurize([made.query[i]]).sids[0]))
    if settings.recent_queries:
        recent = made.recent_queries[i][-settings.recent_queries :]
        out += marked("seq_q", [t for text in recent for t in words(text, 6)])
    out += marked("short", items(short))
    if settings.fill == "always":
        out += marked("clicked_for_q", items(filler))
    if settings.profile:
        out += marked("profile", words(made.profile[i], 8))
    if keywords is not None:
        return out + marked("kw", [t for text in keywords for t in words(text, 4)])
    return out + [VOCABULARY.mark("think")] * settings.think


SETTINGS = {
    "defaults": PromptSettings(),
    "small": PromptSettings(short=2, long=3, clicked_for_query=2, recent_queries=2, query_tokens=1, think=2),
    "missing": PromptSettings(fill="missing", short=3),
    "none": PromptSettings(fill="none"),
    "bare": PromptSettings(
        uid=False, query_sid=False, profile=False, short=0, long=0, recent_queries=0, fill="missing"
    ),
}


def inputs_of(settings: PromptSettings) -> PromptInputs:
    return PromptInputs.from_requests(requests(), featurize, settings, CLICKED_FOR, KEYWORDS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_batch_is_the_prompts_written_one_by_one(name):
    settings, made, rows = SETTINGS[name], requests(), np.array([3, 0, 2, 1, 0])
    builder, inputs = PromptBuilder(VOCABULARY, settings, SIDS), inputs_of(settings)
    student, teacher = builder.search_prompt(inputs, rows), builder.search_prompt(inputs, rows, keywords=True)
    for place, i in enumerate(rows.tolist()):
        for batch, expected in (
            (student, plain_prompt(settings, made, i)),
            (teacher, plain_prompt(settings, made, i, KEYWORDS[i])),
        ):
            assert batch.tokens[place][batch.mask[place]].tolist() == expected
            assert batch.mask[place].tolist() == [j < len(expected) for j in range(batch.mask.shape[1])]
    lengths = [len(plain_prompt(settings, made, i)) for i in range(4)]
    assert builder.search_lengths(inputs).tolist() == lengths


@pytest.mark.parametrize("name", SETTINGS)
def test_no_prompt_is_longer_than_the_longest(name):
    """A shopper of whom everything is known, with long texts, has a prompt of that many tokens."""
    settings, text = SETTINGS[name], " ".join(["garden bench f 24-30"] * 9)
    full = Requests(
        query=[text],
        user=np.array([0]),
        profile=[text],
        recent_queries=[(text,) * 9],
        clicked=np.zeros((1, 60), np.int32),
        clicked_queries=np.zeros((1, 60), np.int32),
        ordered=np.zeros((1, 60), np.int32),
        query_texts=[text],
    )
    inputs = PromptInputs.from_requests(full, featurize, settings, np.zeros((1, 9), np.int32))
    tokens = PromptBuilder(VOCABULARY, settings, SIDS).search_lengths(inputs)
    assert tokens.tolist() == [longest_prompt(settings, 5) - settings.query_vector]


def test_items_of_the_longest_prompt():
    """One token each, as many as there may be of all kinds together."""
    plain = PromptSettings(fill="none")
    rows = PromptSettings(fill="none", item_tokens="row", evidence=EvidenceSettings(clicked=4, lexical=5, most=7))
    assert longest_prompt(rows, 5) == longest_prompt(plain, 5) - (1 + 5 * plain.short) + plain.short + 7
    few = PromptSettings(fill="none", item_tokens="row", evidence=EvidenceSettings(clicked=4, together=1, most=7))
    assert longest_prompt(few, 5) == longest_prompt(rows, 5) - 2


def test_vectors_and_head_rows_are_those_of_the_query_and_zero_without_one():
    builder, inputs = PromptBuilder(VOCABULARY, PromptSettings(), SIDS), inputs_of(PromptSettings())
    batch = builder.search_prompt(inputs, np.array([1, 2]))
    known = featurize(["sofa"])
    np.testing.assert_array_equal(batch.query_vectors, np.stack([known.vectors[0], np.zeros(3)]).astype(np.float32))
    np.testing.assert_array_equal(batch.query_head_rows, np.stack([known.head_rows[0], np.zeros(4)]).astype(np.float32))
    assert batch.keyword_vectors is None
    hidden = builder.search_prompt(inputs, np.array([1]), query_text=False)
    assert not hidden.query_vectors.any() and not hidden.query_head_rows.any()


def test_a_teachers_head_row_is_fused_with_its_keywords():
    builder, inputs = PromptBuilder(VOCABULARY, PromptSettings(), SIDS), inputs_of(PromptSettings())
    batch = builder.search_prompt(inputs, np.arange(2), keywords=True)
    lamp, keys = featurize(["red lamp"]), featurize(["tent", "sofa"])
    fused = lamp.head_rows + unit(keys.head_rows.mean(0, keepdims=True))
    np.testing.assert_allclose(batch.query_head_rows[0], unit(fused)[0], atol=1e-6)
    np.testing.assert_allclose(batch.keyword_vectors[0], keys.vectors.mean(0), atol=1e-6)
    np.testing.assert_allclose(batch.query_head_rows[1], featurize(["sofa"]).head_rows[0], atol=1e-6)  # no keywords
    assert not batch.keyword_vectors[1].any()


def test_long_behaviour_holds_clicks_orders_and_clicks_for_queries_like_this_one():
    made = requests()
    settings = PromptSettings()
    codes = PromptBuilder(VOCABULARY, settings, SIDS).search_prompt(inputs_of(settings), np.arange(4)).long_codes
    assert codes.shape == (4, 3, 4, 3)
    for i in range(4):
        relevant = []
        for item, number in zip(made.clicked[i], made.clicked_queries[i], strict=True):
            pair = [made.query[i], made.query_texts[number]] if number >= 0 and made.query[i] else []
            near = bool(pair) and float(np.prod(featurize(pair).vectors, axis=0).sum()) >= 0.5
            relevant.append(int(item) if near else -1)
        streams = [made.clicked[i].tolist(), [-1, -1, *made.ordered[i].tolist()], relevant]
        expected = [[SIDS[row][:3].tolist() if row >= 0 else [-1] * 3 for row in stream] for stream in streams]
        assert codes[i].tolist() == expected
    assert (codes[:, 2] >= 0).any()  # some click was relevant


def test_the_other_prompts():
    builder, texts = PromptBuilder(VOCABULARY, PromptSettings(query_tokens=2), SIDS), featurize(["red lamp", "sofa"])
    text = builder.text_prompt(texts, np.array([0, 1]), "task:title_to_sid", with_sid=True)
    words = VOCABULARY.tokens(["red lamp"], 2)[0].tolist()
    expected = [VOCABULARY.mark("task:title_to_sid"), VOCABULARY.mark("q"), *words, VOCABULARY.mark("sid_q")]
    expected += VOCABULARY.sid_tokens(texts.sids[:1])[0].tolist()
    assert text.tokens[0][text.mask[0]].tolist() == expected and text.long_codes is None
    sid = builder.sid_prompt(SIDS[:2], "task:sid_to_query", 3, 4)
    assert sid.tokens[1].tolist() == [VOCABULARY.mark("task:sid_to_query"), *VOCABULARY.sid_tokens(SIDS[1:2])[0]]
    assert sid.query_vectors.shape == (2, 3) and sid.query_head_rows.shape == (2, 4)


def test_concatenated_batches_are_each_as_alone():
    builder, inputs = PromptBuilder(VOCABULARY, PromptSettings(), SIDS), inputs_of(PromptSettings())
    parts = [
        builder.search_prompt(inputs, np.array([3])),
        builder.search_prompt(inputs, np.array([0, 1]), keywords=True),
    ]
    both = PromptBatch.concatenate(parts)
    for part, rows in zip(parts, (slice(0, 1), slice(1, 3)), strict=True):
        width = part.tokens.shape[1]
        assert torch.equal(both.tokens[rows, :width], part.tokens) and not both.mask[rows, width:].any()
        assert torch.equal(both.mask[rows, :width], part.mask)
        for name in ("query_vectors", "query_head_rows", "long_codes"):
            assert torch.equal(getattr(both, name)[rows], getattr(part, name))
    assert not both.keyword_vectors[0].any() and torch.equal(both.keyword_vectors[1:], parts[1].keyword_vectors)
    with pytest.raises(ValueError, match="long behaviour"):
        PromptBatch.concatenate([parts[0], builder.sid_prompt(SIDS[:1], "task:sid_to_query", 3, 4)])


def test_ragged_tokens_are_cut_on_the_right():
    tokens = VOCABULARY.tokens(["garden bench", ""], 1)
    assert isinstance(tokens, Ragged) and tokens.lengths.tolist() == [1, 0]
    assert tokens[0].tolist() == VOCABULARY.tokens(["garden bench"], 24)[0].tolist()[:1]


def test_many_texts_are_tokenised_in_parts(monkeypatch):
    texts = ["red lamp", "", "blue sofa", "garden bench f", "24-30", "sofa", "red"]
    whole = VOCABULARY.tokens(texts, 3)
    monkeypatch.setattr(token_vocabulary, "_TOGETHER", 3)
    parts = VOCABULARY.tokens(texts, 3)
    assert parts.values.dtype == np.int32 and [row.tolist() for row in parts] == [row.tolist() for row in whole]
    assert [row.tolist() for row in whole] == [VOCABULARY.tokens([text], 3)[0].tolist() for text in texts]
    assert len(VOCABULARY.tokens([], 3)) == 0
