"""``onesearch nightly``: the shop's new items, the day's events, a round of learning, with one log of it."""

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from onesearch.cli.producer_options import ProducerName, open_thoughts, producer_key
from onesearch.cli.update_command import MethodName
from onesearch.serving.run_store import open_run_store

if TYPE_CHECKING:
    from onesearch.understanding.thought_table import Thoughts


def nightly(
    # Which run, whose events, which items.
    run: Annotated[Path, typer.Argument(help="A finished run with V2; a service may be serving it.")],
    store: Annotated[
        str | None,
        typer.Option(help="Where the service keeps its events: a file (default: RUN/serving.sqlite3), or redis://…"),
    ] = None,
    items: Annotated[
        Path | None, typer.Option(help="Mapping of the shop's files (`onesearch data import`); its items are read.")
    ] = None,
    data_root: Annotated[Path | None, typer.Option(help="Stands for ${ONESEARCH_DATA} in the mapping.")] = None,
    most_deleted: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the catalogue that one night may delete.")
    ] = 0.1,
    # How to learn.
    method: Annotated[MethodName, typer.Option(help="As with `onesearch update`.")] = MethodName.tpma,
    steps: Annotated[int, typer.Option(min=0, help="Steps of alignment; 0 leaves it out.")] = 50,
    epochs: Annotated[
        float, typer.Option(min=0, help="Before it, passes of stage 3 over the new page views and as many old ones.")
    ] = 1.0,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the run for this round.")
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Cache of thoughts (`onesearch understand`): those of new queries are used, too.")
    ] = None,
    producer: Annotated[ProducerName, typer.Option(help="With --cache: whose thoughts.")] = ProducerName.llm,
) -> None:
    """What a shop runs every night: its items, what happened, a round of learning, published if more is found.

    Each step leaves a line here and, as JSON, in RUN/nightly/log.jsonl. The exit code is 1 if a step failed; the others
    were done all the same.

    Example:  onesearch nightly runs/demo --method dpo --steps 20
    """
    from onesearch.data.ingest.column_mapping import load_mapping
    from onesearch.pipeline.nightly import Round
    from onesearch.pipeline.nightly import nightly as night
    from onesearch.understanding.thought_table import Thoughts

    def known(queries: Sequence[str]) -> "Thoughts":
        with closing(open_thoughts(str(cache))) as kept:
            return Thoughts.from_thoughts(kept.get_many(queries, *producer_key(producer)).values())

    mapping = None if items is None else load_mapping(items, data_root)
    rounds = Round(method.value, steps, epochs, tuple(sets or ()), None if cache is None else known)
    failed = False
    with closing(open_run_store(run, store)) as kept:
        for step in night(run, kept, mapping, rounds, most_deleted):
            typer.echo(f"{step.name}: {step.outcome}: {json.dumps(step.found)}")
            failed |= step.outcome == "failed"
    if failed:
        raise typer.Exit(1)
