"""Configuration files: YAML with environment variables and typed overrides, checked against the settings models."""

import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from onesearch.common.settings import Settings, validated
from onesearch.common.strict_yaml import StrictLoader
from onesearch.common.text_file import read_text_file

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
_S = TypeVar("_S", bound=Settings)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dict; ``${NAME}`` and ``${NAME:-default}`` in texts become environment variables.

    Raises:
        FileNotFoundError: the file is missing; the message names its neighbours of a similar name.
        ValueError: not YAML (with line), not a mapping, a key given twice, or a variable that is not set.
    """
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1, cutoff=0.3)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise FileNotFoundError(f"no configuration file {path}{hint}")
    try:
        values = yaml.load(read_text_file(path), Loader=StrictLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected 'key: value' lines at the top level, found a {type(values).__name__}")
    return {str(key): _expand(value, path, str(key)) for key, value in values.items()}


def _expand(value: Any, path: Path, key: str) -> Any:
    if isinstance(value, dict):
        return {name: _expand(part, path, f"{key}.{name}") for name, part in value.items()}
    if isinstance(value, list):
        return [_expand(part, path, key) for part in value]
    if not isinstance(value, str):
        return value

    def replaced(found: re.Match[str]) -> str:
        name, default = found.group(1), found.group(2)
        if name not in os.environ and default is None:
            raise ValueError(f"{path}: '{key}' needs the environment variable {name}, which is not set")
        return os.environ.get(name, default or "")

    return _VARIABLE.sub(replaced, value)


def apply_overrides(
    values: Mapping[str, Any], overrides: Iterable[str], model: type[Settings] | None = None
) -> dict[str, Any]:
    """A copy of ``values`` with ``a.b=c`` set for each override; ``c`` is read as YAML, so numbers are numbers.

    Args:
        values: nested settings as read from YAML.
        overrides: such as ``sft3.epochs=1`` or ``sft1.tasks={query_to_sid: 2}``.
        model: the settings model; if given, each key must exist in it.

    Raises:
        ValueError: no ``=``, not YAML, a key below a plain value, or an unknown key (with the nearest valid one).
    """
    result: dict[str, Any] = _copied(dict(values))
    for override in overrides:
        # The key, checked against the model before the value is read.
        key, equals, text = override.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise ValueError(f"override '{override}' is not of the form key.subkey=value")
        if model is not None:
            _check_key(parts, model, override)
        try:
            value = yaml.load(text, Loader=StrictLoader)
        except yaml.YAMLError as error:
            raise ValueError(f"override '{override}': the value is not valid YAML: {error}") from error
        # Walk down to the section, making those that are not there.
        place = result
        for depth, part in enumerate(parts[:-1]):
            inner = place.setdefault(part, {})
            if inner is None:
                inner = place[part] = {}
            if not isinstance(inner, dict):
                raise ValueError(f"override '{override}': '{'.'.join(parts[: depth + 1])}' is a value, not a section")
            place = inner
        place[parts[-1]] = value
    return result


def _copied(value: Any) -> Any:
    return {key: _copied(part) for key, part in value.items()} if isinstance(value, dict) else value


def _check_key(parts: list[str], model: type[Settings], override: str) -> None:
    section: type[Settings] | None = model
    for depth, part in enumerate(parts):
        if section is None:
            return  # below a plain mapping every key is allowed
        if part not in section.model_fields:
            valid = [*parts[:depth], *_nearest(part, section)]
            raise ValueError(
                f"override '{override}': unknown key '{'.'.join(parts[: depth + 1])}'; "
                f"the nearest valid key is '{'.'.join(valid)}'"
            )
        annotation = section.model_fields[part].annotation
        inner = settings_model(annotation)
        if inner is None and depth + 1 < len(parts) and not _is_mapping(annotation):
            raise ValueError(f"override '{override}': '{'.'.join(parts[: depth + 1])}' is a value, not a section")
        section = inner


def _nearest(part: str, section: type[Settings]) -> list[str]:
    near = difflib.get_close_matches(part, list(section.model_fields), n=1, cutoff=0.0)
    if near and difflib.SequenceMatcher(None, part, near[0]).ratio() >= 0.6:
        return near
    # A key of a deeper section written without its section: name the full path.
    for name, field in section.model_fields.items():
        inner = settings_model(field.annotation)
        if inner is not None and part in inner.model_fields:
            return [name, part]
    return near


def settings_model(annotation: Any) -> type[Settings] | None:
    """The settings model in ``X``, ``X | None`` or ``Annotated[X, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            found = settings_model(part)
            if found is not None:
                return found
    return None


def _is_mapping(annotation: Any) -> bool:
    origin = typing.get_origin(annotation) or annotation
    if origin in (typing.Union, types.UnionType):
        return any(_is_mapping(part) for part in typing.get_args(annotation))
    return origin is Any or (isinstance(origin, type) and issubclass(origin, Mapping))


def load_settings(model: type[_S], path: Path, overrides: Iterable[str] = ()) -> _S:
    """Read, override and validate a configuration file.

    Raises:
        ValueError: one line per wrong value: file, key, what is wrong.
    """
    return validated(model, apply_overrides(read_yaml(path), overrides, model), path)
