"""Semantic IDs as text: ``<a_12><b_7><c_3><d_88><d_301>``.

Residual layers have letters of their own (a, b, c); the OPQ parts share the next one and are numbered on.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

OPQ_SIZE: Final = 256
OPQ_PARTS: Final = 2
_TOKEN: Final = re.compile(r"<([a-z])_(\d+)>")


def token_names(codebook_sizes: Sequence[int], opq_parts: int = OPQ_PARTS) -> list[list[str]]:
    """Token text of every code of every level: ``names[level][code]``.

    The last ``opq_parts`` levels share one letter and are numbered on: d_0..255, then d_256..511.
    """
    layers = len(codebook_sizes) - opq_parts
    names, offset = [], 0
    for level, size in enumerate(codebook_sizes):
        letter = chr(ord("a") + min(level, layers))
        names.append([f"<{letter}_{code + offset}>" for code in range(size)])
        if level >= layers:
            offset += size
    return names


def sid_text(codes: Sequence[int], codebook_sizes: Sequence[int], opq_parts: int = OPQ_PARTS) -> str:
    """Text form of one SID given as level-local codes."""
    layers, offset, out = len(codebook_sizes) - opq_parts, 0, []
    for level, (code, size) in enumerate(zip(codes, codebook_sizes, strict=True)):
        if not 0 <= code < size:
            raise ValueError(f"code {code} of SID level {level} is outside 0..{size - 1}")
        out.append(f"<{chr(ord('a') + min(level, layers))}_{int(code) + offset}>")
        if level >= layers:
            offset += size
    return "".join(out)


def sid_texts(codes: NDArray[np.integer], codebook_sizes: Sequence[int], opq_parts: int = OPQ_PARTS) -> list[str]:
    """Text forms of SIDs int [n, L]."""
    names = [np.array(level, dtype=object) for level in token_names(codebook_sizes, opq_parts)]
    columns = [names[level][codes[:, level]] for level in range(codes.shape[1])]
    return ["".join(parts) for parts in zip(*columns, strict=True)]


def parse_sid(text: str, codebook_sizes: Sequence[int], opq_parts: int = OPQ_PARTS) -> tuple[int, ...]:
    """Level-local codes of a SID text.

    Raises:
        ValueError: the text is not exactly one token per level, or a code is outside its codebook.
    """
    # joining the tokens again must give the text: nothing between them, nothing left over
    found = _TOKEN.findall(text)
    if "".join(f"<{letter}_{number}>" for letter, number in found) != text or len(found) != len(codebook_sizes):
        raise ValueError(f"{text!r} is not a SID of {len(codebook_sizes)} tokens such as <a_12><b_7><c_3><d_88><d_301>")
    layers, offset, codes = len(codebook_sizes) - opq_parts, 0, []
    for level, ((letter, number), size) in enumerate(zip(found, codebook_sizes, strict=True)):
        code = int(number) - offset
        if letter != chr(ord("a") + min(level, layers)) or not 0 <= code < size:
            raise ValueError(f"{text!r}: token <{letter}_{number}> does not belong to SID level {level}")
        codes.append(code)
        if level >= layers:
            offset += size
    return tuple(codes)


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
