from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from onesearch.common.ragged import Ragged
from onesearch.data.requests import Requests
from onesearch.evaluation import slices


def test_query_frequency_counts_normalised_training_queries():
    training = ["Hammer", "hammer ", "HAMMER", "hammer", *["hose"] * 20, "nail"]
    found = slices.query_frequency(["hammer", "  Hose", "nail", "saw"], training)
    assert found.tolist() == ["4-15", "16+", "1-3", "unseen"]
    assert slices.query_frequency(["a"], []).tolist() == ["unseen"]


def test_items_decide_by_the_hardest_target_and_no_target_means_no_group():
    targets = Ragged.from_lists([[0, 1], [1], [], [2]])
    clicks = np.array([100, 5, 0], np.float32)
    assert slices.item_popularity(targets, clicks).tolist() == ["4-15 clicks", "4-15 clicks", "", "0 clicks"]
    shown = np.array([9, 9, 0], np.float32)
    assert slices.item_age(targets, shown).tolist() == ["seen", "seen", "", "cold"]
    ages = np.array([2.0, 400.0, np.nan])
    assert slices.item_age(targets, shown, ages, days=7).tolist() == ["new", "old", "", "cold"]
    assert slices.item_age(targets, shown, np.array([7.0, 400.0, 1.0]), days=7).tolist()[0] == "old", (
        "7 days are not new"
    )


def test_requests_are_of_the_kind_that_all_their_targets_are_of():
    targets = Ragged.from_lists([[0], [2, 1], [0, 1], [], [3]])
    kinds = np.array(["product", "video", "video", "live"])
    assert slices.item_kind(targets, kinds).tolist() == ["product", "video", "", "", "live"]


def test_item_ages_are_days_before_now():
    now = datetime(2024, 5, 2, tzinfo=UTC)
    items = pl.DataFrame(
        {"listed_at": [now - timedelta(days=3), None, now + timedelta(hours=12)]},
        {"listed_at": pl.Datetime("us", "UTC")},
    )
    ages = slices.item_ages(items, now)
    np.testing.assert_allclose(ages, [3, np.nan, -0.5])
    assert slices.item_ages(items.with_columns(pl.lit(None, pl.Datetime("us", "UTC")).alias("listed_at")), now) is None


def test_activity_and_types():
    requests = Requests(
        ["a", "b"],
        np.zeros(2, np.int64),
        ["", ""],
        [(), ()],
        np.array([[-1, -1], [-1, 3]], np.int32),
        np.full((2, 2), -1, np.int32),
        np.full((2, 0), -1, np.int32),
    )
    assert slices.user_activity(requests).tolist() == ["no history", "1-4 clicks"]
    assert slices.query_type(pl.DataFrame({"query_type": ["gift", None]})).tolist() == ["gift", ""]


def test_bands_at_their_bounds():
    assert slices.band_labels(np.array([0, 1, 3, 4, 16, np.nan]), slices.COUNTS).tolist() == [
        "unseen",
        "1-3",
        "1-3",
        "4-15",
        "16+",
        "",
    ]
