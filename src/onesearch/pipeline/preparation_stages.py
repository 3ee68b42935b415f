"""The stages before training: data, encoder, quantizer, index."""

import functools
import hashlib
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from onesearch.common.array_files import map_array
from onesearch.common.artefact import read_json, write_json
from onesearch.common.text_file import read_text_file
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.dataset import DESCRIPTION, Dataset
from onesearch.data.ingest.column_mapping import load_mapping
from onesearch.data.ingest.importer import IMPORT_VERSION, import_mapping
from onesearch.data.ingest.kuaisearch_source import import_kuaisearch
from onesearch.data.item_pairs import ItemPairs
from onesearch.data.records import PARTS, PICTURES_ARCHIVE
from onesearch.data.split import split
from onesearch.data.text import item_texts
from onesearch.encoding.click_pairs import mine_pairs
from onesearch.encoding.encoder_alignment import align_encoder
from onesearch.encoding.held_out_vectors import held_out_vectors
from onesearch.encoding.khqe import KHQESettings, fuse_keywords
from onesearch.encoding.kind_quality import kind_figures
from onesearch.encoding.linked_items import drawn_to_linked, save_linked_weight
from onesearch.encoding.pictures.item_towers import ConcatTower
from onesearch.encoding.sid_behaviour import fit_sids
from onesearch.encoding.sid_quality import quality_report
from onesearch.encoding.static_encoder import StaticEncoder
from onesearch.encoding.text_encoder import TrainableEncoder
from onesearch.evaluation.baselines import tune_lexical
from onesearch.index.filter_column_files import save_filter_columns
from onesearch.index.filter_columns import FilterColumns
from onesearch.index.item_filters import columns_at
from onesearch.index.sid_index import SidIndex
from onesearch.index.vector_table import Precision
from onesearch.market.make_market import make_market
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.numeric_item_features import FEATURE_NAMES, NumericItemFeatures
from onesearch.model.token_vocabulary import TokenVocabulary
from onesearch.pipeline.picture_stage import PictureTowers
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.run_settings import DataSettings, EncoderSettings, LexiconSettings
from onesearch.pipeline.stage_runner import StageContext
from onesearch.search.catalogue_words import CatalogueWords
from onesearch.search.click_feature_files import CLICK_FEATURES, save_click_features
from onesearch.search.click_features import ClickFeatures
from onesearch.search.item_lines import save_item_lines
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.logged_histories import LoggedHistories
from onesearch.search.run_parts import EXAMPLES, ITEM_PAIRS, varied_queries
from onesearch.understanding.keyword_lexicon import Lexicon


def import_source(data: DataSettings, folder: Path) -> Dataset:
    """Import the files of the mapping, or those in the KuaiSearch schema, into ``folder``.

    Raises:
        FileNotFoundError, ValueError: a file or column is missing; the message says what and where.
    """
    if data.mapping is not None:
        import_mapping(load_mapping(data.mapping, data.root), folder)
    elif data.kuaisearch is not None:
        import_kuaisearch(data.kuaisearch, folder)
    else:
        raise ValueError("the data section names no files to import")
    return Dataset.load(folder)


def source_fingerprint(data: DataSettings) -> Any:
    """What tells whether the files outside the run changed, or how they are read: names, digests, the import's version.

    Not their times: a copy or a fresh mount of the same files must not train everything anew.
    """
    if data.folder is not None:
        return read_json(data.folder / DESCRIPTION)["fingerprint"] if (data.folder / DESCRIPTION).is_file() else None
    if data.mapping is not None:
        folder = Path(load_mapping(data.mapping, data.root).folder)
        return [IMPORT_VERSION, read_text_file(data.mapping), _listing(folder)]
    return [IMPORT_VERSION, _listing(data.kuaisearch)] if data.kuaisearch is not None else None


def _listing(folder: Path) -> list[list[Any]]:
    files = sorted(path for path in folder.glob("*") if path.is_file())
    return [[path.name, _digest(path)] for path in files]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


log = logging.getLogger("onesearch")
_LEXICAL_REQUESTS = 2000  # validation page views that BM25 is tuned on, at most
Floats = NDArray[np.float32]


def build_data(context: StageContext, data: DataSettings) -> Mapping[str, Any]:
    """A dataset in the run's folder, its split, and the counts of the training part."""
    dataset = _dataset(data, context)
    parts = split(dataset.page_views, data.valid, data.test, data.split, context.seed)
    for name, frame in zip(PARTS, (parts.train, parts.valid, parts.test), strict=True):
        frame.write_parquet(context.folder / f"{name}.parquet")
    save_counts(parts.train, dataset.items, context.folder)
    # What a server shows and knows of catalogue and log.
    save_item_lines(dataset.items, context.folder)
    CatalogueWords.of(dataset.items).save(context.folder)
    LoggedHistories.from_dataset(dataset).save(context.folder)
    write_json(context.folder / EXAMPLES, varied_queries(dataset))
    return {**dataset.counts, "split_by": parts.by, **{f"{n}_page_views": len(getattr(parts, n)) for n in PARTS}}


