"""From CSV files to a searched engine, at a size whose figures mean nothing; docs/your-own-data.md says more."""

import csv
import random
import tempfile
from pathlib import Path

from onesearch import load_engine
from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.data.ingest.importer import import_mapping
from onesearch.pipeline import run_config

MAPPING = """
source: my-shop
folder: .
items: {file: products.csv, columns: {item_id: sku, title: name, brand: maker, price: eur}}
page_views: {file: clicks.csv, columns: {query: q, user_id: customer, time: ts, clicked: sku}, time: {unit: s}}
"""
CONFIG = """
name: my-shop
data: {folder: DATA, split: time}
encoder: {static: {dimension: 32}, align: {epochs: 1, nested: [], batch_size: 64}, folds: 2}
khqe: {layers: [16, 8, 8], opq_size: 16, iterations: 4}
model: {backbone: {d_model: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, ffn: 64}, text_vocabulary: 300}
sft1: {steps: 5, batch_size: 32}
sft2: {steps: 5, batch_size: 32}
sft3: {epochs: 1, batch_size: 32}
search: {width: 8, lexical: true}
"""


def write_table(path: Path, header: str, rows: list[list[object]]) -> None:
    """A CSV file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(), *rows])


def main() -> None:
    """Write a shop of 200 products and 1000 clicks, import it, train a run, search."""
    chance = random.Random(0)
    names = [
        f"{colour} {thing}"
        for colour in ("red", "blue", "green", "black")
        for thing in ("boot", "lamp", "mug", "tent", "rug")
    ]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        products: list[list[object]] = [
            [f"p{i}", f"{names[i % 20]} {i}", f"maker {i % 7}", 5 + i % 90] for i in range(200)
        ]
        picks = [chance.randrange(200) for _ in range(1000)]
        clicks: list[list[object]] = [
            [names[i % 20], f"c{chance.randrange(50)}", 1_700_000_000 + 600 * t, f"p{i}"] for t, i in enumerate(picks)
        ]
        write_table(folder / "products.csv", "sku name maker eur", products)
        write_table(folder / "clicks.csv", "q customer ts sku", clicks)
        (folder / "mapping.yaml").write_text(MAPPING)
        (folder / "my-shop.yaml").write_text(CONFIG.replace("DATA", str(folder / "data")))

        summary = import_mapping(load_mapping(folder / "mapping.yaml"), folder / "data")
        print(summary.rows)
        run_config(folder / "my-shop.yaml", folder / "run", until="engine")
        for result in load_engine(folder / "run").search("red boot", k=3):
            print(f"{result.score:7.3f}  {result.item.title}  {result.item.price}")


if __name__ == "__main__":
    main()
