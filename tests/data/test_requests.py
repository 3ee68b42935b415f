from dataclasses import replace

import numpy as np
import pytest

from onesearch.data.requests import Requests

TWO = Requests(
    ["shoe", "boot"],
    np.array([4, -1]),
    ["F 24-30", ""],
    [("hat",), ()],
    np.array([[-1, 3], [1, 2]], np.int32),
    np.array([[-1, 0], [1, 1]], np.int32),
    np.array([[5], [-1]], np.int32),
    ("hat", "coat"),
)


def test_select_takes_every_field_along():
    other = TWO.select(np.array([1, 0, 1]))
    assert len(other) == 3
    assert (other.query, other.profile) == (["boot", "shoe", "boot"], ["", "F 24-30", ""])
    assert (other.user.tolist(), other.recent_queries) == ([-1, 4, -1], [(), ("hat",), ()])
    assert other.clicked.tolist() == [[1, 2], [-1, 3], [1, 2]]
    assert other.clicked_queries.tolist() == [[1, 1], [-1, 0], [1, 1]]
    assert other.ordered.tolist() == [[-1], [5], [-1]]
    assert other.query_texts == ("hat", "coat")


def test_anonymous_requests_have_no_history():
    requests = Requests.anonymous(["shoe", ""])
    assert (requests.user.tolist(), requests.profile) == ([-1, -1], ["", ""])
    assert requests.clicked.shape == requests.ordered.shape == (2, 0) and requests.recent_queries == [(), ()]


def test_a_field_of_another_length_is_named():
    for name in ("user", "profile", "recent_queries", "clicked", "clicked_queries", "ordered"):
        with pytest.raises(ValueError, match=rf"Requests\.{name} has 1 rows but query has 2"):
            replace(TWO, **{name: getattr(TWO, name)[:1]})
