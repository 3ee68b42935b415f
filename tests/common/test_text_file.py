import pytest

from onesearch.common.text_file import read_text_file


def test_text_in_utf8_with_and_without_a_mark(tmp_path):
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a").write_bytes(mark + "größe\n".encode())
        assert read_text_file(tmp_path / "a") == "größe\n"


def test_other_bytes_are_named_with_file_and_line(tmp_path):
    (tmp_path / "a").write_bytes("one\ngröße\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"/a: line 2 is not valid UTF-8 \(byte 0xf6\)"):
        read_text_file(tmp_path / "a")
