"""Text alone, pictures and text in one tower, or side by side: which vectors, semantic IDs and generators find more?

    python -m benchmarks.encodings run RUNS                       # every cell that is not finished
    python -m benchmarks.encodings run RUNS emoji.0-1/static      # those whose name begins so
    python -m benchmarks.encodings save RUNS                      # finished cells, with paired tests
    python -m benchmarks.encodings render                         # docs/results/encodings.md and its charts

Two sets, each at several shares of what pictures alone know: emoji with the keywords that people type (real pictures,
real words; $ONESEARCH_EMOJI is a folder ``node_modules`` with the packages of ``benchmarks/emoji_data.py``), where a
share of the texts lacks the name; and the market with two drawn pictures an item, where that share of texts does not
say a colour or pattern. Same pairs, quantizer and generator for all encodings; a static text encoder, and a small
transformer ($ONESEARCH_ENCODER). A cell is ``SET.SHARE-SEED/ENCODER-ENCODING``.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.emoji_data import write_emoji
from benchmarks.encodings_page import ENCODINGS, FILES, GENERATOR, METRICS, SIDS, VECTORS, render
from benchmarks.grid import CELL, VALUES, Cell, DataSet, Grid, main
from benchmarks.provenance import ROOT
from benchmarks.request_values import Values, save_values
from onesearch import pipeline
from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.encoding.pictures.item_pictures import ItemPictures
from onesearch.encoding.sid_quality import (
    measure_query_encoding,
    prefix_agreement,
    top_items,
    uniqueness,
)
from onesearch.evaluation.evaluate import MeasureSettings, build_report, rank_all, sampled_metrics
from onesearch.pipeline import settings_of
from onesearch.pipeline.run_data import RunData
from onesearch.search.engine import SearchEngine
from onesearch.search.ranking_weights import GENERATOR_ALONE
from onesearch.search.run_parts import need

CUT = MeasureSettings(k=(10,), resamples=1000, flips=10_000)
TIMED = 200
"""New items, and queries, that are timed one at a time."""
EMOJI, MARKET = "emoji", "market"
PACKAGES, ENCODER = "ONESEARCH_EMOJI", "ONESEARCH_ENCODER"
_TRANSFORMER = (
    f"encoder.transformer=${{{ENCODER}}}",
    "encoder.align.max_steps=100",
    "encoder.align.batch_size=64",
)
ENCODERS: Mapping[str, tuple[str, ...]] = {"static": (), "transformer": _TRANSFORMER}
_ALWAYS = ("pictures={size: 96}", "khqe.layers=[256,128,64]", "lexicon.fuse=false", "evaluation.test_requests=2000")
_EMOJI = (
    "encoder.fields=[title,category]",
    "encoder.static.dimension=128",
    "encoder.align.nested=[]",
    "data.test=0.2",
    "pseudo.searches=0",
    "sft3.pseudo_share=0.3",
    "sft3.epochs=4",
    "sft3.loop.validate_steps=50",
    "model.text_vocabulary=4000",
)
_MARKET = (
    "data.market={items: 4000, users: 1500, days: 60, page_views: 16000, pictures: 2}",
    "sft1.steps=100",
    "sft2.steps=60",
    "sft3.batch_size=128",
    "sft3.epochs=1.5",
)


def _cells(encoders: Sequence[str], measured: tuple[str, ...]) -> tuple[Cell, ...]:
    return tuple(
        Cell(f"{encoder}-{name}", what, (*ENCODERS[encoder], f"encoder.encoding={name}"), measured=measured)
        for encoder in encoders
        for name, what in ENCODINGS.items()
    )


_ENDS = _cells(tuple(ENCODERS), (VECTORS, SIDS, GENERATOR))
_BETWEEN = _cells(("static",), (VECTORS, SIDS))
"""How lines run between the ends is asked of vectors and IDs alone."""
SETS: Mapping[str, DataSet] = {
    **{
        f"{EMOJI}.{share}": DataSet("configs/homedepot.yaml", cells, (*_ALWAYS, *_EMOJI), seeds=(1, 2))
        for share, cells in ((0, _ENDS), (50, _BETWEEN), (100, _ENDS))
    },
    **{
        f"{MARKET}.{share}": DataSet(
            "configs/market.yaml",
            cells,
            (*_ALWAYS, *_MARKET, f"data.market.picture_only={share / 100}"),
            seeds=(1, 2),
            same_requests=False,
        )
        for share, cells in ((0, _ENDS), (25, _BETWEEN), (50, _BETWEEN), (75, _BETWEEN), (100, _ENDS))
    },
}


@dataclass
class EncodingsGrid(Grid):
    """Cells that share data and picture vectors, and differ in how an item becomes a vector."""

    files: Any = FILES
    sets: Mapping[str, DataSet] = field(default_factory=lambda: SETS)
    tested: Sequence[str] = tuple(METRICS)

    def cells(self, prefix: str = "") -> Any:
        """The static encoder's on all sets before the slower one's; the first seed before further ones."""
        order = [
            (place, cell.name.startswith("transformer"), number, name, cell)
            for number, (name, data) in enumerate(self.sets.items())
            for place in range(len(data.seeds))
            for cell in data.cells
        ]
        for place, _, _, name, cell in sorted(order, key=lambda one: one[:3]):
            seed = self.sets[name].seeds[place]
            if f"{name}-{seed}/{cell.name}".startswith(prefix):
                yield name, seed, cell

    def pairs(self, data: DataSet) -> list[tuple[str, str]]:
        """Every encoding against text, and the towers against each other, of each text encoder."""
        found = []
        for encoder in dict.fromkeys(cell.name.partition("-")[0] for cell in data.cells):
            for one, other in (("unified", "text"), ("concat", "text"), ("concat", "unified")):
                found += [
                    (f"{encoder}-{one}/{method}", f"{encoder}-{other}/{method}") for method in data.cells[0].measured
                ]
        return found

    def _sets(self, name: str, seed: int, cell: Cell | None = None) -> tuple[str, ...]:
        data = self.sets[name]
        seeds = ("seed=1", f"training_seed={seed}") if data.same_requests else (f"seed={seed}",)
        own = ()
        if name.startswith(EMOJI):
            folder = self.runs.absolute() / f"{name}.files"
            own = (
                f"data.mapping={folder / 'mapping.yaml'}",
                f"data.root={folder}",
                f"pictures.root=${{{PACKAGES}}}",
            )
        return (*data.sets, *own, *self.more, *seeds, *(cell.sets if cell else ()))

    def _train(self, name: str, seed: int, cell: Cell) -> None:
        config, base = ROOT / self.sets[name].config, self.folder(name, seed, "base")
        shared, sets = (tuple(map(os.path.expandvars, self._sets(name, seed, one))) for one in (None, cell))
        if name.startswith(EMOJI) and not (files := self.runs / f"{name}.files").is_dir():
            write_emoji(Path(os.environ[PACKAGES]), files, int(name.partition(".")[2]) / 100)
        pipeline.run_config(config, base, shared, until="pictures")
        until = "sft3" if GENERATOR in cell.measured else "index"  # vectors of new texts need what is in the index
        pipeline.run_config(config, self.folder(name, seed, cell.name), sets, reuse=[base], until=until)

    def _measure(self, name: str, seed: int, cell: Cell) -> None:
        folder = self.folder(name, seed, cell.name)
        run_data, config = RunData(folder), settings_of(folder)
        page_views, clicked = run_data.sample_with_clicks(run_data.split.test, config.evaluation.test_requests, 0)
        requests, targets = run_data.requests(page_views), run_data.targets(page_views)
        # What each form ranks: exact vectors, items as their SIDs say them, and what the model writes.
        queries = run_data.featurizer.vectors(requests.query)
        items = np.ascontiguousarray(map_array(need(folder, "khqe") / "item_vectors.npy"))
        khqe = run_data.khqe
        codes = khqe.encode(items)
        ranked = {VECTORS: top_items(queries, items, 10), SIDS: top_items(queries, khqe.decode(codes), 10)}
        milliseconds: dict[str, float] = {}
        if GENERATOR in cell.measured:
            engine = SearchEngine.from_parts(run_data, "sft3", config.search, GENERATOR_ALONE)
            ranked[GENERATOR], milliseconds[GENERATOR] = rank_all(engine, requests, 10)
        values: Values = {
            method: {key: one for key, one in sampled_metrics(found, targets, CUT.k).items() if key in METRICS}
            for method, found in ranked.items()
        }
        save_values(folder / VALUES, values, {})
        figures = build_report(values, {}, (), CUT, milliseconds).to_json()
        about = {
            **self._provenance(name, seed, cell),
            "requests": len(page_views),
            "items": len(items),
            "methods": figures["methods"],
            "slices": {},
            "icr": uniqueness(codes, khqe.codebook_sizes)["icr"],
            "prefix_agreement": prefix_agreement(khqe.encode(queries), codes, clicked),
            "milliseconds": {**milliseconds, **self._times(run_data, folder)},
            "pictures": read_json(need(folder, "pictures") / "manifest.json")["metrics"],
        }
        write_json(folder / CELL, about)
        said = ", ".join(f"{one} {row['click/HR@10']['mean']:.4f}" for one, row in figures["methods"].items())
        print(f"{name}-{seed}/{cell.name}, click HR@10: {said}", flush=True)

    def _times(self, run_data: RunData, folder: Path) -> dict[str, float]:
        """Milliseconds of a query, and of a new item: its picture read and looked at, its vector and SID."""
        texts = list(dict.fromkeys(run_data.split.test["query"].to_list()))[: TIMED + 20]
        found = {"query": measure_query_encoding(run_data.encoder, run_data.khqe, texts)["query_p50_ms"]}
        items = run_data.dataset.items.sample(min(TIMED, run_data.dataset.items.height), seed=0)
        config, spent = settings_of(folder), np.zeros((items.height, 2))
        pictures = None
        if config.encoder.encoding != "text" and config.pictures is not None:
            root = config.pictures.root or need(folder, "data")
            pictures = ItemPictures.load(need(folder, "pictures"), root)
        featurizer = replace(run_data.featurizer, pictures=pictures)
        for row in range(items.height):
            one = items[row]
            start = time.perf_counter()
            if pictures is not None:
                pictures.prepare(one["images"].to_list())
            spent[row, 0] = time.perf_counter() - start
            run_data.khqe.encode(featurizer.item_vectors(one))
            spent[row, 1] = time.perf_counter() - start
        picture, whole = (float(1000 * np.median(column)) for column in spent.T)
        return {**found, "picture": picture, "item": whole}


if __name__ == "__main__":
    main(sys.argv[1:], EncodingsGrid(Path()), render, __doc__ or "")
