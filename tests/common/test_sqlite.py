import sqlite3
import threading
from contextlib import closing

import pytest

from onesearch.common.sqlite import SqliteDatabase

FIRST = "CREATE TABLE a (x INTEGER NOT NULL);  -- the first table"
SECOND = "ALTER TABLE a ADD COLUMN y TEXT; CREATE TABLE b (z INTEGER);"


class NotesError(RuntimeError):
    pass


def opened(path, *migrations):
    return SqliteDatabase(path, "notes", migrations or (FIRST,), 0.1, NotesError)


def values(db):
    with db.read("read") as connection:
        return [x for (x,) in connection.execute("SELECT x FROM a ORDER BY x")]


def add(db, *numbers):
    with db.write("add") as connection:
        connection.executemany("INSERT INTO a (x) VALUES (?)", [(number,) for number in numbers])


def test_a_failed_transaction_leaves_nothing(tmp_path):
    db = opened(tmp_path / "notes")
    add(db, 1)
    with pytest.raises(NotesError, match=r"notes .*: could not add: NOT NULL"):
        add(db, 2, None)
    with pytest.raises(ZeroDivisionError), db.write("add") as connection:
        connection.execute("INSERT INTO a (x) VALUES (3)")
        raise ZeroDivisionError
    assert values(db) == [1]


def test_an_older_file_gets_the_scripts_that_it_lacks(tmp_path):
    path = tmp_path / "notes"
    old = opened(path)
    add(old, 1)
    new = opened(path, FIRST, SECOND)
    with new.read("read") as connection:
        assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, None)]
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    with pytest.raises(NotesError, match=r"newer onesearch \(file version 2, known up to 1\)"):
        opened(path)
    opened(path, FIRST, SECOND).close()


def test_a_script_that_fails_changes_nothing(tmp_path):
    add(opened(tmp_path / "notes"), 1)
    with pytest.raises(NotesError, match="could not open"):
        opened(tmp_path / "notes", FIRST, "CREATE TABLE b (z INTEGER); nonsense")
    with sqlite3.connect(tmp_path / "notes") as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)
        assert raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("a",)]


def test_a_block_reads_one_snapshot(tmp_path):
    db, other = opened(tmp_path / "notes"), opened(tmp_path / "notes")
    add(db, 1)
    with db.read("read") as connection:
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (1,)
        add(other, 2)
        add(db, 3)
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (1,)
    assert values(db) == [1, 2, 3]


def test_readers_of_many_threads_and_a_writer(tmp_path):
    db, seen = opened(tmp_path / "deep" / "notes"), []

    def read():
        for _ in range(50):
            seen.append(len(values(db)))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(50):
        add(db, number, number)
    for thread in threads:
        thread.join()
    assert len(seen) == 200 and all(count % 2 == 0 for count in seen), "never half of a transaction"


def test_a_writer_elsewhere_is_waited_for_and_then_named(tmp_path):
    db = opened(tmp_path / "notes")
    with (
        opened(tmp_path / "notes").write("hold"),
        pytest.raises(NotesError, match="could not check: database is locked"),
    ):
        db.check()
    db.check()
    db.close()
    with pytest.raises(NotesError, match="the notes is closed"):
        values(db)
    with pytest.raises(NotesError, match="closed"):
        db.check()


def test_a_backup_is_put_back_changed_and_brought_to_the_current_version(tmp_path):
    old = opened(tmp_path / "old")
    add(old, 1, 2)
    old.backup(tmp_path / "backup")
    with pytest.raises(NotesError, match="exists already"):
        old.backup(tmp_path / "backup")
    new = opened(tmp_path / "new", FIRST, SECOND)
    add(new, 7)
    new.restore(tmp_path / "backup", "UPDATE a SET x = x + 10, y = 'restored'")
    with new.read("read") as connection:
        assert connection.execute("SELECT x, y FROM a").fetchall() == [(11, "restored"), (12, "restored")]
    for number, foreign in enumerate(
        (
            "CREATE TRIGGER t AFTER UPDATE ON a BEGIN DELETE FROM a; END",
            "CREATE VIEW endless AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
            "CREATE VIRTUAL TABLE v USING fts4(x)",
        )
    ):
        strange = tmp_path / f"strange-{number}"
        old.backup(strange)
        with closing(sqlite3.connect(strange)) as connection:
            connection.execute(foreign)
        with pytest.raises(NotesError, match="no file of onesearch"):
            new.restore(strange, "UPDATE a SET x = 0")
        with pytest.raises(NotesError, match="no file of onesearch"):
            opened(strange)
    (tmp_path / "torn").write_bytes((tmp_path / "backup").read_bytes()[:5000])
    with pytest.raises(NotesError, match="torn"):
        new.restore(tmp_path / "torn", "UPDATE a SET x = 0")
    assert values(new) == [11, 12] and values(old) == [1, 2]


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("version", [0, 1, 2, 99])
@pytest.mark.parametrize("made", ["CREATE TABLE precious (x)", "CREATE TABLE precious (x); CREATE TABLE b (z)"])
def test_a_file_of_another_program_is_refused_and_stays_as_it_is(tmp_path, version, made):
    """Whatever number it has: any program may write one."""
    with closing(sqlite3.connect(tmp_path / "other.db")) as raw:
        raw.executescript(f"{made}; PRAGMA user_version = {version}")
    before = content_of(tmp_path)
    told = "newer onesearch" if version == 99 and "b (z)" in made else "it has the table .*not those of a notes"
    with pytest.raises(NotesError, match=rf"notes .*other\.db: .*{told}"):
        opened(tmp_path / "other.db", FIRST, SECOND)
    assert content_of(tmp_path) == before


def test_an_empty_file_is_a_new_one_and_an_emptied_one_is_none_of_ours(tmp_path):
    (tmp_path / "notes").touch()
    add(opened(tmp_path / "notes"), 1)
    with closing(sqlite3.connect(tmp_path / "emptied")) as raw:
        raw.execute("PRAGMA user_version = 1")
    with pytest.raises(NotesError, match="has no table"):
        opened(tmp_path / "emptied")


def test_a_check_leaves_the_version_that_another_process_wrote(tmp_path):
    old = opened(tmp_path / "notes")
    new = opened(tmp_path / "notes", FIRST, SECOND)
    old.check()
    opened(tmp_path / "notes", FIRST, SECOND).close()
    with new.read("read") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
