"""What alignment on sessions learns from and is rewarded by."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from onesearch.data.records import Item, items_frame
from onesearch.pipeline.config_files import apply_overrides
from onesearch.pipeline.preference_stages import rewards_of
from onesearch.pipeline.run_settings import RunSettings
from onesearch.pipeline.session_alignment import settings_of_round, split_sessions

ITEMS = items_frame([Item(f"i{n}", f"item {n}") for n in range(3)])


def config(*overrides):
    values = RunSettings(data={"market": {}}, understanding={"producer": "log-expert"}).model_dump(mode="json")
    return RunSettings.model_validate(apply_overrides(values, settings_of_round(5, overrides), RunSettings))


def test_an_order_is_the_only_reward():
    made = config("grpo.policy=0")
    assert made.grpo.steps == 5 and made.grpo.policy == 0
    rewards, number = rewards_of(
        SimpleNamespace(dataset=SimpleNamespace(items=ITEMS)), made.rewards, ["Boots", "boots", "lamp"]
    )
    assert number == {"boots": 0, "lamp": 1}, "queries are told apart as everywhere"
    none, yes = np.zeros(3, bool), np.array([True, False, False])
    found = rewards.compute(np.array([0, 0, 1]), np.arange(3), yes, yes)
    assert found["total"].tolist() == [4.0, 0.0, 0.0] == found["behaviour"].tolist()
    assert rewards.compute(np.array([0, 0, 1]), np.arange(3), none, none)["total"].tolist() == [0.0] * 3


def sessions(count, ordered):
    begin = datetime(2025, 1, 1, tzinfo=UTC)
    times = [begin + timedelta(minutes=n // 2) for n in range(count)]
    orders = [["i1"] if n in ordered else [] for n in range(count)]
    return pl.DataFrame({"time": times, "ordered": orders}, schema_overrides={"ordered": pl.List(pl.String)})


def test_the_latest_orders_choose_and_a_session_is_never_cut():
    log = sessions(60, range(0, 60))
    split = split_sessions(log.sample(fraction=1.0, shuffle=True, seed=1), ITEMS["item_id"])
    # Two searches a session: a tenth of sixty are the last three sessions.
    assert len(split.train) == 54 and len(split.valid) == 6
    assert split.train["time"].max() < split.valid["time"].min()
    odd = split_sessions(sessions(60, range(10, 60)), ITEMS["item_id"])
    assert len(odd.valid) == 6, "a tenth of fifty is five, and the session that it cuts is whole"


def test_too_few_orders_are_told():
    with pytest.raises(ValueError, match="19 of 60 searches led to an order"):
        split_sessions(sessions(60, range(19)), ITEMS["item_id"])
    log = sessions(60, range(60)).with_columns(ordered=pl.lit(["gone"]))
    with pytest.raises(ValueError, match="0 of 60"):
        split_sessions(log, ITEMS["item_id"])
