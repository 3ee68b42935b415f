"""The study of encodings: its cells, the data of emoji, where lines cross, and the page of figures made up here."""

import json

import polars as pl
import pytest
import yaml
from benchmarks.emoji_data import write_emoji
from benchmarks.encodings_page import HR, Study, crossing
from benchmarks.result_files import ResultFiles

from benchmarks import encodings, encodings_page


@pytest.fixture
def files(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "encodings.head.md").write_text("# Head\n")
    return ResultFiles("encodings", tmp_path / "results")


@pytest.fixture
def packages(tmp_path):
    """Three emoji of which one has no keyword, one not both drawings, and one is a part of others."""

    def emoji(code, name, group, both=True):
        more = {"category": group, "subcategory": "face-hat", "image": f"{code.lower()}.png"}
        return {"unified": code, "name": name, **more, "has_img_google": True, "has_img_twitter": both}

    listed = [
        emoji("1F920", "FACE WITH COWBOY HAT", "Smileys"),
        emoji("2603-FE0F", "SNOWMAN", "Travel"),
        emoji("1F600", "GRINNING", "Smileys", both=False),
        emoji("1F3FB", "LIGHT SKIN", "Component"),
    ]
    words = {"\U0001f920": ["face_with_cowboy_hat", "cow_girl", "hat", ":)"], "☃": ["winter", "hat"]}
    for path, value in (("emoji-datasource-google/emoji.json", listed), ("emojilib/dist/emoji-en-US.json", words)):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(json.dumps(value))
    return tmp_path


def test_emoji_become_a_shops_files(packages, tmp_path):
    write_emoji(packages, tmp_path / "named", 0)
    items = pl.read_csv(tmp_path / "named" / "items.csv")
    assert items["title"].to_list() == ["face with cowboy hat", "snowman"]
    assert items["category"].to_list() == ["Smileys > face hat", "Travel > face hat"]
    assert json.loads(items["images"][0]) == [
        f"emoji-datasource-{name}/img/{name}/64/1f920.png" for name in ("google", "twitter")
    ]
    # Keywords are queries; an emoji's own name, and signs, are none.
    judged = pl.read_csv(tmp_path / "named" / "judgments.csv")
    pairs = sorted(zip(judged["query"], judged["item_id"], strict=True))
    assert pairs == [("cow girl", "1F920"), ("hat", "1F920"), ("hat", "2603-FE0F"), ("winter", "2603-FE0F")]
    assert yaml.safe_load((tmp_path / "named" / "mapping.yaml").read_text())["page_views"]["clicked_at"] == 3
    # Without its name an item's text is its group; its keywords stay.
    write_emoji(packages, tmp_path / "unnamed", 1)
    assert pl.read_csv(tmp_path / "unnamed" / "items.csv")["title"].to_list() == ["face hat", "face hat"]
    assert (tmp_path / "unnamed" / "judgments.csv").read_text() == (tmp_path / "named" / "judgments.csv").read_text()


def test_cells_differ_in_the_encoding_alone(tmp_path):
    grid = encodings.EncodingsGrid(tmp_path)
    cells = list(grid.cells())
    assert len({(name, seed, cell.name) for name, seed, cell in cells}) == len(cells)
    seeds = [seed for _, seed, _ in cells]
    assert seeds == sorted(seeds) and not cells[0][2].name.startswith("transformer")
    for name in ("emoji.0", "market.100"):
        sets = {cell.name: set(grid._sets(name, 1, cell)) for found, seed, cell in cells if (found, seed) == (name, 1)}
        for encoder in ("static", "transformer"):
            text = sets[f"{encoder}-text"]
            assert {*text, "encoder.encoding=unified"} - {"encoder.encoding=text"} == sets[f"{encoder}-unified"]
            assert {*text, "encoder.encoding=concat"} - {"encoder.encoding=text"} == sets[f"{encoder}-concat"]
    # Seeds of emoji train anew on the same split, those of the market are markets of their own.
    assert {"seed=1", "training_seed=2"} <= set(grid._sets("emoji.0", 2)) and "seed=2" in grid._sets("market.0", 2)
    assert "data.market.picture_only=0.75" in grid._sets("market.75", 1)


def differing(files, differences, half=0.01):
    """Figures with these paired differences of unified and text, by share."""
    cells, tests = {}, {}
    for share, value in differences.items():
        for encoding in encodings_page.ENCODINGS:
            mean = 0.5 + (value if encoding == "unified" else 0.0)
            methods = {"vectors": {name: {"mean": mean} for name in encodings_page.METRICS}}
            about = {"data": f"market.{share}", "seed": 1, "cell": f"static-{encoding}", "methods": methods}
            made = {"config": "configs/market.yaml", "commit": "abc", "date": "2026-11-30", "machine": "2 cores"}
            more = {"items": 4000, "requests": 2000, "icr": 0.9, "prefix_agreement": [0.5, 0.25, 0.125, 0.1, 0.1]}
            times = {"milliseconds": {"item": 3.0, "picture": 2.0, "query": 0.1}}
            cells[f"market.{share}-1/static-{encoding}"] = {**about, **made, **more, **times}
        test = {"metric": HR, "slice": None, "difference": value, "low": value - half, "high": value + half, "p": 0.01}
        tests[f"market.{share}: static-unified/vectors - static-text/vectors"] = {"seeds": [1], "tests": [test]}
    files.write_figures({"cells": cells, "tests": tests})


def crossed(files, differences, half=0.01):
    differing(files, differences, half)
    data = [f"market.{share}" for share in differences]
    return crossing(Study(files), "static", data, list(differences), ("unified", "text"))


def test_lines_cross_where_the_difference_is_zero(files):
    assert "cross at 25 % [20, 30]." in crossed(files, {0: -0.05, 50: 0.05}, half=0.01)
    assert "cross at 75 % [70, 80]." in crossed(files, {0: -0.1, 50: -0.05, 100: 0.05}, half=0.01)
    assert "unified is ahead at every share" in crossed(files, {0: 0.02, 100: 0.05})
    assert "text is ahead at every share" in crossed(files, {0: -0.02, 100: -0.05})
    # Where nothing is sure at the first or the last share, the interval begins or ends there; or everywhere.
    assert "no difference is sure at any share" in crossed(files, {0: -0.05, 100: 0.05}, half=0.06)
    assert "cross at 0 % [0, 10]." in crossed(files, {0: 0.0, 100: 0.1}, half=0.01)
    assert "cross at 75 % [38, 100]." in crossed(files, {0: -0.06, 100: 0.02}, half=0.03)
    assert "cross at 25 % [0, 62]." in crossed(files, {0: 0.02, 100: -0.06}, half=0.03)


def test_the_page_shows_what_was_measured(files):
    encodings_page.render(files)
    assert files.page.read_text().count("Not measured yet.") == 2
    differing(files, {0: -0.05, 50: 0.05})
    encodings_page.render(files)
    page = files.page.read_text()
    assert "4,000 items, 2,000 test searches, seeds 1." in page and page.count("Not measured yet.") == 1
    assert "| 0 % | picture and text in one tower | 0.4500 | 0.4500 | 0.4500 |" in page
    assert "| 50 % | text alone | 0.9000 | 0.5000 | 0.2500 | 0.1250 | 3.00 | 2.00 | 0.10 |" in page
    assert "| 50 % | +0.0500 [+0.0400, +0.0600], p = 0.0100 | – | – |" in page
    assert "**unified against text**, HR@10 of vectors: the lines cross at 25 % [20, 30]." in page
    assert "**concat against text**, HR@10 of vectors: not measured." in page
    assert (files.charts / "market_static.png").stat().st_size > 1000
