import json
import time

import bm25s
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onesearch.data.requests import Requests
from onesearch.search import lexical_search
from onesearch.search.lexical_index import LexicalSettings
from onesearch.search.lexical_search import LexicalSearcher
from onesearch.search.text_analyzer import Analyzer

TITLES = ["red running shoes", "blue running shoe for men", "steel hammer", "claw hammer, steel handle", "garden hose"]


def found(searcher, query, k=5):
    hits = searcher.rank(Requests.anonymous([query]), k)
    return [item for item in hits.items[0].tolist() if item >= 0]


def test_stemming_joins_word_forms_and_words_decide_the_order():
    searcher = LexicalSearcher.from_texts(TITLES)
    assert set(found(searcher, "shoes")) == {0, 1}
    assert found(searcher, "steel claw")[0] == 3
    assert found(searcher, "unknownword") == [] == found(searcher, "")


def test_hits_are_padded_to_k_even_beyond_the_catalogue():
    hits = LexicalSearcher.from_texts(TITLES).rank(Requests.anonymous(["hammer", "zzz"]), 9)
    assert hits.items.shape == (2, 9) and hits.items.dtype == np.int32
    assert (hits.items[1] == -1).all() and np.isneginf(hits.scores[1]).all()
    assert (hits.items[0, :2] >= 0).all() and (hits.items[0, 2:] == -1).all()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6), min_size=2, max_size=12).filter(any),
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4),
)
def test_scores_equal_those_of_bm25s(documents, query):
    searcher = LexicalSearcher.from_texts([" ".join(words) for words in documents], LexicalSettings(stemmer=None))
    peer = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    peer.index(documents, show_progress=False)
    known = [word for word in query if word in peer.vocab_dict]
    expected = peer.get_scores(known) if known else np.zeros(len(documents))
    items = np.arange(len(documents), dtype=np.int32)[None]
    np.testing.assert_allclose(searcher.scores([" ".join(query)], items)[0], expected, atol=1e-5)


def test_scores_of_candidates_agree_with_the_search():
    searcher = LexicalSearcher.from_texts(TITLES)
    queries = ["steel hammer", "shoe", "steel hammer", "nothing"]
    hits = searcher.rank(Requests.anonymous(queries), 4)
    scores = searcher.scores(queries, hits.items)
    np.testing.assert_allclose(scores, np.where(hits.items < 0, 0, hits.scores), rtol=1e-6)
    assert searcher.scores(["shoe"], np.array([[77, -1]], np.int32)).tolist() == [[0, 0]]


def test_a_shorter_list_is_the_beginning_of_a_longer_one():
    searcher = LexicalSearcher.from_texts([f"red thing {i % 3}" for i in range(30)]).add(np.array([30]), ["red thing"])
    queries = ["thing 1", "red", "thing 1", "nothing"]
    terms = [query.split() for query in queries]
    long = searcher.match(queries, terms, 12)
    short = searcher.match(queries, terms, 7)
    np.testing.assert_array_equal(short.items, long.items[:, :7])
    np.testing.assert_array_equal(short.scores, long.scores[:, :7])
    np.testing.assert_array_equal(long.items[0], long.items[2])
    np.testing.assert_allclose(long.best[:3], long.scores[:3, 0])
    assert long.best[3] == 0 and (long.items[3] == -1).all()
    np.testing.assert_array_equal(searcher.pair_scores(terms, long.items), long.scores)


def test_unspaced_scripts_use_characters_and_bigrams():
    assert Analyzer("english")("红色跑鞋") == ["红", "色", "跑", "鞋", "红色", "色跑", "跑鞋"]
    searcher = LexicalSearcher.from_texts(["红色跑鞋", "鞋架 跑步机", "蓝色外套"])
    assert found(searcher, "跑鞋")[0] == 0


