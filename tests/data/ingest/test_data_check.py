import polars as pl
import pytest
from tests.data.logs import ITEMS, USERS, frame, minute
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.data.dataset import Dataset
from onesearch.data.ingest.data_check import check
from onesearch.data.records import Judgment, PageView, judgments_frame

LOG = [
    PageView("1", "shoe", "u0", "s", minute(2), ("i0", "i1"), ("i1",)),
    PageView("2", "boot", "u1", "s", minute(1), ("i2",), (), ("i2",)),
]


def write(folder, items=ITEMS, users=USERS, log=LOG, judgments=()):
    return Dataset.write(folder, items, users, frame(list(log)), judgments_frame(list(judgments)), source="test")


def errors(folder):
    return {finding.what: finding.detail for finding in check(folder) if finding.grade == "error"}


def test_a_good_data_set(tmp_path):
    write(tmp_path, judgments=[Judgment("shoe", "i1", 3), Judgment("hat", "i1", 0)])
    found = {finding.what: finding.detail for finding in check(tmp_path)}
    assert errors(tmp_path) == {}
    assert found["judged queries that were asked"] == "1 of 2 (50.0%)"
    assert found["rows are in time order"] == "1 rows are earlier than the one above"
    assert found["items with a click"] == "1 of 6 (16.7%)"
    assert found["clicked items that were shown"] == "1 of 1"
    assert "items shown after they were listed" not in found
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 0 and "no errors" in result.output


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        ({"items": pl.concat([ITEMS, ITEMS[:1]])}, "items: item_id is unique"),
        ({"log": [PageView("1", "q", time=minute(0).replace(year=2100), shown=("i0",))]}, "times are plausible"),
        ({"users": USERS[:1]}, "page_views.user_id in users"),
        ({"log": [PageView("1", "q", shown=("gone",))]}, "page_views.shown in items"),
        (
            {"log": [PageView("1", "q", shown=("i0",)), PageView("1", "r", shown=("i0",))]},
            "page_views: page_view_id is unique",
        ),
        ({"log": [PageView("1", "q", time=minute(0).replace(year=1970), shown=("i0",))]}, "times are plausible"),
        ({"judgments": [Judgment("q", "i0", 1), Judgment("q", "i0", 2)]}, "judgments: query and item_id are unique"),
        ({"judgments": [Judgment("q", "gone", 1)]}, "judgments.item_id in items"),
        ({"items": ITEMS.with_columns(title=pl.lit(" "))}, "items have a title"),
    ],
)
def test_each_fault_is_found(tmp_path, broken, what):
    write(tmp_path, **broken)
    assert list(errors(tmp_path)) == [what]
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1


def test_times_and_ids_by_hand(tmp_path):
    listed = ITEMS.with_columns(listed_at=pl.Series([minute(2), minute(1), None, None, None, None]))
    write(tmp_path, items=pl.concat([listed, ITEMS[:1].with_columns(item_id=pl.lit(None, pl.String))]))
    found = {finding.what: finding.detail for finding in check(tmp_path)}
    # At minute 2 both listed items are shown, and one of them is clicked; none of this is before it was listed.
    assert found["items shown after they were listed"] == "3 of 3"
    assert found["items: item_id is unique"] == "1 missing"
    write(tmp_path, items=listed.with_columns(listed_at=pl.col("listed_at") + pl.duration(minutes=1)))
    found = {finding.what: finding.detail for finding in check(tmp_path)}
    assert found["items shown after they were listed"] == "2 of 3"


def test_changed_files(tmp_path):
    write(tmp_path)
    ITEMS[:2].write_parquet(tmp_path / "items.parquet")
    assert "dataset.json says 6" in errors(tmp_path)["items: rows"]
    ITEMS.drop("brand").write_parquet(tmp_path / "items.parquet")
    assert "brand is None" in errors(tmp_path)["items: schema"]
    (tmp_path / "items.parquet").unlink()
    assert "missing" in errors(tmp_path)["items: schema"]
    (tmp_path / "dataset.json").unlink()
    result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
    assert result.exit_code == 1 and "onesearch data import" in result.output


def test_import_by_command(tmp_path):
    (tmp_path / "i.csv").write_text("id,t\n1,shoe\n1,again\n")
    (tmp_path / "m.yaml").write_text(
        "source: s\nfolder: ${ONESEARCH_DATA}\nitems: {file: i.csv, columns: {item_id: id, title: t}}\n"
    )
    arguments = [
        "data",
        "import",
        str(tmp_path / "m.yaml"),
        "--data-root",
        str(tmp_path),
        "--out",
        str(tmp_path / "out"),
    ]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "duplicate item_id" in result.output
    assert Dataset.load(tmp_path / "out").counts["items"] == 1
    (tmp_path / "m.yaml").write_text("source: s\nitems: {file: i.csv, columns: {item_id: id, titel: t}}\n")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1 and "nearest valid key is 'title'" in result.output.replace("\n", " ")
    assert CliRunner().invoke(app, ["data", "import"]).exit_code == 2
    for command in ("import", "check"):
        assert "onesearch data" in CliRunner().invoke(app, ["data", command, "--help"]).output
