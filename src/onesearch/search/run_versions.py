"""Which version of onesearch made a run, and what is said where this one cannot read it or would make it otherwise.

A manifest names the ``schema`` of runs, the version of onesearch, and the number of its stage, which is raised when the
stage's code changes what it writes. A run of another schema is refused. One with stages of other numbers is read all
the same, with a warning; where that fails, the error says so.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from onesearch.common.artefact import inside, read_manifest

SCHEMA: Final = 1  # raise when the layout of runs changes: every stage is then built afresh
STAGE_VERSIONS: Final[Mapping[str, int]] = {
    "data": 3,
    "pictures": 1,
    "encoder": 2,
    "khqe": 1,
    "index": 2,
    "lexical": 2,
    "baselines": 4,
    "sft1": 5,
    "sft2": 1,
    "pseudo": 1,
    "sft3": 3,
    "engine": 6,
    "understanding": 2,
    "cot": 2,
    "distill": 5,
    "dpo": 2,
    "rewards": 1,
    "grpo": 2,
    "engine_v2": 4,
    "report": 3,
    "final": 1,
}
"""Number of each stage; raise it when the stage's code changes what it writes, which then is built afresh."""


def need(run: Path, stage: str) -> Path:
    """The folder of a finished stage.

    Raises:
        FileNotFoundError: the stage is missing or unfinished.
        ValueError: ``stage``, which a file may have named, leads out of the run, or a version made it whose runs have
            another schema.
    """
    folder = inside(run, stage)
    manifest = read_manifest(folder)
    if manifest is None:
        raise FileNotFoundError(f"{folder} is not a finished stage; run `onesearch run CONFIG` until it is through")
    refuse_other_schema(folder, manifest)
    return folder


def refuse_other_schema(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Look whether this version reads runs of the manifest's schema; manifests from before it was written have 1.

    Raises:
        ValueError: it does not; the message names both versions and what to do.
    """
    if (found := manifest.get("schema", 1)) != SCHEMA:
        raise ValueError(
            f"{folder} was made by onesearch {_maker(manifest)} (runs of schema {str(found)[:20]}), this is"
            f" {version('onesearch')} (schema {SCHEMA}): {_again(folder.parent)}, or use that version"
        )


def other_version(run: Path, by_name: bool = True) -> str:
    """That this version would make stages of a run otherwise, with what to do; "" where it would not.

    ``by_name``: also where the stages have the same numbers, and the versions of onesearch alone differ.
    """
    here = version("onesearch")
    makers: set[str] = set()
    changed: list[str] = []
    for name, now in STAGE_VERSIONS.items():
        try:
            manifest = read_manifest(run / name)
        except (OSError, ValueError, TypeError, RecursionError):  # damaged, which is said elsewhere
            continue
        if manifest is None:
            continue
        makers.add(_maker(manifest))
        if (then := manifest.get("version", now)) != now:
            changed.append(f"{name} ({str(then)[:20]}, now {now})")
    if not changed and (makers <= {here} or not by_name):
        return ""
    otherwise = f", which makes {', '.join(changed)} otherwise" if changed else ""
    return f"{run} was made by onesearch {', '.join(sorted(makers))}, this is {here}{otherwise}: {_again(run)}"


@contextmanager
def readable(run: Path) -> Iterator[None]:
    """Stands around what reads the files of a run: what libraries raise at damaged ones becomes a sentence.

    An error about a run that another version made says that, in its message or as a note.

    Raises:
        ValueError: a file is damaged, or was made by another version.
    """
    try:
        yield
    except (OSError, ImportError):
        raise  # these say what is wrong
    except Exception as error:
        other = other_version(run)
        if isinstance(error, (ValueError, RuntimeError)):  # so do these
            if other:
                error.add_note(other)
            raise
        words = f"{type(error).__name__}: {error}"
        raise ValueError(f"{run} cannot be read ({words}): {other or 'a file is damaged'}") from error


def _maker(manifest: Mapping[str, Any]) -> str:
    """The version of onesearch that a manifest names, where a stranger may have written anything."""
    versions = manifest.get("versions")
    found = versions.get("onesearch") if isinstance(versions, dict) else None
    return found[:20] if isinstance(found, str) else "of unknown version"


def _again(run: Path) -> str:
    return f"make it again with `onesearch run CONFIG --out {run}`, which keeps what did not change"
