"""A running engine follows the versions that ``onesearch update`` publishes or takes back."""

import logging
import threading
from pathlib import Path

from onesearch.model.generator import Generator
from onesearch.search.engine import SearchEngine, load_engine
from onesearch.search.engine_file import boosts_of, load_about
from onesearch.search.run_parts import GENERATOR, engine_name, need
from onesearch.search.served_versions import FOLDER, PUBLISHED, origin, served_place

log = logging.getLogger("onesearch")


class VersionFollower:
    """Looks every few seconds whether another version is published, and lets the engine search with it.

    Versions of a run differ in their generator and their boosts, and where they were renewed in the log's counts: then
    index and head rows are read again, beside those in memory, and the items that changed since the start change there
    as well. Events and open searches stay. One that cannot be read is logged and left; the engine goes on with what it
    has.

    Args:
        run: whose V2 the engine serves.
        engine: loaded from that run.
        seconds: between looks.
        tells_only: take nothing over, but tell by :meth:`problem` that there is another version.
    """

    def __init__(self, run: Path, engine: SearchEngine, seconds: float = 2.0, tells_only: bool = False) -> None:
        self.run, self.engine, self.seconds, self.tells_only = run, engine, seconds, tells_only
        self._origin = origin(run)
        self._problem: str | None = None
        self._seen: tuple[int, int] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)

    def start(self) -> None:
        """Look from now on, in a thread of its own."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def problem(self) -> str | None:
        """Why the engine does not serve what is published; None while it does."""
        return self._problem

    def look(self) -> bool:
        """Look once; whether the engine has another version now."""
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        # Whatever comes of this look, the same file is not looked at again.
        self._seen, self._problem = stamp, None
        if origin(self.run) != self._origin:
            # Another index and other semantic IDs, which the engine in memory does not have.
            self._problem = "versions: the run was rebuilt; restart the service to serve it"
            log.warning("%s: %s", self.run, self._problem)
            return False
        # Another version than the one that is served: its generator with its boosts, and its counts if they differ.
        place = served_place(self.run, "v2")
        name = engine_name(self.run, "v2", place)
        if name == self.engine.name:
            return False
        if self.tells_only:
            self._problem = f"versions: {name} is published; restart the service to serve it"
            log.warning("%s: %s", self.run, self._problem)
            return False
        about = load_about(self.run, place)
        if about.get("counts") != self.engine.counts:
            self.engine.take_over(load_engine(self.run, "v2", str(self.engine.generator.begin.device)))
        else:
            self.engine.adopt(Generator.load(need(self.run, about["model"]) / GENERATOR), name, boosts_of(about))
        log.info("%s is served now", name)
        return True

    def _watch(self) -> None:
        while not self._stopping.wait(self.seconds):
            try:
                self.look()
            except Exception as error:
                self._problem = f"versions: the published one cannot be served ({type(error).__name__}), see the log"
                log.exception("the version that %s publishes cannot be served; %s goes on", self.run, self.engine.name)

    def _stamp(self) -> tuple[int, int] | None:
        """Changes with the file that says what is published."""
        try:
            state = (self.run / FOLDER / PUBLISHED).stat()
        except FileNotFoundError:
            return None
        return state.st_mtime_ns, state.st_ino
