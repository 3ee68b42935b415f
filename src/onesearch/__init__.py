"""The open implementation of OneSearch: generative e-commerce search from catalogue and logs to a served engine.

The public names are loaded when they are first asked for (PEP 562), so that ``import onesearch`` waits for no library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onesearch.data.dataset import Dataset
    from onesearch.encoding.khqe import KHQE
    from onesearch.market.market import Market
    from onesearch.search.engine import SearchEngine, load_engine
    from onesearch.search.results import SearchRequest

    __version__: str

__all__ = ["KHQE", "Dataset", "Market", "SearchEngine", "SearchRequest", "__version__", "load_engine"]

_MODULE_OF = {
    "Dataset": "onesearch.data.dataset",
    "KHQE": "onesearch.encoding.khqe",
    "Market": "onesearch.market.market",
    "SearchEngine": "onesearch.search.engine",
    "SearchRequest": "onesearch.search.results",
    "load_engine": "onesearch.search.engine",
}


def __getattr__(name: str) -> Any:
    """Load a public name, and keep it: the next look finds it in the module itself."""
    if name == "__version__":
        value: Any = import_module("importlib.metadata").version("onesearch")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'onesearch' has no attribute '{name}'")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """All names, loaded or not."""
    return sorted({*globals(), *__all__})
