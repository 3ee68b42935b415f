"""Every shipped configuration loads, and the runnable ones run from data to report at smoke scale."""

import gzip
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from onesearch import SearchEngine
from onesearch.cli import app
from onesearch.common.artefact import read_json
from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.market.make_market import make_market
from onesearch.market.market_settings import MarketSettings
from onesearch.pipeline import run_config
from onesearch.pipeline.config_files import load_settings
from onesearch.pipeline.run_settings import RunSettings

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
MAPPINGS = sorted((ROOT / "configs" / "mappings").glob("*.yaml"))
MARKET = ["data.market={items: 300, users: 80, days: 15, page_views: 700}"]
SMALL = [
    "encoder.static.dimension=32",
    "encoder.align.epochs=0.5",
    "encoder.align.batch_size=64",
    "encoder.align.nested=[]",
    "khqe.layers=[16, 8, 4]",
    "khqe.opq_size=16",
    "khqe.iterations=3",
    "model.text_vocabulary=500",
    "model.row_dim=32",
    "model.backbone={kind: bart, d_model: 32, heads: 2, encoder_layers: 1, decoder_layers: 1, ffn: 64}",
    "sft1.steps=2",
    "sft1.batch_size=16",
    "sft2.steps=2",
    "sft2.batch_size=16",
    "sft3.epochs=0.2",
    "sft3.batch_size=32",
    "sft3.score_negatives=64",
    "search.width=8",
    "evaluation.measures={resamples: 10, flips: 20}",
    "evaluation.fit_requests=30",
    "evaluation.test_requests=30",
    "evaluation.cascade={trees: 3, page_views: 100, validation_page_views: 30}",
]
SMALL_V2 = [
    *(f"{stage}.steps=2" for stage in ("cot", "grpo")),
    "cot.batch_size=8",
    "grpo.prompts=4",
    "grpo.validate_requests=20",
]


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)  # paths inside configs start from the folder one runs in


def smoke(name: str, folder: Path, *overrides: str) -> dict:
    """The report of a small run of a shipped config."""
    run_config(ROOT / "configs" / f"{name}.yaml", folder, [*SMALL, *overrides])
    report = read_json(folder / "report" / "report.json")
    assert {"generator alone", "one model", "engine without generator", "engine"} <= set(report["methods"])
    assert "cascade" in report["methods"] or "taken together" in report["methods"]
    assert 0 <= report["methods"]["engine"]["click/HR@10"]["mean"] <= 1
    return report


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_configs_are_valid(path: Path):
    config = load_settings(RunSettings, path)
    assert config.name == path.stem


@pytest.mark.parametrize("path", MAPPINGS, ids=lambda path: path.stem)
def test_mappings_are_valid(path: Path, tmp_path: Path):
    mapping = load_mapping(path, tmp_path)
    assert mapping.source == path.stem and Path(mapping.folder) == tmp_path / path.stem


def test_the_list_of_configs_is_complete():
    names = {"demo", "market", "market-v2", "million", "homedepot", "bestbuy", "kuaisearch", "paper", "toys"}
    assert {path.stem for path in CONFIGS} == names
    assert {path.stem for path in MAPPINGS} == {"homedepot", "bestbuy", "toys"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["demo", *(pytest.param(name, marks=pytest.mark.long) for name in ("market", "million"))]
)
def test_market_configs_run(name: str, tmp_path: Path):
    more = ["data.valid=0.1", "data.test=0.1"] if name == "million" else []  # shares of a million are enough there
    report = smoke(name, tmp_path / name, *MARKET, *more, *(SMALL_V2 if name == "demo" else ()))
    assert "ndcg@10" in report["methods"]["engine"]  # the market knows the truth