def _dataset(data: DataSettings, context: StageContext) -> Dataset:
    if data.market is not None:
        return make_market(data.market, context.folder)
    if data.folder is not None:
        given = Dataset.load(data.folder)
        if (data.folder / PICTURES_ARCHIVE).is_file():
            shutil.copyfile(data.folder / PICTURES_ARCHIVE, context.folder / PICTURES_ARCHIVE)
        return Dataset.write(
            context.folder, given.items, given.users, given.page_views, given.judgments, source=given.source
        )
    return import_source(data, context.folder)


def build_encoder(run_data: RunData, context: StageContext, encoder: EncoderSettings) -> Mapping[str, Any]:
    """Align a text encoder on the training log; cross-fit it for held-out query vectors."""
    settings, folder = encoder, context.folder
    write_json(folder / "fields.json", list(settings.fields))
    texts = item_texts(run_data.dataset.items, settings.fields)
    # Pairs and judgments of training queries alone; an encoder from scratch is built on the texts of both sides.
    pairs = mine_pairs(run_data.split.train, run_data.dataset.items, texts, run_data.dataset.judgments, context.seed)
    align_config = settings.align.updated(seed=context.seed)

    # Encoders from scratch differ in where they begin, and have the same words.
    features = functools.cache(lambda: settings.static.features([*texts, *pairs.queries]))

    def fresh(number: int) -> TrainableEncoder:
        if settings.transformer is not None:
            from onesearch.encoding.transformer_encoder import TransformerEncoder

            return TransformerEncoder.open(settings.transformer)
        return StaticEncoder.untrained(features(), settings.static, context.seed + 1000 * number)

    # Pictures join the items' texts while these are trained, or beside them when they are; or not at all.
    towers = None
    if settings.encoding != "text":
        towers = PictureTowers(context.inputs["pictures"], settings.encoding, settings.pictures, context.seed)
    first = fresh(0)
    beside = None if towers is None else towers.projection(first.dimension)
    aligned = align_encoder(first, pairs, align_config, None if beside is None else beside.around)
    tower = aligned if towers is None else towers.joined(aligned, beside)
    tower.save(folder / "encoder")
    vectors = tower.encode(texts) if towers is None else towers.item_vectors(texts)
    np.save(folder / "item_vectors.npy", vectors, allow_pickle=False)
    # Each fold's queries are encoded by an encoder that was aligned without them.
    if settings.folds >= 2 and len(pairs.queries):
        around = None if towers is None else towers.trained_beside(first.dimension)
        held = held_out_vectors(aligned, lambda fold: fresh(fold + 1), pairs, align_config, settings.folds, around)
        held = tower.pad(held) if isinstance(tower, ConcatTower) else held
        np.save(folder / "held_out_vectors.npy", held, allow_pickle=False)
        pl.DataFrame({"query": list(pairs.queries)}).write_parquet(folder / "held_out_queries.parquet")
    return {
        "dimension": tower.dimension,
        "items": len(texts),
        "queries": len(pairs.queries),
        "q2i": len(pairs.q2i),
        "q2q": len(pairs.q2q),
        "i2i": len(pairs.i2i),
    }


def build_khqe(
    run_data: RunData, context: StageContext, khqe: KHQESettings, lexicon: LexiconSettings
) -> Mapping[str, Any]:
    """Mine the lexicon, fuse keyword vectors, quantize items and training queries jointly."""
    folder, encoder_folder = context.folder, context.inputs["encoder"]
    texts = item_texts(run_data.dataset.items, tuple(read_json(encoder_folder / "fields.json")))
    plain = map_array(encoder_folder / "item_vectors.npy")
    held_path = encoder_folder / "held_out_vectors.npy"
    # Vectors of items [N, d] and of training queries [Q, d], those of encoders that never saw the query where there are
    # any: what the quantizer meets in serving is new queries, too.
    queries = list(run_data.statistics.queries)
    query_vectors = map_array(held_path) if held_path.is_file() else run_data.encoder.encode(queries)
    keywords = 0
    if lexicon.fuse:
        mined = Lexicon.from_log(run_data.dataset.items, run_data.split.train, lexicon.per_type)
        mined.save(folder / "lexicon")
        vectors = run_data.encoder.encode(mined.texts)
        np.save(folder / "keyword_vectors.npy", vectors, allow_pickle=False)
        keywords = len(mined.texts)
        plain = fuse_keywords(plain, mined.match(texts), vectors)
        query_vectors = fuse_keywords(query_vectors, mined.match(queries), vectors)
    # Items that show others come nearer to these.
    links = run_data.dataset.ragged(run_data.dataset.items["linked"])
    plain = drawn_to_linked(plain, links, plain, khqe.linked)
    save_linked_weight(khqe.linked, bool(len(links.values)), folder)
    # What training and serving read as the text vectors: fused, where fusion is on.
    if held_path.is_file():
        np.save(folder / "held_out_vectors.npy", query_vectors.astype(np.float32), allow_pickle=False)
        pl.DataFrame({"query": queries}).write_parquet(folder / "held_out_queries.parquet")
    np.save(folder / "item_vectors.npy", plain.astype(np.float32), allow_pickle=False)
    # Items and queries are quantized jointly, items as behaviour has drawn them: SIDs alone know of it.
    quantizer, coded = fit_sids(
        plain.astype(np.float32),
        query_vectors.astype(np.float32),
        run_data.statistics,
        run_data.dataset.items["category"].to_list(),
        khqe.updated(seed=context.seed),
    )
    quantizer.save(folder)
    sids = quantizer.encode(coded)
    np.save(folder / "item_sids.npy", sids, allow_pickle=False)
    # Quality on a sample of queries.
    some = np.sort(np.random.default_rng(context.seed).permutation(len(queries))[:5000])
    report = quality_report(quantizer, coded, query_vectors[some], run_data.statistics.items.select(some))
    of_kinds = kind_figures(sids, quantizer.codebook_sizes, run_data.dataset.items, links, context.seed)
    write_json(folder / "quality.json", {**report, "kinds": of_kinds} if of_kinds else report)
    return {"keywords": keywords, **{key: report[key] for key in ("icr", "prefix_agreement") if key in report}}


