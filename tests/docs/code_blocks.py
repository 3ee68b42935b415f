"""Fenced code blocks of the documents and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the words after it (``network``, ``docker``, ``gpu``), line and body."""

    language: str
    marks: tuple[str, ...]
    line: int
    body: str

    @property
    def commands(self) -> list[list[str]]:
        """The shell commands as words, comments and continued lines resolved."""
        text = re.sub(r"\\\n\s*", " ", self.body)
        return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page; fences pair up from the top."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [
        Block(
            (info[0] if (info := match[1].split()) else ""),
            tuple(info[1:]),
            text[: match.start()].count("\n") + 1,
            match[2],
        )
        for match in found
    ]
