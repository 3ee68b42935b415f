"""References of the documents to code, such as ``encoding/khqe.py::KHQE.fit``, and whether they lead anywhere."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES, TESTS = ROOT / "src" / "onesearch", ROOT / "tests"
REFERENCE = re.compile(r"`([\w/]+\.py)::([\w.]+)`")
FILE = re.compile(r"`([\w/]+/\w+\.py)`")


@cache
def names(path: Path) -> frozenset[str]:
    """Functions, classes, methods (as Class.method), module constants and class fields of a file."""
    found: set[str] = set()

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                found.add(prefix + node.target.id)
            if isinstance(node, ast.Assign):
                found.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))

    visit(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def located(path: str, folder: Path) -> Path:
    """The file that a reference names: below ``folder``, else below the repository."""
    return folder / path if (folder / path).is_file() else ROOT / path


def missing(folder: Path, text: str) -> list[str]:
    """The references of a text to functions and files that do not exist."""
    lost = [
        f"{path}::{name}"
        for path, name in REFERENCE.findall(text)
        if not located(path, folder).is_file() or name not in names(located(path, folder))
    ]
    return lost + [path for path in FILE.findall(text) if not located(path, folder).is_file()]
