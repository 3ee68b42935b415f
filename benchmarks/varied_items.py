"""A catalogue as large as one likes, made of a run's own items."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace

from onesearch.data.dataset import Dataset
from onesearch.data.records import Item


def varied_items(dataset: Dataset, name: str) -> Iterator[Item]:
    """Items like those of a dataset without end: new ids that begin with ``name``, titles with reordered words."""
    chance = random.Random(0)
    for number in itertools.count():
        item = dataset.item(number % len(dataset.items))
        words = item.title.split()
        chance.shuffle(words)
        yield replace(item, item_id=f"{name}-{number}", title=" ".join(words))
