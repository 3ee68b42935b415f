"""The form of a query, and whether it wants merchandise at all, by rules for English and Chinese."""

import re
from typing import Final

from onesearch.data.text import is_unspaced, normalise_query, split_words
from onesearch.understanding.catalogue_vocabulary import canonical
from onesearch.understanding.thought import Intent, QueryType

# "no 5" is a number, a leading "no" names a product ("no dig edging"), "how to replace" is a task: none of them counts.
_NOT: Final = (
    r"\b(?:without|not|but no|except(?: for)?|excluding|minus)\b|(?<=[\w.,;-] )no\b(?!\.? ?\d)"
    r"|(?<!要)不要|不含|不带|不想要|除了|除去|无需"
)
_OTHER: Final = (
    r"\b(?:alternatives? (?:to|for)|instead of|other than|rather than|substitutes? for|similar to"
    r"|(?<!how to )(?<!how do i )(?<!how can i )replaces?)\b|替代|代替|平替"
)
_BOUNDARY: Final = re.compile(
    r"[,.;:!?，。；：！？、]|\b(?:for|with|against|and|but|in|that|which|to|at|during|under|by)\b|[的但和]"
)
_LONGEST_SCOPE: Final = 3  # words; characters of an unspaced script count as half a word
_NEGATION: Final = re.compile(_NOT)
_ALTERNATIVES: Final = re.compile(rf"{_OTHER}|\balternatives?$")
# In Chinese the thing comes first: "X 的平替" asks for something in place of X.
_SCOPE: Final = re.compile(rf"(?:{_OTHER}|{_NOT})")
_THING_FIRST: Final = re.compile(r"^(.*?)的?(?:替代品?|平替|代替品)$")
# In order: a query that fits several is of the first type.
_RULES: Final[tuple[tuple[QueryType, re.Pattern[str]], ...]] = (
    ("alternatives", _ALTERNATIVES),
    ("negation", _NEGATION),
    (
        "recommendation",
        re.compile(
            r"\b(?:gifts?|presents?)\b(?! (?:cards?|wraps?|wrapping|bags?|box(?:es)?|tags?|ribbons?|certificates?)\b)"
            r"|\b(?:recommend(?:s|ed|ations?)?|suggest(?:s|ions?)?|ideas? for|help me (?:choose|find|pick|decide))\b"
            r"|推荐|礼物|礼品(?![盒袋卡纸])|适合送|送(?:给|女|男|妈|爸|老|长|朋|孩|礼|人)"
        ),
    ),
    (
        "ranking",
        re.compile(
            r"\b(?:best(?! (?:buy|western)\b)|top[ -]?(?:ten|five|three|twenty|rated|selling|picks)|ranking|ranked"
            r"|most popular|best[ -]?sellers?)\b|(?:^|\bthe )top[ -]?\d+\b"
            r"|排行|排名|榜单|十大|最好的|最受欢迎|哪个牌子好"
        ),
    ),
    (
        "knowledge",
        re.compile(
            r"^why\b|\bhow (?:to|do|does|can|should|is|are|did)\b|\bdifference between\b"
            r"|为什么|为何|怎么|怎样|如何|的区别|什么原因"
        ),
    ),
    (
        "question",
        re.compile(
            r"^(?:what|which|who|whose|where|when|how)\b.|[?？]$"
            r"|^(?:can|could|is|are|does|do|did|should|will|would) "
            r"(?:i|you|we|it|they|this|that|these|those|the|an?|there|my|your)\b"
            r"|[吗呢]$|什么|哪[个些种款]|多少|能不能|是不是|可以.*吗"
        ),
    ),
)
_SHOP: Final = re.compile(
    r"\b(?:flagship|official|online) (?:store|shop)\b|\w (?:store|flagship)$|旗舰店|专卖店|专营店|官方店"
)
_LIVE: Final = re.compile(r"\blive ?-?stream(?:s|ing)?$|\blive (?:room|shopping)$|直播间?$")
_SERVICE: Final = re.compile(
    r"order status|track(?:ing)?\b|refunds?|returns?|customer (?:service|support|care)|shipping status|cancel"
    r"|complaints?|where is my (?:order|package|parcel)|退货|退款|换货|客服|售后|物流|查订单|订单|投诉|发票"
)
# A service query holds nothing but these, so that "order book" and "return spring" stay merchandise.
_SERVICE_WORDS: Final = frozenset(
    split_words(
        "a an the i my me to for of do does how what where when is it on can want need please get check contact "
        "item order orders status track tracking refund refunds return returns returned policy customer service "
        "support care shipping delivery package parcel cancel cancellation complaint complaints request number"
    )
)
_SERVICE_TEXT: Final = re.compile(
    "(?:怎么|如何|我要|我的|申请|查询?|联系|人工|退货|退款|换货|客服|售后|物流|订单|投诉|发票|流程|政策|电话|状态|开|服务)+"
)


def query_type(query: str) -> QueryType:
    """The form of a query; the first that fits of alternatives, negation, recommendation, ranking, knowledge, question.

    Everything else is plain.
    """
    text = normalise_query(query)
    return next((name for name, rule in _RULES if rule.search(text)), "plain")


def merchandise(query: str) -> Intent:
    """What a query is after; in doubt merchandise, for a query wrongly kept costs less than one wrongly turned away."""
    text = normalise_query(query)
    if _LIVE.search(text):
        return "live"
    if _SHOP.search(text):
        return "shop"
    if _SERVICE.search(text):
        words = split_words(text)
        spaced = [word for word in words if not is_unspaced(word)]
        unspaced = "".join(word for word in words if is_unspaced(word))
        if set(spaced) <= _SERVICE_WORDS and (not unspaced or _SERVICE_TEXT.fullmatch(unspaced)):
            return "other"
    return "merchandise"


def split_negated(query: str) -> tuple[str, tuple[str, ...]]:
    """A normalised query without what it rules out, and the texts that it rules out.

    What follows a negation or "instead of" is ruled out, up to a preposition, "and", "的" or a punctuation mark, and at
    most three words of it (six characters of Chinese). "Or" and "nor" separate texts.

    >>> split_negated("boots without steel toe for winter")
    ('boots for winter', ('steel toe',))
    """
    text = normalise_query(query)
    first = _THING_FIRST.match(text)
    if first and first.group(1):
        return "", (first.group(1),)
    kept: list[str] = []
    ruled_out: list[str] = []
    at = 0
    # From one negation to the next.
    while found := _SCOPE.search(text, at):
        kept.append(text[at : found.start()])
        rest = text[found.end() :]
        # Its scope ends at a preposition, "and" or a mark ...
        stop = _BOUNDARY.search(rest)
        scope = rest[: stop.start()] if stop else rest
        # ... or after three words; what comes behind them is kept.
        words, room = [], 2 * _LONGEST_SCOPE
        for word in split_words(scope):
            room -= 1 if is_unspaced(word) else 2
            if room < 0:
                break
            words.append(word)
        if room < 0:
            kept.append(" ".join(split_words(scope)[len(words) :]))
        ruled_out += [canonical(part) for part in _separate(words)]
        at = found.end() + len(scope)
    kept.append(text[at:])
    return " ".join(" ".join(kept).split()), tuple(ruled_out)


def _separate(words: list[str]) -> list[list[str]]:
    """Word runs between "or" and "nor"."""
    parts: list[list[str]] = [[]]
    for word in words:
        if word in ("or", "nor"):
            parts.append([])
        else:
            parts[-1].append(word)
    return [part for part in parts if part]
