"""Speed and memory: run the benchmarks, keep their figures, render ``docs/results/speed.md``.

    python -m benchmarks.speed_page run [NAME ...]    # into docs/results/speed.json; all of them without a name
    python -m benchmarks.speed_page render            # docs/results/speed.md

``search``, ``zero-cost``, ``sizing``, the ``load`` ones and ``chaos`` measure the run in ``runs/demo`` (``make demo
SERVE=0``), ``evidence`` those of ``configs/market.yaml`` and ``configs/bestbuy.yaml``. Run them on a machine that does
nothing else.
"""

from benchmarks.command_page import Benchmark, main, write_page
from benchmarks.provenance import ROOT
from benchmarks.result_files import ResultFiles

FILES = ResultFiles("speed")
PLOT = FILES.charts / "width.png"

_UNDER_LOAD = {
    "kept": ">= 0.9",
    "connections: 256: errors": "<= 0",
    "soak_errors": "<= 0",
    "memory_growth": "<= 0.02",
    "p95_ratio": "<= 2",
    "while_items_come_in: items_per_second": ">= 1000",
}
ALL = {
    "decoding": Benchmark(
        "python -m benchmarks.speed decoding --json",
        "Constrained beam search against `generate` of transformers with `prefix_allowed_tokens_fn` (plain form of the "
        "model), against the bare matrix products of the same network (shipped, anchored form), and over catalogue "
        "size. As shipped a beam with one item left is not decoded; `every beam decoded` holds the network's work "
        "constant.",
        {
            "ratio_vs_generate_128": ">= 16",
            "ratio_vs_generate_512": ">= 25",
            "times_gemm_512": "<= 2.5",
            "growth_100k_to_5m": "<= 1.3",
        },
    ),
    "compiled": Benchmark(
        "python -m benchmarks.speed compiled --json",
        "The decoder's five steps of one search as they are and under `torch.compile`, for models and beams of three "
        "sizes: milliseconds, compiled over not compiled, and the seconds of the first search, which compiles. Serving "
        "does not compile: prompts have many lengths, and each is compiled anew.",
        {},
    ),
    "query": Benchmark(
        "python -m benchmarks.speed query --json",
        "An uncached query text to its SID with the static encoder.",
        {"query_p50_ms": "<= 3"},
    ),
    "training": Benchmark(
        "python -m benchmarks.speed training --json",
        "SFT stage 3 against `Seq2SeqTrainer` of transformers, as it comes and with its batches grouped by length; and "
        "a full V2 step over a plain SFT step on the same prompts, with teachers of a third of them, the default's "
        "share, and of all of them; and a TPMA step, rollouts and rewards included, over an SFT step on as many "
        "samples.",
        {
            "ratio_vs_trainer": ">= 1.5",
            "v2_step_over_sft_step": "<= 3.5",
            "v2_step_over_sft_step_all": "<= 3.5",
            "tpma_step_over_sft_step": "<= 2.5",
        },
    ),
    "search": Benchmark(
        f"python -m benchmarks.speed search runs/demo --json --plot {PLOT.relative_to(ROOT)}",
        "A whole search, query text to finished results, at beam widths 32, 128 and 512, and the cascade. The curve "
        "decides the default width: HR@10 of the generator alone is flat from 16 beams on; 64 leave room for larger "
        "catalogues and for filters.",
        {},
    ),
    "zero-cost": Benchmark(
        "python -m benchmarks.speed zero-cost runs/demo --json",
        "What V2 costs in serving beside V1 of the same run: latency (low and high are the lowest and the highest of "
        "the repeats), model files, and positions that the encoder reads. Thoughts teach V2 in training only, so all "
        "three should be 1; the command fails if V2's input holds keywords.",
        {"latency_v2_over_v1": "<= 1.05", "size_v2_over_v1": "<= 1", "tokens_v2_over_v1": "<= 1"},
    ),
    "evidence": Benchmark(
        "python -m benchmarks.speed evidence runs/market runs/bestbuy --json",
        "What evidence at the input costs: CPU time of a search with it over one of the same model without, in turns, "
        "for single requests and in batches of 32 (low and high are the lowest and the highest of the repeats); and "
        "milliseconds a request of the parts. Evidence makes prompts longer, adds candidates, and counts at every step "
        "of the decoder.",
        {f"{run}: ratio_{size}": "<= 1.3" for run in ("market", "bestbuy") for size in (1, 32)},
    ),
    "understanding": Benchmark(
        "python -m benchmarks.understand_faults",
        "`onesearch understand` of 10,000 queries over HTTP with 1 % of the calls failing, 1 % of the answers "
        "malformed, and the server killed and started again in the middle.",
        {"lost": "<= 0", "asked_twice": "<= 0", "unfinished": "<= 0"},
    ),
    "index": Benchmark(
        "python -m benchmarks.index_build",
        "The SID index over a million items: build, size, changes of one item and of a batch, look-ups, and filters "
        "that no search has asked for yet.",
        {
            "build_items_per_second": ">= 500000",
            "bytes_per_item_besides_vectors": "<= 64",
            "upsert_one_cpu_ms": "<= 5",
            "upsert_batch_cpu_ms": "<= 150",
            "delete_batch_cpu_ms": "<= 50",
        }
        | {f"cold_filter_cpu_ms: {kind}": "<= 5" for kind in ("price", "brand", "category", "attribute")},
    ),
    "load": Benchmark(
        "python -m benchmarks.load runs/demo",
        "The service under load, callers and service on the same machine: by number "
        "of connections answered searches a second, milliseconds of those, refusals (503 with `Retry-After`) and "
        "errors; throughput at 256 connections over the best (`kept`) and right after at 16 (`recovered`); growth of "
        "memory over the second 10,000 of 20,000 searches; and p95 while 1,000 items a second are sent in, over p95 "
        "without.",
        _UNDER_LOAD,
    ),
    "load-100000": Benchmark(
        "python -m benchmarks.load runs/demo --items 100000",
        "The same after the catalogue was brought up to 100,000 items.",
        _UNDER_LOAD,
    ),
    "shards": Benchmark(
        "python -m benchmarks.shards runs/demo",
        "A catalogue in several engines ([several engines](../shards.md)), processes with one thread each on this "
        "machine, beside one engine: pages that are the same, that differ in items with scores within 1e-4 of each "
        "other alone, and others; how often the shards meet in a search, and the bytes that come to each; processor "
        "milliseconds of all shards together and of the busiest. More shards than cores wait for each other.",
        {f"{count} shards: {kind}: other": "<= 0" for count in (2, 4) for kind in ("plain", "filtered")},
    ),
    "chaos": Benchmark(
        "python -m benchmarks.chaos runs/demo",
        "SIGKILL at random moments of serving, training, updating and publishing, a full disk, a clock set back, a "
        "Redis that comes back empty: what was lost, done twice, left unfinished, came out different, could not be "
        "read, was not served, or not noticed.",
        {"faults": "<= 0"},
    ),
    "sizing": Benchmark(
        "python -m benchmarks.sizing runs/demo",
        "What catalogues of some sizes need in serving ([sizing](../sizing.md)): MiB of the "
        "process as loaded, after the searches, and at most while items came in; processor time of bringing in a "
        "thousand items, of a search by itself, and of one of 32 that are answered together, on one thread.",
        {},
    ),
    "market": Benchmark(
        "python -m benchmarks.market_speed", "A million page views of the simulated marketplace.", {"seconds": "<= 180"}
    ),
    "import": Benchmark(
        "python -m benchmarks.import_memory --rows 20000000", "Import of a click log of 20 million rows.", {}
    ),
    "quantizer": Benchmark(
        "python -m benchmarks.quantizer_scale",
        "One million vectors of dimension 384: fit on a sample, encode all.",
        {"seconds": "<= 600", "peak_gib": "<= 8"},
    ),
}


def render() -> None:
    """Write the page from the saved figures."""
    head = [
        "# Speed and memory",
        "",
        "Written by `python -m benchmarks.speed_page render` from `docs/results/speed.json`; do not edit by hand.",
    ]
    charts = {"search": f"![HR@10 over beam width]({PLOT.relative_to(FILES.folder)})"}
    write_page(FILES, ALL, head, charts)


if __name__ == "__main__":
    main(FILES, ALL, render, __doc__ or "")
