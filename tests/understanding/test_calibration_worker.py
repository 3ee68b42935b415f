import asyncio
import time

import pytest

from onesearch.understanding import calibration_worker
from onesearch.understanding.calibration_worker import calibrate_all, run_calibrate, shopper_key
from onesearch.understanding.llm_producer import BudgetSpent, LLMError, LLMProducer, LLMSettings, LLMUnavailableError
from onesearch.understanding.preference_calibration import HistoryTexts
from onesearch.understanding.thought import Analysis, Thought, ThoughtError
from onesearch.understanding.thought_cache import SqliteThoughts


class Scripted:
    """A calibrator that does what ``deeds`` says of a history's first query: keywords, an exception, or a wait."""

    name, version = "scripted", "1"

    def __init__(self, **deeds):
        self.deeds, self.asked = deeds, []

    async def calibrate(self, thought, history):
        self.asked.append((thought.query, history.queries))
        deed = self.deeds.get(history.queries[0], ("leather",))
        if isinstance(deed, Exception):
            raise deed
        if isinstance(deed, float):
            await asyncio.sleep(deed)
        return deed if isinstance(deed, tuple) else ("slow",)


def thought(query="Boots"):
    return Thought(
        query=query, analysis=Analysis(intent="merchandise"), keywords=("boots",), producer="scripted", version="1"
    )


def shoppers(*searched, query="Boots"):
    histories = [HistoryTexts((text,), ("Orbit sandals",)) for text in searched]
    return {shopper_key(query, history): (thought(query), history) for history in histories}


@pytest.fixture
def cache(tmp_path):
    found = SqliteThoughts(tmp_path / "thoughts.sqlite3")
    yield found
    found.close()


def kept(cache, asked):
    return [cache.get_personal(*key, "scripted", "1") for key in asked]


def test_each_shopper_of_a_query_is_asked_once_and_answers_lie_apart_from_thoughts(cache):
    calibrator = Scripted(rain=("suede",), bad=ThoughtError("off the catalogue: 'x'"))
    asked = shoppers("sun", "rain", "bad")
    summary = run_calibrate(asked, calibrator, cache)
    assert kept(cache, asked) == [("leather",), ("suede",), None]
    assert cache.get_many(["boots"], "scripted", "1") == {}
    assert (summary.asked, summary.answered, summary.set_aside, summary.unfinished) == (3, 2, 1, 0)
    assert summary.reasons == {"off the catalogue": 1} and "3 distinct queries with a history of 3" in summary.text()
    # Another query of the same shoppers is another key; the same one is not asked again, but who got no answer is.
    more = run_calibrate({**asked, **shoppers("sun", query="tent")}, calibrator, cache)
    assert (more.cached, more.answered, more.set_aside) == (2, 1, 1)
    assert [query for query, _ in calibrator.asked] == ["Boots"] * 4 + ["tent"]


@pytest.mark.parametrize("error", [BudgetSpent("the budget is spent"), LLMUnavailableError("no answer")])
def test_an_end_that_may_pass_leaves_the_rest_for_another_run(cache, error):
    asked = shoppers("sun", "down", "rain")
    summary = run_calibrate(asked, Scripted(down=error), cache, concurrency=1)
    assert (summary.answered, summary.unfinished, summary.stopped) == (1, 2, str(error))
    assert "the same command goes on" in summary.text()
    assert run_calibrate(asked, Scripted(), cache).answered == 2


def test_a_wrong_setup_ends_it_and_what_was_answered_is_kept(cache):
    asked = shoppers("sun", "wrong", "rain")
    calibrator = Scripted(wrong=LLMError("no model"))
    with pytest.raises(LLMError, match="no model"):
        run_calibrate(asked, calibrator, cache, concurrency=1)
    assert kept(cache, asked) == [("leather",), None, None] and len(calibrator.asked) == 2


def test_after_a_stop_nothing_more_is_asked_and_slow_calls_are_cut_off(cache, monkeypatch):
    monkeypatch.setattr(calibration_worker, "GRACE", 0.3)
    calibrator = Scripted(soon=0.1, late=60.0)

    async def stopped():
        stop = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, stop.set)
        return await calibrate_all(shoppers("soon", "late", "next"), calibrator, cache, stop, concurrency=2)

    start = time.monotonic()
    summary = asyncio.run(stopped())
    assert time.monotonic() - start < 10 and len(calibrator.asked) == 2
    assert (summary.answered, summary.unfinished, summary.stopped) == (1, 2, "interrupted")


def test_a_language_model_is_asked_with_the_history(cache, fake_llm, shop_words):
    fake_llm.reply = lambda task: {"keywords": ["leather", "unknown"]}
    calibrator = LLMProducer(shop_words, LLMSettings(base_url=fake_llm.url))
    asked = shoppers("sun", "rain")
    summary = run_calibrate(asked, calibrator, cache)
    keys = [cache.get_personal(*key, "llm:Qwen3-32B", "1") for key in asked]
    assert keys == [("leather",)] * 2 and (summary.calls, summary.tokens_out, summary.dropped) == (2, 40, 2)
    bodies = sorted(body["messages"][1]["content"] for body in fake_llm.bodies)
    assert ['"queries": ["rain"]' in bodies[0], '"queries": ["sun"]' in bodies[1]] == [True, True]
