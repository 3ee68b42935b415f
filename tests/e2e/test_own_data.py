"""The recipe of docs/your-own-data.md on five shops' exports made for it: import, check, run, serve."""

import csv
import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest
import yaml
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from onesearch import Dataset, load_engine
from onesearch.cli import app
from onesearch.pipeline import run_config
from onesearch.serving.http_app import create_app
from onesearch.serving.sqlite_store import SqliteStore

ROOT = Path(__file__).parents[2]
# What makes the demo's model as small as it can be; the recipe itself says nothing of sizes.
SMALL = [
    "encoder.static.dimension=16",
    "encoder.align.epochs=0.5",
    "encoder.align.batch_size=32",
    "encoder.folds=0",
    "khqe.layers=[8, 4, 4]",
    "khqe.opq_size=8",
    "khqe.iterations=2",
    "model.text_vocabulary=300",
    "model.row_dim=16",
    "model.backbone={kind: bart, d_model: 16, heads: 2, encoder_layers: 1, decoder_layers: 1, ffn: 32}",
    *(f"{stage}.{key}" for stage in ("sft1", "sft2", "cot") for key in ("steps=1", "batch_size=8")),
    "sft3.epochs=0.1",
    "sft3.batch_size=16",
    "sft3.score_negatives=16",
    "grpo.steps=1",
    "grpo.validate_requests=5",
    "search.width=4",
    "evaluation.measures={resamples: 5, flips: 10}",
    "evaluation.fit_requests=10",
    "evaluation.test_requests=10",
    "evaluation.cascade={trees: 2, page_views: 40, validation_page_views: 10}",
]
COLOURS = ("red", "blue", "green", "black", "white")
THINGS = ("shirt", "lamp", "chair", "bowl", "jacket", "clock", "tent", "bag")
PRODUCTS = [
    (f"{number:05}", colour, thing) for number, (colour, thing) in enumerate((c, t) for t in THINGS for c in COLOURS)
]


def searches(count: int = 160) -> list[tuple[str, str, datetime, list[str], list[str]]]:
    """Shopper, query, time, ids shown and clicked; every query is of some product or of all of a kind."""
    out = []
    for number in range(count):
        sku, colour, thing = PRODUCTS[7 * number % len(PRODUCTS)]
        shown = [other for other, _, kind in PRODUCTS if kind == thing]
        query = f"{colour} {thing}" if number % 3 else thing
        out.append((f"u{number % 9}", query, datetime(2024, 5, 1, tzinfo=UTC) + timedelta(hours=number), shown, [sku]))
    return out


