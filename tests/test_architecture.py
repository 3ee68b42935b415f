"""The arrows of import and the rules no reviewer should have to check by eye."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src" / "onesearch").rglob("*.py"))
# Modules that read or write objects as code.
_CODE_FORMATS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "cPickle", "pickletools"}


def test_nothing_flows_backwards():
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or "lint-imports"
    result = subprocess.run(
        [command, "--config", "pyproject.toml", "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def is_false(keyword):
    return isinstance(keyword.value, ast.Constant) and keyword.value.value is False


def violations(tree):
    """Lines that load or save objects as code, or that could: the check is on the syntax tree, so comments are free."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(alias.name for alias in node.names)]
        if any(part in _CODE_FORMATS for name in names for part in name.split(".")):
            yield node.lineno, f"import of {names}"
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "torch" and node.attr in ("load", "save"):
                yield node.lineno, f"torch.{node.attr}"
            if node.attr in ("to_pickle", "read_pickle", "save_state", "load_state") or owner in _CODE_FORMATS:
                yield node.lineno, node.attr
            if owner == "yaml" and node.attr in ("unsafe_load", "full_load", "UnsafeLoader", "FullLoader", "Loader"):
                yield node.lineno, f"yaml.{node.attr}"
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code") and not is_false(node):
            yield node.value.lineno, f"{node.arg} is not False"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
            yield node.lineno, node.func.id
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("load", "save"):
            numpy = isinstance(node.func.value, ast.Name) and node.func.value.id in ("np", "numpy")
            if numpy and not any(keyword.arg == "allow_pickle" for keyword in node.keywords):
                yield node.lineno, f"np.{node.func.attr} without allow_pickle=False"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_loading_runs_no_code(path):
    found = list(violations(ast.parse(path.read_text(encoding="utf-8"))))
    assert not found, "\n".join(f"{path}:{line}: {what}" for line, what in found)


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load('x')",
        "torch.save(a, 'x')",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "frame.to_pickle('x')",
        "yaml.unsafe_load(x)",
        "accelerator.save_state('x')",
        "eval('1')",
        "import multiprocessing.pickle",
        "f(trust_remote_code=True)",
    ],
)
def test_the_check_finds_code_formats(code):
    assert list(violations(ast.parse(code)))


def test_the_check_allows_safe_code():
    safe = '"""Never pickle."""\nnp.load(p, allow_pickle=False)\nyaml.safe_load(x)\nmodel.load(x)\njson.load(f)'
    assert not list(violations(ast.parse(safe)))


def test_package_roots_are_docstrings_only():
    """Modules are imported directly, so that importing one room does not open all; `onesearch` loads its names late."""
    for path in SOURCES:
        if path.name == "__init__.py" and path.parent.name not in ("onesearch", "cli", "pipeline"):
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert len(body) == 1 and ast.get_docstring(ast.Module(body, [])), f"{path}: docstring only"


def test_configs_are_read_by_a_test():
    """Every shipped configuration is exercised; the smoke runs live in tests/e2e."""
    names = [path.name for path in (ROOT / "configs").glob("*.yaml")]
    texts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert all(name in texts or "configs" in texts for name in names)
