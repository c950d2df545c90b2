"""Delimiters, quoting and headers of delimited files."""

from __future__ import annotations

import pytest

from iwlora.inputs.tables.dialect import find_dialect
from iwlora.inputs.tables.reading import Reading

pytestmark = pytest.mark.quick

NAMES = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}


def found(lines: list[str], path: str = "a.csv", **given: object) -> str:
    dialect = find_dialect(path, lines, Reading(**given))  # type: ignore[arg-type]
    name = next(name for name, sign in NAMES.items() if sign == dialect.delimiter)
    return name if dialect.header else f"{name}, no header"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["text,label", "a;b,x", "c;d,y"], "comma"),
        (["text;label", "a, b;x", "c;y"], "semicolon"),
        (["text;score", "a;1,5", "b;2,5"], "semicolon"),
        (["text|label", "a, b|x", "c; d|y"], "bar"),
        (["text,label;more", "a,x", "b,y"], "comma"),
        (["text", "a, b", "c"], "comma"),
        (["text;label", "a;x", "b;y;z"], "semicolon"),
        (["text,label", "a,x", "b,y,z", "c;d"], "comma"),
        (["sep=|", "text|label", "a|x"], "bar"),
        ([], "comma"),
    ],
)
def test_the_delimiter_divides_all_records_alike(lines: list[str], expected: str) -> None:
    assert found(lines) == expected


def test_quotes_hide_delimiters_but_not_in_tsv() -> None:
    lines = ['"text; and more",label', '"a; b",x', '"c",y']
    assert found(lines) == "comma"
    assert found(["text\tlabel", '"a\tx', "b,c,d\ty"], "a.tsv") == "tab"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1,the trains were late again", "0,all is well", "1,no bread"], "comma, no header"),
        (["label,text", "1,the trains were late again", "0,all is well"], "comma"),
        # A question of a form is a long name, but no answer.
        (["Age,How did you like the course?", "31,well", "28,not at all"], "comma"),
        # A class may have the name of its column, but then no other name is a text.
        (["spam,text", "spam,you have won a prize today", "ham,see you"], "comma"),
        (["1,short", "0,all is well", "1,no bread"], "comma"),
        (["1,", "0,all is well here today", "1,no bread"], "comma"),
        (["1,the trains were late again", "0,all is well"], "comma"),
        (["a.png,cat", "b.JPG,dog", "c.png,cow"], "comma, no header"),
        (["a.png", "b.png", "c.png"], "comma, no header"),
        (["file,label", "b.png,dog", "c.png,cow"], "comma"),
        # An image may be the name of a column of scores, but then no file stands below it.
        (["text,a.png", "well,0.5", "bad,0.1"], "comma"),
    ],
)
def test_a_missing_header_is_guessed_only_when_that_is_safe(
    lines: list[str], expected: str
) -> None:
    assert found(lines) == expected


def test_what_is_given_counts() -> None:
    lines = ["1,the trains were late again; twice", "0,all; well", "1,no; bread"]
    assert found(lines, delimiter=";", header=True) == "semicolon"
    assert found(["a,b", "c,d"], header=False) == "comma, no header"
