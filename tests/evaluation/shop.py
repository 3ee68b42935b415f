"""A tiny shop with brand-loyal shoppers, for tests of baselines and cascade."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.histories import Histories
from onesearch.data.records import ITEMS, PAGE_VIEWS, USERS
from onesearch.data.split import split

KINDS, BRANDS = ["hammer", "drill", "hose", "lamp"], ["acme", "bolt", "crux"]
START = datetime(2024, 1, 1, tzinfo=UTC)


def make(page_views=900, seed=0):
    generator = np.random.default_rng(seed)
    items = pl.DataFrame(
        [
            {
                "item_id": f"i{i}",
                "title": f"{KINDS[i % 4]} number {i}",
                "brand": BRANDS[i // 4 % 3],
                "category": ["tools", KINDS[i % 4]],
                "price": float(5 + i),
                "listed_at": START - timedelta(days=i),
                "in_stock": True,
            }
            for i in range(60)
        ],
        ITEMS,
    )
    users = pl.DataFrame([{"user_id": f"u{i}", "gender": "F" if i % 2 else "M"} for i in range(30)], USERS)
    rows = []
    for number in range(page_views):
        user, kind = int(generator.integers(30)), int(generator.integers(4))
        same_kind = [i for i in range(60) if i % 4 == kind]
        liked = [i for i in same_kind if i // 4 % 3 == user % 3]  # every shopper has one brand
        shown = generator.permutation(same_kind)[:8].tolist() + liked[:2]
        clicked = liked[int(generator.integers(len(liked)))]
        rows.append(
            {
                "page_view_id": f"p{number}",
                "user_id": f"u{user}",
                "time": START + timedelta(hours=number),
                "query": KINDS[kind],
                "shown": [f"i{i}" for i in dict.fromkeys([*shown, clicked])],
                "clicked": [f"i{clicked}"],
                "ordered": [f"i{clicked}"] if number % 3 == 0 else [],
            }
        )
    log = pl.DataFrame(rows, PAGE_VIEWS)
    parts = split(log, 0.2, 0.2)
    histories = Histories(log, items, users)
    table = np.eye(4, dtype=np.float32)[np.arange(60) % 4] + 0.01 * generator.normal(size=(60, 4)).astype(np.float32)
    vectors = table / np.linalg.norm(table, axis=1, keepdims=True)

    def encode(texts):
        rows = np.array([KINDS.index(text) if text in KINDS else 4 for text in texts])
        return np.eye(5, 4, dtype=np.float32)[rows]

    return SimpleNamespace(
        items=items,
        users=users,
        parts=parts,
        vectors=vectors,
        encode=encode,
        statistics=ClickStatistics.from_page_views(parts.train, items),
        requests={name: histories.requests(getattr(parts, name)) for name in ("train", "valid", "test")},
        targets={name: histories.targets(getattr(parts, name)) for name in ("train", "valid", "test")},
    )
