"""``onesearch agents``: agents that shop for a market's shoppers before a run's engine."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from onesearch.cli.terminal import show_json, show_table

if TYPE_CHECKING:
    from onesearch.evaluation.agent_sessions import MakeAgent


def agents(
    # Which engine, how many sessions, how long each.
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="Run over a simulated market, RUN:v1 or RUN:v2 for one of its models, with :measured behind it for the"
            " engine that the report measured.",
        ),
    ],
    sessions: Annotated[int, typer.Option(min=1, help="Needs of shoppers after the end of the log.")] = 500,
    budget: Annotated[int, typer.Option(min=1, max=50, help="Searches of a session at most.")] = 6,
    stream: Annotated[int, typer.Option(min=1, help="Another one gives other needs of the same shoppers.")] = 1,
    alone: Annotated[bool, typer.Option("--generator-alone", help="Order by the model's probability alone.")] = False,
    # Who shops.
    by_model: Annotated[
        bool, typer.Option("--by-model", help="A language model is the agent, and not the market's stand-in.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option(help="With --by-model: OpenAI-compatible server; default $ONESEARCH_LLM_BASE_URL.")
    ] = None,
    llm: Annotated[str | None, typer.Option(help="With --by-model: its name; default $ONESEARCH_LLM_MODEL.")] = None,
    # What is kept.
    out: Annotated[
        Path | None,
        typer.Option(
            help="Parquet file of the searches as page views, rewarded by the final order alone: for `update`."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Let agents shop for the shoppers of a simulated market: how many orders, and how many searches each takes.

    For example:

      onesearch agents runs/demo --sessions 300

      onesearch agents runs/demo:v2 --sessions 2000 --out runs/demo/sessions.parquet
    """
    from onesearch.common.settings import validated
    from onesearch.pipeline.abtest_runs import arm_of, open_arm
    from onesearch.pipeline.agent_runs import by_model as models
    from onesearch.pipeline.agent_runs import simulate
    from onesearch.search.run_parts import need
    from onesearch.understanding.llm_producer import LLMSettings

    # What the model has used is told beside the figures.
    make: MakeAgent | None = None
    used: dict[str, Any] = {}
    if by_model:
        given = {name: value for name, value in (("base_url", base_url), ("model", llm)) if value is not None}
        make, usage = models(validated(LLMSettings, given, "onesearch agents"))
    engine = open_arm(run)
    searcher = engine.alone() if alone else engine
    found = simulate(searcher, need(arm_of(run), "data"), sessions, budget, stream, make, out)
    used = usage() if by_model else {}
    if as_json:
        show_json({**found, **used})
        return
    rows = [(name, *_figures(value)) for name, value in found.items() if isinstance(value, dict)]
    show_table(f"{found['engine']}: {sessions} sessions of at most {budget} searches", ("", "", "95 %"), rows)
    typer.echo("orders after 1, 2, … searches: " + ", ".join(map(str, found["orders_by_searches"])))
    if used:
        typer.echo(f"{used['model']}: {used['answers']} answers, {used['refused_calls']} calls refused", err=True)


def _figures(value: dict[str, float | None]) -> tuple[str, str]:
    """A figure and its interval in words."""
    if value["value"] is None:
        return "none", ""
    interval = "" if value["low"] is None else f"{value['low']:.3f} to {value['high']:.3f}"
    return f"{value['value']:.3f}", interval
