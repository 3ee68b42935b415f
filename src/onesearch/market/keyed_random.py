"""Counter-based randomness: the same key always gives the same draw, whatever else was drawn before."""

import hashlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX2: Final = np.uint64(0x94D049BB133111EB)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser, element by element."""
    z = values + _GOLDEN
    z ^= z >> np.uint64(30)
    z *= _MIX1
    z ^= z >> np.uint64(27)
    z *= _MIX2
    z ^= z >> np.uint64(31)
    return z


def key(seed: int, *parts: NDArray[np.integer] | int) -> NDArray[np.uint64]:
    """Fold integer parts (broadcast against each other) into one uint64 key per element."""
    state = mix(np.full(1, seed & 0xFFFFFFFFFFFFFFFF, np.uint64))
    for part in parts:
        number = np.asarray(part)
        if number.dtype != np.uint64:
            number = number.astype(np.int64).view(np.uint64)
        state = mix(state ^ number)
    return state


def uniform(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """A float32 in [0, 1) per key: the top 24 bits, so that rounding can never give 1."""
    return (keys >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def text_key(texts: list[str]) -> NDArray[np.uint64]:
    """A stable 64-bit number per text (not Python's salted ``hash``), uint64 [n]."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64)
