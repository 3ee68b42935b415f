"""The same parts whatever the engine, the number of workers and the deaths among them; nothing done twice or mixed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.batch import table_functions
from tests.batch.conftest import ROOT, numbered

from onesearch.batch.map_table import PartsFailedError, map_table
from onesearch.batch.part_worker import THREAD_VARIABLES
from onesearch.common.artefact import MANIFEST, read_json
from onesearch.common.run_lock import RunLock, RunLockedError


class Place:
    """A table, a folder for what comes out, and what the workers noted."""

    def __init__(self, folder: Path, source: Path) -> None:
        self.source, self.sink, self.log = source, folder / "sink", folder / "log"

    def map(self, **options):
        """Doubles the numbers; options of the function by their names, others of `map_table`."""
        own = {
            name: options.pop(name) for name in ("deadly", "always", "bad", "seconds", "together") if name in options
        }
        options = {"settings": {}, "most_rows": 5, **options}
        arguments = {"log": str(self.log), **own}
        return map_table(self.source, self.sink, table_functions.doubled, arguments, **options)

    def noted(self, what: str) -> list[str]:
        """What follows the word in the lines of the log."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.is_file() else []
        return [rest for word, _, rest in (line.partition(" ") for line in lines) if word == what]

    @property
    def parts(self) -> list[Path]:
        return sorted(self.sink.glob("*.parquet"))

    @property
    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.parts}


@pytest.fixture
def place(tmp_path: Path, source: Path) -> Place:
    return Place(tmp_path, source)


@pytest.fixture
def expected(tmp_path: Path, source: Path) -> dict[str, bytes]:
    """The plain twin: the whole table at once, cut where the parts are, written part by part in this process."""
    whole = pa.concat_tables([pq.read_table(path) for path in sorted(source.glob("*.parquet"))])
    whole = whole.set_column(0, "n", pc.multiply(whole["n"], 2))
    cuts = {(0, 0): (0, 5), (0, 1): (5, 5), (0, 2): (10, 2), (1, 0): (12, 5), (1, 1): (17, 4)}
    out = {}
    for (file, group), (start, rows) in cuts.items():
        path = tmp_path / "twin.parquet"
        pq.write_table(whole.slice(start, rows), path, compression="zstd", compression_level=1)
        out[f"part-{file:05d}-{group:05d}-{0:010d}.parquet"] = path.read_bytes()
    return out


@pytest.mark.parametrize("workers", [1, 2])
def test_each_part_is_the_function_of_that_part_bit_by_bit(place, expected, engine, workers):
    done = place.map(engine=engine, workers=workers, together=workers)
    assert place.bytes == expected
    assert {path.stat().st_mode & 0o777 for path in place.parts} == {0o644}
    assert (done.parts, done.skipped, done.rows) == (5, 0, 21) and done.seconds > 0
    # The function is made once by each worker, not once for each part.
    made = place.noted("made")
    assert len(made) == len(set(made)) == workers and str(os.getpid()) not in made
    assert sorted(place.noted("part"), key=int) == ["0", "5", "10", "12", "17"]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_in_the_middle_changes_nothing(place, expected, engine, workers):
    done = place.map(engine=engine, workers=workers, deadly=5, together=workers)
    assert place.noted("dead") == ["5"] and place.noted("part").count("5") == 2
    assert place.bytes == expected and done.rows == 21
    assert not list(place.sink.glob(".part*"))


def test_a_part_that_kills_every_worker_is_named_and_the_others_are_kept(place, expected, engine):
    with pytest.raises(
        PartsFailedError, match=r"1 of 5 parts failed(.|\n)*part-00000-00001-0000000000.*3 workers died"
    ):
        place.map(engine=engine, deadly=5, always=True)
    del expected["part-00000-00001-0000000000.parquet"]
    assert place.bytes == expected and place.noted("dead") == ["5"] * 3


def test_a_restart_does_what_is_missing_and_nothing_else(place, expected, engine):
    place.map(engine=engine)
    place.parts[3].unlink()
    before = {path.name: path.stat().st_mtime_ns for path in place.parts}
    place.log.unlink()
    done = place.map(engine=engine)
    assert place.noted("part") == ["12"] and (done.skipped, done.rows) == (4, 5)
    assert place.bytes == expected
    assert {name: (place.sink / name).stat().st_mtime_ns for name in before} == before
    # With everything there, no worker is started.
    place.log.unlink()
    done = place.map(engine=engine)
    assert (done.skipped, done.rows, done.seconds) == (5, 0, 0.0) and not place.log.exists()


