"""Where a study's results lie in the repository: figures as one small JSON, the page, the page's head, charts."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.provenance import ROOT
from onesearch.common.artefact import read_json


@dataclass(frozen=True)
class ResultFiles:
    """``NAME.json``, ``NAME.md``, ``NAME.head.md`` (written by hand) and the folder ``NAME`` of a study's charts.

    Values of single requests, which paired tests need, do not belong here: they lie in the study's runs.
    """

    name: str
    folder: Path = ROOT / "docs" / "results"

    @property
    def charts(self) -> Path:
        """Folder of the charts."""
        return self.folder / self.name

    @property
    def page(self) -> Path:
        """The rendered page."""
        return self.folder / f"{self.name}.md"

    def figures(self) -> dict[str, Any]:
        """What :meth:`write_figures` wrote last; empty before that."""
        path = self.folder / f"{self.name}.json"
        return read_json(path) if path.is_file() else {}

    def write_figures(self, figures: Mapping[str, Mapping[str, Any]]) -> None:
        """Write figures in groups, one entry of a group a line, so that a difference between commits can be read.

        Numbers keep eight digits: more than any page shows, or any sample can tell.
        """
        groups = []
        for name, entries in sorted(figures.items()):
            lines = [f"  {json.dumps(key)}: {json.dumps(_rounded(value))}" for key, value in sorted(entries.items())]
            groups.append(f"{json.dumps(name)}: {{\n" + ",\n".join(lines) + "\n}")
        self.folder.mkdir(parents=True, exist_ok=True)
        text = "{\n" + ",\n".join(groups) + "\n}\n"
        (self.folder / f"{self.name}.json").write_text(text, encoding="utf-8")

    def head(self) -> list[str]:
        """Lines of the page's head."""
        return (self.folder / f"{self.name}.head.md").read_text(encoding="utf-8").rstrip().splitlines()

    def write_page(self, lines: Iterable[str]) -> None:
        """Write the page."""
        self.page.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.8g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
