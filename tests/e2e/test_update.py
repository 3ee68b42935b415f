"""Online updates of the tiny run: a round on new page views, the judge, publishing, going back."""

import functools
import itertools
import json
import re
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import torch
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.common.artefact import read_json
from onesearch.data.click_statistics import ClickStatistics
from onesearch.data.live_clicks import CLICKS, LiveClicks
from onesearch.data.records import conform
from onesearch.data.text import normalise_query
from onesearch.evaluation.evaluate import rank_all
from onesearch.evaluation.market_laboratory import Laboratory
from onesearch.model.generator import Generator
from onesearch.pipeline import run_config
from onesearch.pipeline.abtest_runs import open_arm
from onesearch.pipeline.run_data import RunData
from onesearch.pipeline.update_round import update
from onesearch.pipeline.version_judge import Judgement
from onesearch.search.distilled_queries import ServedDistilled, distilled_queries
from onesearch.search.engine_file import load_about
from onesearch.search.rules import Hide, Rules
from onesearch.search.served_versions import Served, publish, published, roll_back
from onesearch.search.version_follower import VersionFollower
from onesearch.understanding.thought import Analysis, Thought
from onesearch.understanding.thought_table import Thoughts

align = functools.partial(update, epochs=None)  # with the counts as they are
SETS = ("grpo.steps=2", "grpo.prompts=8", "grpo.rollouts=4", "grpo.loop.validate_steps=1")


