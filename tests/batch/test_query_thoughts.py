"""Each query has a thought or a reason, which a server that is down is not; rows are checked like answers."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from onesearch.batch.query_thoughts import SCHEMA, Answers, import_thoughts, think_about, thought_rows
from onesearch.understanding.catalogue_vocabulary import CatalogueVocabulary
from onesearch.understanding.llm_producer import LLMError, LLMUnavailableError
from onesearch.understanding.thought import Analysis, Attribute, Thought, ThoughtError
from onesearch.understanding.thought_cache import SqliteThoughts
from small_engine import ITEMS

WHO = ("model", "7")


def thought_of(query: str, **changes: object) -> Thought:
    analysis = Analysis(intent="merchandise", category=("Shop", "tent"), topics=("red tent",))
    about = {"query": query, "analysis": analysis, "keywords": ("red tent",), "producer": WHO[0], "version": WHO[1]}
    return Thought(**{**about, **changes})


class Model:
    """Answers by ``replies``: an error to raise, or None for a thought; queries without one get a thought."""

    name, version = WHO

    def __init__(self, **replies: object) -> None:
        self.replies, self.asked, self.closed = replies, Counter[str](), 0

    async def think(self, query: str) -> Thought:
        self.asked[query] += 1
        reply = self.replies.get(query)
        reply = reply(self) if callable(reply) else reply
        if isinstance(reply, Exception):
            raise reply
        return thought_of(query)

    async def close(self) -> None:
        self.closed += 1


DOWN = LLMUnavailableError("no answer")


# -- thinking ----------------------------------------------------------------------------------------------------------


def test_a_query_is_asked_once_however_it_is_typed():
    model = Model()
    queries = ["Red  Tent", "red tent", "ｒｅｄ tent", "", "  ", "lamp"]
    answers = think_about(queries, model)
    assert model.asked == {"red tent": 1, "lamp": 1} and model.closed == 1
    rows = thought_rows([*queries, None], answers, *WHO).to_pylist()
    assert [row["query"] for row in rows] == [*queries, None]
    assert [row["reason"] for row in rows] == [None, None, None, "no query", "no query", None, "no query"]
    assert [row["keywords"] for row in rows[:4]] == [["red tent"]] * 3 + [None]


def test_a_refused_answer_is_a_row_with_a_reason_and_costs_no_other():
    answers = think_about(["a", "b", "c"], Model(b=ThoughtError("off the catalogue: 'x'")))
    assert set(answers.thoughts) == {"a", "c"} and answers.reasons == {"b": "off the catalogue: 'x'"}
    refused, kept = thought_rows(["b", "a"], answers, *WHO).to_pylist()
    nothing = dict.fromkeys(["intent", "query_type", "category", "attributes", "topics", "keywords"])
    assert refused == {
        "query": "b",
        **nothing,
        "producer": "model",
        "version": "7",
        "reason": "off the catalogue: 'x'",
    }
    assert (kept["intent"], kept["category"], kept["reason"]) == ("merchandise", ["Shop", "tent"], None)


def test_a_server_that_is_down_fails_the_part():
    with pytest.raises(LLMUnavailableError, match="2 of 2 queries of the part have no answer"):
        think_about(["a", "b"], Model(a=DOWN, b=DOWN))
    with pytest.raises(LLMError, match="no key"):
        think_about(["a"], Model(a=LLMError("no key")))

    # It goes down while queries are thought about: what it answered does not make the others rows.
    def once(model: Model) -> Exception | None:
        return DOWN if model.asked["a"] > 1 else None

    model = Model(a=once, b=DOWN)
    with pytest.raises(LLMUnavailableError, match="1 of 2 queries"):
        think_about(["a", "b"], model)
    assert model.asked["a"] == 2


def test_a_query_that_alone_gets_no_answer_is_a_row():
    model = Model(b=DOWN)
    answers = think_about(["a", "b", "c"], model)
    assert set(answers.thoughts) == {"a", "c"} and "no answer in up to 4 rounds" in answers.reasons["b"]
    # A usable answer is not needed to know that the server is up.
    answers = think_about(["a", "b"], Model(a=ThoughtError("malformed answer: empty"), b=DOWN))
    assert set(answers.reasons) == {"a", "b"}


def test_queries_that_an_early_end_left_are_asked_in_the_next_round():
    """The patience of the worker ends at a query that takes long; those behind it are asked all the same."""
    model = Model(b=DOWN)
    answers = think_about(["a", "b", "c", "d"], model, concurrency=1, patience=-1.0)
    assert set(answers.thoughts) == {"a", "c", "d"} and set(answers.reasons) == {"b"}


def test_a_producer_of_many_is_asked_in_bulk_and_its_rows_without_keywords_have_a_reason():
    class Rules(Model):
        def think_all(self, queries):
            self.asked.update(queries)
            return [thought_of(query, keywords=() if query == "b" else ("tent",)) for query in queries]

    rules = Rules()
    answers = think_about(["a", "b", "A"], rules)
    assert rules.asked == {"a": 1, "b": 1} and answers.reasons == {"b": "no keywords"}


def test_a_table_without_queries_has_the_same_columns():
    assert thought_rows([], think_about([], Model()), *WHO).schema == SCHEMA


# -- into a cache ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words() -> CatalogueVocabulary:
    return CatalogueVocabulary.from_items(ITEMS)


@pytest.fixture
def cache(tmp_path):
    kept = SqliteThoughts(tmp_path / "thoughts.sqlite3")
    yield kept
    kept.close()


def row(of="red tent", **changes):
    (made,) = thought_rows([of], Answers({of: thought_of(of)}, {}), *WHO).to_pylist()
    return {**made, **changes}


def write(folder, rows, name="part-0.parquet", schema=SCHEMA):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / name)
    return folder


def test_rows_become_the_thoughts_that_they_were_made_of(cache, words, tmp_path):
    red = Attribute(type="Color", value="red", negated=True)
    topics = ("blue tent", "anything")
    analysis = Analysis(intent="merchandise", category=("Shop", "tent"), attributes=(red,), topics=topics)
    thoughts = {
        "no red tent": thought_of("no red tent", analysis=analysis, keywords=("blue tent",)),
        "hello": thought_of("hello", analysis=Analysis(intent="other"), keywords=()),
    }
    table = thought_rows(["No  Red tent", "hello", "lost"], Answers(thoughts, {"lost": "refused: no"}), *WHO)
    write(tmp_path / "table", table.to_pylist())
    found = import_thoughts(tmp_path / "table", cache, words, *WHO, tmp_path / "rejects.jsonl")
    assert (found.given, found.asked, found.answered, found.set_aside, found.cached) == (3, 3, 2, 1, 0)
    assert cache.get_many(["no red tent", "hello", "lost"], *WHO) == thoughts
    (noted,) = map(json.loads, (tmp_path / "rejects.jsonl").read_text().splitlines())
    assert noted["query"] == "lost" and noted["reason"] == "no thought in the table: refused: no"
    # A second time nothing is new.
    again = import_thoughts(tmp_path / "table", cache, words, *WHO)
    assert (again.cached, again.answered, again.set_aside) == (2, 0, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"keywords": ["flux capacitor"]}, "off the catalogue"),
        ({"keywords": ["tent", None]}, "malformed answer"),
        ({"keywords": None}, "malformed answer"),
        ({"intent": "world domination"}, "malformed answer"),
        ({"attributes": [{"type": "Mood", "value": "red", "negated": False}]}, "malformed answer"),
        ({"topics": ["tent " * 5000]}, "malformed answer"),
        ({"producer": "llm:another"}, "another producer"),
        ({"version": "8"}, "another producer"),
    ],
)
def test_rows_that_would_be_refused_as_answers_are_set_aside(cache, words, tmp_path, changes, reason):
    table = write(tmp_path / "table", [row(**changes), row("blue lamp", keywords=["blue lamp"])])
    found = import_thoughts(table, cache, words, *WHO)
    assert found.reasons == {reason: 1} and found.answered == 1
    assert set(cache.get_many(["red tent", "blue lamp"], *WHO)) == {"blue lamp"}


def test_what_is_off_the_catalogue_is_left_out_of_a_thought(cache, words, tmp_path):
    table = write(tmp_path / "table", [row(keywords=["flux capacitor", "Tents"], category=["Nowhere"])])
    assert import_thoughts(table, cache, words, *WHO).dropped == 2
    kept = cache.get_many(["red tent"], *WHO)["red tent"]
    assert kept.keywords == (words.keyword("Tents"),) and kept.analysis.category == ()


def test_the_first_thought_of_a_query_stays(cache, words, tmp_path):
    table = write(
        tmp_path / "table", [row("lamp", query="Lamp ", keywords=["red lamp"]), row("lamp", keywords=["blue lamp"])]
    )
    write(table, [row("lamp", keywords=["green lamp"])], "part-1.parquet")
    found = import_thoughts(table, cache, words, *WHO)
    assert (found.given, found.asked, found.cached, found.answered) == (3, 1, 0, 1)
    cache.put([thought_of("tent", keywords=("tent",))])
    write(table, [row("tent"), row("tent")], "part-2.parquet")
    assert import_thoughts(table, cache, words, *WHO).cached == 2
    assert cache.get_many(["tent"], *WHO)["tent"].keywords == ("tent",)
    assert cache.get_many(["lamp"], *WHO)["lamp"].keywords == ("red lamp",)


def test_a_query_that_another_row_has_a_thought_of_is_not_set_aside(cache, words, tmp_path):
    table = write(tmp_path / "table", [row(intent=None, reason="no answer"), row(), row(intent=None)])
    write(table, [row(intent=None, reason="no answer"), row("lamp", intent=None, reason="no")], "part-1.parquet")
    found = import_thoughts(table, cache, words, *WHO, tmp_path / "rejects.jsonl")
    assert (found.given, found.asked, found.answered, found.set_aside) == (5, 2, 1, 1)
    assert found.reasons == {"no thought in the table": 1} and '"lamp"' in (tmp_path / "rejects.jsonl").read_text()


def test_files_that_are_no_table_of_thoughts_are_named(cache, words, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no"):
        (tmp_path / "none").mkdir()
        import_thoughts(tmp_path / "none", cache, words, *WHO)
    pq.write_table(pa.table({"query": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other.parquet: the table has no column 'intent'"):
        import_thoughts(tmp_path / "other.parquet", cache, words, *WHO)
    numbers = pa.table({name: [[{"x": 1}]] for name in SCHEMA.names})
    pq.write_table(numbers, tmp_path / "numbers.parquet")
    with pytest.raises(ValueError, match=r"numbers.parquet is no table of thoughts"):
        import_thoughts(tmp_path / "numbers.parquet", cache, words, *WHO)
    (tmp_path / "text.parquet").write_text("query,intent\n")
    with pytest.raises(ValueError, match=r"text.parquet is no table of thoughts"):
        import_thoughts(tmp_path / "text.parquet", cache, words, *WHO)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "part-0.parquet").symlink_to(tmp_path / "other.parquet")
    with pytest.raises(ValueError, match="is a link"):
        import_thoughts(linked, cache, words, *WHO)