def build_index(
    run_data: RunData,
    context: StageContext,
    row_dim: int,
    row_precision: Precision,
    text_vocabulary: int,
    pretrained: str | None,
    leading: bool,
) -> Mapping[str, Any]:
    """Vocabulary, item rows and the SID index.

    Args:
        run_data: data, encoder and SIDs of the run.
        context: of the stage.
        row_dim: dimension of an item's row.
        row_precision: numbers of the item rows.
        text_vocabulary: subwords of a vocabulary trained here.
        pretrained: backbone whose vocabulary is taken instead.
        leading: the encoder was aligned in nested dimensions, so that its first ones hold the most.
    """
    folder, items = context.folder, run_data.dataset.items
    texts = item_texts(items, run_data.fields)
    # The vocabulary is trained on what the model will read and write: titles, queries, category paths.
    sizes = run_data.khqe.codebook_sizes
    if pretrained is not None:
        vocabulary = TokenVocabulary.from_pretrained(pretrained, sizes)
    else:
        paths = [" > ".join(path or ()) for path in items["category"].to_list()]
        vocabulary = TokenVocabulary.train(
            [*texts, *run_data.statistics.queries, *sorted(set(paths))], text_vocabulary, sizes
        )
    vocabulary.save(folder / "vocabulary")
    space = HeadRowProjection.fit(run_data.item_vectors, row_dim, len(FEATURE_NAMES), leading)
    space.save(folder / "row_space.safetensors")
    index = save_head_rows(run_data, run_data.statistics, space, row_precision, folder)
    bytes_ = index.nbytes
    return {
        "items": len(index),
        "nodes": [index.size(level) for level in range(index.levels)],
        "bytes_per_item": bytes_.structure / max(len(index), 1),
        "vector_bytes": bytes_.vectors,
    }


def save_head_rows(
    run_data: RunData, statistics: ClickStatistics, space: HeadRowProjection, precision: Precision, folder: Path
) -> SidIndex:
    """Write the head rows [N, R] of all items, the index over them and its filters' columns; returns the index.

    A head row is the item's vector projected, with some numbers of the log's counts beside it.
    """
    features, extra = NumericItemFeatures.fit(run_data.dataset.items, statistics)
    features.save(folder / "item_features.json")
    rows = space.project_items(run_data.item_vectors, extra)
    np.save(folder / "item_rows.npy", rows, allow_pickle=False)
    sizes = run_data.khqe.codebook_sizes
    index = SidIndex.build(run_data.sids, rows, sizes, statistics.clicked, precision=precision)
    index.save(folder)
    # What filters read of the items, in the order of the index.
    order = index.item_rows(torch.arange(len(index))).cpu().numpy()
    save_filter_columns(columns_at(FilterColumns.from_items(run_data.dataset.items), order), folder)
    return index


def save_counts(page_views: pl.DataFrame, items: pl.DataFrame, folder: Path) -> None:
    """Write click statistics, click features and item pairs of some page views."""
    statistics = ClickStatistics.from_page_views(page_views, items)
    statistics.save(folder / "statistics")
    save_click_features(ClickFeatures.from_log(statistics, items), items, folder / CLICK_FEATURES)
    ItemPairs.from_page_views(page_views, items).save(folder / ITEM_PAIRS)


def build_lexical(run_data: RunData, context: StageContext) -> Mapping[str, Any]:
    """BM25 over the catalogue; its fields and weighting are chosen on validation clicks."""
    start = LexicalSettings(fields=run_data.fields)
    valid = run_data.split.valid
    clicked = run_data.targets(valid).clicked
    rows = np.flatnonzero(clicked.lengths > 0)
    rows = np.sort(np.random.default_rng(context.seed).permutation(rows)[:_LEXICAL_REQUESTS])
    if len(rows):
        searcher = tune_lexical(run_data.dataset.items, start, run_data.requests(valid[rows]), clicked.select(rows))
    else:
        searcher = LexicalSearcher.build(run_data.dataset.items, start)
    searcher.save(context.folder)
    return searcher.config.model_dump(mode="json")
