"""``onesearch search``: one search on the command line."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from onesearch.cli.terminal import Measured, Model, show_json, show_table


def search(
    # Who asks for what, and how many items are wanted.
    run: Annotated[Path, typer.Argument(help="A run folder, such as runs/demo.")],
    query: Annotated[str, typer.Argument(help="What to look for; '' asks for a recommendation.")],
    user: Annotated[str | None, typer.Option(help="User id; an unknown one is an anonymous shopper.")] = None,
    k: Annotated[int, typer.Option("--k", "-k", min=1, max=1000, help="Number of results.")] = 10,
    offset: Annotated[int, typer.Option(min=0, help="Better results to leave out: those of earlier pages.")] = 0,
    # Which items may be found.
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="KEY=VALUE",
            help="category, brand, seller, price, in_stock, kind, attributes.TYPE, or not. before one: --filter "
            "brand=Acme --filter 'price=[10, 50]' --filter attributes.Color=red --filter not.brand=Acme. Repeatable.",
        ),
    ] = None,
    # What is said beside the results.
    sort: Annotated[
        str | None, typer.Option(help="Another order of all that is relevant: price, -price, newest or popularity.")
    ] = None,
    facets: Annotated[
        list[str] | None,
        typer.Option("--facet", help="Count the values of a filter among all that is relevant, as brand. Repeatable."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say of each result why it stands where it does.")] = False,
    # Which model looks, and how hard.
    model: Model = None,
    measured: Measured = False,
    correct: Annotated[bool, typer.Option(help="Correct words that neither items nor log know.")] = True,
    width: Annotated[int | None, typer.Option(min=1, max=512, help="Beams; more find more and take longer.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Search a run's catalogue and show the ranked items with the semantic ID that led to each.

    For example:

      onesearch search runs/demo "waterproof hiking boots" -k 5 --filter "price=[null, 100]"

      onesearch search runs/demo "boots" --facet brand --sort price
    """
    from onesearch.search.confidence import NOTHING_FITS
    from onesearch.search.engine import SearchEngine
    from onesearch.search.results import SearchRequest

    wanted = parse_filters(filters or [])
    engine = SearchEngine.load(run, width, model.value if model else None, measured=measured)
    request = SearchRequest(
        query,
        user,
        k,
        wanted or None,
        offset=offset,
        count=bool(facets),
        facets=facets or (),
        sort=sort,  # type: ignore[arg-type]
        explain=explain,
        correct=correct,
    )
    results = engine.search_batch([request])[0]
    if results.corrected_query is not None:
        typer.echo(f"results for “{results.corrected_query}”; --no-correct searches for “{query}”", err=True)
    if results.did_you_mean is not None:
        typer.echo(f"did you mean “{results.did_you_mean}”?", err=True)
    if results.confidence is not None and results.confidence < NOTHING_FITS:
        typer.echo(f"nothing fits this search well (confidence {results.confidence:.3f}); nearest items:", err=True)
    # For programs: every field, nothing rounded.
    if as_json:
        show_json(
            [
                {
                    "rank": rank,
                    "item_id": r.item_id,
                    "score": r.score,
                    "sid": list(r.sid),
                    "title": r.item.title,
                    "brand": r.item.brand,
                    "price": r.item.price,
                    **({} if r.why is None else {"why": asdict(r.why)}),
                }
                for rank, r in enumerate(results, offset + 1)
            ]
        )
        return
    # For people.
    rows = [
        (rank, f"{r.score:.3f}", r.item.title, r.item.brand, r.item.price, " ".join(map(str, r.sid)))
        for rank, r in enumerate(results, offset + 1)
    ]
    columns = ("#", "score", "title", "brand", "price", "semantic ID")
    total = "" if results.total is None else f" of {results.total:,}"
    show_table(f"“{query}”: {len(rows)} results{total}", columns, rows, right=("#", "score", "price"))
    for rank, r in enumerate(results, offset + 1):
        if r.why is not None:
            typer.echo(f"{rank}. {r.item.title}: {r.why}")
    for name, values in results.facets.items():
        show_table(name, ("value", "items"), values, right=("items",))


def parse_filters(given: list[str]) -> dict[str, Any]:
    """``key=value`` texts as filters; values are YAML, so ``price=[10, null]`` and ``in_stock=true`` work.

    Raises:
        ValueError: no ``=``, or a key given twice.
    """
    import yaml

    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ValueError(f"filter '{text}' is not of the form key=value")
        if key in found:
            raise ValueError(f"filter '{key}' is given twice; for 'one of these' write {key}='[a, b]'")
        # Names stay texts even where YAML would see a number or a yes.
        parsed = yaml.safe_load(value)
        plain = key.removeprefix("not.") in ("price", "in_stock") or isinstance(parsed, list | dict)
        found[key] = parsed if plain else value.strip()
    return found
