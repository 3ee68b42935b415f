"""The store of a run's service: a file, or Redis."""

from pathlib import Path
from typing import TYPE_CHECKING

from onesearch.common.artefact import refuse_links

if TYPE_CHECKING:
    from onesearch.serving.store import Store

_REDIS = ("redis://", "rediss://", "unix://")


def open_run_store(run: Path, store: str | None, make: bool = False) -> "Store":
    """The store of a run's service: the file in its folder, unless another place is given.

    Args:
        run: its folder, which a stranger may have packed.
        store: as ``--store`` of `onesearch serve`.
        make: the file where there is none.

    Raises:
        FileNotFoundError: there is no such file, or the run's folder does not exist; it is not made here.
        ValueError: the run's folder holds a link.
        StoreError: as :func:`open_store`.
    """
    if not run.is_dir():
        raise FileNotFoundError(f"no folder {run}; make it with 'onesearch run configs/demo.yaml'")
    refuse_links(run)  # a link in the store's place would be written through
    return open_store(store or str(run / "serving.sqlite3"), make)


def open_store(place: str, make: bool = False) -> "Store":
    """The store at a file or a ``redis://`` address.

    Raises:
        FileNotFoundError: there is no such file, and it is not to be made.
        StoreError: the store cannot be opened, or Redis is asked for but its client is not installed.
    """
    # An empty file would be made a store.
    if not make and "://" not in place and not (Path(place).is_file() and Path(place).stat().st_size):
        raise FileNotFoundError(f"no store {place}: name the one of `onesearch serve`")
    if place.startswith(_REDIS):
        from onesearch.serving.redis_store import RedisStore

        return RedisStore(place)
    from onesearch.serving.sqlite_store import SqliteStore
    from onesearch.serving.store import StoreError

    try:
        return SqliteStore(Path(place))
    except StoreError as error:  # a run may lie where nothing can be written
        raise StoreError(f"{error}; --store names another place") from error