def test_added_items_are_found_replaced_and_removed_without_touching_the_old_searcher():
    old = LexicalSearcher.from_texts(TITLES)
    new = old.add(np.array([5, 2]), ["purple zeppelin hammer", "wooden spoon"])
    assert found(new, "zeppelin") == [5] and found(new, "spoon") == [2]
    assert 2 not in found(new, "steel") and 2 in found(old, "steel") and found(old, "zeppelin") == []
    assert len(new) == 6 and len(new.remove(np.array([5]))) == 5
    assert found(new.remove(np.array([5])), "zeppelin") == []
    twice = new.add(np.array([5]), ["zeppelin toy"]).add(np.array([6]), ["zeppelin balloon"])
    assert set(found(twice, "zeppelin")) == {5, 6} and found(twice, "purple") == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_changes_and_merges_give_what_a_plain_list_of_texts_gives(seed):
    """Scores are those of the words' statistics at the build, whatever came and went, merged or not."""
    rng, words = np.random.default_rng(seed), ["red", "shoe", "hose", "lamp", "blue", "new", "rare"]
    text_of = lambda known: " ".join(rng.choice(words[:known], rng.integers(1, 5)))  # noqa: E731
    texts = {row: text_of(5) for row in range(6)}
    searcher = LexicalSearcher.from_texts(list(texts.values()))
    before, held = searcher, dict(texts)
    for _ in range(4):
        rows = rng.permutation(12)[: rng.integers(1, 4)]
        if rng.random() < 0.3:
            searcher, texts = searcher.remove(rows), {row: text for row, text in texts.items() if row not in rows}
        else:
            new = {int(row): text_of(7) for row in rows}
            searcher, texts = searcher.add(np.array(list(new)), list(new.values())), texts | new
        if rng.random() < 0.3:
            searcher = searcher.merged()
            assert searcher.changes == 0
    query, items = "red new lamp lamp rare", np.arange(13)[None]
    for one, known in ((searcher, texts), (searcher.merged(), texts), (before, held)):
        assert len(one) == len(known)
        plain = before.add(np.arange(100, 100 + len(known)), list(known.values()))  # weighted by the same statistics
        wanted = dict(zip(known, plain.scores([query], np.arange(100, 100 + len(known))[None])[0], strict=True))
        expected = np.array([wanted.get(row, 0.0) for row in range(13)])
        np.testing.assert_allclose(one.scores([query], items)[0], expected, rtol=1e-5)
        hits = one.top_items([query], 20)
        found = {int(item): score for item, score in zip(hits.items[0], hits.scores[0], strict=True) if item >= 0}
        assert found == pytest.approx({row: score for row, score in wanted.items() if score > 0}, rel=1e-5)


def test_an_added_twin_scores_like_the_original():
    searcher = LexicalSearcher.from_texts(TITLES).add(np.array([5]), [TITLES[3]])
    scores = searcher.scores(["steel claw hammer"], np.array([[3, 5]], np.int32))[0]
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_save_and_load_give_the_same_results_without_pickle(tmp_path):
    searcher = LexicalSearcher.from_texts(TITLES).add(np.array([5]), ["zeppelin"]).remove(np.array([0]))
    searcher.save(tmp_path)
    again = LexicalSearcher.load(tmp_path)
    for query in ("steel hammer", "shoes", "zeppelin"):
        assert found(again, query) == found(searcher, query)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    with pytest.raises(FileNotFoundError, match="BM25"):
        LexicalSearcher.load(tmp_path / "none")
    about = json.loads((tmp_path / "lexical.json").read_text())
    (tmp_path / "lexical.json").write_text(json.dumps({**about, "terms": about["terms"][:1] * len(about["terms"])}))
    with pytest.raises(ValueError, match=r"lexical\.json: terms: .* comes twice.*save the index again"):
        LexicalSearcher.load(tmp_path)


def test_fields_of_the_item_table():
    items = pl.DataFrame(
        {
            "title": ["Acme hammer", "hose"],
            "brand": ["Acme", None],
            "seller": ["s", None],
            "category": [["tools", "hand"], []],
            "attributes": [[{"type": "Color", "value": "red"}], []],
        },
        schema_overrides={
            "category": pl.List(pl.String),
            "attributes": pl.List(pl.Struct({"type": pl.String, "value": pl.String})),
        },
    )
    built, plain = LexicalSearcher.build(items), LexicalSearcher.from_texts(["Acme hammer Acme tools hand", "hose"])
    everything = np.array([[0, 1]] * 4)
    words = ["acme", "tools", "hose", "red"]
    np.testing.assert_array_equal(built.scores(words, everything), plain.scores(words, everything))
    assert found(LexicalSearcher.build(items, LexicalSettings(fields=("title", "attributes"))), "red") == [0]
    with pytest.raises(ValueError, match="titel"):
        LexicalSearcher.build(items, LexicalSettings(fields=("titel",)))


def test_a_batch_of_queries_is_fast():
    generator = np.random.default_rng(0)
    words = np.array([f"w{i}x" for i in range(3000)])
    titles = [" ".join(row) for row in words[(generator.pareto(1, (20_000, 8)) * 30).astype(int) % 3000]]
    searcher = LexicalSearcher.from_texts(titles)
    queries = [" ".join(row) for row in words[generator.integers(0, 3000, (500, 3))]]
    start = time.process_time()
    searcher.rank(Requests.anonymous(queries), 100)
    assert time.process_time() - start < 5


def test_letters_spelt_with_two_are_found():
    searcher = LexicalSearcher.from_texts(["Schuhe Größe 42", "Smør Dose", "Poet aus Stein", "Pot"])
    for query in ("größe", "grosse", "groesse", "GROESSE"):
        assert found(searcher, query) == [0]
    assert found(searcher, "smoer") == [1]
    assert found(searcher, "poet") == [2]  # a word that is known stays as it is


