"""The table of ``docs/sizing.md``, from the saved figures of the benchmarks of speed and memory.

    python -m benchmarks.speed_page run sizing      # measure memory and searches by the number of items
    python -m benchmarks.sizing_table               # write the table into docs/sizing.md
    python -m benchmarks.sizing_table --check       # fail if the table is not the one that would be written

Up to ten million items it goes beyond what was measured, from the two largest sizes that were: memory along the line
through both, the time of a search along the line over the logarithm of the items, all else in proportion.
"""

import argparse
import math
from collections.abc import Mapping
from typing import Any

from benchmarks.provenance import ROOT
from benchmarks.speed_page import FILES

START, END = "<!-- sizing:start -->", "<!-- sizing:end -->"
BEYOND = (1_000_000, 10_000_000)
PAGE_VIEWS_PER_ITEM = 10
_SIDS = "semantic IDs of all items"
_V1 = f"V1: a pass of stage 3 over {PAGE_VIEWS_PER_ITEM} page views an item"
_V2 = "V2: a pass of distillation over them"


def table(figures: Mapping[str, Any]) -> str:
    """The table in Markdown, with where its figures come from."""
    serving, training = figures["sizing"]["figures"]["by_items"], figures["training"]["figures"]
    quantizer = figures["quantizer"]["figures"]
    machines = sorted({figures[name]["provenance"]["machine"] for name in ("sizing", "training", "quantizer")})
    measured = {int(size): serving[size] for size in sorted(serving, key=int)}
    small, large = list(measured)[-2:]
    sizes = [*measured, *(size for size in BEYOND if size > large)]

    def value(name: str, size: int, by_logarithm: bool = False) -> float:
        """A figure of serving: as measured, or on the line through the two largest sizes."""
        if size in measured:
            return float(measured[size][name])
        a, b, at = ((math.log(n) if by_logarithm else n) for n in (small, large, size))
        rise = (at - b) / (b - a)
        return float(measured[large][name] + rise * (measured[large][name] - measured[small][name]))

    def search(name: str) -> list[float]:
        return [value(name, size, by_logarithm=True) for size in sizes]

    # Seconds an item, and a page view.
    fit, encode = quantizer["fit_seconds"] / quantizer["sample"], quantizer["encode_seconds"] / quantizer["vectors"]
    came = {size: measured.get(size, measured[large])["upsert_cpu_ms_per_1000"] / 1e6 for size in sizes}
    v1 = PAGE_VIEWS_PER_ITEM / training["onesearch_samples_per_second"]
    v2 = v1 * training["v2_step_over_sft_step"]
    rows = {
        "memory of a server": [_gib(value("memory_mib", size)) for size in sizes],
        "… at most, while items come in": [_gib(value("peak_mib", size)) for size in sizes],
        "processor time of a search, ms": [f"{ms:.0f}" for ms in search("search_cpu_ms")],
        "searches a second and core, one by one": [f"{1e3 / ms:.0f}" for ms in search("search_cpu_ms")],
        "… in batches of 32, under load": [f"{1e3 / ms:.0f}" for ms in search("batch_cpu_ms")],
        "processor time to bring all items in": [_time(size * came[size]) for size in sizes],
        _SIDS: [_time(fit * min(size, quantizer["sample"]) + encode * size) for size in sizes],
        _V1: [_time(v1 * size) for size in sizes],
        _V2: [_time(v2 * size) for size in sizes],
    }
    # What nobody measured is in italics: further sizes, and at every size what is counted from a speed.
    heads = [f"{size:,} items" + ("" if size in measured else ", *extrapolated*") for size in sizes]
    known = {name: set(measured) for name in rows} | {_SIDS: {int(quantizer["vectors"])}, _V1: set(), _V2: set()}
    cells = [
        [name, *(cell if size in known[name] else f"*{cell}*" for size, cell in zip(sizes, row, strict=True))]
        for name, row in rows.items()
    ]
    item = 2**20 * (value("memory_mib", large) - value("memory_mib", small)) / (large - small)
    lines = [
        *(f"| {' | '.join(row)} |" for row in (["", *heads], ["---"] * (len(sizes) + 1), *cells)),
        "",
        f"A further item takes {item / 1e3:.1f} kB of a server. Training, on two cores: batches of"
        f" {training['batch_size']} prompts of {training['mean_prompt_tokens']:.0f} tokens,"
        f" {training['layer_parameters'] / 1e6:.1f} million parameters in layers, at the speed measured with"
        f" {training['items']:,} items; semantic IDs at that with {quantizer['vectors']:,}. Measured by `sizing`,"
        f" `training` and `quantizer` of [speed and memory](results/speed.md) on {'; '.join(machines)}.",
    ]
    return "\n".join(lines)


def _gib(mib: float) -> str:
    return f"{mib / 2**10:.1f} GiB"


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    size, unit = next((one for one in ((3600, "h"), (60, "min")) if seconds >= one[0]), (1, "s"))
    return f"{seconds / size:.1f} {unit}" if seconds < 10 * size else f"{seconds / size:,.0f} {unit}"


def filled(page: str) -> str:
    """The page's text with the table between the markers."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SystemExit(f"docs/sizing.md lacks the markers {START} and {END}")
    return f"{before}{START}\n{table(FILES.figures())}\n{END}{after}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Fill the table of docs/sizing.md.")
    parser.add_argument("--check", action="store_true", help="only say whether the table is up to date")
    options = parser.parse_args()
    page = ROOT / "docs" / "sizing.md"
    text = page.read_text(encoding="utf-8")
    new = filled(text)
    if options.check:
        raise SystemExit("the table in docs/sizing.md is out of date" if new != text else 0)
    page.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
