"""Text files that people write for us: UTF-8, and an error that says where it is not."""

from pathlib import Path


def read_text_file(path: Path) -> str:
    """The text of a file in UTF-8, without the mark that some editors begin it with.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not in UTF-8; the message names the file and the line.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, wrong = data.count(b"\n", 0, error.start) + 1, error.object[error.start]
        raise ValueError(
            f"{path}: line {line} is not valid UTF-8 (byte 0x{wrong:02x}); save the file as UTF-8"
        ) from error
