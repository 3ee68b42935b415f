import asyncio

import numpy as np
import pytest

from onesearch.understanding.encoder_producer import EncoderProducer
from onesearch.understanding.keyword_lexicon import Keyword, Lexicon

WHERE = {
    "hiking boots": 0.0,
    "leather": 0.5,
    "suede": 0.6,
    "cotton tent": 3.0,
    "footwear": 0.1,
    "kiln": 1.8,
    "cotton kiln": 1.8,
}


def encode(texts):
    """Unit vectors in the plane: known texts at their angle, all others behind every one of them."""
    angles = np.array([WHERE.get(text, 4.5) for text in texts], np.float32)
    return np.stack([np.cos(angles), np.sin(angles)], 1).reshape(-1, 2)


@pytest.fixture
def producer(shop_words):
    return EncoderProducer(shop_words, None, encode)


def test_the_nearest_words_of_the_catalogue_are_named_and_far_ones_are_not(producer):
    (thought,) = producer.think_all([" Footwear "])
    # cos .1, .4 and .5 radians; the tent at 2.9 and whatever is unknown to the encoder are further than cosine .4
    assert thought.analysis.topics == ("hiking boots", "leather", "suede")
    assert set(thought.keywords) == {"hiking boots", "leather", "suede"}
    assert (thought.query, thought.producer, thought.version) == ("footwear", "encoder", "1")
    assert asyncio.run(producer.think("kiln")).keywords == ()


def test_what_the_query_says_comes_first_and_what_it_rules_out_not_at_all(producer):
    (thought,) = producer.think_all(["footwear without suede"])
    assert [(one.value, one.negated) for one in thought.analysis.attributes] == [("suede", True)]
    assert thought.analysis.topics == ("hiking boots", "leather")
    (said,) = producer.think_all(["cotton kiln"])
    assert said.analysis.topics == ("cotton",) and said.keywords == ("cotton",)


def test_a_query_that_wants_no_merchandise_or_says_nothing_else_gets_no_words(producer):
    service, nothing = producer.think_all(["track my order", "without leather"])
    assert service.analysis.intent == "other" and service.keywords == ()
    assert nothing.keywords == ()


def test_with_a_lexicon_only_typed_phrases_are_named(shop_words):
    only = EncoderProducer(shop_words, Lexicon([Keyword("suede", "Material", 1.0)]), encode)
    (thought,) = only.think_all(["footwear"])
    assert thought.analysis.topics == ("leather", "suede")  # "hiking boots" stands in titles alone
