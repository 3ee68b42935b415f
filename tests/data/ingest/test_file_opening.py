"""Files as they come: packed, cut short, in other encodings, and not what their names say."""

import bz2
import gzip
import io
import lzma
import zipfile

import pyarrow as pa
import pytest

from onesearch.data.ingest import file_opening
from onesearch.data.ingest.file_opening import inner_name, text_pieces

TEXT = "sku,name\n1,Stuhl für Gäste\n2,椅子\n".encode()


def zipped(*members, text=TEXT):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.writestr(member, text)
    return out.getvalue()


def packings(text=TEXT):
    return {
        "gz": gzip.compress(text),
        "zst": pa.compress(text, codec="zstd", asbytes=True),
        "zip": zipped("shop.csv", text=text),
        "bz2": bz2.compress(text),
        "xz": lzma.compress(text),
        "txt": text,
    }


def read(path, encoding="utf-8", size=1 << 20):
    pieces, found = text_pieces(path, encoding, size)
    return b"".join(pieces), found


@pytest.mark.parametrize("kind", packings())
@pytest.mark.parametrize("ending", ["csv", "gz", "zst"])
def test_what_a_file_is_packed_in_is_told_by_its_bytes(tmp_path, kind, ending):
    (tmp_path / f"shop.{ending}").write_bytes(packings()[kind])
    assert read(tmp_path / f"shop.{ending}", size=7) == (TEXT, "utf-8")


@pytest.mark.parametrize("kind", ["gz", "zst", "bz2", "xz"])
def test_a_packed_file_that_ends_early_says_so(tmp_path, kind):
    whole = packings(TEXT * 1000)[kind]
    (tmp_path / f"shop.csv.{kind}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"shop\.csv\.{kind}: the file ends early \(broken download\?\)"):
        read(tmp_path / f"shop.csv.{kind}")


@pytest.mark.parametrize("kind", ["gz", "zst", "zip", "bz2", "xz"])
def test_a_damaged_file_is_one_error(tmp_path, kind):
    whole = packings(bytes(range(256)) * 200)[kind]
    for place in range(0, len(whole), max(1, len(whole) // 40)):
        broken = bytearray(whole)
        broken[place] ^= 0x5A
        (tmp_path / "shop.csv").write_bytes(broken)
        try:
            read(tmp_path / "shop.csv")
        except ValueError as error:
            assert "shop.csv" in str(error)


def test_an_archive_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(file_opening, "ALWAYS_UNPACKED", 1 << 16)
    for kind, packed in packings(b"1,x\n" * 500_000).items():
        (tmp_path / f"shop.{kind}").write_bytes(packed)
        if kind == "txt":
            assert len(read(tmp_path / "shop.txt")[0]) == 2_000_000
            continue
        with pytest.raises(ValueError, match="archive bomb; if it is data, unpack it yourself"):
            read(tmp_path / f"shop.{kind}", size=1 << 14)


def test_archives_of_several_files_and_workbooks_are_named(tmp_path):
    (tmp_path / "two.zip").write_bytes(zipped("a.csv", "b.csv"))
    with pytest.raises(ValueError, match=r"holds 2 files \(a\.csv, b\.csv\); unpack it"):
        read(tmp_path / "two.zip")
    (tmp_path / "book.csv").write_bytes(zipped("[Content_Types].xml", "xl/workbook.xml"))
    with pytest.raises(ValueError, match="an Excel workbook; save its sheet as CSV"):
        read(tmp_path / "book.csv")
    (tmp_path / "mac.zip").write_bytes(zipped("shop.tsv", "__MACOSX/._shop.tsv"))
    assert inner_name(tmp_path / "mac.zip") == "shop.tsv" and read(tmp_path / "mac.zip")[0] == TEXT


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"PAR1\x15\x04", "set format: parquet"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel workbook"),
        (b"\n <!DOCTYPE html><html>", "a web page"),
        (b'<?xml version="1.0"?>', "a web page or XML"),
        ("sku,name\n".encode("utf-16-le"), "set encoding: utf-16-le or utf-16-be"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, start, what):
    (tmp_path / "shop.csv").write_bytes(start)
    with pytest.raises(ValueError, match=what):
        read(tmp_path / "shop.csv")


@pytest.mark.parametrize("size", [5, 6, 1 << 20])
@pytest.mark.parametrize("written", ["utf-16", "utf-32", "utf-16-be", "utf-8-sig"])
def test_wide_encodings_come_as_utf_8(tmp_path, written, size):
    text = "sku,name\r\n1,Stuhl 🪑\r\n"
    (tmp_path / "a.csv").write_bytes(text.encode(written))
    said = "utf-8" if written in ("utf-16", "utf-32") else written  # these two have a mark that says it
    found, encoding = read(tmp_path / "a.csv", said, size)
    assert (found.decode().removeprefix("\ufeff"), encoding) == (text, "utf-8")


def test_a_lone_half_of_a_character_stays_for_its_record_and_a_cut_file_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("1,a\n2,b\ud800\n".encode("utf-16", "surrogatepass"))
    assert read(tmp_path / "a.csv")[0] == b"1,a\n2,b\xed\xa0\x80\n"
    (tmp_path / "a.csv").write_bytes("1,a\n".encode("utf-16")[:-1])
    with pytest.raises(ValueError, match="not valid utf-16, or it ends early"):
        read(tmp_path / "a.csv")


@pytest.mark.parametrize("size", [1, 4, 1 << 20])
def test_lines_that_end_in_a_carriage_return_alone(tmp_path, size):
    (tmp_path / "old.csv").write_bytes(b"sku,name\r1,Chair\r2,Table\r")
    expected = b"sku,name\n1,Chair\n2,Table\n" if size > 8 else b"sku,name\r1,Chair\r2,Table\r"
    assert read(tmp_path / "old.csv", size=size)[0] == expected
    (tmp_path / "new.csv").write_bytes(b"sku,name\r\n1,Chair\r2\r\n")
    assert read(tmp_path / "new.csv")[0] == b"sku,name\r\n1,Chair\r2\r\n"
