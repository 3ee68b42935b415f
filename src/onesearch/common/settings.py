"""The base of all settings: frozen, typed, and helpful about misspelt keys."""

import difflib
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error that names the nearest valid key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()
    """Fields that the section got after runs had been made with it."""

    @model_validator(mode="before")
    @classmethod
    def _name_nearest_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    # Any key is better than none: a cutoff of 0 always finds one.
                    near = difflib.get_close_matches(str(key), list(cls.model_fields), n=1, cutoff=0.0)
                    hint = f"; the nearest valid key is '{near[0]}'" if near else ""
                    raise ValueError(f"unknown key {key!r} in {cls.__name__}{hint}")
        return values  # pydantic says what is wrong with anything but a mapping

    def updated(self, **changes: Any) -> Self:
        """A validated copy with some values changed (``model_copy`` alone would not validate)."""
        return type(self).model_validate({**self.model_dump(), **changes})

    def marking(self) -> dict[str, Any]:
        """As JSON, for a stage's fingerprint: ``later`` fields that are at their default do not make a run outdated."""
        defaults = {name for name in self.later if getattr(self, name) == type(self).model_fields[name].default}
        found = self.model_dump(mode="json", exclude=defaults)
        # Sections within leave out their own later fields.
        inner = {name: value.marking() for name in found if isinstance(value := getattr(self, name), Settings)}
        return {**found, **inner}


_S = TypeVar("_S", bound=Settings)
_LONGEST_GIVEN = 300  # characters of a wrong value in a message


def validated(model: type[_S], values: Any, path: Path | str) -> _S:
    """The settings in ``values``, which were read from ``path``, a file or whatever messages shall name.

    Raises:
        ValueError: one line per wrong value: file, key, what is wrong.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = []
        # The whole of a section as "what was given" would hide the message.
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            message = problem["msg"].removeprefix("Value error, ")
            given = "" if isinstance(problem["input"], dict) else f", got {problem['input']!r}"[:_LONGEST_GIVEN]
            lines.append(f"{path}: {key}: {message}{given}")
        raise ValueError("\n".join(lines)) from None
