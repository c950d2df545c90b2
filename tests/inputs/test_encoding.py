"""Encodings are guessed where one text alone makes sense, and never otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.encoding import check_encoding, encoding_of
from iwlora.inputs.lines import read_chunks, read_lines
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import columns_of

TEXTS = {
    "German": ("Die Brötchen sind süß, größer und wärmer.", "cp1252"),
    "French": ("Le garçon a mangé très tôt à côté de l’hôtel.", "cp1252"),
    "Spanish": ("El niño comió pingüinos; ¿qué más?", "cp1252"),
    "Portuguese": ("As crianças não são más, à tarde há pão.", "cp1252"),
    "Swedish": ("Åsa går på en öde ö i älven.", "cp1252"),
    "Polish": ("Zażółć gęślą jaźń, łódź płynie.", "cp1250"),
    "German on a Macintosh": ("Die Brötchen sind süß und wärmer.", "mac_roman"),
    "Russian": ("Дорога закрыта до Вторника.", "cp1251"),
    "Turkish": ("Şişli'de güneşli bir gün, ağaç ve ışık.", "cp1254"),
}


def saved(folder: Path, content: bytes) -> str:
    (folder / "a.csv").write_bytes(content)
    return str(folder / "a.csv")


@pytest.mark.quick
@pytest.mark.parametrize("language", TEXTS)
def test_a_text_in_one_language_tells_its_encoding(language: str, tmp_path: Path) -> None:
    text, encoding = TEXTS[language]
    path = saved(tmp_path, f"text,label\n{text},x\n".encode(encoding))
    found = encoding_of(path)
    assert [line for _, line in read_lines(path, found)] == ["text,label", f"{text},x"]
    assert found == encoding


@pytest.mark.parametrize(
    ("text", "encoding", "readings"),
    [
        ("naïve", "cp1252", ["task.encoding (cp1252 reads 'naïve'", "cp1250 reads 'naďve'"]),
        ("дорога закрыта", "cp1251", ["cp1251 reads 'дорога'", "koi8-r reads 'ДНПНЦЮ'"]),
        ("道路封闭了", "gb18030", ["gb18030 reads '道路封闭了'"]),
        ("道が閉まっている", "shift_jis", ["shift_jis reads '道が閉まっている'"]),
    ],
)
def test_what_may_be_read_in_two_ways_is_refused_with_both(
    text: str, encoding: str, readings: list[str], tmp_path: Path
) -> None:
    path = saved(tmp_path, f"text,label\nyes,x\n{text},x\n".encode(encoding))
    with pytest.raises(IwloraError) as refused:
        encoding_of(path)
    message = str(refused.value)
    assert message.startswith(f"{path}, line 3: not UTF-8 (byte 0x")
    assert "save the file as UTF-8, or give task.encoding" in message
    for reading in readings:
        assert reading in message


@pytest.mark.parametrize(
    "content",
    [
        "süß".encode() + b"\nsch\xf6n\n",  # two encodings in one file
        b"M\x81ller\n",  # of DOS
        "n¤b".encode("cp1252") + b"\n",  # a sign inside of a word
        bytes(range(128, 256)) + b"\n",
        b"\0\xff\xff\n",
    ],
)
def test_bytes_that_are_no_text_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(IwloraError, match="not UTF-8"):
        encoding_of(saved(tmp_path, b"text\n" + content))


def test_utf_16_with_its_mark(tmp_path: Path) -> None:
    for encoding in ("utf-16", "utf-8-sig", "utf-8"):
        path = saved(tmp_path, "a\r\n語\u2028b\n".encode(encoding))
        found = encoding_of(path)
        assert [line for _, line in read_lines(path, found)] == ["a", "語\u2028b"], encoding
        assert found == ("utf-16" if encoding == "utf-16" else "utf-8")


@pytest.mark.parametrize(
    ("written", "named"),
    [("utf-8-sig", name) for name in ("utf-8", "UTF-8", "utf8", "U8", "utf_8", "utf-8-sig")]
    + [("utf-16", "UTF-16"), ("utf-16", "utf-16-le")],
)
def test_a_byte_order_mark_is_no_part_of_the_first_column(
    written: str, named: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, "text,label\r\n語,x\r\n".encode(written))
    reading = Reading(encoding=check_encoding(named))
    assert columns_of(path, reading=reading) == ["text", "label"]


def test_a_file_that_changes_is_looked_at_again(tmp_path: Path) -> None:
    assert encoding_of(saved(tmp_path, "schön\n".encode())) == "utf-8"
    assert encoding_of(saved(tmp_path, "schön!\n".encode("cp1252"))) == "cp1252"


def test_a_wrong_encoding_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, "schön\n".encode("cp1252"))
    for read in (read_lines, read_chunks):
        with pytest.raises(
            IwloraError, match=r"is not in the encoding shift_jis: .*; give task\.encoding"
        ):
            list(read(path, "shift_jis"))


@pytest.mark.parametrize("name", ["rot13", "zlib", "base64", "no such", "\0", ""])
def test_what_is_no_encoding_of_text(name: str) -> None:
    with pytest.raises(ValueError, match="no encoding of text"):
        check_encoding(name)
