"""Semantic IDs as the page shows them: ``a_12 b_7 c_3 d_88 d_301``."""

from collections.abc import Sequence

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_OPQ_SIZE = 256


def sid_tokens(sid: Sequence[int], residual_levels: int = 3) -> list[str]:
    """The tokens of level-local codes: one letter per residual level, then ``d_`` for both OPQ parts.

    The second OPQ part has the numbers 256..511, so that both share one vocabulary (specification section 2).

    >>> sid_tokens((12, 7, 3, 88, 45))
    ['a_12', 'b_7', 'c_3', 'd_88', 'd_301']
    """
    tokens = []
    for level, code in enumerate(sid):
        part = max(0, level - residual_levels)
        tokens.append(f"{_LETTERS[level - part]}_{code + _OPQ_SIZE * part}")
    return tokens