def table(rows: list[dict[str, object]], separator: str = ",") -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=separator, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(records: list[dict[str, object]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def shopify(files: Path) -> str:
    """HTML over several lines, a further row for each size, tags in one cell; a log of JSON lines in milliseconds."""
    rows: list[dict[str, object]] = []
    for sku, colour, thing in PRODUCTS:
        blank = dict.fromkeys(("Title", "Body (HTML)", "Vendor", "Type", "Tags", "Published", "Image Src"), "")
        first = {
            "Title": f"{colour.title()} {thing} &amp; more",
            "Body (HTML)": f"<ul>\n<li>A {thing}</li>\n<li>{colour}</li>\n</ul>",
            "Vendor": "Acme",
            "Type": f"Shop > {thing}s",
            "Tags": f"{colour}, new",
            "Published": "TRUE",
            "Image Src": f"https://cdn/{sku}.jpg",
        }
        for size, more in (("S", first), ("L", blank)):
            rows.append({"Handle": f"p-{sku}", **more, "Option1 Value": size, "Variant Price": f"{int(sku) + 9}.90"})
    (files / "products.csv").write_text(table(rows))
    log = [
        {
            "q": query,
            "customer": who,
            "ts": int(time.timestamp() * 1000),
            "results": [f"p-{i}" for i in shown],
            "clicks": [f"p-{i}" for i in clicked],
        }
        for who, query, time, shown, clicked in searches()
    ]
    (files / "searches.jsonl").write_text(lines(log))
    return """
items:
  file: products.csv
  newlines_in_values: true
  columns: {item_id: Handle, title: Title, brand: Vendor, price: Variant Price, category: Type, images: Image Src,
            in_stock: Published, description: Body (HTML)}
  attributes: {Color: {column: Tags, separator: ","}, Size: Option1 Value}
page_views:
  file: searches.jsonl
  columns: {query: q, user_id: customer, time: ts, shown: results, clicked: clicks}
  time: {unit: ms}
"""


def erp(files: Path) -> str:
    """cp1252, semicolons, decimal commas, ja and nein; a log with a row for each item shown."""
    rows = [
        {
            "Artikelnummer": sku,
            "Bezeichnung": f"{thing} {colour} Größe L",
            "Warengruppe": f"Haushalt > {thing}",
            "Hersteller": "Müller & Söhne",
            "Preis": f"1.{int(sku):03},50 €",
            "Lagernd": "nein" if sku == "00003" else "ja",
        }
        for sku, colour, thing in PRODUCTS
    ]
    (files / "artikel.csv").write_bytes(table(rows, ";").encode("cp1252"))
    log = [
        {
            "Sitzung": who,
            "Suche": query,
            "Zeit": f"{time:%d.%m.%Y %H:%M}",
            "Artikel": sku,
            "Klick": "ja" if sku in clicked else "nein",
        }
        for who, query, time, shown, clicked in searches()
        for sku in shown
    ]
    (files / "suche.csv").write_bytes(table(log, ";").encode("cp1252"))
    return """
items:
  file: artikel.csv
  separator: ";"
  encoding: cp1252
  decimal: ","
  columns: {item_id: Artikelnummer, title: Bezeichnung, category: Warengruppe, brand: Hersteller, price: Preis,
            in_stock: Lagernd}
page_views:
  file: suche.csv
  separator: ";"
  encoding: cp1252
  rows: items
  columns: {query: Suche, session_id: Sitzung, time: Zeit, item_id: Artikel, clicked: Klick}
  group_by: [Sitzung, Suche, Zeit]
  time: {format: "%d.%m.%Y %H:%M", zone: Europe/Berlin}
"""


def merchant(files: Path) -> str:
    """Tabs, prices with currency, words for stock; a log whose cells hold lists."""
    rows = [
        {
            "id": f"w-{sku}",
            "title": f'{colour.title()} {thing} 15"',
            "price": f"{int(sku) + 5}.00 USD",
            "availability": ("in stock", "out_of_stock", "preorder")[int(sku) % 3],
            "product_type": f"Shop > {thing}",
            "brand": "Timer",
            "image_link": "http://x/a.png",
        }
        for sku, colour, thing in PRODUCTS
    ]
    (files / "feed.tsv.gz").write_bytes(pa.compress(table(rows, "\t").encode(), codec="gzip", asbytes=True))
    log = [
        {
            "q": query,
            "at": time.isoformat().replace("+00:00", "Z"),
            "shown": json.dumps([f"w-{i}" for i in shown]),
            "clicked": str([f"w-{i}" for i in clicked]),
        }
        for _, query, time, shown, clicked in searches()
    ]
    (files / "log.csv").write_text(table(log))
    return """
items:
  file: feed.tsv.gz
  columns: {item_id: id, title: title, price: price, in_stock: availability, category: product_type, brand: brand,
            images: image_link}
  stock_words: {preorder: true}
page_views:
  file: log.csv
  columns: {query: q, time: at, shown: shown, clicked: clicked}
"""


def nested(files: Path) -> str:
    """Objects within objects, packed by zstd."""
    items = [
        {
            "id": int(sku),
            "name": {"en": f"{colour} {thing}"},
            "brand": {"name": "Zet", "url": "https://zet"},
            "pricing": {"amount": int(sku) + 1.5, "currency": "EUR"},
            "categories": [f"Shop > {thing}"],
            "images": [{"url": "a.jpg"}, {"url": "b.jpg"}],
            "stock": {"available": sku != "00003"},
            "specs": {"Color": colour},
        }
        for sku, colour, thing in PRODUCTS
    ]
    (files / "items.jsonl.zst").write_bytes(pa.compress(lines(items).encode(), codec="zstd", asbytes=True))
    log = [
        {
            "search": {"text": query, "at": time.isoformat()},
            "user": {"id": who},
            "hits": [{"id": int(i)} for i in shown],
            "clicks": [{"id": int(i)} for i in clicked],
        }
        for who, query, time, shown, clicked in searches()
    ]
    (files / "log.jsonl").write_text(lines(log))
    return """
items:
  file: items.jsonl.zst
  columns: {item_id: id, title: name.en, brand: brand.name, price: pricing.amount, category: categories,
            images: images.url, in_stock: stock.available}
  attributes: {Color: specs.Color}
page_views:
  file: log.jsonl
  columns: {query: search.text, time: search.at, user_id: user.id, shown: hits.id, clicked: clicks.id}
"""


CHINESE = dict(
    zip(
        (*COLOURS, *THINGS),
        ("红色", "蓝色", "绿色", "黑色", "白色", "衬衫", "台灯", "椅子", "碗", "外套", "时钟", "帐篷", "背包"),
        strict=True,
    )
)


def chinese(files: Path) -> str:
    """GB 18030, and a log of clicks alone."""
    rows = [
        {
            "编号": sku,
            "名称": f"{CHINESE[colour]}{CHINESE[thing]} 新款",
            "类目": f"商城 > {CHINESE[thing]}",
            "价格": f"￥{int(sku) + 10}",
            "库存": "售罄" if sku == "00003" else "有货",
        }
        for sku, colour, thing in PRODUCTS
    ]
    (files / "商品.csv").write_bytes(table(rows).encode("gb18030"))
    log = [
        {
            "用户": who,
            "搜索词": "".join(CHINESE[word] for word in query.split()),
            "时间": f"{time:%Y-%m-%d %H:%M:%S}",
            "点击": clicked[0],
        }
        for who, query, time, _, clicked in searches()
    ]
    (files / "点击.csv").write_bytes(table(log).encode("gb18030"))
    return """
items:
  file: 商品.csv
  encoding: gb18030
  columns: {item_id: 编号, title: 名称, category: 类目, price: 价格, in_stock: 库存}
page_views:
  file: 点击.csv
  encoding: gb18030
  rows: clicks
  columns: {query: 搜索词, user_id: 用户, time: 时间, item_id: 点击}
  time: {zone: Asia/Shanghai}
"""


def recipe(folder: Path, data: Path) -> Path:
    """The demo's configuration with the two sections that the page's recipe changes, as they stand there."""
    page = (ROOT / "docs" / "your-own-data.md").read_text(encoding="utf-8")
    block = re.search(r"## Train a run.*?```yaml\n(.*?)```", page, re.DOTALL)
    assert block is not None
    changed = yaml.safe_load(block.group(1).replace("data/my-shop", str(data)))
    assert set(changed) == {"data", "understanding"} and changed["data"]["folder"] == str(data)
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text(encoding="utf-8"))
    path = folder / "my-shop.yaml"
    path.write_text(yaml.safe_dump({**demo, **changed}))
    return path


EXPORTS: list[tuple[Callable[[Path], str], dict[str, object], str]] = [
    (
        shopify,
        {"item_id": "p-00003", "title": "Black shirt & more", "price": 12.9, "category": ["Shop", "shirts"]},
        "red shirt",
    ),
    (erp, {"item_id": "00003", "title": "shirt black Größe L", "price": 1003.5, "in_stock": False}, "red shirt"),
    (
        merchant,
        {"item_id": "w-00003", "title": 'Black shirt 15"', "price": 8.0, "category": ["Shop", "shirt"]},
        "red shirt",
    ),
    (
        nested,
        {"item_id": "3", "title": "black shirt", "brand": "Zet", "images": ["a.jpg", "b.jpg"], "in_stock": False},
        "red shirt",
    ),
    (chinese, {"item_id": "00003", "title": "黑色衬衫 新款", "price": 13.0, "in_stock": False}, "红色衬衫"),
]


@pytest.mark.slow
# One is tried each time, the others in the long tests.
@pytest.mark.parametrize(
    ("export", "third", "query"),
    [pytest.param(*one, id=one[0].__name__, marks=[] if one[0] is chinese else [pytest.mark.long]) for one in EXPORTS],
)
def test_the_recipe_works_from_import_to_a_served_search(
    tmp_path: Path, export: Callable[[Path], str], third: dict[str, object], query: str
):
    files, data, run = tmp_path / "files", tmp_path / "data", tmp_path / "run"
    files.mkdir()
    mapping = f"source: shop\nfolder: files\n{export(files)}"
    (tmp_path / "my-shop.yaml").write_text(mapping, encoding="utf-8")
    # The two commands, as the page has them.
    imported = CliRunner().invoke(app, ["data", "import", str(tmp_path / "my-shop.yaml"), "--out", str(data)])
    assert imported.exit_code == 0, imported.output
    checked = CliRunner().invoke(app, ["data", "check", str(data)])
    assert checked.exit_code == 0 and "no errors" in checked.output, checked.output
    dataset = Dataset.load(data)
    assert dataset.counts["items"] == len(PRODUCTS) and dataset.counts["page_views"] == len(searches())
    row = dataset.items.row(by_predicate=pl.col("item_id") == third["item_id"], named=True)
    assert {name: row[name] for name in third} == third
    # A model, and a service that finds what the query names.
    run_config(recipe(tmp_path, data), run, SMALL)
    with TestClient(create_app(load_engine(run), SqliteStore(tmp_path / "store.sqlite"))) as client:
        answer = client.post("/search", json={"query": query, "k": 5})
        assert answer.status_code == 200, answer.text
        found = [result["item_id"] for result in answer.json()["results"]]
    assert any(item_id.endswith(("00000", "0")) for item_id in found)
