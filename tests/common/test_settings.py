from pathlib import Path

import pytest
from pydantic import ValidationError

from onesearch.common.settings import Settings, validated


class Inner(Settings):
    later = frozenset({"depth"})
    width: int = 8
    depth: int = 2


class Outer(Settings):
    later = frozenset({"momentum"})
    epochs: int = 1
    inner: Inner = Inner()
    momentum: float = 0.5


def test_a_misspelt_key_names_the_nearest_one():
    with pytest.raises(ValidationError, match="unknown key 'epoch' in Outer; the nearest valid key is 'epochs'"):
        Outer.model_validate({"epoch": 2})


def test_settings_are_frozen_and_copies_are_checked():
    settings = Outer()
    with pytest.raises(ValidationError, match="frozen"):
        settings.epochs = 2  # type: ignore[misc]
    changed = settings.updated(epochs=3, inner={"width": 4})
    assert (changed.epochs, changed.inner, settings.epochs) == (3, Inner(width=4), 1)
    with pytest.raises(ValidationError):
        settings.updated(epochs="many")


def test_a_later_field_marks_a_stage_only_where_it_is_set():
    """So that what was made before it came stays up to date."""
    assert Outer().marking() == {"epochs": 1, "inner": {"width": 8}}
    assert Outer(momentum=0.25).marking() == {"epochs": 1, "inner": {"width": 8}, "momentum": 0.25}
    assert Outer(inner={"depth": 3}).marking() == {"epochs": 1, "inner": {"width": 8, "depth": 3}}


def test_every_wrong_value_of_a_file_is_told_on_one_line():
    with pytest.raises(ValueError) as error:
        validated(Outer, {"epochs": "many", "inner": {"widht": 4}}, Path("a.yaml"))
    lines = str(error.value).splitlines()
    assert lines[0].startswith("a.yaml: epochs: ") and lines[0].endswith("got 'many'")
    assert lines[1] == "a.yaml: inner: unknown key 'widht' in Inner; the nearest valid key is 'width'"
    assert validated(Outer, {"epochs": 2}, Path("a.yaml")) == Outer(epochs=2)
