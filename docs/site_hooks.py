"""What the site holds beside the pages written by hand: the home page, the settings reference, a page per module.

MkDocs calls :func:`on_config`, :func:`on_files` and :func:`on_page_content` (mkdocs.yml, ``hooks``).
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "onesearch"
ROOMS = ["common", "data", "market", "understanding", "encoding", "index", "model", "search", "training", "evaluation"]
ROOMS += ["batch", "serving", "pipeline", "cli"]


# -- API --------------------------------------------------------------------------------------------------------------


def modules() -> dict[str, list[str]]:
    """Module names by room, in the order of the arrows; rooms that do not exist are left out."""
    found = {}
    for room in ROOMS:
        paths = sorted((PACKAGE / room).rglob("*.py"))
        names = [".".join(path.relative_to(ROOT / "src").with_suffix("").parts) for path in paths]
        found[room] = [name.removesuffix(".__init__") for name in names]
    return {room: names for room, names in found.items() if names}


def api_page(name: str) -> str:
    """The Markdown of a module's page: mkdocstrings reads its source."""
    return f"# {name}\n\n::: {name}\n"


# -- settings ---------------------------------------------------------------------------------------------------------


def settings_page() -> str:
    """The Markdown of all settings of a run: a table per section, with type, default and meaning."""
    from onesearch.pipeline.run_settings import RunSettings

    head = (
        "# Settings\n\nEverything that a configuration file in `configs/` may say, and that `--set key=value` may "
        "change. An unknown key is an error that names the nearest valid one.\n"
    )
    return "\n".join([head, *_sections("", RunSettings, {})])


def _sections(key: str, model: type[BaseModel], seen: dict[type[BaseModel], str]) -> Iterator[str]:
    """A heading and a table for a section, then those of the sections in it; what was ``seen`` is referred to."""
    yield f"{'##' if '.' not in key else '###'} {key or 'The run'}\n"
    if model in seen:
        yield f"The keys of [{seen[model]}](#{seen[model].replace('.', '')}).\n"
        return
    seen[model] = key
    yield f"{inspect.cleandoc(model.__doc__ or '')}\n"
    rows, inner = [], []
    for name, field in model.model_fields.items():
        below = f"{key}.{name}" if key else name
        section = section_of(field.annotation)
        if section:
            inner.append((below, section))
        # A section that may be left out has a value of its own.
        if section and get_origin(field.annotation) is not tuple and type(None) not in get_args(field.annotation):
            continue
        default = field.get_default(call_default_factory=True)
        given = "required" if field.is_required() else f"`{shown(default)}`"
        rows.append(f"| `{below}` | {type_name(field.annotation)} | {given} | {meaning(model, name)} |")
    if rows:
        yield "| key | type | default | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    for below, section in inner:
        yield from _sections(below, section, seen)


def meaning(model: type[BaseModel], name: str) -> str:
    """A field's description, else what its source says, else the same of a class it comes from."""
    for kind in model.__mro__:
        if isinstance(kind, type) and issubclass(kind, BaseModel) and name in kind.model_fields:
            found = kind.model_fields[name].description or field_notes(kind).get(name, "")
            if found:
                return " ".join(found.replace("|", "\\|").split())
    return ""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The settings model that a field holds, may hold, or holds a list of."""
    inside = get_args(annotation) if get_origin(annotation) in (Union, UnionType, tuple) else ()
    for kind in (annotation, *inside):
        if isinstance(kind, type) and get_origin(kind) is None and issubclass(kind, BaseModel):
            return kind
    return None


def shown(value: Any) -> str:
    """A default as YAML writes it."""
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, tuple | list):
        return f"[{', '.join(shown(one) for one in value)}]"
    return '""' if value == "" else str(value)


def type_name(annotation: Any) -> str:
    """A field's type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(inside[0])
    if origin is Literal:
        return " or ".join(f"`{shown(one)}`" for one in inside)
    if origin in (Union, UnionType):
        return " or ".join("`null`" if one is type(None) else type_name(one) for one in inside)
    if origin in (tuple, list):
        return f"list of {type_name(inside[0])}" if inside else "list"
    if origin is dict:
        return f"{type_name(inside[0])} → {type_name(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "sections as below"
    words = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path"}
    return words.get(getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", str(annotation)))


def field_notes(model: type[BaseModel]) -> dict[str, str]:
    """What the source says of fields without a description: the text below a field, or the comment behind it."""
    if model is BaseModel or not model.__annotations__:
        return {}
    found: dict[str, str] = {}
    source = inspect.cleandoc("\n" + inspect.getsource(model))
    lines, (tree,) = source.splitlines(), ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[node.target.id] = str(after.value.value).strip()
        elif comment := re.search(r"  # (.+)$", lines[(node.end_lineno or node.lineno) - 1]):
            found[node.target.id] = comment[1]
    return found


# -- home page --------------------------------------------------------------------------------------------------------


def home_page() -> str:
    """README.md, with its links as seen from the site."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\(docs/", "](", re.sub(r"\[([^\]]+)\]\((?!docs/|https?:|#)[^)]*\)", r"\1", text))


# -- what MkDocs calls ------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Add the API to the navigation."""
    rooms = [
        {room: [{name.removeprefix(f"onesearch.{room}.") or room: f"api/{name}.md"} for name in names]}
        for room, names in modules().items()
    ]
    config["nav"].append({"API": rooms})
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that no file holds."""
    from mkdocs.structure.files import File

    pages = {f"api/{name}.md": api_page(name) for names in modules().values() for name in names}
    pages |= {"index.md": home_page(), "settings.md": settings_page()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_content(html: str, **_: Any) -> str:
    """Roles in docstrings, such as ``:func:`~onesearch.training.loop.fit```, become links."""

    def link(match: re.Match[str]) -> str:
        target = match[1].lstrip("~")
        text = target.rpartition(".")[2] if match[1].startswith("~") else target
        return f'<autoref identifier="{target}" optional><code>{text}</code></autoref>'

    return re.sub(r":(?:func|class|meth|data|mod|attr):<code>([^<]+)</code>", link, html)
