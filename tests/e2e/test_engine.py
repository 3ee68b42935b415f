"""The engine of a finished run: contract, filters, changes of the catalogue."""

import threading
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from onesearch.common.artefact import read_json
from onesearch.common.ragged import Ragged
from onesearch.data.records import Item
from onesearch.data.requests import Requests
from onesearch.model.prompt import PromptBuilder
from onesearch.pipeline.engine_stage import fit_relevance
from onesearch.pipeline.run_data import RunData
from onesearch.search.engine import SearchEngine
from onesearch.search.results import SearchRequest
from onesearch.search.shopper_history import ShopperHistory


def query_of(engine: SearchEngine) -> str:
    return engine.example_queries(1)[0]


def test_the_public_contract(engine: SearchEngine):
    results = engine.search(query_of(engine), k=7)
    assert 0 < len(results) <= 7
    assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)
    assert len({r.item_id for r in results}) == len(results)
    for result in results:
        assert result.item.item_id == result.item_id
        assert result.sid == engine.sid(result.item_id) and len(result.sid) == 5


def test_confidence_tells_queries_of_the_log_from_nonsense(engine: SearchEngine, tiny_run: Path):
    train = pl.read_parquet(tiny_run / "data" / "valid.parquet").filter(pl.col("query") != "")["query"]
    queries = train.unique(maintain_order=True).head(40).to_list()
    nonsense = ["qwertyzxcv", "xkcd zzgh", "vvbnm qqq", "zzzzxxyy", "jjkl qvx", "wqzx bvnn", "0x7f3a91 zz", "qj vk xz"]
    asked = [SearchRequest(query) for query in (*queries, *nonsense, "")]
    found = [answer.confidence for answer in engine.search_batch(asked)]
    assert found[-1] is None and all(0 <= one <= 1 for one in found[:-1])
    # A tiny shop knows few words, so that single queries may go wrong.
    assert np.median(found[:40]) > 0.25 and np.median(found[40:-1]) < 0.1
    # A query is no surer for its place in a batch; who types an item's id is sure of it.
    assert engine.search(queries[0]).confidence == pytest.approx(found[0])
    first = engine.search(queries[0])[0].item_id
    assert engine.search(first).confidence == 1


def test_explanations_sum_to_the_score(engine: SearchEngine):
    user, query = engine.shoppers(1)[0], query_of(engine)
    for hit in engine.search_batch([SearchRequest(query, user, explain=True)])[0]:
        assert hit.why is not None and hit.why.score == pytest.approx(hit.score, rel=1e-3, abs=1e-3)
        assert len(hit.why.path) == 5 and hit.why.found_by


def test_an_unknown_shopper_is_an_anonymous_one(engine: SearchEngine):
    query = query_of(engine)
    assert engine.search(query, user="nobody ever") == engine.search(query)


def test_a_known_shopper_has_a_history_that_matters(engine: SearchEngine):
    user = engine.shoppers(1)[0]
    assert engine.logged_history(user).clicked
    query = query_of(engine)
    scores = [r.score for r in engine.search(query, user=user)]
    assert scores != [r.score for r in engine.search(query)]


def test_given_items_have_the_features_they_have_as_candidates(engine: SearchEngine):
    engine.generator.double()
    requests = Requests.anonymous(engine.example_queries(5))
    found = engine.candidates(requests)
    given = engine.candidates(requests, fixed=found.items[:, ::-1].copy())
    np.testing.assert_array_equal(given.items, found.items[:, ::-1])
    assert not given.generated.any()
    for name, values in found.features.items():
        np.testing.assert_allclose(given.features[name][:, ::-1], values, rtol=1e-4, atol=1e-4, err_msg=name)


