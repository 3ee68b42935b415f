from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from onesearch.data.text import split_words
from onesearch.encoding import ngram_features
from onesearch.encoding.encoder_loading import load_encoder
from onesearch.encoding.ngram_features import NgramFeatures, character_ngrams
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings

TEXTS = ["red steel lamp", "red oak table", "blue steel lamp 60 watt", "红色大衣", "红色手机壳", "steel lamp"]


@pytest.fixture(scope="module")
def encoder():
    return StaticEncoder.build(TEXTS, StaticSettings(dimension=64, min_word=1, min_pair=1, ngram_buckets=500))


def test_features_are_words_pairs_and_ngrams():
    features = NgramFeatures.build(["red lamp", "red lamp"], sizes=(3,), buckets=100)
    assert features.words == ["lamp", "red"]
    bag = features.bags(["red lamp"])[0]
    ngrams = [3 + b for w in ("lamp", "red") for b in character_ngrams(w, (3,), 100)]
    assert sorted(bag.tolist()) == sorted([0, 1, 2, *ngrams])  # the pair (red, lamp) is feature 2


def test_pairs_do_not_cross_texts_and_unknown_words_keep_ngrams():
    features = NgramFeatures.build(["red lamp"] * 2, sizes=(3,), buckets=100)
    assert 2 not in features.bags(["red", "lamp"]).values
    unknown = features.bags(["lampp"])[0]
    assert sorted(unknown.tolist()) == sorted(3 + b for b in character_ngrams("lampp", (3,), 100))


@given(st.lists(st.text("ab c", max_size=9), max_size=12), st.integers(1, 3), st.integers(1, 3))
def test_the_vocabulary_is_that_of_a_plain_count(texts, min_word, min_pair):
    built = NgramFeatures.build(texts, min_word, min_pair)
    documents = [split_words(text) for text in texts]
    counts = Counter(word for document in documents for word in set(document))
    words = sorted(word for word in counts if counts[word] >= min_word)
    pairs = Counter(
        pair
        for document in documents
        for pair in set(pairwise(document))
        if counts[pair[0]] >= min_word and counts[pair[1]] >= min_word
    )
    kept = sorted(pair for pair in pairs if pairs[pair] >= min_pair)
    assert built.words == words
    assert built.pairs.tolist() == [words.index(one) * len(words) + words.index(other) for one, other in kept]
    seen = [*(counts[word] for word in words), *(pairs[pair] for pair in kept)]
    np.testing.assert_allclose(built.idf, [np.log1p(len(texts) / count) for count in seen], rtol=1e-6)


def test_bags_of_some_texts_at_a_time_are_those_of_all(encoder, monkeypatch):
    texts = ["red lamp", "", "blue lampp zzz", "red red lamp", "sofa"]
    whole = encoder.features.bags(texts)
    monkeypatch.setattr(ngram_features, "_TEXTS_AT_ONCE", 2)
    parts = encoder.features.bags(texts)
    np.testing.assert_array_equal(parts.values, whole.values)
    np.testing.assert_array_equal(parts.offsets, whole.offsets)
    assert len(encoder.features.bags([])) == 0


def test_vectors_are_unit_and_overlap_is_similar(encoder):
    vectors = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    cosine = vectors @ vectors.T
    assert cosine[0, 5] > cosine[0, 1] and cosine[3, 4] > cosine[3, 0] + 0.1


def test_a_typo_stays_closer_than_another_word(encoder):
    lamp, typo, other = encoder.encode(["table", "tabel", "steel"])
    assert lamp @ typo > lamp @ other + 0.1


def test_text_without_features_gives_zeros(encoder):
    assert not encoder.encode(["", "?!"]).any()
    assert encoder.encode([]).shape == (0, 64)


@given(st.lists(st.text(max_size=12), max_size=5))
def test_a_vector_does_not_depend_on_its_batch(texts):
    encoder = StaticEncoder.build(TEXTS, StaticSettings(dimension=8, min_word=1, min_pair=1, ngram_buckets=50))
    together = encoder.encode(texts)
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, atol=1e-6)


def test_save_and_load(encoder, tmp_path):
    encoder.save(tmp_path)
    np.testing.assert_array_equal(load_encoder(tmp_path).encode(TEXTS), encoder.encode(TEXTS))


def test_loading_from_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the encoder stage"):
        load_encoder(tmp_path)


