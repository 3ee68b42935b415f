"""Examples in the help of commands and studies, in the form of a document's code blocks."""

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.docs.code_blocks import Block
from tests.docs.code_references import ROOT

# A line of its own, also as a point of a list; or options with a value within the help of an option.
LINE = re.compile(r"^\s*(?:Example:\s*|\* )?`?(onesearch [^`\n]+)`?", re.MULTILINE)
OPTION = re.compile(r"(--[a-z-]+) ('[^']+'|[\w.]+=[\w.]*\w)")


def help_texts(command: Any, name: str = "onesearch") -> dict[str, tuple[str, Block]]:
    """The whole help of a command and those below it, and their examples as one block, by the command's name."""
    options = [parameter.help or "" for parameter in command.params if getattr(parameter, "help", None)]
    text = "\n".join([command.help or "", command.epilog or ""])
    lines = LINE.findall(text)
    if found := [pair for help_ in options for pair in OPTION.findall(help_)]:
        lines.append(_with_options(lines[0], found))
    out = {name: ("\n".join([text, *options]), Block("sh", (), 0, "\n".join(lines)))}
    if hasattr(command, "list_commands"):
        context = command.context_class(command)
        for below in command.list_commands(context):
            out |= help_texts(command.get_command(context, below), f"{name} {below}")
    return out


def _with_options(example: str, options: list[tuple[str, str]]) -> str:
    """The example with these options in the place of its own of the same name."""
    words, names = shlex.split(example), {name for name, _ in options}
    kept = [word for at, word in enumerate(words) if word not in names and words[at - 1] not in names]
    return " ".join([shlex.join(kept), *(f"{name} {value}" for name, value in options)])


def studies() -> Iterator[tuple[Path, list[str]]]:
    """File and words of every ``python -m benchmarks.NAME ...`` that the docstring of a study has."""
    for path in sorted((ROOT / "benchmarks").rglob("*.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        for line in re.findall(r"^\s*(?:Usage: `*)?(python -m benchmarks[^`\n]*)", text, re.MULTILINE):
            yield path, shlex.split(line, comments=True)
