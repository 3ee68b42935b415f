"""What every saved figure names: commit, date, machine."""

import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]


def commit() -> str:
    """Short hash of the commit that is checked out; with a plus where tracked files differ; unknown outside of git.

    Pages of results may differ: a study writes them while it runs.
    """
    name = _git("rev-parse", "--short", "HEAD")
    differs = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs/results")
    return f"{name}+" if name and differs else name or "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


@contextmanager
def sources_of(name: str) -> Iterator[Path]:
    """The tree of a commit, laid out in a temporary folder for the length of a ``with`` block.

    Raises:
        subprocess.CalledProcessError: there is no such commit.
    """
    git = ["git", "-C", str(ROOT), "worktree"]
    with tempfile.TemporaryDirectory(prefix="onesearch-commit-") as folder:
        tree = Path(folder) / "tree"
        subprocess.run([*git, "add", "--quiet", "--detach", str(tree), name], check=True)
        try:
            yield tree
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def today() -> str:
    """The date, UTC."""
    return datetime.now(UTC).date().isoformat()


def machine() -> str:
    """Number of cores and name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores, {names[0] if names else platform.processor()}"
