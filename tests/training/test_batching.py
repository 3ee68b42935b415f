import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.training.batching import BatchSource, TaskMixture, made_ahead


def source(lengths, batch_size=8, **more):
    return BatchSource(np.asarray(lengths), lambda rows: rows, batch_size, **more)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=300),
    st.integers(1, 40),
    st.integers(0, 5),
    st.sampled_from([None, 1, 30, 500]),
)
def test_an_epoch_visits_every_row_once(lengths, batch_size, seed, tokens):
    made = source(lengths, batch_size, seed=seed, tokens=tokens, epochs=2)
    for epoch in range(2):
        steps = range(epoch * made.steps_per_epoch, (epoch + 1) * made.steps_per_epoch)
        batches = [made.rows(step) for step in steps]
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
        assert all(len(rows) > 0 for rows in batches)
        if tokens is None:
            assert max(map(len, batches)) <= batch_size and np.ptp([len(rows) for rows in batches]) <= 1
    assert made.steps == 2 * made.steps_per_epoch


def test_a_step_is_the_same_whenever_it_is_asked_for():
    lengths = np.random.default_rng(0).integers(1, 99, 1000)
    in_order = [source(lengths, seed=3, epochs=3).rows(step) for step in range(375)]
    jumping = source(lengths, seed=3, epochs=3)
    for step in np.random.default_rng(1).permutation(375)[:60]:
        np.testing.assert_array_equal(jumping.rows(int(step)), in_order[step])
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(in_order[:125], in_order[125:250], strict=True))
    other = source(lengths, seed=4, epochs=3)
    assert other.fingerprint() != jumping.fingerprint()
    assert (other.rows(0) != jumping.rows(0)).any()


def test_buckets_save_padding():
    lengths = np.random.default_rng(0).integers(1, 100, 20_000)
    made = source(lengths, 100)
    widest = [(lengths[made.rows(step)].max(), made.rows(step).size) for step in range(made.steps)]
    padded = sum(width * rows for width, rows in widest)
    assert padded < 1.05 * lengths.sum()  # unsorted batches would need nearly twice the sum
    # and the order of the batches has nothing to do with their lengths
    assert abs(np.corrcoef([width for width, _ in widest], np.arange(len(widest)))[0, 1]) < 0.2


def test_token_batches_hold_about_the_same_work():
    lengths = np.random.default_rng(0).integers(1, 100, 20_000)
    made = source(lengths, tokens=5000)
    sums = np.array([lengths[made.rows(step)].sum() for step in range(made.steps)])
    assert abs(sums.mean() - 5000) < 100 and sums.max() < 5300
    assert min(len(made.rows(step)) for step in range(made.steps)) < 60  # batches of long rows are small


def test_weights_are_expected_counts():
    weights = np.array([0.0, 1.0, 2.0, 5.0, 0.0] * 20)
    made = source(np.ones(100, int), 10, weights=weights, epochs=1)
    counts = np.bincount(np.concatenate([made.rows(step) for step in range(made.steps)]), minlength=100)
    expected = 100 * weights / weights.sum()
    assert counts.sum() == 100 and (np.abs(counts - expected) < 1).all() and (counts[weights == 0] == 0).all()


@given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_processes_share_a_step_without_overlap(world, n, batch_size):
    made = source(np.arange(n), batch_size)
    for step in range(made.steps):
        whole, shares = made.rows(step), [made.rows(step, rank, world) for rank in range(world)]
        assert all(len(share) for share in shares)
        if len(whole) >= world:
            assert sorted(np.concatenate(shares).tolist()) == sorted(whole.tolist())


def test_fractional_epochs_and_given_steps():
    assert source(np.ones(100), 10, epochs=1.5).steps == 15
    assert source(np.ones(100), 10, epochs=0.01).steps == 1
    made = source(np.ones(100), 10, steps=77)
    assert made.steps == 77 and made.epoch(25) == 2.5
    assert made.batch(3).samples == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lengths": []}, "no rows to train on of task 'q2i'"),
        ({"lengths": [1], "batch_size": 0}, "must be >= 1"),
        ({"lengths": [1, 2], "weights": np.array([1.0])}, "have shape"),
        ({"lengths": [1, 2], "weights": np.array([1.0, -1.0])}, "not all zero"),
        ({"lengths": [1, 2], "weights": np.array([np.nan, 1.0])}, "finite"),
    ],
)
def test_wrong_sources_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        source(**arguments, name="q2i")


def test_mixture_keeps_its_shares_everywhere_and_continues_each_task():
    sources = {name: source(np.ones(50), 5, seed=seed) for seed, name in enumerate(("a", "b", "c"))}
    made = TaskMixture(sources, {"a": 3, "b": 1, "c": 0}, 400, seed=2)
    assert made.steps == 400 and made.names == ["a", "b"]
    assert np.bincount(made.task).tolist() == [300, 100]
    for start in range(0, 400, 40):
        assert abs((made.task[start : start + 40] == 1).sum() - 10) <= 2
    turns = {"a": 0, "b": 0}
    for step in range(40):
        batch = made.batch(step)
        np.testing.assert_array_equal(batch.content, sources[batch.task].rows(turns[batch.task]))
        turns[batch.task] += 1
    assert made.epoch(400) == 30.0
    again = TaskMixture(sources, {"a": 3, "b": 1}, 400, seed=2)
    assert again.fingerprint() == made.fingerprint()
    assert TaskMixture(sources, {"a": 3, "b": 1}, 400, seed=3).fingerprint() != made.fingerprint()


def test_mixture_refuses_unknown_tasks_and_empty_shares():
    sources = {"a": source(np.ones(5))}
    with pytest.raises(ValueError, match=r"unknown tasks \['b'\]"):
        TaskMixture(sources, {"b": 1}, 10)
    for shares in ({"a": 0}, {"a": -1}, {}):
        with pytest.raises(ValueError, match="not all zero"):
            TaskMixture(sources, shares, 10)


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_what_is_made_ahead_comes_in_order_and_none_too_early(ahead):
    asked = []

    def make(number):
        asked.append(number)
        return number * number

    for taken, value in enumerate(made_ahead(make, range(4, 9), ahead), 1):
        assert value == (3 + taken) ** 2
        assert len(asked) <= min(taken + ahead, 5)
    assert asked == [4, 5, 6, 7, 8]


def test_what_is_left_is_not_made_once_nobody_wants_it():
    begun, go_on, asked = threading.Event(), threading.Event(), []

    def make(number):
        asked.append(number)
        if number == 1:
            begun.set()
            go_on.wait(60)
        return number

    some = made_ahead(make, range(100), 3)
    assert next(some) == 0 and begun.wait(60)
    threading.Timer(0.2, go_on.set).start()
    some.close()
    assert asked == [0, 1], "the one that was under way, and no other"
