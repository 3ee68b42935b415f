"""Sessions of agents: what the stand-in does next, who orders what, what alignment learns from, figures by hand."""

from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from onesearch.data.records import Item
from onesearch.evaluation.agent_figures import METRICS, figures, paired_figures, session_sums
from onesearch.evaluation.agent_sessions import Session, need_rows, session_page_views, shop
from onesearch.evaluation.stand_in_agent import StandInAgent
from onesearch.market.shopping_needs import ShoppingNeed
from onesearch.search.agent_search import AgentItem, AgentPage, AgentRequest, Relaxed
from onesearch.search.questions import Question
from onesearch.search.results import FilterChoices, SearchResult, SearchResults

NEED = ShoppingNeed(
    "red Acme boots",
    "boots",
    ("red", "Acme"),
    ({"Color": frozenset({"red"})}, {"Brand": frozenset({"Acme"})}),
    frozenset({"Shop > Shoes > Boots"}),
    ("Material", "leather"),
)


def item(name, **more):
    return AgentItem(SearchResult(name, 1.0, (), Item(name, name, **more)), (), ())


def page(*items, questions=(), relaxed=()):
    return AgentPage(tuple(items), 100, 1.0, None, None, tuple(questions), tuple(relaxed), ())


FULL = tuple(item(f"i{n}") for n in range(5))
COLOR = Question("attributes.Color", 1.0, (("Red", 4), ("blue", 2)), 0)
BRAND = Question("brand", 1.5, (("acme", 4), ("Swift", 2)), 0)
DEPTH = Question("category", 2.0, (("Shop > Shoes", 4), ("Shop > Lamps", 2)), 0)


def step(agent, shown):
    agent.read(shown)
    return agent.search()


def test_it_answers_what_is_asked_best_then_rules_out_then_says_more():
    agent = StandInAgent(NEED, "ann")
    first = agent.search()
    assert (first.query, first.user, first.k, first.filters, first.exclude) == ("boots", "ann", 5, None, ())
    second = step(agent, page(*FULL, questions=(BRAND, COLOR)))
    assert second.filters == {"brand": "acme"} and second.exclude == ("i0", "i1", "i2", "i3", "i4")
    third = step(agent, page(*FULL, questions=(BRAND, DEPTH, COLOR)))
    assert third.filters == {"brand": "acme", "category": "Shop > Shoes"}, "a filter is set once"
    fourth = step(agent, page(*FULL, questions=(COLOR,)))
    assert fourth.filters["attributes"] == {"Color": "Red"}, "as the shop spells it"
    fifth = step(agent, page(*FULL))
    assert fifth.filters["not"] == {"attributes": {"Material": "leather"}} and fifth.query == "boots"
    assert step(agent, page(*FULL)).query == "red boots"
    assert step(agent, page(*FULL)).query == "Acme red boots"
    # Nothing is left to say: what was not seen, until there is nothing more.
    assert step(agent, page(item("i9"))).query == "Acme red boots"
    assert step(agent, page()) is None


def test_a_question_that_the_need_does_not_answer_is_left_alone():
    agent = StandInAgent(ShoppingNeed("boots", "boots", (), (), frozenset(), None))
    agent.search()
    assert step(agent, page(*FULL, questions=(BRAND, COLOR, DEPTH))).filters is None
    every = Question("brand", 1.0, (("Acme", 4),), 0)
    agent = StandInAgent(NEED)
    agent.search()
    assert step(agent, page(*FULL, questions=(every,))).filters != {"brand": "Acme"}, "the only answer narrows nothing"


def test_a_filter_that_costs_too_much_is_left_out_for_good():
    agent = StandInAgent(ShoppingNeed("boots", "boots", (), NEED.wishes, frozenset(), None))
    agent.search()
    assert step(agent, page(*FULL, questions=(COLOR,))).filters == {"attributes": {"Color": "Red"}}
    costs = Relaxed("attributes.Color", "Red", 90, 80)
    assert step(agent, page(*FULL, relaxed=(costs,))).filters == {"attributes": {"Color": "Red"}}, "the page was full"
    assert step(agent, page(item("i7"), relaxed=(costs,))).filters is None
    assert step(agent, page(*FULL, questions=(COLOR,))).filters is None


def test_items_that_meet_more_of_the_need_are_offered_first():
    agent = StandInAgent(NEED)
    agent.search()
    items = (item("a"), item("b", brand="ACME"), item("c", brand="acme", attributes={"Color": ("RED",)}), item("d"))
    assert agent.read(page(*items)) == ["c", "b", "a", "d"]


class FakeEngine:
    """Always shows the items from the first one that was not excluded."""

    explains = True

    def __init__(self, items=12):
        self.items = [Item(f"i{n}", f"item {n}", ("Shop",)) for n in range(items)]
        self.batches = []

    def search_batch(self, requests):
        self.batches.append(len(requests))
        out = []
        for request in requests:
            found = [SearchResult(one.item_id, 1.0, (), one) for one in self.items[: request.k]]
            answer = SearchResults(found, 1.0, len(self.items), {})
            answer.corrected_query = request.query.replace("bots", "boots") if "bots" in request.query else None
            out.append(answer)
        return out

    def similar(self, item_id, k=10, filters=None):
        return SearchResults()

    def word_matches(self, query, items):
        return [()] * len(items)

    def filters_available(self):
        return FilterChoices()


class FakeShoppers:
    """Each page view's shopper orders one item."""

    def __init__(self, wants, needs):
        self.wants, self.all_needs, self.offers = wants, needs, []

    def needs(self, rows):
        return [self.all_needs[row] for row in rows.tolist()]

    def user(self, row):
        return f"u{row}"

    def orders(self, row, offered):
        self.offers.append((row, list(offered)))
        return offered.index(self.wants[row]) if self.wants.get(row) in offered else None


