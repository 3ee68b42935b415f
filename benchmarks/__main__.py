"""Lists the studies: ``python -m benchmarks``."""

import ast
from pathlib import Path


def studies() -> dict[str, str]:
    """First line of the docstring of every module here that can be run, by name."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text and path != Path(__file__):
            found[path.stem] = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
    speed = Path(__file__).parent / "speed" / "__main__.py"
    found["speed"] = (ast.get_docstring(ast.parse(speed.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    return dict(sorted(found.items()))


if __name__ == "__main__":
    print("Run one as `python -m benchmarks.NAME`; its docstring or --help says with what.\n")
    for name, line in studies().items():
        print(f"{name:20}{line}")
