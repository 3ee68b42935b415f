"""Command line of a study with cells: ``run RUNS [CELL]`` makes those that are not finished, ``render`` the page."""

import sys
from collections.abc import Callable
from pathlib import Path


def main(run: Callable[[Path, str], None], render: Callable[[], None], usage: str) -> None:
    """Do what the command line says; ``usage`` is the module's docstring, whose second paragraph is shown otherwise."""
    if sys.argv[1:2] == ["render"]:
        render()
    elif sys.argv[1:2] == ["run"] and len(sys.argv) > 2:
        run(Path(sys.argv[2]), "".join(sys.argv[3:4]))
    else:
        sys.exit(usage.split("\n\n")[1])
