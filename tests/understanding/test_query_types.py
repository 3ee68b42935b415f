import pytest
from hypothesis import given
from hypothesis import strategies as st

from onesearch.understanding.query_types import merchandise, query_type, split_negated


@pytest.mark.parametrize(
    ("query", "form"),
    [
        ("red running shoes", "plain"),
        ("Gift card holder", "plain"),
        ("no dig edging", "plain"),
        ("no. 5 screws", "plain"),
        ("top soil 40 lb", "plain"),
        ("best buy xbox", "plain"),
        ("can light conversion kit", "plain"),
        ("红色连衣裙", "plain"),
        ("what do I need for camping", "question"),
        ("is this waterproof?", "question"),
        ("这个防水吗", "question"),
        ("gift ideas for dad", "recommendation"),
        ("can you recommend a tent", "recommendation"),
        ("送女友礼物", "recommendation"),
        ("跑鞋推荐", "recommendation"),
        ("best laptops", "ranking"),
        ("top 10 drills", "ranking"),
        ("吹风机排行榜", "ranking"),
        ("how to fix a leaking tap", "knowledge"),
        ("why does my sink smell", "knowledge"),
        ("怎么清洗羽绒服", "knowledge"),
        ("how to replace a faucet", "knowledge"),
        ("bread without gluten", "negation"),
        ("best boots not leather", "negation"),
        ("stove, no window", "negation"),
        ("what is good for rain but no umbrella", "negation"),
        ("things except socks", "negation"),
        ("不要红色的连衣裙", "negation"),
        ("饼干 不含糖", "negation"),
        ("要不要买羽绒服", "plain"),
        ("alternative to butter", "alternatives"),
        ("shoes other than nike", "alternatives"),
        ("instead of sugar but not honey", "alternatives"),
        ("what can replace butter", "alternatives"),
        ("戴森吹风机平替", "alternatives"),
    ],
)
def test_forms(query, form):
    assert query_type(query) == form


@pytest.mark.parametrize(
    ("query", "intent"),
    [
        ("nike store", "shop"),
        ("Apple flagship store", "shop"),
        ("耐克旗舰店", "shop"),
        ("store shelf", "merchandise"),
        ("cooking live stream", "live"),
        ("李佳琦直播间", "live"),
        ("live streaming camera", "merchandise"),
        ("直播间背景布", "merchandise"),
        ("order status", "other"),
        ("where is my order", "other"),
        ("customer service phone", "merchandise"),
        ("refund", "other"),
        ("退货", "other"),
        ("怎么退款", "other"),
        ("return spring", "merchandise"),
        ("order book", "merchandise"),
        ("red shoes", "merchandise"),
    ],
)
def test_intents(query, intent):
    assert merchandise(query) == intent


@pytest.mark.parametrize(
    ("query", "kept", "ruled_out"),
    [
        ("boots without steel toe for winter", "boots for winter", ("steel toe",)),
        ("Boots not leather or suede", "boots", ("leather", "suede")),
        ("instead of skate shoes for skiing", "for skiing", ("skate shoes",)),
        ("连衣裙 不含羊毛", "连衣裙", ("羊毛",)),
        ("不要红色的裙子", "的裙子", ("红色",)),
        ("戴森吹风机平替", "", ("戴森吹风机",)),
        ("not a b c d", "d", ("a b c",)),
        ("plain query", "plain query", ()),
    ],
)
def test_what_is_ruled_out(query, kept, ruled_out):
    assert split_negated(query) == (kept, ruled_out)


@given(st.text(max_size=40))
def test_any_text_has_a_form_an_intent_and_a_split(query):
    query_type(query)
    merchandise(query)
    kept, ruled_out = split_negated(query)
    assert all(ruled_out) and kept == kept.strip()
