"""``onesearch abtest``: an A/B test of two engines before a market's shoppers."""

from pathlib import Path
from typing import Annotated

import typer


def abtest(
    # The two engines, or the log of a real test.
    a: Annotated[
        str,
        typer.Argument(
            metavar="RUN_A",
            help="Run of arm A, RUN:v1 or RUN:v2 for one of its models, with :measured behind it for the engine"
            " that the report measured; or the exposure log"
            " of a service, a Parquet file with the columns user_id, arm, shown, clicked, ordered.",
        ),
    ],
    b: Annotated[str | None, typer.Argument(metavar="[RUN_B]", help="Run of arm B, over the same market.")] = None,
    # The simulated test: how long, on whom, how the shoppers are dealt.
    page_views: Annotated[int, typer.Option(min=100, help="Requests after the end of the log.")] = 40_000,
    newcomers: Annotated[int, typer.Option(min=0, help="Shoppers beside those of the log.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder of abtest.json, abtest.md and charts.")] = Path("runs/abtest"),
    salt: Annotated[str, typer.Option(help="Deals shoppers to arms; another one deals them anew.")] = "ab",
    splits: Annotated[int, typer.Option(min=0, help="A/A splits of arm A's log.")] = 200,
    split: Annotated[
        bool,
        typer.Option(
            "--split",
            help="Each engine serves its own shoppers alone, as in a real test: "
            "half the work for as many shoppers, but no paired estimate.",
        ),
    ] = False,
    # What is compared.
    alone: Annotated[bool, typer.Option("--generator-alone", help="Order by the model's probability alone.")] = False,
) -> None:
    """Let the shoppers of a simulated market search on the pages of two engines, and compare what they do.

    For example:

      onesearch abtest runs/demo:v1 runs/demo:v2 --page-views 20000

    Or compare the two arms of a real test:

      onesearch abtest exposures.parquet
    """
    from onesearch.evaluation.abtest_report import markdown
    from onesearch.pipeline.abtest_runs import compare_arms, compare_engines

    if b is None:
        found = compare_arms(Path(a), out, splits=splits)
    else:
        found = compare_engines(a, b, out, page_views, newcomers, salt, splits=splits, alone=alone, paired=not split)
    typer.echo(markdown(found, by_group=False))
    typer.echo(f"The same by groups of shoppers, queries and items, with charts: {out / 'abtest.md'}", err=True)
