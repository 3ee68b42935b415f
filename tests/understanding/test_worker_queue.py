"""The queue's worker: nothing queued is lost, whatever breaks."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count

import pytest

from onesearch.data.dataset import Dataset
from onesearch.data.records import PageView, page_views_frame
from onesearch.understanding.llm_producer import LLMError, LLMProducer, LLMSettings, LLMUnavailableError
from onesearch.understanding.thought import Analysis, Thought, ThoughtError
from onesearch.understanding.thought_cache import CacheError, SqliteThoughts
from onesearch.understanding.understand_queries import watch
from onesearch.understanding.worker import Pauses

GOOD = {
    "intent": "merchandise",
    "query_type": "plain",
    "category": ["Shoes"],
    "attributes": [],
    "topics": ["hiking boots"],
    "keywords": ["hiking boots", "leather"],
}
QUICK = Pauses(idle=0.02, first=0.02, longest=0.1)
NAME = "llm:Qwen3-32B"


@pytest.fixture
def cache(tmp_path):
    found = SqliteThoughts(tmp_path / "thoughts.sqlite3")
    yield found
    found.close()


class Bulk:
    name, version = "bulk", "1"

    def __init__(self):
        self.asked = []

    async def think(self, query):
        raise NotImplementedError

    def think_all(self, queries):
        self.asked.append(list(queries))
        if "odd" in queries:
            raise ZeroDivisionError
        return [self.made(query) for query in queries]

    def made(self, query):
        keywords = () if query == "unknown" else ("leather",)
        return Thought(
            query=query, analysis=Analysis(intent="merchandise"), keywords=keywords, producer="bulk", version="1"
        )


def queued(cache, *queries):
    for query in queries:
        assert cache.enqueue(query)


class Counting(LLMProducer):
    """Counts the queries that the model left without an answer."""

    unavailable = 0

    async def think(self, query):
        try:
            return await super().think(query)
        except LLMUnavailableError:
            self.unavailable += 1
            raise


def llm(fake_llm, words, **settings):
    return Counting(words, LLMSettings(base_url=fake_llm.url, **{"backoff": 0.01, "retries": 1, **settings}))


def watched(producer, cache, until, meanwhile=None, seconds=120.0, **options):
    """Watches until a condition holds, then stops; fails when it does not in time."""

    async def main():
        stop = asyncio.Event()
        working = asyncio.create_task(watch(producer, cache, stop, **{"pauses": QUICK, **options}))
        end = time.monotonic() + seconds
        if meanwhile is not None:
            await asyncio.to_thread(meanwhile)
        while not working.done() and not await asyncio.to_thread(until):
            assert time.monotonic() < end, "not in time"
            await asyncio.sleep(0.02)
        stop.set()
        summary = await working
        await getattr(producer, "close", lambda: asyncio.sleep(0))()
        return summary

    return asyncio.run(main())


def has_ended(cache):
    return lambda: cache.queue_state()[:2] == (0, 0)


def wait_for(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_queued_queries_are_thought_about_as_they_come_in(fake_llm, shop_words, cache):
    producer = llm(fake_llm, shop_words)
    queued(cache, "boots", "bad", "known")
    cache.put([Thought(query="known", analysis=Analysis(intent="other"), producer=NAME, version="1")])
    fake_llm.reply = lambda task: "never JSON" if task["query"] == "bad" else GOOD

    def later():
        wait_for(has_ended(cache))
        queued(cache, "tent")

    summary = watched(producer, cache, has_ended(cache), later)
    assert (summary.answered, summary.cached, summary.set_aside, summary.outages) == (2, 1, 1, 0)
    assert set(cache.get_many(["boots", "tent", "bad"], NAME, "1")) == {"boots", "tent"}
    assert [query for query, _ in cache.rejects()] == ["bad"] and "known" not in fake_llm.asked
    assert not cache.enqueue("bad"), "what cannot be answered is not asked again and again"


def test_a_model_that_is_down_is_waited_for_and_nothing_is_lost(fake_llm, shop_words, cache):
    queries = [f"boots {n}" for n in range(40)]
    queued(cache, *queries)
    fake_llm.stop()
    producer = llm(fake_llm, shop_words)

    def restart():
        wait_for(lambda: producer.unavailable > 18)  # 16 at once, then one by one
        assert cache.get_many(queries, NAME, "1") == {} and sum(cache.queue_state()[:2]) == 40
        fake_llm.start()

    summary = watched(producer, cache, has_ended(cache), restart)
    assert summary.answered == 40 and summary.outages == 1 and summary.set_aside == 0
    assert set(cache.get_many(queries, NAME, "1")) == set(queries) == set(fake_llm.asked)


def test_a_refusal_is_an_end_at_first_and_an_outage_once_it_has_worked(fake_llm, shop_words, cache):
    queued(cache, "a", "b")
    fake_llm.reply = lambda task: 401
    with pytest.raises(LLMError, match="ONESEARCH_LLM_API_KEY"):
        watched(llm(fake_llm, shop_words), cache, has_ended(cache))
    assert cache.queue_state() == (2, 0, 0), "given back at once"
    replies = iter([GOOD, 404, 404, GOOD])
    fake_llm.reply = lambda task: next(replies)
    summary = watched(llm(fake_llm, shop_words), cache, has_ended(cache), concurrency=1)
    assert (summary.answered, summary.outages) == (2, 1)


def test_a_poisonous_query_does_not_hold_up_the_others_for_ever(fake_llm, shop_words, cache):
    fake_llm.reply = lambda task: 500 if task["query"] == "poison" else GOOD
    queued(cache, "poison")

    def traffic():
        for number in count():
            wait_for(lambda: cache.queue_state().waiting < 4)
            cache.enqueue(f"boots {number}")
            if cache.rejects():
                return

    summary = watched(llm(fake_llm, shop_words, retries=0), cache, has_ended(cache), traffic)
    assert [query for query, _ in cache.rejects()] == ["poison"] and "others got one" in cache.rejects()[0][1]
    assert summary.set_aside == 1 and summary.answered >= 4


def test_an_outage_sets_nothing_aside(fake_llm, shop_words, cache):
    queued(cache, "a", "b")
    fake_llm.reply = lambda task: 500
    watched(llm(fake_llm, shop_words, retries=0), cache, lambda: fake_llm.asked.total() > 30)
    assert cache.queue_state() == (2, 0, 0) and cache.rejects() == []


def test_a_bug_of_a_producer_costs_one_query(cache):
    class Buggy:
        name, version = "buggy", "1"

        async def think(self, query):
            if query == "odd":
                raise ZeroDivisionError
            raise ThoughtError("none")

    queued(cache, "odd", "other")
    assert watched(Buggy(), cache, has_ended(cache)).set_aside == 2
    assert cache.rejects() == [("odd", "internal error: ZeroDivisionError"), ("other", "none")]


def test_a_producer_of_many_gets_batches_and_answers_each_query_once(cache):
    queries = [f"boots {n}" for n in range(700)]
    queued(cache, *queries, "unknown")
    producer = Bulk()
    summary = watched(producer, cache, has_ended(cache))
    assert [len(batch) for batch in producer.asked] == [500, 201] and summary.answered == 701
    assert cache.get_many(["unknown"], "bulk", "1")["unknown"].keywords == (), "known to have no keywords"
    queued(cache, "odd", "even")
    assert watched(producer, cache, has_ended(cache)).answered == 1
    assert set(cache.get_many(["odd", "even"], "bulk", "1")) == {"even"} and cache.rejects()[0][0] == "odd"


def test_a_spent_budget_ends_it_and_gives_the_rest_back(fake_llm, shop_words, cache):
    fake_llm.reply = lambda task: GOOD
    queued(cache, *[f"boots {n}" for n in range(50)])
    summary = watched(llm(fake_llm, shop_words, max_calls=20), cache, has_ended(cache))
    assert summary.answered == 20 and "budget of 20 calls" in summary.stopped
    assert cache.queue_state() == (30, 0, 0)


def test_a_cache_that_fails_for_a_while_is_waited_for(tmp_path, fake_llm, shop_words):
    class Failing(SqliteThoughts):
        calls = 0

        def failing(self, call, *arguments):
            Failing.calls += 1
            if Failing.calls % 3:
                raise CacheError("disk on fire")
            return call(*arguments)

        def take(self, *arguments):
            return self.failing(super().take, *arguments)

        def put(self, *arguments):
            return self.failing(super().put, *arguments)

        def done(self, *arguments):
            return self.failing(super().done, *arguments)

    cache = Failing(tmp_path / "thoughts.sqlite3")
    fake_llm.reply = lambda task: GOOD
    queued(cache, "a", "b", "c")
    assert watched(llm(fake_llm, shop_words), cache, has_ended(cache)).answered == 3
    assert fake_llm.asked.total() == 3, "an answer is kept until the cache takes it"


def test_a_stop_gives_back_what_was_under_way(fake_llm, shop_words, cache, monkeypatch):
    monkeypatch.setattr("onesearch.understanding.worker.GRACE", 0.1)
    gate = threading.Event()

    def reply(task):
        fake_llm.lock.release()  # others ask meanwhile
        gate.wait(10)
        fake_llm.lock.acquire()
        return GOOD

    fake_llm.reply = reply
    queued(cache, "a", "b")
    summary = watched(llm(fake_llm, shop_words), cache, lambda: len(fake_llm.asked) == 2)
    gate.set()
    assert summary.answered == 0 and cache.queue_state() == (2, 0, 0)


@pytest.fixture
def shop(tmp_path, shop_items):
    views = [PageView("1", "boots", shown=("i0",), clicked=("i0",))]
    Dataset.write(tmp_path / "shop", shop_items, page_views=page_views_frame(views))
    return tmp_path / "shop"


def worker(shop, cache, *arguments):
    command = ["understand", shop, "--cache", cache, "--watch", "--lease", "1", *arguments]
    code = "from onesearch.cli import app; app()"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_a_killed_worker_loses_nothing(fake_llm, shop, cache):
    """SIGKILL in the middle of calls, then another worker, which SIGTERM ends cleanly."""
    calls, gate = 0, threading.Event()

    def reply(task):
        nonlocal calls
        calls += 1
        if calls > 10 and not gate.is_set():
            fake_llm.lock.release()
            gate.wait(120)
            fake_llm.lock.acquire()
        return GOOD

    fake_llm.reply = reply
    queries = [f"boots {n}" for n in range(60)]
    queued(cache, *queries)
    first = worker(shop, cache.path, "--base-url", fake_llm.url)
    wait_for(lambda: len(fake_llm.asked) > 20)
    first.kill()
    first.communicate(timeout=60)
    kept = set(cache.get_many(queries, NAME, "1"))
    assert 0 < len(kept) < 60 and sum(cache.queue_state()[:2]) == 60 - len(kept)
    gate.set()
    asked_before = fake_llm.asked.copy()
    second = worker(shop, cache.path, "--base-url", fake_llm.url)
    wait_for(has_ended(cache))
    second.send_signal(signal.SIGTERM)
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0 and "ended: stopped by a signal" in out, out
    assert set(cache.get_many(queries, NAME, "1")) == set(queries) and cache.rejects() == []
    assert all(fake_llm.asked[query] == asked_before[query] for query in kept), "what was kept is not asked again"


class Counted:
    """Down at first; counts its calls and how many of them run at once."""

    name, version = "counted", "1"

    def __init__(self):
        self.up, self.calls, self.now, self.most = False, 0, 0, 0

    async def think(self, query):
        self.calls, self.now = self.calls + 1, self.now + 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        if not self.up:
            raise LLMUnavailableError("down")
        return Thought(query=query, analysis=Analysis(intent="other"), producer="counted", version="1")


def test_one_query_tries_in_an_outage_and_all_slots_work_after_it(cache):
    producer = Counted()
    queued(cache, *[f"boots {n}" for n in range(12)])

    def come_back():
        wait_for(lambda: producer.calls >= 5)  # four at once, then one
        producer.most = 0
        wait_for(lambda: producer.calls >= 9)
        assert producer.most == 1
        producer.up = True

    summary = watched(producer, cache, has_ended(cache), come_back, concurrency=4)
    assert (summary.answered, summary.outages, summary.set_aside) == (12, 1, 0) and producer.most == 4


def test_pauses_double_up_to_the_longest():
    assert [Pauses().after(failures) for failures in range(1, 9)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_the_figures_of_a_queue_in_words(cache):
    queued(cache, "odd", "other")

    class Failing(Counted):
        async def think(self, query):
            raise ThoughtError(f"off the catalogue: {query}")

    summary = watched(Failing(), cache, has_ended(cache))
    assert summary.reasons == {"off the catalogue": 2} and summary.asked == summary.unfinished == 0
    lines = summary.text(live=True).splitlines()
    assert lines[0] == "0 cached before, 0 answered (0 repaired), 2 set aside, 0 outages"
    assert lines[2:] == ["set aside: off the catalogue 2", "ended: stopped by a signal"]
