import numpy as np
from benchmarks.speed.bench_training import QUICK, synthetic

from onesearch.common.ragged import Ragged
from onesearch.training.tasks import example_weights


def test_ordered_items_count_once_with_the_higher_weight():
    clicked, ordered = Ragged.from_lists([[4, 7], [1], []]), Ragged.from_lists([[7], [], [2]])
    targets, weights = example_weights(clicked, ordered, order_weight=2.0, limit=8)
    assert [
        dict(zip(targets[i].tolist(), weights[targets.offsets[i] : targets.offsets[i + 1]].tolist(), strict=True))
        for i in range(3)
    ] == [{7: 2.0, 4: 1.0}, {1: 1.0}, {2: 2.0}]


def test_the_limit_keeps_orders_first():
    clicked, ordered = Ragged.from_lists([[1, 2, 3]]), Ragged.from_lists([[3]])
    targets, weights = example_weights(clicked, ordered, order_weight=2.0, limit=2)
    assert targets[0].tolist()[0] == 3 and len(targets[0]) == 2
    np.testing.assert_array_equal(weights, [2.0, 1.0])


def test_the_lengths_of_a_search_task_are_those_of_its_prompts():
    task = synthetic(QUICK).task
    prompt = task.batch(np.arange(len(task.lengths))).prompt
    np.testing.assert_array_equal(task.lengths, prompt.mask.sum(1).numpy())
    assert len(set(task.lengths.tolist())) > 10