def test_relevance_is_fitted_on_judgments_of_queries_that_training_may_know(tiny_run: Path, engine: SearchEngine):
    run_data = RunData(tiny_run)
    weights = fit_relevance(run_data, engine)
    judged = run_data.dataset.judgments
    best = judged.filter(pl.col("level") == 3)["query"].unique(maintain_order=True).head(200).to_list()
    items = [judged.filter(pl.col("query") == query)["item_id"].to_list() for query in best]
    levels = [judged.filter(pl.col("query") == query)["level"].to_list() for query in best]
    given = Ragged.from_lists([[run_data.dataset.item_rows[item] for item in row] for row in items])
    padded = given.padded(int(given.lengths.max()), newest=False).astype(np.int64)
    found = engine.candidates(Requests.anonymous(best), fixed=padded)
    scores = weights.score(found.features, found.contexts)
    above = [
        score[: len(level)][np.array(level) == 3].mean() - score[: len(level)][np.array(level) == 0].mean()
        for score, level in zip(scores, levels, strict=True)
        if 0 in level
    ]
    assert len(above) > 10 and np.mean(np.array(above) > 0) > 0.7

    known = set(run_data.split.train["query"])
    later = [q for part in (run_data.split.valid, run_data.split.test) for q in part["query"] if q not in known]
    other = RunData(tiny_run)
    # The market judges queries of the training part only, so these judgments are given later queries.
    other.dataset.__dict__["judgments"] = judged.head(20).with_columns(query=pl.lit(later[0]))
    assert not len(other.training_judgments)
    with pytest.raises(ValueError, match="judgments of training queries"):
        fit_relevance(other, engine)


@pytest.mark.parametrize("query", ["", "   ", "zzqx 123 \x00 ☃", "x" * 500])
def test_odd_queries_give_items(engine: SearchEngine, query: str):
    assert engine.search(query, k=3)


def test_batches_do_not_change_answers(engine: SearchEngine):
    engine.generator.double()
    queries = engine.example_queries(6)
    users = [None, *engine.shoppers(5)]
    requests = [SearchRequest(q, u, 10) for q, u in zip(queries, users, strict=False)]
    together = engine.search_batch(requests)
    for request, batched in zip(requests, together, strict=True):
        alone = engine.search_batch([request])[0]
        assert [r.item_id for r in alone] == [r.item_id for r in batched]
        np.testing.assert_allclose([r.score for r in alone], [r.score for r in batched], rtol=1e-4, atol=1e-4)


def test_filters_hold_and_an_exhaustive_filtered_search_is_the_filtered_ranking(tiny_run: Path):
    engine = SearchEngine.load(tiny_run, width=400)
    query = query_of(engine)
    everything = engine.search(query, k=400)
    brand = everything[3].item.brand
    wanted = [r.item_id for r in everything if r.item.brand == brand]
    filtered = engine.search(query, k=400, filters={"brand": brand})
    assert [r.item_id for r in filtered] == wanted
    cheap = engine.search(query, k=50, filters={"price": [None, 20.0], "in_stock": True})
    assert all(r.item.price is not None and r.item.price <= 20.0 and r.item.in_stock for r in cheap)


def test_a_wrong_filter_names_the_valid_ones(engine: SearchEngine):
    with pytest.raises(ValueError, match="brand"):
        engine.search("x", filters={"brnad": "Acme"})
    assert engine.search("x", filters={"brand": "no such brand at all"}) == []


def test_new_items_are_found_at_once_and_deleted_ones_never(engine: SearchEngine):
    example = engine.search(query_of(engine), k=1)[0].item
    new = Item("new-1", example.title, example.category, example.brand, example.price)
    engine.upsert([new])
    found = [r.item_id for r in engine.search(example.title, k=30)]
    assert "new-1" in found
    assert engine.item("new-1") == new
    engine.upsert([Item("new-1", "something else entirely zebra", (), None, 1.0)])
    assert engine.item("new-1").title.startswith("something")
    engine.delete(["new-1", "unknown"])
    assert engine.item("new-1") is None
    assert "new-1" not in [r.item_id for r in engine.search("something else entirely zebra", k=50)]
    assert all(r.item_id != "new-1" for r in engine.search_lexical("zebra", 50))


