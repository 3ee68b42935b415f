"""An engine of forty items with an untrained model, made in a second: the whole path of a search without a run."""

import numpy as np
import polars as pl
import torch

from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.item_pairs import ItemPairs
from onesearch.data.records import Item, items_frame
from onesearch.encoding.khqe import KHQE, KHQESettings
from onesearch.encoding.static_encoder import StaticEncoder, StaticSettings
from onesearch.index.item_filters import ItemFilters
from onesearch.index.sid_index import SidIndex
from onesearch.model.backbones import BackboneSettings
from onesearch.model.featurizer import Featurizer
from onesearch.model.generator import Generator, Sizes
from onesearch.model.head_row_projection import HeadRowProjection
from onesearch.model.initialise import initialise
from onesearch.model.model_settings import ModelSettings
from onesearch.model.numeric_item_features import FEATURE_NAMES, NumericItemFeatures
from onesearch.model.prompt import PromptBuilder
from onesearch.model.token_vocabulary import TokenVocabulary
from onesearch.search.catalogue_snapshot import Snapshot
from onesearch.search.click_features import ClickFeatures
from onesearch.search.engine import SearchEngine
from onesearch.search.item_records import ItemFrame
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.ranking_weights import RankingWeights
from onesearch.search.search_settings import SearchSettings

COLOURS, THINGS = ("red", "blue", "green", "black"), ("tent", "lamp", "boots", "chair", "stove")
ITEMS = items_frame(
    [
        Item(f"{colour}-{thing}-{i}", f"{colour} {thing} no {i}", ("Shop", thing), brand=f"b{i}", price=10.0 + 5 * i)
        for colour in COLOURS
        for thing in THINGS
        for i in range(2)
    ]
)
LOG = pl.DataFrame(
    {
        "query": ["red tent", "red tent", "tents", "blue lamp", "boots"],
        "shown": [["red-tent-0", "red-tent-1"]] * 3 + [["blue-lamp-0"], ["black-boots-1"]],
        "clicked": [["red-tent-0"], ["red-tent-1"], ["red-tent-0"], ["blue-lamp-0"], ["black-boots-1"]],
        "ordered": [[], [], ["red-tent-0"], [], []],
    }
)
SHOPPERS = pl.DataFrame(
    {
        "user_id": ["ann", "ann", "bob", "bob", "bob", "cid"],
        "session_id": [None] * 6,
        "time": [1, 2, 1, 2, 3, 1],
        "clicked": [["red-tent-0"], ["blue-lamp-0"], ["red-tent-0"], ["blue-lamp-0"], ["red-lamp-1"], ["red-tent-0"]],
        "ordered": [[]] * 6,
    },
    schema_overrides={"session_id": pl.String, "ordered": pl.List(pl.String)},
)
WEIGHTS = RankingWeights({"log_prob": 0.1, "item_score": 0.3, "clicks": 1.0, "lexical_share": 2.0, "popularity": 0.1})


EVIDENCE = ModelSettings(
    prompt={"item_tokens": "row", "evidence": {"clicked": 2, "lexical": 4, "nearest": 3, "together": 3, "most": 9}},
    free_codes=True,
    item_memory=True,
)


def small_engine(settings: SearchSettings | None = None, model: ModelSettings | None = None) -> SearchEngine:
    """Every channel and every feature is on; in float64, so that a batch's composition changes nothing.

    With ``model`` settings the generator's learned parts that start at zero are drawn at random.
    """
    torch.manual_seed(0)
    titles = ITEMS["title"].to_list()
    encoder = StaticEncoder.build(titles, StaticSettings(dimension=16, min_word=1, min_pair=1))
    vectors = encoder.encode(titles)
    khqe = KHQE.fit(vectors, KHQESettings(layers=(4, 4, 4), opq_size=4, iterations=4))
    sids = khqe.encode(vectors).astype(np.int32)
    statistics = ClickStatistics.from_page_views(LOG, ITEMS)

    vocabulary = TokenVocabulary.train(titles, 300, khqe.codebook_sizes)
    numbers, item_numbers = NumericItemFeatures.fit(ITEMS, statistics)
    projection = HeadRowProjection.fit(vectors, 16, len(FEATURE_NAMES))
    head_rows = projection.project_items(vectors, item_numbers)
    index = SidIndex.build(sids, head_rows, khqe.codebook_sizes, statistics.clicked)

    backbone = BackboneSettings(d_model=16, heads=2, encoder_layers=1, decoder_layers=1, ffn=32)
    model_settings = (model or ModelSettings()).updated(backbone=backbone.model_dump(), row_dim=16)
    sizes = Sizes(vocabulary.text_size, khqe.codebook_sizes, vectors.shape[1], head_rows.shape[1], 5.0, len(ITEMS) - 1)
    generator = Generator(model_settings, sizes, [torch.from_numpy(table) for table in khqe.centroids[:3]])
    initialise(generator, vocabulary, encoder, khqe, vectors, seed=0)
    if model is not None:
        with torch.no_grad():
            for parameter in generator.parameters():
                if not parameter.any():
                    parameter.normal_(std=0.5)

    click_features = ClickFeatures.from_log(statistics, ITEMS)
    snapshot = Snapshot.over(
        generator.double(),
        ItemFrame(ITEMS),
        index,
        ItemFilters.build(ITEMS, index),
        PromptBuilder(vocabulary, model_settings.prompt, sids, torch.from_numpy(head_rows)),
        sids,
        torch.from_numpy(head_rows),
        statistics.clicked,
        {item_id: row for row, item_id in enumerate(ITEMS["item_id"])},
        LexicalSearcher.build(ITEMS),
        click_features,
        click_features.item_traits(ITEMS),
        ItemPairs.from_page_views(SHOPPERS, ITEMS),
    )
    featurizer = Featurizer(encoder, None, khqe, projection, vocabulary, item_features=numbers)
    settings = settings or SearchSettings(width=4, lexical=True, lexical_candidates=5, clicked_candidates=3, nearest=4)
    return SearchEngine(featurizer, snapshot, settings, WEIGHTS)