PLAIN = ShoppingNeed("bots", "bots", (), (), frozenset(), None)


def test_sessions_end_with_an_order_with_the_budget_or_given_up():
    engine, shoppers = FakeEngine(), FakeShoppers({0: "i1", 1: "i7"}, [PLAIN] * 3)
    sessions = shop(engine, shoppers, np.arange(3), StandInAgent, budget=2)
    assert [(one.ordered, len(one.searches), one.offered, one.gave_up) for one in sessions] == [
        ("i1", 1, 2, False),
        ("i7", 2, 8, False),
        (None, 2, 10, False),
    ]
    assert sessions[1].searches == [
        ("boots", ("i0", "i1", "i2", "i3", "i4")),
        ("boots", ("i5", "i6", "i7", "i8", "i9")),
    ]
    assert engine.batches == [3, 2], "searches of one step are ranked together"
    longer = shop(engine, FakeShoppers({}, [PLAIN]), np.arange(1), StandInAgent, budget=9)
    assert longer[0].gave_up and len(longer[0].searches) == 4, "two pages and a half, and an empty one"


def test_nobody_orders_what_no_page_shows():
    class Liar:
        def search(self):
            return AgentRequest("x", k=2)

        def read(self, page):
            return ["i9", "i1", "i1", "i0"]

    shoppers = FakeShoppers({0: "i9"}, [PLAIN])
    (session,) = shop(FakeEngine(), shoppers, np.arange(1), lambda need, user: Liar(), budget=1)
    assert session.ordered is None and shoppers.offers == [(0, ["i1", "i0"])]


VIEWS = pl.DataFrame(
    {
        "page_view_id": ["p0", "p1", "p2"],
        "user_id": ["u0", "u0", "u1"],
        "session_id": ["s0", "s0", "s1"],
        "time": [datetime(2025, 1, day, tzinfo=UTC) for day in (1, 1, 2)],
        "query": ["boots", "red boots", "lamp"],
        "query_type": ["plain", "plain", "plain"],
    }
)


def test_every_search_of_a_session_is_credited_with_its_final_order_alone():
    laboratory = SimpleNamespace(page_views=VIEWS)
    searches = [("boots", ("i0", "i1")), ("red boots", ("i2", "i3"))]
    sessions = [Session(1, searches, 3, "i2"), Session(2, [("lamp", ("i4",))], 1, None)]
    found = session_page_views(sessions, laboratory, "a1-")
    assert found["page_view_id"].to_list() == ["a1-0-0", "a1-0-1", "a1-1-0"]
    assert found["session_id"].to_list() == ["a1-0", "a1-0", "a1-1"]
    assert found["query"].to_list() == ["boots", "red boots", "lamp"]
    assert found["shown"].to_list() == [["i0", "i1"], ["i2", "i3"], ["i4"]]
    assert found["clicked"].to_list() == found["ordered"].to_list() == [["i2"], ["i2"], []]
    # One time for a session, so that no search is history of another: it would tell what was ordered.
    assert found["time"].to_list() == [VIEWS["time"][1]] * 2 + [VIEWS["time"][2]]
    assert found["user_id"].to_list() == ["u0", "u0", "u1"]


def test_a_need_is_the_last_query_of_a_session():
    assert need_rows(SimpleNamespace(page_views=VIEWS), 5).tolist() == [1, 2]
    assert need_rows(SimpleNamespace(page_views=VIEWS), 1).tolist() == [1]


def test_figures_by_hand():
    sessions = [
        Session(0, [("a", ())] * 1, 4, "i1"),
        Session(1, [("a", ())] * 3, 9, "i2"),
        Session(2, [("a", ())] * 6, 20, None),
        Session(3, [("a", ())] * 2, 7, None, gave_up=True),
    ]
    found = figures(session_sums(sessions, 6))
    assert {name: found[name]["value"] for name in METRICS} == {
        "searches per order": (1 + 3 + 6 + 2) / 2,
        "orders": 0.5,
        "searches": (1 + 3 + 6 + 6) / 4,
        "offers": 10.0,
        "gave up": 0.25,
    }
    assert all(found[name]["low"] <= found[name]["value"] <= found[name]["high"] for name in METRICS)
    assert figures(session_sums(sessions[2:], 6))["searches per order"]["value"] is None
    assert figures(session_sums([], 6))["orders"]["value"] is None


def test_two_engines_are_compared_on_the_same_needs():
    rng = np.random.default_rng(0)
    a = np.array([[n, n < 6, n, 5 * n, 0] for n in rng.integers(1, 7, 300)], float)
    better = a.copy()
    better[:, 0] = better[:, 2] = np.maximum(a[:, 0] - 1, 1)
    found = paired_figures(a, better)
    assert found["searches per order"]["value"] < 0 and found["searches per order"]["high"] < 0
    assert found["searches per order"]["p"] < 0.01 and found["orders"]["value"] == 0 and found["orders"]["p"] == 1
    same = paired_figures(a, a)
    assert all(same[name]["value"] == same[name]["low"] == same[name]["high"] == 0 for name in METRICS)
    # Paired: less spread than two samples that have nothing to do with each other.
    apart = paired_figures(a, better[rng.permutation(300)])
    width = [one["searches"]["high"] - one["searches"]["low"] for one in (found, apart)]
    assert width[0] < width[1] / 2
    with pytest.raises(ValueError, match="300 and 299"):
        paired_figures(a, a[1:])