def test_one_update_is_one_adam_step_on_the_touched_rows_only():
    encoder = StaticEncoder.build(TEXTS, StaticSettings(dimension=4, min_word=1, min_pair=1, ngram_buckets=50))
    before = encoder.table.clone()
    trainer = encoder.trainer(TEXTS, learning_rate=0.1)
    trainer.embed(np.array([1, 1])).sum().backward()
    trainer.update(1.0)
    touched = np.unique(encoder.features.bags([TEXTS[1]]).values)
    change = (encoder.table - before).numpy()
    untouched = np.setdiff1d(np.arange(len(before)), touched)
    assert not change[untouched].any()
    np.testing.assert_allclose(change[touched], -0.1, rtol=1e-4)  # equal gradients: a first Adam step is the rate


def test_through_sentence_transformers(encoder, tmp_path):
    from examples.sentence_export import as_sentence_transformer

    model = as_sentence_transformer(encoder)
    np.testing.assert_allclose(model.encode(TEXTS), encoder.encode(TEXTS), atol=1e-6)
    assert model.similarity(model.encode(["red"]), model.encode(["red"])).item() == pytest.approx(1.0, abs=1e-5)


def test_a_vector_is_the_unit_sum_of_its_features_vectors(encoder):
    features, table = encoder.features, encoder.table.numpy()
    number = {word: i for i, word in enumerate(features.words)}
    grams = len(features.words) + len(features.pairs)
    for text in ("red steel lamp", "steel lmap 60"):
        words = text.split()
        bag = [number[word] for word in words if word in number]
        for first, second in pairwise(words):
            key = number.get(first, -1) * len(number) + number.get(second, -1)
            if first in number and second in number and key in features.pairs.tolist():
                bag.append(len(number) + features.pairs.tolist().index(key))
        for word in words:
            bag += [grams + bucket for bucket in character_ngrams(word, features.sizes, features.buckets)]
        total = table[bag].sum(0)
        np.testing.assert_allclose(encoder.encode([text])[0], total / np.linalg.norm(total), atol=1e-5)


def test_an_untrained_vector_is_as_long_as_its_feature_is_rare():
    config = StaticSettings(dimension=4000, min_word=1, min_pair=1, ngram_buckets=30)
    encoder = StaticEncoder.build(TEXTS, config)
    words, pairs, grams = encoder.features.kinds
    lengths = encoder.table.norm(dim=1).numpy()
    idf = encoder.features.idf
    np.testing.assert_allclose(lengths[words], idf[words], rtol=0.06)
    np.testing.assert_allclose(lengths[pairs], 0.5 * idf[pairs], rtol=0.06)
    np.testing.assert_allclose(lengths[grams], 0.3, rtol=0.06)
    lamp = encoder.features.words.index("lamp")
    assert idf[lamp] == pytest.approx(np.log1p(len(TEXTS) / 3))  # three of the texts hold it


def test_updates_are_adam_with_one_second_moment_per_row():
    encoder = StaticEncoder.build(TEXTS, StaticSettings(dimension=4, min_word=1, min_pair=1, ngram_buckets=50))
    start = encoder.table.clone().numpy().astype(np.float64)
    trainer = encoder.trainer(TEXTS, learning_rate=0.1)
    mean, square, steps = np.zeros_like(start), np.zeros((len(start), 1)), np.zeros((len(start), 1))
    rng = np.random.default_rng(0)
    for texts, rate in (([0, 1], 1.0), ([1, 2], 0.5), ([5, 1], 0.25)):
        gradient = np.zeros_like(start)
        for text in texts:  # two reads of the table before the update
            slope = rng.standard_normal(4).astype(np.float32)
            (trainer.embed(np.array([text])) @ torch.from_numpy(slope)).sum().backward()
            np.add.at(gradient, encoder.features.bags([TEXTS[text]]).values, slope)
        trainer.update(rate)
        touched = np.unique(encoder.features.bags([TEXTS[text] for text in texts]).values)
        steps[touched] += 1
        mean[touched] = 0.9 * mean[touched] + 0.1 * gradient[touched]
        square[touched] = 0.99 * square[touched] + 0.01 * np.square(gradient[touched]).mean(1, keepdims=True)
        corrected = mean[touched] / (1 - 0.9 ** steps[touched])
        start[touched] -= 0.1 * rate * corrected / np.sqrt(square[touched] / (1 - 0.99 ** steps[touched]))
    np.testing.assert_allclose(encoder.table.numpy(), start, atol=1e-5)
