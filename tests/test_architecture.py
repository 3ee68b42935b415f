"""The arrows of import and the rules no reviewer should have to check by eye."""

import ast
import io
import shutil
import subprocess
import sys
import tokenize
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


# -- rooms and circles -------------------------------------------------------------------------------------------------


def imports_of(roots: dict[str, Path]) -> dict[str, set[str]]:
    """Which modules each module imports, at its top or inside of a function; ``roots``: package to its folder."""
    modules = {}
    for package, folder in roots.items():
        for path in folder.rglob("*.py"):
            parts = (package, *path.relative_to(folder).with_suffix("").parts)
            modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                # ``from package import name`` is an import of the module, if name is one.
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found[name].add(inner if inner in modules else node.module)
    return {name: {other for other in others if other in modules} for name, others in found.items()}


def circles(imports: dict[str, set[str]]) -> list[str]:
    """Modules in or between circles: those left when nothing can be taken away that imports, or serves, nobody left."""
    left = set(imports)
    while True:
        importing = {name for name in left if imports[name] & left}
        imported = {other for name in left for other in imports[name]}
        if importing & imported & left == left:
            return sorted(left)
        left &= importing & imported


def test_no_module_imports_itself_by_way_of_others():
    imports = imports_of({"onesearch": ROOT / "src" / "onesearch", "benchmarks": ROOT / "benchmarks"})
    assert len(imports) > 150 and "onesearch.search.engine" in imports["onesearch.search.version_follower"]
    # The package's root loads its public names when they are asked for.
    imports["onesearch"] = set()
    assert circles(imports) == []


def test_the_check_finds_circles(tmp_path: Path):
    (tmp_path / "a.py").write_text("def f():\n    from p.b import g\n")
    (tmp_path / "b.py").write_text("from p import c\n")
    (tmp_path / "c.py").write_text("import p.a\n")
    (tmp_path / "d.py").write_text("from p.a import f\n")
    assert circles(imports_of({"p": tmp_path})) == ["p.a", "p.b", "p.c"]


def test_a_file_name_tells_its_content_without_its_folder():
    names = [path.name for path in SOURCES if path.name not in ("__init__.py", "__main__.py")]
    assert sorted(name for name in set(names) if names.count(name) > 1) == []


# -- signposts ---------------------------------------------------------------------------------------------------------

LONG = 30  # lines of a function
FEW = 10  # lines below a docstring that need no signpost beside it


def comment_lines(text: str) -> set[int]:
    """Lines that say something beside the code; instructions to tools do not count."""
    tools = ("# noqa", "# type:", "# fmt:", "# pragma", "# ruff:", "# mypy:")
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {t.start[0] for t in tokens if t.type == tokenize.COMMENT and not t.string.startswith(tools)}


def code_lines(text: str) -> int:
    """Lines of code: no blank ones, comments or docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstrings |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    silent = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in silent:
            code |= set(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def test_code_is_counted_as_code_and_comments_as_comments():
    text = (
        '"""Doc.\n\nMore."""\n\n# why\nx = [\n    1,  # noqa: E1\n]\n\ndef f():\n    """Doc."""\n    return x  # so\n'
    )
    assert code_lines(text) == 5 and comment_lines(text) == {5, 12}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_long_functions_have_signposts(path: Path):
    text = path.read_text(encoding="utf-8")
    comments = comment_lines(text)
    bare = [
        f"{path.name}:{node.lineno} {node.name} ({node.end_lineno - node.lineno + 1} lines)"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno + 1 >= LONG
        and (node.end_lineno or 0) - (node.body[0].end_lineno or 0) >= FEW
        and not comments & set(range(node.lineno, (node.end_lineno or 0) + 1))
    ]
    assert not bare, "say what the blocks of these functions do, or split them: " + ", ".join(bare)


def test_size_and_comments_of_the_whole():
    texts = [path.read_text(encoding="utf-8") for path in SOURCES]
    code = sum(code_lines(text) for text in texts)
    comments = sum(len(comment_lines(text)) for text in texts)
    assert comments >= 0.05 * code, f"{comments} comment lines on {code} lines of code"
    everywhere = [
        path for folder in ("src", "tests", "benchmarks", "examples") for path in (ROOT / folder).rglob("*.py")
    ]
    kept = sum(path.read_text(encoding="utf-8").count("# fmt: " + "skip") for path in everywhere)
    assert kept <= 10, f"{kept} places are kept from the layout"
