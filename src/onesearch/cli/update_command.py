"""``onesearch update``: learn from new page views, publish the new version if it is better, or go back."""

from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from onesearch.cli.producer_options import ProducerName, open_thoughts, producer_key
from onesearch.cli.terminal import show_json


class MethodName(StrEnum):
    """How a round learns."""

    tpma = "tpma"
    grpo = "grpo"
    dpo = "dpo"


def update(
    # What is learnt from, and how.
    run: Annotated[Path, typer.Argument(help="A finished run with V2.")],
    events: Annotated[
        Path | None, typer.Option(help="Parquet file of new page views, in the schema of a dataset's.")
    ] = None,
    method: Annotated[
        MethodName, typer.Option(help="Policy gradient on draws, or listwise preferences.")
    ] = MethodName.tpma,
    steps: Annotated[int, typer.Option(min=0, help="Steps of alignment; 0 leaves it out.")] = 50,
    epochs: Annotated[
        float, typer.Option(min=0, help="Before it, passes of stage 3 over the new page views and as many old ones.")
    ] = 1.0,
    keep_counts: Annotated[
        bool, typer.Option("--keep-counts", help="Alignment alone; counts, index and evidence stay as they are.")
    ] = False,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the run for this round.")
    ] = None,
    # What the model may know of new queries.
    cache: Annotated[
        str | None, typer.Option(help="Cache of thoughts (`onesearch understand`): those of new queries are used, too.")
    ] = None,
    producer: Annotated[ProducerName, typer.Option(help="With --cache: whose thoughts.")] = ProducerName.llm,
    # Or the way back.
    rollback: Annotated[bool, typer.Option("--rollback", help="Serve what was served before, and stop.")] = False,
) -> None:
    """Learn from new page views, from the version that is served: counts, stage 3 with its teacher, alignment.

    The newest fifth of the page views judges: the new version is served from then on if the engine finds more there
    with it, else it is kept beside the old one. A running service takes the change over within seconds; going back
    takes no training.

    For example:

      onesearch update runs/demo --events new.parquet --method dpo

      onesearch update runs/demo --rollback
    """
    if rollback:
        from onesearch.search.served_versions import roll_back

        typer.echo(f"{run} serves {roll_back(run) or 'the engine of its own stages'}")
        return
    if events is None:
        raise typer.BadParameter("name the new page views, or --rollback", param_hint="--events")
    from onesearch.data.dataset import read_parquet
    from onesearch.pipeline import update_round as rounds
    from onesearch.understanding.thought_table import Thoughts

    # What is known by now about the queries of the new page views.
    thoughts = None
    if cache is not None:
        log = read_parquet(events)
        queries = log["query"].drop_nulls().unique().to_list() if "query" in log.columns else []
        with closing(open_thoughts(cache)) as kept:
            thoughts = Thoughts.from_thoughts(kept.get_many(queries, *producer_key(producer)).values())
    given = None if keep_counts else epochs
    show_json(vars(rounds.update(run, events, method.value, steps, sets or (), thoughts, given)))