def test_a_half_written_part_is_redone(place, expected):
    place.map()
    whole = place.parts[1].read_bytes()
    place.parts[1].write_bytes(whole[: len(whole) // 2])
    (place.sink / ".part-00000-00002-0000000000.abc.tmp").write_bytes(b"half")
    place.parts[2].unlink()
    place.log.unlink()
    place.map()
    assert sorted(place.noted("part")) == ["10", "5"] and place.bytes == expected
    assert not list(place.sink.glob(".part*"))


def test_a_part_takes_its_name_when_it_is_whole(place, monkeypatch):
    """While a part is written, and when that fails, nothing has its name."""
    from onesearch.batch import part_folder
    from onesearch.batch.table_parts import parts_of

    (part, *_) = parts_of([place.source / "a.parquet"], 5)

    def broken(table, file, **options):
        file.write(b"half")
        assert not place.parts and len(list(place.sink.glob(".part-*.tmp"))) == 1
        raise OSError("disk full")

    place.sink.mkdir()
    monkeypatch.setattr(part_folder.pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        part_folder.write_part(place.sink, part, numbered(1))
    assert list(place.sink.iterdir()) == []


def test_the_folder_is_complete_when_all_parts_are_there(place):
    place.map()
    manifest = read_json(place.sink / MANIFEST)
    assert list(manifest["parts"].values()) == [5, 5, 2, 5, 4]
    assert set(manifest["parts"]) == {path.name for path in place.parts}
    place.parts[0].unlink()
    with pytest.raises(PartsFailedError):
        place.map(bad=[0])
    assert not (place.sink / MANIFEST).exists()


def test_a_failing_part_is_named_and_the_others_are_kept(place, expected, engine):
    with pytest.raises(PartsFailedError) as raised:
        place.map(engine=engine, bad=[5, 12], workers=2)
    message = str(raised.value)
    assert message.startswith("2 of 5 parts failed; the others are written")
    for name, rows, file, why in (("part-00000-00001", "0 to 4", "a", 5), ("part-00001-00000", "0 to 4", "b", 12)):
        group = int(name[-1])
        path = place.source / f"{file}.parquet"
        assert f"{name}-0000000000 (rows {rows} of row group {group} of {path}): {why} is bad" in message
    others = [expected[path.name] for path in place.parts]
    assert len(others) == 3 and list(place.bytes.values()) == others
    # Mended, these alone are done.
    place.log.unlink()
    place.map(engine=engine)
    assert sorted(place.noted("part")) == ["12", "5"] and place.bytes == expected


def test_a_message_names_a_few_failed_parts_and_counts_the_rest(place):
    with pytest.raises(PartsFailedError, match=r"9 of 12 parts failed(.|\n)*and 4 more$"):
        place.map(most_rows=2, bad=list(range(2, 17)))


# -- nothing is mixed --------------------------------------------------------------------------------------------------


def begun(place: Place) -> None:
    """Some parts are there, one is missing."""
    place.map()
    place.parts[0].unlink()


def test_another_table_in_the_folder_is_refused(place):
    begun(place)
    before = place.bytes
    # As large as before, with the same rows in the same groups.
    table = numbered(9, 12)
    changed = table.set_column(0, "n", pa.array([12, 13, 15, 14, 16, 17, 18, 19, 20]))
    size = (place.source / "b.parquet").stat().st_size
    pq.write_table(changed, place.source / "b.parquet", row_group_size=5)
    assert (place.source / "b.parquet").stat().st_size == size
    with pytest.raises(ValueError, match=r"sink holds parts of other work, which differs in source: b\.parquet; name"):
        place.map()
    assert place.bytes == before


def test_other_work_in_the_folder_is_refused(place):
    begun(place)
    with pytest.raises(ValueError, match="which differs in read: most_rows; name"):
        place.map(most_rows=4)
    with pytest.raises(ValueError, match="which differs in read: columns, settings: run, threads; name"):
        place.map(settings={"run": "b"}, columns=["n"], threads=2)
    with pytest.raises(ValueError, match="which differs in function, settings: by, settings: log; name"):
        map_table(place.source, place.sink, table_functions.added, {"log": str(place.log), "by": 1}, most_rows=5)
    # Settings are what the output depends on; a log elsewhere is none.
    place.map()
    assert len(place.parts) == 5


def test_arguments_are_settings_where_nothing_else_is_said(place):
    arguments = {"log": str(place.log), "by": 1}
    map_table(place.source, place.sink, table_functions.added, arguments, most_rows=5)
    with pytest.raises(ValueError, match="which differs in settings: by; name"):
        map_table(place.source, place.sink, table_functions.added, {**arguments, "by": 2}, most_rows=5)


def test_a_folder_with_other_files_is_refused(place):
    place.sink.mkdir()
    (place.sink / "holiday.jpg").write_text("sand")
    with pytest.raises(ValueError, match=r"holds other files \(holiday\.jpg\)"):
        place.map()
    with pytest.raises(ValueError, match="is the folder of the table itself"):
        map_table(place.source, place.source, table_functions.doubled, {"log": str(place.log)})


def test_two_at_a_time_do_not_work_on_a_folder(place):
    with RunLock(place.sink), pytest.raises(RunLockedError):
        place.map()


# -- what cannot begin -------------------------------------------------------------------------------------------------


def test_a_function_that_cannot_be_made_says_why(place, engine):
    with pytest.raises(ValueError, match=r"^no such run$"):
        map_table(place.source, place.sink, table_functions.unwilling, {"reason": "no such run"}, engine=engine)


def test_workers_that_die_at_once_end_it(place):
    with pytest.raises(RuntimeError, match=r"3 workers died before they were ready \(exit code -9\)"):
        map_table(place.source, place.sink, table_functions.stillborn, {"log": str(place.log)}, workers=2)


def test_a_function_of_no_module_and_senseless_numbers_are_refused(place):
    with pytest.raises(ValueError, match="cannot be imported by a worker"):
        map_table(place.source, place.sink, lambda: lambda table: table)
    for name in ("workers", "threads", "most_rows"):
        with pytest.raises(ValueError, match="must be at least 1"):
            place.map(**{name: 0})
    assert not place.sink.exists()


# -- workers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_workers_keep_to_their_threads(place, engine, threads):
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    map_table(place.source, place.sink, table_functions.told, {"torch": True}, engine=engine, threads=threads)
    (path,) = {path for path in place.parts if "00001-00001" in path.name}
    assert pq.read_table(path)["threads"].to_pylist() == [[threads]]
    assert {name: os.environ.get(name) for name in THREAD_VARIABLES} == before


def test_a_worker_holds_a_part_and_not_the_table(place, tmp_path):
    rows = 300_000  # 48 MB
    vectors = pa.FixedSizeListArray.from_arrays(pc.random(rows * 20), 20)
    pq.write_table(pa.table({"v": vectors}), tmp_path / "large.parquet")
    map_table(tmp_path / "large.parquet", place.sink, table_functions.told, most_rows=3_000)
    found = pa.concat_tables([pq.read_table(path) for path in place.parts])
    assert pc.sum(found["rows"]).as_py() == rows and pc.max(found["rows"]).as_py() == 3_000
    assert 0 < pc.max(found["peak"]).as_py() < 12e6


def gone(pid: int) -> bool:
    """Whether a process ended, or is only waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_workers_end_with_the_one_who_started_them(place):
    """Also where that one is killed, and cannot say so; what they did until then is kept."""
    code = (
        "import json, sys\n"
        "from onesearch.batch.map_table import map_table\n"
        "from tests.batch import table_functions\n"
        "if __name__ == '__main__':\n"
        "    source, sink, arguments = sys.argv[1:]\n"
        "    map_table(source, sink, table_functions.doubled, json.loads(arguments), {}, most_rows=5, workers=2)\n"
    )
    script = place.log.parent / "script.py"
    script.write_text(code)
    arguments = json.dumps({"log": str(place.log), "seconds": 0.5})
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    process = subprocess.Popen([sys.executable, script, place.source, place.sink, arguments], env=environment)
    end = time.monotonic() + 120
    while len(place.parts) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    pids = [int(pid) for pid in place.noted("made")]
    while not all(map(gone, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert pids and all(map(gone, pids))
    kept = place.bytes
    assert 2 <= len(kept) < 5 and not (place.sink / MANIFEST).exists()
    place.log.unlink()
    done = place.map()
    assert done.skipped == len(kept) and kept.items() <= place.bytes.items() and len(place.parts) == 5
