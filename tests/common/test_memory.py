"""What the process holds, and what it gives back."""

import sys

import pytest

from onesearch.common.memory import give_back, resident_mib


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux's C library is asked")
def test_what_many_small_parts_left_free_goes_back():
    before = resident_mib()
    held = [bytes(1000) for _ in range(200_000)]
    last = held[-1]  # the end of the heap stays in use
    del held
    give_back()
    assert last and resident_mib() < before + 60
