"""The base of all settings: frozen, typed, and helpful about misspelt keys."""

import difflib
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Settings(BaseModel):
    """Frozen settings; an unknown key is an error that names the nearest valid key."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @model_validator(mode="before")
    @classmethod
    def _name_nearest_key(cls, values: Any) -> Any:
        if isinstance(values, dict):
            for key in values:
                if key not in cls.model_fields:
                    near = difflib.get_close_matches(str(key), list(cls.model_fields), n=1, cutoff=0.0)
                    hint = f"; the nearest valid key is '{near[0]}'" if near else ""
                    raise ValueError(f"unknown key '{key}' in {cls.__name__}{hint}")
        return values

    def updated(self, **changes: Any) -> Self:
        """A validated copy with some values changed (``model_copy`` alone would not validate)."""
        return type(self).model_validate({**self.model_dump(), **changes})
