"""Why a picture was not taken: one of a few reasons, which are counted, and a sentence for the reader."""

from typing import Final, Literal, get_args

Reason = Literal["address", "path", "missing", "http", "late", "bytes", "pixels", "format", "broken"]
"""
- address: no http(s) address, or one that leads to a machine that is not on the public internet;
- path: leads out of the folder of pictures, or to something that is no plain file;
- missing: no such file, member of an archive or page;
- http: the server could not be reached, answered with an error, or redirected too often;
- late: not there within the time;
- bytes, pixels: larger than the limit;
- format: not JPEG, PNG, WebP or GIF by its first bytes, such as SVG;
- broken: truncated, or not what its header says.
"""
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)


class PictureRefusedError(ValueError):
    """A picture that is not taken.

    Attributes:
        reason: one of :data:`REASONS`.
    """

    def __init__(self, reason: Reason, words: str) -> None:
        super().__init__(words)
        self.reason: Reason = reason
