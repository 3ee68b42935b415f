"""Small random logs for property tests."""

from datetime import UTC, datetime, timedelta

import polars as pl
from hypothesis import settings
from hypothesis import strategies as st

from onesearch.data.records import Item, PageView, User, items_frame, page_views_frame, users_frame
from onesearch.data.split import Split, split

ITEM_IDS = [f"i{n}" for n in range(6)]
ITEMS = items_frame([Item(name, f"title {name}") for name in ITEM_IDS])
USERS = users_frame([User("u0", "F", "24-30"), User("u1"), User("u2", None, "50+")])
START = datetime(2024, 1, 1, tzinfo=UTC)
quick = settings(max_examples=25, deadline=None)


def minute(number: int) -> datetime:
    return START + timedelta(minutes=number)


_ids = st.lists(st.sampled_from([*ITEM_IDS, "unknown"]), max_size=4).map(tuple)
_page_view = st.builds(
    PageView,
    page_view_id=st.just(""),
    query=st.sampled_from(["red shoe", "Red  Shoe", "boots", "", "靴子"]),
    user_id=st.sampled_from([None, "u0", "u1", "stranger"]),
    session_id=st.sampled_from([None, "s0", "s1"]),
    time=st.one_of(st.none(), st.integers(0, 8).map(minute)),
    shown=_ids,
    clicked=_ids,
    ordered=_ids,
)
page_view_lists = st.lists(_page_view, max_size=14)


def frame(page_views: list[PageView]) -> pl.DataFrame:
    return page_views_frame(page_views)


def split_if_it_fills(log: list[PageView], valid: float, test: float, **how) -> Split | None:
    """The split of a random log; None where a part would be empty."""
    try:
        parts = split(frame(log), valid, test, **how)
    except ValueError as error:
        assert "would leave nothing in" in str(error) or not log
        return None
    shares = (1.0, valid, test)
    assert all(
        len(part) or not share for part, share in zip((parts.train, parts.valid, parts.test), shares, strict=True)
    )
    return parts
