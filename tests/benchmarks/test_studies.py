"""Every study can be imported, so that a rename in the package is noticed here and not in the middle of a study."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "benchmarks").rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("name", MODULES)
def test_a_study_can_be_imported(name):
    if name == "benchmarks.screenshot":
        pytest.importorskip("playwright")
    importlib.import_module(name)


def test_the_list_names_every_study_with_a_line():
    shown = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines()[2:])
    named = {name.split(".")[1] for name in MODULES if '__name__ == "__main__"' in source(name)} - {"__main__"}
    assert set(lines) == named and {"speed", "v1", "v2_distillation", "same_behaviour"} <= named
    assert all(len(line) > 30 for line in lines.values())


def source(name):
    return (ROOT / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
