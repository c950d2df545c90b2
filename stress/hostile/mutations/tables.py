"""CSV and TSV dialects, JSON Lines, and Parquet and Arrow files that a reader may not expect."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from random import Random
from typing import Any

from hostile.mutations.values import ESCAPES, MARKUP, PATHS, key, scalar, value


def cells(file: Path, random: Random, _outside: Path) -> None:
    """Put hostile texts into cells or the head of a CSV or TSV file."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
        text = stream.read().replace("\0", "")
    separator = "\t" if file.suffix == ".tsv" else ","
    # An earlier change may have left returns alone, which end a line here.
    lines = io.StringIO(text, newline=None)
    try:
        rows = [row for row in csv.reader(lines, delimiter=separator) if row]
    except csv.Error:  # an earlier change has left a field of more than 131,072 characters
        return
    if not rows:
        return
    for _ in range(random.choice((1, 2, 6))):
        row = random.choice((rows[0], *rows))
        texts = random.choice((ESCAPES, MARKUP, PATHS, (str(_short(random)),)))
        row[random.randrange(len(row))] = random.choice(texts)
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n", escapechar="\\").writerows(rows)
    file.write_bytes(out.getvalue().encode("utf-8", "surrogatepass"))


def dialect(file: Path, random: Random, _outside: Path) -> None:
    """Another dialect of CSV: separators, quotes, ragged and endless rows, doubled columns."""
    text = file.read_bytes().decode("utf-8", "replace")
    head, _, rest = text.partition("\n")
    changed = random.choice(
        (
            text.replace(",", ";"),
            text.replace(",", "\t"),
            "sep=;\n" + text.replace(",", ";"),
            text.replace("\n", '"\n', 2),
            '"' + text,
            text + '"unclosed\n' + rest * 50,
            text.replace(",", ',"a""b\n', 1),
            f"{head},{head}\n{rest}",
            f"{head},\n{rest}",
            f",{head}\n{rest}",
            f"{head}\n{rest}{',' * 100_000}\n",
            f"{','.join(f'c{n}' for n in range(20_000))}\n{rest}",
            f"{head}\n{'x' * 200_000},1\n{rest}",
            f'{head}\n"{"x" * 200_000}\n{"y" * 200_000}",1\n{rest}',
            f"{head}\n" + "\n" * 10_000 + rest,
            f"{head}\n{rest.replace(',', ' ')}",
            f"# comment\n{text}",
            head,
            f"{head}\n",
            rest,
            f"{head}\n{rest.partition(chr(10))[0]}\n",
            f"\x1a{text}",
            f"{text}\x1a",
            text.replace("e", "\0", 1),
            f"{head.upper()}\n{rest}",
            f"{head.replace('t', 'т')}\n{rest}",
            f" {head.replace(',', ' , ')} \n{rest}",
            f"{head}\n" + rest * 200,
            f"{head}\n{rest}{random.choice(ESCAPES)},{random.choice(MARKUP)}\n",
        )
    )
    file.write_bytes(changed.encode("utf-8", "surrogatepass"))


def json_lines(file: Path, random: Random, _outside: Path) -> None:
    """Records of a log or table with other fields, torn, doubled, or no records."""
    lines = file.read_bytes().decode("utf-8", "replace").splitlines()
    number = random.randint(0, len(lines))
    how = random.randrange(6)
    if how == 0 or not lines:
        lines.insert(number, _dumped({key(random): value(random), "step": scalar(random)}))
    elif how == 1:
        lines[number - 1] = lines[number - 1][: random.randrange(40)]
    elif how == 2:
        lines.insert(
            number, random.choice(("", "null", "[]", "1", "{", "}", '"x"', "\x1e{}", "{}{}"))
        )
    else:
        try:
            record = json.loads(lines[number - 1])
            name = random.choice(list(record))
            record[name if how < 5 else key(random)] = value(random)
            lines[number - 1] = _dumped(record)
        except (ValueError, TypeError, IndexError):
            lines.append("{}")
    file.write_bytes("\n".join([*lines, ""]).encode("utf-8", "surrogatepass"))


def columnar(file: Path, random: Random, _outside: Path) -> None:
    """A Parquet or Arrow file of other types, names, metadata, or rows without number."""
    import pyarrow
    from pyarrow import parquet

    table = random.choice(_COLUMNAR)(random)
    if random.random() < 0.4:
        described = json.dumps({"info": {"features": value(random)}}, skipkeys=True)
        metadata = {b"huggingface": described.encode("utf-8", "replace"), b"pandas": b"{"}
        table = table.replace_schema_metadata(metadata)
    if file.suffix == ".arrow":
        with pyarrow.ipc.new_stream(str(file), table.schema) as writer:
            writer.write_table(table)
    else:
        parquet.write_table(table, file, compression=random.choice(("zstd", "snappy", "none")))


def _short(random: Random) -> Any:
    """A scalar whose text is not longer than Python writes."""
    number = scalar(random)
    return "" if isinstance(number, int) and abs(number) > 10**300 else number


def _dumped(record: Any) -> str:
    try:
        return json.dumps(record, ensure_ascii=False)
    except (ValueError, RecursionError):  # integers of thousands of digits
        return "{}"


def _typed(random: Random) -> Any:
    import pyarrow

    kinds = (
        pyarrow.array([1, 2]),
        pyarrow.array([1.5, float("nan")]),
        pyarrow.array([True, None]),
        pyarrow.array([b"\xff\xfe", b"\0"]),
        pyarrow.array([["a"], []]),
        pyarrow.array([{"a": {"b": 1}}, None]),
        pyarrow.array([None, None]),
        pyarrow.array(["a", "b"]).dictionary_encode(),
        pyarrow.array([2**63 - 1, -(2**63)]),
        pyarrow.array([10**14, 0]).cast(pyarrow.timestamp("s")),
        pyarrow.array(["x\x1b[31m", "<script>"]),
        pyarrow.array([[["deep"]], None]),
    )
    names = [random.choice(("text", "mood", "label", str(key(random))[:99])) for _ in range(2)]
    safe = [name.encode("utf-8", "replace").decode() for name in names]
    return pyarrow.table([random.choice(kinds), random.choice(kinds)], names=safe)


def _without_rows(_random: Random) -> Any:
    import pyarrow

    return pyarrow.table({"text": pyarrow.array([], "string"), "mood": pyarrow.array([], "string")})


def _unfolding(random: Random) -> Any:
    """A few kilobytes on the disk, gigabytes of text in memory."""
    import pyarrow

    rows, length = random.choice(((30_000, 30_000), (3_000_000, 300), (100, 5_000_000)))
    words = pyarrow.array(["x" * length])
    index = pyarrow.array([0] * rows, pyarrow.int32())
    text = pyarrow.DictionaryArray.from_arrays(index, words)
    mood = pyarrow.DictionaryArray.from_arrays(index, pyarrow.array(["pos"]))
    return pyarrow.table({"text": text, "mood": mood})


_COLUMNAR = (_typed, _typed, _typed, _typed, _without_rows, _unfolding)