def cut(source: Path, target: Path, rows: pl.Expr | None = None, head: int | None = None) -> pl.DataFrame:
    """Some rows of a CSV file, every value as it is."""
    frame = pl.read_csv(source, infer_schema=False)
    frame = frame.head(head) if rows is None else frame.filter(rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    frame.write_csv(target)
    return frame


@pytest.mark.slow
@pytest.mark.long
def test_homedepot_runs_on_a_cut(shared_data: Path, tmp_path: Path):
    source, target = shared_data / "homedepot", tmp_path / "data" / "homedepot"
    judged = cut(source / "judgments.csv", target / "judgments.csv", head=600)
    wanted = judged["product_uid"].unique().to_list()
    cut(source / "products.csv", target / "products.csv", pl.col("product_uid").is_in(wanted))
    smoke("homedepot", tmp_path / "run", f"data.root={tmp_path / 'data'}", "pseudo.searches=60")
    assert read_json(tmp_path / "run" / "data" / "manifest.json")["metrics"]["split_by"] == "query"


@pytest.mark.slow
def test_bestbuy_runs_on_a_cut(shared_data: Path, tmp_path: Path):
    source, target = shared_data / "bestbuy", tmp_path / "data" / "bestbuy"
    cut(source / "clicks.csv", target / "clicks.csv", head=800)
    cut(source / "products.csv", target / "products.csv", head=10_000)
    smoke("bestbuy", tmp_path / "run", f"data.root={tmp_path / 'data'}")
    assert read_json(tmp_path / "run" / "data" / "manifest.json")["metrics"]["split_by"] == "time"


@pytest.mark.slow
def test_toys_runs_on_a_cut(shared_data: Path, tmp_path: Path):
    """Recommendations: items as one token, evidence of items taken together, nothing shown that was bought."""
    source, target = shared_data / "toys", tmp_path / "data" / "toys"
    target.mkdir(parents=True)
    views = pl.read_csv(source / "views.csv.gz", infer_schema=False).head(900)
    items = pl.read_csv(source / "items.csv.gz", infer_schema=False).join(views, on="item", how="semi")
    for name, frame in (("views", views), ("items", items)):
        (target / f"{name}.csv.gz").write_bytes(gzip.compress(frame.write_csv().encode()))
    report = smoke("toys", tmp_path / "run", f"data.root={tmp_path / 'data'}")
    assert "taken together" in report["methods"]
    engine = SearchEngine.load(tmp_path / "run")
    shopper = engine.shoppers(1)[0]
    bought = set(engine.logged_history(shopper).clicked)
    found = [result.item_id for result in engine.search("", shopper, 20)]
    assert found and not bought & set(found)


@pytest.mark.slow
@pytest.mark.long
def test_kuaisearch_runs_on_a_market_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make = [
        "market",
        "make",
        "--format",
        "kuaisearch",
        "--out",
        str(tmp_path / "kuaisearch"),
        "--items",
        "300",
        "--users",
        "80",
        "--days",
        "15",
        "--page-views",
        "700",
    ]
    result = CliRunner().invoke(app, make)
    assert result.exit_code == 0, result.output
    monkeypatch.setenv("ONESEARCH_DATA", str(tmp_path))
    smoke("kuaisearch", tmp_path / "run")


def small_pretrained(folder: Path) -> Path:
    """A tiny BART with a tokenizer of its own, as `from_pretrained` expects it on disk."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BartConfig, BartModel, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["red running shoes for men", "a lamp for the garden"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    config = BartConfig(
        vocab_size=len(fast) + 48,  # padded, as released checkpoints are
        d_model=32,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=256,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
        decoder_start_token_id=2,
    )
    BartModel(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.long
def test_the_paper_config_runs_in_structure(tmp_path: Path):
    """Pretrained backbone and tokenizer, outside dataset, 8-bit rows, V2 aligned: as in paper.yaml, all of it tiny."""
    make_market(MarketSettings(items=300, users=80, days=15, page_views=700), tmp_path / "shop")
    pretrained = small_pretrained(tmp_path / "bart")
    own = [
        f"data.folder={tmp_path / 'shop'}",
        "data.valid=0.1",
        "data.test=0.1",
        "encoder.transformer=null",
        f"model.backbone={{kind: bart, pretrained: {pretrained}}}",
        "understanding={producer: log-expert}",  # nobody has thought of these queries
        *SMALL_V2,
        "dpo.steps=2",
        "dpo.batch_size=8",
    ]
    smoke("paper", tmp_path / "run", *own)