def test_words_joined_or_split_are_found():
    searcher = LexicalSearcher.from_texts(["red bull energy drink", "redcurrant jam", "toothbrush soft", "red lamp"])
    assert found(searcher, "redbull")[0] == 0 and found(searcher, "redbulls")[0] == 0
    assert found(searcher, "tooth brush") == [2] and found(searcher, "soft tooth brush") == [2]
    assert found(searcher, "qwertyzxcv") == []
    # The stem of the joined word is not the joined stems.
    assert found(LexicalSearcher.from_texts(["redbull can", "lamp", "vase"]), "red bull") == [0]
    items = np.arange(4)[None]
    for query in ("redbull", "tooth brush"):
        hits = searcher.rank(Requests.anonymous([query]), 4)
        top = dict(zip(hits.items[0].tolist(), hits.scores[0].tolist(), strict=True))
        scores = searcher.scores([query], items)[0]
        assert all(scores[item] == pytest.approx(score) for item, score in top.items() if item >= 0)


@pytest.mark.parametrize(("word", "lookups", "stems"), [("x" * 49_000, 2, 0), ("x" * 40, 40, 0), ("redxxxxx", 40, 2)])
def test_a_word_that_nobody_knows_costs_little(word: str, lookups: int, stems: int, monkeypatch: pytest.MonkeyPatch):
    """All ways to cut a word of n letters in two are n² letters to look at, and to stem where nothing forbids it."""
    searcher = LexicalSearcher.from_texts(["red bull energy drink", "lamp"])
    looked, stemmed = [], []
    number, analyze = searcher._number, searcher._analyze
    monkeypatch.setattr(searcher, "_number", lambda term: looked.append(term) or number(term))
    monkeypatch.setattr(searcher, "_analyze", lambda text: stemmed.append(text) or analyze(text))
    assert searcher.numbers([word]) == []
    assert len(looked) <= lookups and len(stemmed) <= stems


def test_endless_words_are_not_kept():
    analyze = Analyzer("english")
    assert analyze("running " + "x" * 41) == ["run", "x" * 41] and list(analyze._stems) == ["running"]


def test_items_with_all_words_are_those_whose_texts_have_each():
    searcher = LexicalSearcher.from_texts(["red bull drink", "red lamp", "a soft toothbrush", "lamps", "drink red"])
    searcher = searcher.remove(np.array([3, 4])).add(np.array([4, 7]), ["drinks, red", "soft red brush of a tooth"])

    def having(query: str) -> list[int]:
        return searcher.rows_with_all(query).tolist()

    assert having("drink red") == [0, 4] and having("red") == [0, 1, 4, 7] and having("lamps") == [1]
    # A word that no item has, or none at all.
    assert having("red zebra") == having("zebra") == having("") == having("!") == []
    # Two words that texts write as one, and one that they write as two; beside others.
    assert having("soft tooth brush") == [2, 7] and having("tooth brush red") == [7]
    assert having("redbull") == [0] and having("redbull lamp") == []
    # What is merged is the same.
    merged = searcher.merged()
    for query in ("drink red", "red", "soft tooth brush", "lamps", "redbull"):
        assert merged.rows_with_all(query).tolist() == having(query)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=4).map(" ".join), min_size=1, max_size=25).filter(any),
    st.lists(st.lists(st.sampled_from("abcdxyz"), max_size=3).map(" ".join), min_size=1, max_size=6),
    st.integers(1, 30),
    st.data(),
)
def test_scores_of_few_texts_give_what_those_of_all_give(texts, queries, k, data):
    """Of a large catalogue a query's scores stay sparse: items, scores and ties as from full rows."""
    searcher = LexicalSearcher.from_texts(texts, LexicalSettings(stemmer=None))
    gone = data.draw(st.lists(st.integers(0, len(texts) - 1), unique=True))
    later = data.draw(st.lists(st.sampled_from(["a b", "c", "x a", "b b"]), max_size=4))
    rows = data.draw(st.permutations(range(len(texts), len(texts) + len(later))))
    searcher = searcher.remove(np.array(gone, np.int64)).add(np.array(rows, np.int64), later)
    weights = np.linspace(0.5, 2, len(texts) + len(later), dtype=np.float32)
    terms = [query.split() for query in queries]
    outcomes = []
    for few, cells in ((10**9, 8_000_000), (0, 8_000_000), (0, 7)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lexical_search, "_FEW", few)
            patch.setattr(lexical_search, "_CELLS", cells)
            match = searcher.match(queries, terms, k)
            hits = [searcher.top_items(queries, k, one) for one in (None, weights)]
        outcomes.append([match.items, match.scores, match.best, *(x for hit in hits for x in (hit.items, hit.scores))])
    for other in outcomes[1:]:
        for one, two in zip(outcomes[0], other, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("few", [0, 10**9])
def test_of_equal_items_those_in_the_first_rows_are_found(few, monkeypatch):
    monkeypatch.setattr(lexical_search, "_FEW", few)
    searcher = LexicalSearcher.from_texts(["blue hose"]).add(np.array([4, 2, 3, 1]), ["red lamp"] * 4)
    assert searcher.top_items(["lamp"], 2).items.tolist() == [[1, 2]]
    assert searcher.match(["lamp"], [["lamp"]], 3).items.tolist() == [[1, 2, 3]]
