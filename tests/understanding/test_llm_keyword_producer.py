import asyncio
import json

import pytest

from onesearch.understanding.llm_keyword_producer import LLMKeywordProducer
from onesearch.understanding.llm_producer import LLMSettings, LLMUnavailableError
from onesearch.understanding.thought import ThoughtError


def think(fake_llm, words, query, **settings):
    async def run():
        config = LLMSettings(base_url=fake_llm.url, backoff=0.001, **settings)
        async with LLMKeywordProducer(words, config) as llm:
            return await llm.think(query), llm.usage

    return asyncio.run(run())


def test_the_model_names_keywords_and_rules_do_the_rest(fake_llm, shop_words):
    fake_llm.reply = lambda task: {"keywords": ["Suede", "hiking boots", "flying carpet", "leather"]}
    thought, usage = think(fake_llm, shop_words, "what boots without suede")
    analysis = thought.analysis
    assert (analysis.intent, analysis.query_type, analysis.category) == ("merchandise", "negation", ())
    assert [(one.value, one.negated) for one in analysis.attributes] == [("suede", True), ("boots", False)]
    assert set(thought.keywords) == {"hiking boots", "leather"} and usage.dropped == 2
    assert (thought.producer, thought.version) == ("llm:Qwen3-32B", "keywords-1")
    (body,) = fake_llm.bodies
    assert len(body["messages"]) == 14
    assert body["response_format"]["json_schema"]["schema"]["required"] == ["keywords"]


def test_an_answer_off_the_catalogue_is_repaired_once(fake_llm, shop_words):
    answers = [{"keywords": ["flying carpet"]}, {"keywords": ["leather"]}]
    fake_llm.reply = lambda task: answers[min(len(fake_llm.bodies), 2) - 1]
    thought, usage = think(fake_llm, shop_words, "boots")
    assert thought.keywords == ("leather",) and usage.repaired == 1
    assert "flying carpet" in json.loads(fake_llm.bodies[1]["messages"][-1]["content"])["error"]
    fake_llm.reply = lambda task: {"keywords": "leather"}
    with pytest.raises(ThoughtError, match="malformed"):
        think(fake_llm, shop_words, "boots")


def test_nobody_is_asked_about_a_query_that_wants_no_merchandise(fake_llm, shop_words):
    thought, usage = think(fake_llm, shop_words, "track my order")
    assert thought.analysis.intent == "other" and usage.calls == 0


def test_a_server_that_fails_from_the_start_may_not_know_the_form(fake_llm, shop_words):
    fake_llm.reply = lambda task: 500
    with pytest.raises(LLMUnavailableError, match="does it know response_format json_object"):
        think(fake_llm, shop_words, "boots", retries=0, response_format="json_object")