def test_searching_while_items_change_sees_the_old_or_the_new(engine: SearchEngine):
    query, failures = query_of(engine), []
    stop = threading.Event()

    def change() -> None:
        for i in range(8):
            engine.upsert([Item(f"t-{i}", f"thing {i}")])
            engine.delete([f"t-{i}"])
        stop.set()

    thread = threading.Thread(target=change)
    thread.start()
    while not stop.is_set():
        try:
            for result in engine.search(query, k=20):
                assert result.item.item_id == result.item_id
        except Exception as error:  # noqa: BLE001
            failures.append(error)
            break
    thread.join()
    assert not failures


def test_a_run_is_searched_without_the_table_of_its_items(tiny_run: Path):
    engine = SearchEngine.load(run=tiny_run)
    assert engine.search("a tnet and a zzqqx", k=3)  # words that nobody knows are looked for among those of all items
    assert engine.suggest("t") and engine.current.value.records.base.item(0).title
    dataset = vars(engine.snapshot.records.base)["_table"].__self__
    assert dataset.counts["items"] == len(engine) and not {"items", "page_views"} & set(vars(dataset))


def test_the_history_given_with_a_request_counts(engine: SearchEngine):
    query = query_of(engine)
    items = [r.item_id for r in engine.search(query, k=3)]
    past = ShopperHistory(tuple(items), (query,) * 3)
    with_past = engine.search_batch([SearchRequest(query, None, 10, history=past)])[0]
    assert [r.score for r in with_past] != [r.score for r in engine.search(query)]


def test_the_generator_alone_uses_no_evidence(tiny_run: Path):
    run_data = RunData(tiny_run)
    engine = SearchEngine.load(tiny_run)
    requests = run_data.requests(run_data.split.test.head(8))
    found = engine.alone().candidates(requests)
    assert set(found.features) == {"log_prob", "item_score"} and found.generated[found.items >= 0].all()
    more = engine.candidates(requests)
    assert {"clicks", "popularity", "lexical"} <= set(more.features) and not more.generated[more.items >= 0].all()


def test_candidates_from_outside_get_the_log_probability_a_beam_would_give(tiny_run: Path):
    """A search wide enough to hold the whole catalogue and exact path scores agree."""
    engine = SearchEngine.load(tiny_run, width=400)
    engine.generator.eval()
    requests = Requests.anonymous([query_of(engine)])
    narrow = SearchEngine.load(tiny_run, width=4)
    wide = engine.alone().candidates(requests)
    of_item = dict(zip(wide.items[0].tolist(), wide.features["log_prob"][0].tolist(), strict=True))
    found = narrow.candidates(requests)
    extra = (found.items[0] >= 0) & ~found.generated[0]
    assert extra.sum() >= 5
    expected = [of_item[item] for item in found.items[0][extra].tolist()]
    np.testing.assert_allclose(found.features["log_prob"][0][extra], expected, atol=1e-3)


def test_v2_is_served_by_default_and_its_input_holds_no_keywords(tiny_run: Path, monkeypatch: pytest.MonkeyPatch):
    first, second = SearchEngine.load(tiny_run, model="v1"), SearchEngine.load(tiny_run, model="v2")
    default = SearchEngine.load(tiny_run)
    assert read_json(tiny_run / "engine_v2" / "engine.json")["model"] == "distill"
    assert default.version.startswith("tiny/v2@") and first.version.startswith("tiny/v1@")
    assert default.keywords is None, "nobody is asked for keywords while a shopper waits"
    asked = []
    prompt = PromptBuilder.search_prompt

    def watched(self, columns, rows, *more, **options):
        asked.append((columns.keywords, options.get("keywords", False)))
        made = prompt(self, columns, rows, *more, **options)
        asked.append((made.keyword_vectors, False))
        return made

    monkeypatch.setattr(PromptBuilder, "search_prompt", watched)
    query = query_of(default)
    scores = [[r.score for r in engine.search(query)] for engine in (default, second, first)]
    assert scores[0] == scores[1] != scores[2]
    assert asked and all(given is None and wanted is False for given, wanted in asked)
