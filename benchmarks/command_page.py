"""A page of figures, each made by a command that prints one JSON object."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.provenance import ROOT, commit, machine, today
from benchmarks.result_files import ResultFiles


@dataclass(frozen=True)
class Benchmark:
    """A command that prints one JSON object, what it is about, and goals such as ``>= 16`` for some of its keys."""

    command: str
    about: str
    goals: Mapping[str, str]


def main(files: ResultFiles, benchmarks: Mapping[str, Benchmark], render: Callable[[], None], usage: str) -> None:
    """``run [NAME ...]`` measures, all without a name, ``render`` writes the page; else ``usage`` is shown."""
    match sys.argv[1:]:
        case ["run", *names]:
            for name in names or benchmarks:
                run(files, name, benchmarks[name].command)
        case ["render"]:
            render()
        case _:
            sys.exit(usage)


def run(files: ResultFiles, name: str, command: str) -> None:
    """Run one benchmark and keep its figures."""
    about = {"commit": commit(), "date": today(), "machine": machine()}
    # This Python, not the first one on the path; a command may name folders by variables, as $RUNS.
    _, *arguments = (os.path.expandvars(word) for word in command.split())
    if missing := [word for word in arguments if "$" in word]:
        sys.exit(f"{name}: set the variable in {missing[0]}")
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    files.write_figures({**files.figures(), name: {"provenance": about, "figures": json.loads(done.stdout)}})


def write_page(
    files: ResultFiles, benchmarks: Mapping[str, Benchmark], head: Iterable[str], charts: Mapping[str, str]
) -> None:
    """Write the page: its head, then a section for each benchmark that was run, perhaps with a line for its chart."""
    saved = files.figures()
    sections = [_section(name, benchmarks[name], saved[name], charts.get(name)) for name in benchmarks if name in saved]
    files.write_page([*head, *(line for section in sections for line in section)])


def _section(name: str, benchmark: Benchmark, saved: Mapping[str, Any], chart: str | None) -> list[str]:
    made = saved["provenance"]
    figures = dict(_flat(saved["figures"]))
    lines = ["", f"## {name}", "", benchmark.about, ""]
    lines += [f"`{benchmark.command}`, {made['machine']}, commit {made['commit']}, {made['date']}", ""]
    lines += ["| figure | value | goal |", "|---|---|---|"]
    lines += [f"| {key} | {value} | {_goal(value, benchmark.goals.get(key))} |" for key, value in figures.items()]
    missing = sorted(set(benchmark.goals) - set(figures))  # a goal may be newer than the saved figures
    lines += [f"| {key} | not measured yet | {benchmark.goals[key]} |" for key in missing]
    return [*lines, "", chart] if chart else lines


def _goal(value: Any, goal: str | None) -> str:
    if goal is None:
        return ""
    sign, limit = goal.split()
    held = value >= float(limit) if sign == ">=" else value <= float(limit)
    return f"{goal}{'' if held else ', **missed**'}"


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}: ")
        else:
            yield before + key, ", ".join(map(str, value)) if isinstance(value, list) else value
