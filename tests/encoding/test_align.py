import numpy as np
import pytest

from onesearch.encoding.click_pairs import Edges, Pairs, Triples, drop_distant
from onesearch.encoding.encoder_alignment import EncoderAlignmentSettings, align_encoder
from onesearch.encoding.held_out_vectors import fold_numbers, held_out_vectors, procrustes
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings

COLOURS, THINGS = ("red", "blue", "green", "black", "white"), ("lamp", "table", "chair", "sofa", "desk", "bed")
ITEMS = [f"{colour} {thing} item" for colour in COLOURS for thing in THINGS]
SLANG = {thing: f"zz{thing[::-1]}" for thing in THINGS}  # query words that no title holds
QUERIES = [f"{colour} {SLANG[thing]}" for colour in COLOURS for thing in THINGS]


def edges(left, right, weight=None):
    ones = np.ones(len(left)) if weight is None else weight
    return Edges(np.asarray(left, np.int64), np.asarray(right, np.int64), np.asarray(ones, np.float32))


def fresh(seed=0, dimension=32):
    config = StaticSettings(dimension=dimension, min_word=1, min_pair=2, ngram_buckets=500)
    return StaticEncoder.build(ITEMS + QUERIES, config, seed)


def pairs(kept=range(30)):
    return Pairs(QUERIES, ITEMS, edges(list(kept), list(kept)))


CONFIG = EncoderAlignmentSettings(epochs=150, batch_size=32, nested=(16,))


def hits(encoder, width=32):
    items, queries = encoder.encode(ITEMS)[:, :width], encoder.encode(QUERIES)[:, :width]
    items, queries = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (items, queries))
    return (queries @ items.T).argmax(1) == np.arange(30)


def test_training_finds_what_words_do_not_say_and_generalises():
    train = [i for i in range(30) if i % 5]  # every colour and thing is seen, these combinations are not
    encoder = fresh()
    before = hits(encoder).mean()
    align_encoder(encoder, pairs(train), CONFIG)
    after = hits(encoder)
    assert before < 0.5 and after[train].mean() > 0.9 and after[::5].mean() >= 0.5
    assert hits(encoder, 16).mean() > 0.7  # the leading dimensions alone (nested)


def test_same_seed_same_weights():
    config = EncoderAlignmentSettings(epochs=5, batch_size=16)
    one, two = (align_encoder(fresh(), pairs(), config) for _ in range(2))
    assert (one.encode(QUERIES) == two.encode(QUERIES)).all()


def cosines(encoder, left, right):
    return np.einsum("nd,nd->n", encoder.encode(left), encoder.encode(right))


@pytest.mark.parametrize("term", ["q2q", "i2i", "rank", "relevance"])
def test_each_term_acts_alone_and_can_be_switched_off(term):
    left, right = np.arange(0, 12), np.arange(12, 24)
    extra = {
        "q2q": {"q2q": edges(left, right)},
        "i2i": {"i2i": edges(left, right)},
        "rank": {"rank": Triples(left, right, (right + 6) % 30)},
        "relevance": {
            "relevance": edges(np.r_[left, left], np.r_[right, (right + 6) % 30], np.r_[[3.0] * 12, [0.0] * 12])
        },
    }[term]
    mined = Pairs(QUERIES, ITEMS, edges(range(30), range(30)), **extra)
    off = {"q2i": 0.0, "q2q": 0.0, "i2i": 0.0, "rank": 0.0, "relevance": 0.0}
    config = EncoderAlignmentSettings(**{**off, term: 1.0}, max_steps=60, epochs=1000, batch_size=64)
    encoder, untouched = align_encoder(fresh(), mined, config), fresh()
    sides = {"q2q": (QUERIES, QUERIES), "i2i": (ITEMS, ITEMS)}.get(term, (QUERIES, ITEMS))
    wanted = [sides[0][i] for i in left], [sides[1][i] for i in right]
    assert cosines(encoder, *wanted).mean() > cosines(untouched, *wanted).mean() + 0.05
    nothing = align_encoder(
        fresh(), mined, EncoderAlignmentSettings(**{**off, "q2i": 1.0}, max_steps=1, learning_rate=1e-12)
    )
    np.testing.assert_allclose(nothing.encode(ITEMS), untouched.encode(ITEMS), atol=1e-5)


def test_pairs_under_the_least_cosine_are_dropped():
    identity = Pairs(ITEMS, ITEMS, edges([0, 1, 2], [0, 1, 20]))
    encoder = fresh()
    vectors = encoder.encode(ITEMS)
    assert drop_distant(identity.q2i, vectors, vectors, 0.9).left.tolist() == [0, 1]


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="the training log has none"):
        align_encoder(fresh(), Pairs([], [], edges([], [])), CONFIG)


def test_procrustes_recovers_a_rotation():
    rng = np.random.default_rng(0)
    points = rng.standard_normal((50, 6)).astype(np.float32)
    rotation = np.linalg.qr(rng.standard_normal((6, 6)))[0].astype(np.float32)
    found = procrustes(points, points @ rotation)
    np.testing.assert_allclose(found, rotation, atol=1e-4)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-5)


def test_held_out_vectors_live_in_the_main_space_but_have_not_seen_their_query():
    main = align_encoder(fresh(), pairs(), CONFIG)
    held = held_out_vectors(main, fresh, pairs(), CONFIG.updated(epochs=60), folds=2)
    np.testing.assert_allclose(np.linalg.norm(held, axis=1), 1, atol=1e-4)
    items = main.encode(ITEMS)
    own = np.einsum("nd,nd->n", held, items)
    seen = np.einsum("nd,nd->n", main.encode(QUERIES), items)
    assert own.mean() < seen.mean() - 0.005  # more like a new query
    assert own.mean() > (held @ items.T).mean() + 0.2  # yet in the same space


def test_folds_depend_on_the_text_only():
    folds = fold_numbers(["a", "b", "a"], 2)
    assert folds[0] == folds[2]
    assert len(np.unique(fold_numbers([str(i) for i in range(50)], 2))) == 2
    with pytest.raises(ValueError, match="at least 2 folds"):
        held_out_vectors(fresh(), fresh, pairs(), CONFIG, folds=1)