@pytest.fixture(scope="module")
def made(tiny_run: Path, tiny_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("updated") / "run"
    run_config(tiny_config, folder, SETS, reuse=(tiny_run,), until="engine_v2")
    return folder


@pytest.fixture(autouse=True)
def _no_version_yet(made: Path) -> None:
    """Tests of this file share the run, in any order and in part, and each begins without versions."""
    shutil.rmtree(made / "versions", ignore_errors=True)


@pytest.fixture(scope="module")
def events(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the market's shoppers did on pages that the run served after its log."""
    laboratory = Laboratory(made / "data", 900, newcomers=50)
    pages, _ = rank_all(open_arm(str(made)), laboratory.requests(), 10)
    path = tmp_path_factory.mktemp("events") / "new.parquet"
    laboratory.exposures(pages).write_parquet(path)
    return path


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch):
    """Lets a test say what validation says, look by look, and whether the judge finds the new version better."""

    def say(figures, better: bool = True):
        numbers = iter(figures)
        monkeypatch.setattr(
            "onesearch.pipeline.preference_stages.validator",
            lambda *_, **__: lambda _: {"hr10": float(next(numbers)), "mrr10": 0.0},
        )
        found = Judgement({"gain": 0.5}, {"gain": 0.6 if better else 0.5}, 0.1, 0.9)
        monkeypatch.setattr("onesearch.pipeline.update_round._judged", lambda *_: found)

    return say


def weights(run: Path, place: str) -> list[torch.Tensor]:
    return list(Generator.load(run / place / "generator").parameters())


def test_rounds_are_published_when_better_and_can_be_taken_back(made, events, judged):
    assert published(made) is None and open_arm(str(made)).name == "run/v2"
    judged(itertools.count())
    first = align(made, events, "dpo", 4, ("dpo.loop.learning_rate=1e-3",))
    assert first.published and first.version == "versions/0001" and first.before["gain"] < first.after["gain"]
    assert first.page_views > 300 and first.judged >= 50 and first.set_aside == 0
    assert open_arm(f"{made}:v2").name == "run/v2@0001" and open_arm(f"{made}:v1").name == "run/v1"
    assert len(open_arm(str(made)).search("boots")) > 0
    moved = zip(weights(made, "grpo"), weights(made, first.version), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)

    judged(itertools.count())
    second = align(made, events, "tpma", 4)
    about = read_json(made / second.version / "manifest.json")
    assert second.version == "versions/0002" and about["started_from"] == "versions/0001"
    assert published(made) == "versions/0002"
    assert roll_back(made) == "versions/0001" and open_arm(str(made)).name == "run/v2@0001"
    assert roll_back(made) is None and open_arm(str(made)).name == "run/v2"
    with pytest.raises(ValueError, match="no version to go back from"):
        roll_back(made)


def test_a_running_engine_follows(made, events, judged, caplog):
    engine = open_arm(f"{made}:v2")
    follower = VersionFollower(made, engine, seconds=0.01)
    assert not follower.look() and engine.name == "run/v2"
    judged(itertools.count())
    done = align(made, events, "dpo", 2, ("dpo.loop.learning_rate=1e-3",))
    # One that only tells, as that of shards, which do not change their model on the way.
    telling = VersionFollower(made, engine, tells_only=True)
    assert not telling.look() and engine.name == "run/v2"
    told = f"versions: run/v2@{Path(done.version).name} is published; restart the service to serve it"
    assert telling.problem() == told
    assert follower.look() and engine.name == f"run/v2@{Path(done.version).name}" and not follower.look()
    now = zip(engine.generator.parameters(), weights(made, done.version), strict=True)
    assert all(torch.equal(a, b) for a, b in now) and not engine.generator.training
    assert [hit.item_id for hit in engine.search("boots")] == [
        hit.item_id for hit in open_arm(f"{made}:v2").search("boots")
    ]

    publish(made, "versions/none", Served.now(made))  # cannot be read: logged, and the engine goes on
    with caplog.at_level("ERROR", "onesearch"):
        follower.start()
        wait_until(lambda: "cannot be served" in caplog.text)
    assert engine.name == f"run/v2@{Path(done.version).name}" and len(engine.search("boots")) > 0
    assert "cannot be served (FileNotFoundError)" in str(follower.problem())
    roll_back(made)
    roll_back(made)
    wait_until(lambda: engine.name == "run/v2" and follower.problem() is None)
    follower.stop()


def wait_until(holds) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_boosts_of_the_rewards_come_with_a_version_and_go_with_it(made, events, judged, tmp_path):
    before, engine = published(made), open_arm(f"{made}:v2")
    follower = VersionFollower(made, engine, seconds=0.01)
    seller = RunData(made).dataset.items["seller"].drop_nulls()[0]
    rewards = tmp_path / "rewards.yaml"
    rewards.write_text(f"boosts: [{{name: emerging, column: seller, values: ['{seller}'], times: 16}}]\n")
    for method in ("tpma", "dpo"):
        judged(itertools.count())
        done = align(made, events, method, 2, (f"rewards_file={rewards}",))
        about, own = load_about(made, done.version), load_about(made, "engine_v2")
        assert [boost["values"] for boost in about["boosts"]] == [[seller]] and own["boosts"] == []
        assert about["weights"] == own["weights"] and about["search"] == own["search"]
        assert own["weights"]["boost"] == 1.0 and own["search"]["relevance"] == 0.5
        assert follower.look() and [boost.name for boost in engine.snapshot.boosts] == ["emerging"]
        assert open_arm(f"{made}:v2").snapshot.boosts == engine.snapshot.boosts
        roll_back(made)
        assert follower.look() and engine.snapshot.boosts == () and published(made) == before
    rewards.write_text("boosts: [{name: emerging, column: seller, values: [nobody], times: 2}]\n")
    with pytest.raises(ValueError, match="boost 'emerging': no item"):
        align(made, events, "dpo", 2, (f"rewards_file={rewards}",))


def test_a_round_that_was_killed_hinders_no_later_one(made, events, judged):
    """SIGKILL while its page views were written: a folder with half a table and no mark."""
    before, left = published(made), made / "versions" / "0700"
    left.mkdir(parents=True)
    (left / "page_views.parquet").write_bytes(events.read_bytes()[:1000])
    judged(itertools.count())
    done = align(made, events, "dpo", 2)
    assert done.published and done.version == "versions/0701"
    assert roll_back(made) == before
    shutil.rmtree(left)


def test_a_worse_version_is_kept_and_not_served(made, events, judged):
    before = published(made)
    judged(itertools.count(), better=False)
    assert not align(made, events, "dpo", 2).published and published(made) == before


def test_weights_that_only_fall_are_the_ones_that_were_given(made, events, monkeypatch):
    numbers = iter(range(100, 0, -1))
    falling = lambda _: {"hr10": float(next(numbers)), "mrr10": 0.0}  # noqa: E731
    monkeypatch.setattr("onesearch.pipeline.preference_stages.validator", lambda *_, **__: falling)
    before = published(made)
    found = align(made, events, "grpo", 4)  # the judge is the real one
    assert found.before == found.after and 0 < found.before["hr10"] <= 1 and found.p == found.same == 1.0
    assert 0.5 < found.before["gain"] < 1  # pages of ten, of which the first places are clicked most
    assert not found.published and published(made) == before
    start = read_json(made / found.version / "manifest.json")["started_from"]
    same = zip(weights(made, start), weights(made, found.version), strict=True)
    assert all(torch.equal(a, b) for a, b in same)  # the weights that it was given


def test_versions_of_an_engine_that_was_rebuilt_are_left_alone(made, monkeypatch, caplog):
    assert publish(made, "versions/0001", Served.now(made)) and published(made) == "versions/0001"
    monkeypatch.setattr("onesearch.search.served_versions.origin", lambda _: "another")
    with caplog.at_level("WARNING", "onesearch"):
        assert published(made) is None and "rebuilt" in caplog.text
    monkeypatch.undo()
    roll_back(made)


def test_a_version_made_from_what_is_no_longer_served_is_not_published(made, events, judged, monkeypatch, caplog):
    judged(itertools.count())
    assert align(made, events, "dpo", 2, ("dpo.loop.learning_rate=1e-3",)).published

    def going_back(*_):
        roll_back(made)  # an operator, while the round runs
        return Judgement({"gain": 0.1}, {"gain": 0.9}, 0.01, 0.9)

    monkeypatch.setattr("onesearch.pipeline.update_round._judged", going_back)
    with caplog.at_level("WARNING", "onesearch"):
        assert not align(made, events, "dpo", 2).published
    assert published(made) is None and "changed during the round" in caplog.text


def test_page_views_of_the_log_are_no_news(made, events, tmp_path, judged):
    old = pl.read_parquet(made / "data" / "page_views.parquet").head(30)
    new = pl.read_parquet(events)
    both = tmp_path / "both.parquet"
    pl.concat([old, new], how="diagonal_relaxed").write_parquet(both)
    judged(itertools.count(), better=False)
    assert align(made, both, "dpo", 2).set_aside == 30


def test_thoughts_that_came_since_are_used(made, events, judged):
    query = pl.read_parquet(events)["query"][0]
    analysis = Analysis(intent="merchandise", query_type="plain")
    more = Thoughts.from_thoughts(
        [
            Thought(query=text, analysis=analysis, keywords=(), producer="x", version="1")
            for text in (query, "brand new")
        ]
    )
    judged(itertools.count())
    found = align(made, events, "tpma", 2, more_thoughts=more)
    assert found.thoughts in (1, 2)  # what the run has thought about stays
    if found.published:
        roll_back(made)


def test_counts_index_and_evidence_are_renewed_but_for_what_judges(made, events, judged):
    judged(itertools.count())
    done = update(made, events, steps=0, epochs=0)
    own, place = RunData(made), f"{done.version}/renewed"
    new, renewed = conform("page_views", pl.read_parquet(events)), RunData(made, place)
    # The newest fifth of those with a click judges, a tenth before it chooses; nothing from there on is counted.
    new = new.sort("time", maintain_order=True)
    clicked = new.with_row_index("at").filter(pl.col("clicked").list.len() > 0)["at"]
    later = max(50, round(0.2 * len(clicked))) + max(50, round(0.1 * len(clicked)))
    counted = pl.concat([own.dataset.page_views, new[: int(clicked[-later])]])
    twin = ClickStatistics.from_page_views(counted, own.dataset.items)
    assert list(renewed.statistics.queries) == list(twin.queries) and (renewed.statistics.counts == twin.counts).all()
    assert (renewed.statistics.clicked == twin.clicked).all() and twin.clicked.sum() > own.statistics.clicked.sum()
    assert not torch.equal(renewed.item_head_rows, own.item_head_rows)  # popularity is among their numbers
    assert done.distilled == 0 and (made / done.version / "distilled.parquet").is_file()
    about = load_about(made, done.version)
    assert about["counts"] == about["model"] == place and about["weights"] == load_about(made, "engine_v2")["weights"]
    same = zip(weights(made, "grpo"), weights(made, place), strict=True)
    assert all(torch.equal(a, b) for a, b in same)  # no epoch
    engine = open_arm(f"{made}:v2")
    assert engine.logged_until == counted["time"].max() and engine.name == "run/v2@0001"


def test_a_running_engine_takes_renewed_counts_over_with_its_catalogue_as_it_is(made, events, judged):
    engine = open_arm(f"{made}:v2")
    gone, kept, fuller = (hit.item_id for hit in engine.search("boots", k=3))
    engine.upsert([replace(engine.item(kept), title="azure boots"), replace(engine.item(kept), item_id="new")])
    engine.delete([gone])
    engine.follow_rules(Rules(hides=(Hide(name="h", column="item_id", values=(fuller,)),)))
    rows = [(who, "brand new", "new", datetime.now(UTC), None, True) for who in (1, 2)]
    engine.count(LiveClicks.from_clicks(pl.DataFrame(rows, CLICKS, orient="row"), datetime.now(UTC), 14, 2))
    judged(itertools.count())
    done = update(made, events, steps=0, epochs=0)
    assert VersionFollower(made, engine).look() and engine.counts == f"{done.version}/renewed"
    assert len(engine) == len(open_arm(f"{made}:v2"))  # one came, one went
    assert engine.item("new") and engine.item(gone) is None and engine.item(kept).title == "azure boots"
    found = [hit.item_id for hit in engine.search("boots", k=50)]
    assert "new" in found and fuller not in found and gone not in found
    live = engine.snapshot.click_features.live
    assert live is not None and live.clicked.sum() > 0
    # The same as an engine that starts with the version and is told the same.
    twin = open_arm(f"{made}:v2")
    twin.upsert([engine.item(kept), engine.item("new")])
    twin.delete([gone])
    pages = [[hit.item_id for hit in one.search("red shoes", k=20)] for one in (engine, twin)]
    assert pages[0] == pages[1]


def test_renewing_distils_the_thoughts_that_came_since(made, events, judged, tmp_path, caplog):
    oldest, query = pl.col("time").rank("ordinal") <= 30, "brand new words"
    asked = pl.read_parquet(events).with_columns(query=pl.when(oldest).then(pl.lit(query)).otherwise("query"))
    asked.write_parquet(tmp_path / "asked.parquet")
    analysis = Analysis(intent="merchandise", query_type="plain")
    thought = Thought(query=query, analysis=analysis, keywords=("red", "boots"), producer="x", version="1")
    more = Thoughts.from_thoughts([thought])
    judged(itertools.count())
    taught, sets = [], ("cot.page_views=100000", "distill.teach=all")
    for thoughts in (None, more):
        shutil.rmtree(made / "versions", ignore_errors=True)  # the number of a round is part of its seed
        caplog.clear()
        with caplog.at_level("INFO", "onesearch"):
            done = update(made, tmp_path / "asked.parquet", steps=0, epochs=0.2, overrides=sets, more_thoughts=thoughts)
        said = re.findall(r"keywords calibrated for \d+ page views by the language model, (\d+) by rule", caplog.text)
        taught.append(int(said[0]))
    assert taught[1] == taught[0] + 30
    # The version says which thoughts it was taught; so does the run of its own stages.
    own, now = (set(distilled_queries(made, place)) for place in ("engine_v2", done.version))
    assert done.distilled == len(now - own) >= 1 and own < now and query in now - own
    thoughts, train = RunData(made).thoughts, RunData(made).split.train
    acted = train.filter((pl.col("clicked").list.len() > 0) | (pl.col("ordered").list.len() > 0))
    taught_by = [
        {one for one in map(normalise_query, some["query"]) if thoughts.taught([one], "complex")[0]}
        for some in (acted, train)
    ]
    assert own == taught_by[0] < taught_by[1], "a page view that led to nothing teaches nothing"
    engine = open_arm(f"{made}:v2")
    served = ServedDistilled(made, engine)
    assert query in served() and len(served()) == len(now) and "never searched" not in served()
    roll_back(made)
    assert query in served(), "until the engine has the version before"
    VersionFollower(made, engine).look()
    assert query not in served() and len(served()) == len(own)
    moved = zip(weights(made, "grpo"), weights(made, f"{done.version}/renewed"), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)


def test_bad_events_are_said_and_set_aside(made, events, tmp_path):
    log = pl.read_parquet(events)
    few = tmp_path / "few.parquet"
    log.head(20).write_parquet(few)
    with pytest.raises(ValueError, match="a round needs 150"):
        align(made, few)
    nameless = tmp_path / "nameless.parquet"
    log.with_columns(page_view_id=pl.lit(None, pl.String)).write_parquet(nameless)
    with pytest.raises(ValueError, match="page_view_id"):
        align(made, nameless)
    strange = tmp_path / "strange.parquet"
    log.with_columns(extra=pl.lit(1)).write_parquet(strange)
    with pytest.raises(ValueError, match="extra"):
        align(made, strange)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        align(made, tmp_path / "none.parquet")
    with pytest.raises(FileNotFoundError, match="not a finished stage"):
        align(made.parent / "nothing", events)


def test_the_command(made, events, tmp_path):
    foreign = pl.read_parquet(events).with_columns(
        pl.col(name).list.eval(pl.lit("unknown")) for name in ("shown", "clicked", "ordered")
    )
    mixed = tmp_path / "mixed.parquet"
    pl.concat([pl.read_parquet(events), foreign.head(7)]).write_parquet(mixed)
    arguments = ["-q", "update", str(made), "--events", str(mixed), "--method", "dpo", "--steps", "2", "--keep-counts"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["set_aside"] == 7 and (made / found["version"] / "engine.json").is_file()
    result = CliRunner().invoke(app, ["update", str(made), "--rollback"])
    assert result.exit_code == (0 if found["published"] else 1)
    assert CliRunner().invoke(app, ["update", str(made)]).exit_code == 2
