"""Libraries that not every user needs come with an extra; where one is missing, the error says what to install."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Extra = Literal["train", "serve", "llm", "agents", "redis", "encoders", "pictures", "ray", "ray-serve"]


class MissingExtraError(ImportError):
    """A library of an extra is not installed."""


@contextmanager
def from_extra(extra: Extra) -> Iterator[None]:
    """Stands around the imports of an extra's libraries.

        with from_extra("serve"):
            import uvicorn

    Raises:
        MissingExtraError: one of them is not installed; the message holds the line that installs the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # `error.name` is the module that was not found, perhaps one inside of the library.
        library = (error.name or "a library").partition(".")[0]
        line = f'pip install -e ".[{extra}]"'
        raise MissingExtraError(f"{library} is not installed; in a checkout of onesearch: {line}") from error
