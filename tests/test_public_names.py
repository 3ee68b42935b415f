"""What ``import onesearch`` offers, and that it waits for no library."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import onesearch

HEAVY = ("torch", "polars", "numpy", "transformers", "faiss", "scipy", "pydantic", "typer")


def test_every_public_name_is_what_its_room_says():
    assert set(onesearch.__all__) <= set(dir(onesearch))
    for name in set(onesearch.__all__) - {"__version__"}:
        value = getattr(onesearch, name)
        assert value.__name__ == name and value.__module__.startswith("onesearch.") and value.__doc__
        assert vars(onesearch)[name] is value, "kept after the first look"
    assert onesearch.__version__ == version("onesearch")
    with pytest.raises(AttributeError, match="SearchEngin"):
        _ = onesearch.SearchEngin


def test_the_type_checker_sees_the_same_names():
    text = Path(onesearch.__file__).read_text(encoding="utf-8")
    assert {*onesearch._MODULE_OF, "__version__"} == set(onesearch.__all__)
    for name, module in onesearch._MODULE_OF.items():
        lines = [line for line in text.splitlines() if line.strip().startswith(f"from {module} import ")]
        assert any(name in line.partition(" import ")[2].split(", ") for line in lines), name


def test_importing_the_package_imports_no_library():
    code = (
        "import sys, time\n"
        "start = time.process_time()\n"
        "import onesearch\n"
        "seconds = time.process_time() - start\n"
        f"heavy = sorted(set({HEAVY!r}) & set(sys.modules))\n"
        "assert not heavy, heavy\n"
        "assert seconds < 0.2, seconds\n"
        "assert 'SearchEngine' in dir(onesearch)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_runs_as_its_command():
    done = subprocess.run([sys.executable, "-m", "onesearch", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version("onesearch")
