import polars as pl
import pytest
from tests.data.logs import ITEMS, USERS, frame, minute
from typer.testing import CliRunner

from onesearch.cli import app
from onesearch.data.dataset import Dataset
from onesearch.data.ingest.column_mapping import ColumnMapping
from onesearch.data.ingest.data_check import ColumnValues, check, column_values, verdict
from onesearch.data.ingest.importer import import_mapping
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


def imported(folder, rows, log=None):
    """A catalogue, and perhaps a log, through a mapping."""
    (folder / "i.csv").write_text("id,t,p,s\n" + "\n".join(rows))
    mapping = {
        "source": "s",
        "folder": str(folder),
        "items": {"file": "i.csv", "columns": {"item_id": "id", "title": "t", "price": "p", "in_stock": "s"}},
    }
    if log is not None:
        (folder / "log.csv").write_text("q,c\n" + "\n".join(log))
        mapping["page_views"] = {"file": "log.csv", "columns": {"query": "q", "clicked": "c"}}
    import_mapping(ColumnMapping.model_validate(mapping), folder / "out")
    return folder / "out"


def test_shares_of_every_column(tmp_path):
    rows = ["1,Cup &amp; pot,1.050,ja", "2,Tray,cheap,perhaps", "3,Bowl,,nein", "4,,3,ja"]
    folder = imported(tmp_path, rows)
    found = {values.column: values for values in column_values(folder)}
    assert found["items.price"] == ColumnValues("items.price", 3, empty=2, emptied=1, repaired=0, suspicious=1)
    assert found["items.title"] == ColumnValues("items.title", 3, empty=0, emptied=0, repaired=1, suspicious=0)
    assert found["items.in_stock"] == ColumnValues("items.in_stock", 3, empty=1, emptied=1, repaired=0, suspicious=0)
    assert found["items.category"].empty == 3 and not [name for name in found if name.startswith("users")]


def test_the_verdict_says_where_to_look_first(tmp_path):
    folder = imported(tmp_path, ["1,Cup,1.050,ja", "2,Pot,2,ja"], ["cup,1"])
    said = verdict(check(folder))
    assert said.startswith(
        "usable, but look first at: items.price: could mean two amounts, set decimal (1 values doubtful)"
    )
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert result.exit_code == 0 and "no errors, 1 warnings" in result.output and f"verdict: {said}" in result.output
    assert "1 (50.0%)" in result.output
    folder = imported(tmp_path, ["1,Cup,1.5,ja", "2,Pot,2,ja"], ["cup,1"])
    assert verdict(check(folder)).startswith("ready to train")
    folder = imported(tmp_path, ["1,Cup,1.5,ja", "2,Pot,2,ja"])
    assert "no page views: a model learns from them" in verdict(check(folder))


def test_a_log_of_which_every_row_was_set_aside_does_not_pass(tmp_path):
    folder = imported(tmp_path, ["1,Cup,1.5,ja"], ["cup,9", "pot,8", ",1"])
    assert errors(folder) == {
        "page_views: rows were taken": "3 of 3 rows set aside, most of them for: no known item left",
    }
    result = CliRunner().invoke(app, ["data", "check", str(folder)])
    assert result.exit_code == 1 and "verdict: not usable: page_views: rows were taken" in result.output
    # Some of many are worth a look; one of many is not.
    folder = imported(tmp_path, ["1,Cup,1.5,ja"], ["cup,9", "pot,1"])
    assert "1 of 2 rows set aside" in verdict(check(folder))
    folder = imported(tmp_path, ["1,Cup,1.5,ja"], ["cup,9", *["pot,1"] * 200])
    assert verdict(check(folder)).startswith("ready")


def test_ids_that_look_like_lists_are_a_warning(tmp_path):
    folder = imported(tmp_path, ["1,Cup,1.5,ja", "2,Pot,2,ja"], ["cup,1", "pot,1|2", "pan,1|2"])
    assert "page_views.clicked in items (2 of 3 item ids are not; see separators" in verdict(check(folder))


def test_a_log_of_one_moment_is_a_warning(tmp_path):
    log = [PageView(str(n), "q", time=minute(0), shown=("i0",)) for n in range(3)]
    write(tmp_path, log=log)
    assert "page views have different times (one and the same for all" in verdict(check(tmp_path))


@pytest.mark.parametrize("table", ["items", "page_views"])
def test_a_damaged_table_is_one_error(tmp_path, table):
    write(tmp_path)
    path = tmp_path / f"{table}.parquet"
    whole = path.read_bytes()
    for place in range(4, len(whole), max(1, len(whole) // 25)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF, 0xFF]) + whole[place + 2 :])
        result = CliRunner().invoke(app, ["data", "check", str(tmp_path)])
        assert isinstance(result.exception, SystemExit | None), result.exception
        assert "Traceback" not in result.output
