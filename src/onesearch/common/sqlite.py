"""One SQLite file that several threads and processes share: connecting, versions, transactions, errors."""

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path


class SqliteDatabase:
    """A file in write-ahead mode: one writer at a time, any number of readers beside it.

    Writes are durable against a crash of the process; the last ones may be lost when the machine loses power
    (``synchronous=NORMAL``), never half-written. A file that was replaced is opened anew, since what goes into a
    deleted one is lost.
    """

    def __init__(
        self, path: Path, name: str, migrations: Sequence[str], busy_seconds: float, problem: type[Exception]
    ) -> None:
        """Open or create the file and bring it to the current version.

        Args:
            path: the file; its folder is made if missing.
            name: what messages call it, such as "store".
            migrations: one script per version of the file, without ";" in comments; a file's ``user_version`` says how
                many it has seen, so only ever append.
            busy_seconds: how long to wait for other processes.
            problem: the error that every failure is turned into.

        Raises:
            problem: not a database of ours, written by a newer version, or not writable.
        """
        self.path, self._name, self._migrations = path, name, tuple(migrations)
        self._busy_seconds, self._problem = busy_seconds, problem
        self._lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: list[sqlite3.Connection] = []
        self._file: tuple[int, int] | None = None
        self._closed = False
        with self._lock, self._speaking("open"):
            self._current_writer()

    @contextmanager
    def write(self, doing: str) -> Iterator[sqlite3.Connection]:
        """One transaction, all or nothing. ``doing``: what is done, for the message when it fails."""
        with self._lock, self._speaking(doing), _transaction(self._current_writer()) as db:
            yield db

    @contextmanager
    def read(self, doing: str) -> Iterator[sqlite3.Connection]:
        """One snapshot: what the statements of the block read belongs together."""
        with self._speaking(doing):
            with self._lock:
                self._current_writer()
                file = self._file
                db = self._readers.pop() if self._readers else None
            db = db or self._connect()
            try:
                db.execute("BEGIN")
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                with self._lock:
                    if self._closed or file != self._file:
                        db.close()
                    else:
                        self._readers.append(db)

    def check(self) -> None:
        """Raise if the file does not work now; also writes, since a full disk or a read-only file lets reads pass."""
        with self.write("check") as db:
            # Its own version: a process that was upgraded meanwhile has written a newer one.
            db.execute(f"PRAGMA user_version = {int(db.execute('PRAGMA user_version').fetchone()[0])}")

    def backup(self, to: Path) -> None:
        """Write the whole file, as it is in one moment, to a new one; others read and write meanwhile.

        Raises:
            problem: there is such a file already, or it cannot be written.
        """
        if to.exists():
            raise self._problem(f"{to} exists already: choose another name, or move it away")
        with self._lock, self._speaking("back it up"):
            self._current_writer()
        # Under another name until it is whole and on disk.
        part = to.with_name(f".{to.name}.part")
        try:
            with self._speaking(f"back it up to {to}"):
                part.unlink(missing_ok=True)
                with closing(self._connect()) as source, closing(sqlite3.connect(part)) as target:
                    source.backup(target)
                    target.execute("PRAGMA journal_mode = DELETE")  # one file, which needs no other beside it
                part.rename(to)
        finally:
            part.unlink(missing_ok=True)

    def restore(self, backup: Path, change: str) -> None:
        """Hold what a file of :meth:`backup` holds: who reads or writes meanwhile sees all of the old or the new.

        ``change`` is a statement that is run on what was in the backup before anybody sees it.

        Raises:
            problem: no such backup, a newer version's, or a damaged one; nothing was changed.
        """
        # A copy is brought to the current version first, since those who have the file open expect that one.
        with tempfile.TemporaryDirectory(prefix=f".{self.path.name}.", dir=self.path.parent) as folder:
            copy = Path(folder) / backup.name
            with self._speaking(f"restore {backup}"):
                shutil.copyfile(backup, copy)
                with closing(sqlite3.connect(copy)) as db:
                    whole = db.execute("PRAGMA quick_check").fetchone() == ("ok",)
                    version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if not whole or not version:
                raise self._problem(f"{backup} is {'no backup of a ' + self._name if whole else 'damaged'}")
            restored = SqliteDatabase(copy, f"backup of a {self._name}", self._migrations, 0, self._problem)
            with restored.write("restore it") as db:
                db.execute(change)
            restored.close()
            # Page by page into the file itself, as one transaction: those who have it open go on with it.
            with self._lock, self._speaking(f"restore {backup}"), closing(sqlite3.connect(copy)) as source:
                source.backup(self._current_writer())

    def close(self) -> None:
        """Release connections; every later call fails."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _current_writer(self) -> sqlite3.Connection:
        """The writer; a new one where the path leads to another file than before."""
        if self._closed:
            raise sqlite3.ProgrammingError(f"the {self._name} is closed")
        if self._writer is None or _identity(self.path) != self._file:
            self._disconnect()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            db = self._open()
            try:
                self._refuse_others(db)  # before anything of the file is changed, be it its journal
                self._set_up(db)
                self._migrate(db)
            except BaseException:
                db.close()
                raise
            self._writer, self._file = db, _identity(self.path)
        return self._writer

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False)

    def _connect(self) -> sqlite3.Connection:
        db = self._open()
        try:
            self._set_up(db)
        except BaseException:
            db.close()
            raise
        return db

    def _set_up(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")

    def _disconnect(self) -> None:
        for connection in (self._writer, *self._readers):
            if connection is not None:
                connection.close()
        self._writer = None
        self._readers.clear()

    def _migrate(self, db: sqlite3.Connection) -> None:
        known = len(self._migrations)
        with _transaction(db):  # two processes may open a new file at once
            version = self._version(db)
            for script in self._migrations[version:]:
                # One by one: ``executescript`` would commit the transaction it stands in.
                for statement in script.split(";"):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {known}")

    def _version(self, db: sqlite3.Connection) -> int:
        """How many migrations a file has seen; 0: it is new.

        Raises:
            problem: a newer version wrote it.
        """
        version, known = int(db.execute("PRAGMA user_version").fetchone()[0]), len(self._migrations)
        if version > known:
            raise self._problem(
                f"{self._name} {self.path}: written by a newer onesearch (file version {version}, known up to"
                f" {known}); upgrade onesearch or choose another file"
            )
        return version

    def _refuse_others(self, db: sqlite3.Connection) -> None:
        """Look at a file that may be anybody's, of which nothing is changed.

        Raises:
            problem: it is not ours, or a newer version wrote it.
        """
        # A file from elsewhere could do something of its own at each write, or be read without end.
        own = "type IN ('table', 'index') AND coalesce(sql, '') NOT LIKE 'CREATE VIRTUAL%'"
        db.execute("BEGIN")
        foreign = db.execute(f"SELECT name FROM sqlite_master WHERE NOT ({own})").fetchone()
        if foreign:
            raise self._not_ours(f"it has the trigger or view {foreign[0]!r}")
        # Whose version it is cannot be told from a number that any program may have written: its tables tell.
        there, number = _tables(db), int(db.execute("PRAGMA user_version").fetchone()[0])
        ours = self._tables_of(number)
        if not number:
            wrong = bool(there)
        elif number > len(self._migrations):  # a newer version may have other tables, but hardly all of them
            wrong = not there & ours
        else:
            wrong = bool(ours - there)
        if wrong:
            has = f"it has the table {min(there)!r}" if there else "it has no table"
            raise self._not_ours(f"{has}, and not those of a {self._name}")
        self._version(db)
        db.execute("ROLLBACK")

    def _tables_of(self, version: int) -> set[str]:
        """The tables of a file that has seen so many migrations."""
        with closing(sqlite3.connect(":memory:")) as db:
            for script in self._migrations[:version]:
                db.executescript(script)
            return _tables(db)

    def _not_ours(self, why: str) -> Exception:
        return self._problem(
            f"{self._name} {self.path}: no file of onesearch: {why}; nothing of it was changed, choose another file"
        )

    @contextmanager
    def _speaking(self, doing: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._problem(f"{self._name} {self.path}: could not {doing}: {error}") from error


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _tables(db: sqlite3.Connection) -> set[str]:
    """The names of tables, without SQLite's own."""
    rows = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'")
    return {name for (name,) in rows}


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file a path leads to now; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
