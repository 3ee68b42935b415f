"""Semantic IDs as the page shows them: ``a_12 b_7 c_3 d_88 d_301``."""

from collections.abc import Sequence

from onesearch.encoding.sid import OPQ_PARTS, OPQ_SIZE, sid_text


def sid_tokens(sid: Sequence[int]) -> list[str]:
    """The tokens of level-local codes; the last two levels are the OPQ parts. () gives no tokens.

    >>> sid_tokens((12, 7, 3, 88, 45))
    ['a_12', 'b_7', 'c_3', 'd_88', 'd_301']
    """
    if not sid:
        return []
    # Of the residual levels only the order matters here, not how large their codebooks are.
    sizes = [code + 1 for code in sid[:-OPQ_PARTS]] + [OPQ_SIZE] * OPQ_PARTS
    return sid_text(sid, sizes).removeprefix("<").removesuffix(">").split("><")
