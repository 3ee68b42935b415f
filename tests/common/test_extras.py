import sys

import pytest

from onesearch.common.extras import MissingExtraError, from_extra


def test_a_missing_library_is_named_with_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "colorsys", None)
    with pytest.raises(MissingExtraError) as error, from_extra("serve"):
        import colorsys  # noqa: F401
    assert str(error.value) == 'colorsys is not installed; in a checkout of onesearch: pip install -e ".[serve]"'


def test_other_errors_pass_and_so_does_what_is_installed():
    with from_extra("train"):
        import json
    assert json.loads("1") == 1
    with pytest.raises(ImportError, match="cannot import name"), from_extra("train"):
        from json import no_such_name  # noqa: F401


def test_of_a_missing_part_of_a_library_the_library_is_named():
    with pytest.raises(MissingExtraError, match=r"^no_such_library is not installed"), from_extra("serve"):
        raise ModuleNotFoundError("No module named 'no_such_library.part'", name="no_such_library.part")
