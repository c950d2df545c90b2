"""Strategies for data files: tables of every format, official layouts, rows to predict."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pyarrow
from hypothesis import strategies as st
from pyarrow import parquet

from fuzzing.inputs import KEEP, MODEL, WORK, Input, encoded, plain, rubbish, spoiled, values
from iwlora.tasks.corpora.glue import TASKS as GLUE
from iwlora.tasks.corpora.squad import TASKS as SQUAD
from iwlora.tasks.corpora.summarization import XSUM_SPLIT
from iwlora.tasks.corpora.superglue import FILES as SUPERGLUE_FILES
from iwlora.tasks.corpora.superglue import TASKS as SUPERGLUE
from iwlora.tasks.kinds import KINDS

COLUMNS = (
    *("text", "mood", "label", "tokens", "tags", "question", "context", "answers", "source"),
    *("target", "prompt", "completion", "messages", "sentence1", "sentence2", "a,b", "", "🙂"),
)
turns = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.one_of(st.sampled_from(["user", "assistant", "system"]), plain),
            "content": st.one_of(st.text(max_size=8), plain),
        }
    ),
    max_size=3,
)
spans = st.fixed_dictionaries(
    {
        "text": st.one_of(st.lists(st.text(max_size=5), max_size=2), plain),
        "answer_start": st.one_of(st.lists(st.integers(-3, 30), max_size=2), plain),
    }
)
good = st.sampled_from(["it is a good film", "a bad film", "a very old film", "film"])
cells = st.one_of(
    good,
    st.sampled_from(["pos", "neg", "0", "1", "2.5", 1, 0, 3.5]),
    st.lists(st.sampled_from(["a", "good", "film"]), max_size=4),
    turns,
    spans,
    values,
)


@st.composite
def nearly_good(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows that a tiny model could learn, except for a cell or two."""
    moods = ("pos", "neg")
    rows: list[dict[str, Any]] = [
        {"text": draw(good), "mood": moods[number % 2]}
        for number in range(draw(st.integers(9, 24)))
    ]
    for _ in range(draw(st.sampled_from([0, 0, 1, 2]))):
        row = draw(st.sampled_from(rows))
        row[draw(st.sampled_from(["text", "mood"]))] = draw(cells)
    return rows


@st.composite
def records(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of one to three columns; the last row may have other columns."""
    if draw(st.integers(0, 2)):
        return draw(nearly_good())
    columns = draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=3, unique=True))
    if draw(st.booleans()):
        columns = ["text", "mood"]
    strategies = [good, cells, plain, turns, spans]
    column_cells = {name: draw(st.sampled_from(strategies)) for name in columns}
    if "mood" in column_cells and draw(st.booleans()):
        column_cells["mood"] = st.sampled_from(["pos", "neg"])
    count = draw(st.integers(0, 14))
    rows = [{name: draw(cell) for name, cell in column_cells.items()} for _ in range(count)]
    if rows and draw(st.integers(0, 5)) == 0:
        rows[-1] = draw(st.dictionaries(st.sampled_from(COLUMNS), cells, max_size=3))
    return rows


def delimited(rows: list[dict[str, Any]], delimiter: str) -> bytes:
    """CSV or TSV; values that are not text are written as JSON."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(
        text,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE,
        escapechar="\\",
    )
    lines: list[list[Any]] = [names, *([row.get(name) for name in names] for row in rows)]
    for line in lines:
        writer.writerow([cell if isinstance(cell, str) else json.dumps(cell) for cell in line])
    return encoded(text.getvalue())


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(encoded(json.dumps(row)) + b"\n" for row in rows)


def columnar(rows: list[dict[str, Any]]) -> bytes:
    """Parquet; the values become text if it has no type for them."""
    try:
        return _parquet(rows)
    except (pyarrow.ArrowException, OverflowError, UnicodeEncodeError, TypeError):
        return _parquet([{name: ascii(value) for name, value in row.items()} for row in rows])


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _reencode(whole: bytes, encoding: str) -> bytes:
    return whole.decode("utf-8", "replace").encode(encoding, "replace")


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes]:
    """(file ending, bytes) of a file of rows, often damaged."""
    rows = draw(records())
    ending = draw(st.sampled_from([".csv", ".tsv", ".jsonl", ".json", ".parquet"]))
    if ending in (".csv", ".tsv"):
        whole = delimited(rows, "," if ending == ".csv" else "\t")
    else:
        whole = columnar(rows) if ending == ".parquet" else json_lines(rows)
    damage = draw(st.integers(0, 15))
    if damage < 3:
        whole = draw(spoiled(whole))
    elif damage == 3:
        whole = _reencode(whole, draw(st.sampled_from(["utf-16", "cp500"])))
    elif damage == 4:
        whole = draw(rubbish)
    if draw(st.integers(0, 20)) == 0:
        ending = draw(st.sampled_from(["", ".xlsx", ".csv.gz", ".CSV", ".pkl", ".txt", ".arrow"]))
    return ending, whole


@st.composite
def files(draw: st.DrawFn) -> Input:
    """``iwlora tasks show`` or ``iwlora train`` on data files."""
    ending, whole = draw(tables())
    files: dict[str, bytes | None] = {f"d{ending}": whole}
    overrides = [f"task.train={WORK}/d{ending}"]
    if draw(st.integers(0, 3)) == 0:
        other_ending, other = draw(tables())
        files[f"v{other_ending}"] = other
        split = draw(st.sampled_from(["validation", "test"]))
        overrides.append(f"task.{split}={WORK}/v{other_ending}")
    if draw(st.booleans()):
        overrides += ["task.text=text", "task.label=mood"]
    elif draw(st.integers(0, 3)) == 0:
        overrides.append(f"task.kind={draw(st.sampled_from(sorted(KINDS)))}")
    overrides.append(f"train.max_length={draw(st.sampled_from([32, 32, 3, 64]))}")
    if draw(st.integers(0, 5)):
        return Input(("tasks", "show", "--model", MODEL, *overrides), files)
    recipe = f"model: {MODEL}\nmethod: {{name: lora, rank: 2}}\ntask: {{}}\n"
    files["r.yaml"] = encoded(recipe + "train: {epochs: 1, batch_size: 4}\n")
    return Input(("train", f"{WORK}/r.yaml", *overrides, "--out", f"{WORK}/out"), files)


def _rows_of(task: Any) -> bytes:
    """A valid GLUE file of four rows."""
    header = task.header or tuple(dict.fromkeys(["index", *task.columns]))
    lines = [] if task.header else ["\t".join(header)]
    for row in range(4):
        code = task.codes[row % len(task.codes)] if task.labels else "2.5"
        lines.append("\t".join(code if name == task.label_column else "a film" for name in header))
    return encoded("\n".join(lines) + "\n")


@st.composite
def layouts(draw: st.DrawFn) -> Input:
    """A folder in the official layout of a task, with files that may be damaged or missing."""
    source = draw(st.sampled_from(["glue", "glue", "superglue", "squad", "xsum"]))
    good: dict[str, bytes] = {}
    if source == "glue":
        name = draw(st.sampled_from(sorted(GLUE)))
        good = {f"{GLUE[name].folder}/{f}": _rows_of(GLUE[name]) for f in GLUE[name].files.values()}
    elif source == "superglue":
        name = draw(st.sampled_from(sorted(SUPERGLUE)))
        task = SUPERGLUE[name]
        fields = task.fields or task.text
        rows = [
            dict.fromkeys(fields, "a film") | {"label": code} for code in task.codes or task.labels
        ]
        for row in rows:
            row |= {field: draw(cells) for field in fields if draw(st.integers(0, 9)) == 0}
        good = {f"{task.folder}/{file}": json_lines(rows) for file in SUPERGLUE_FILES.values()}
    elif source == "squad":
        name = draw(st.sampled_from(sorted(SQUAD)))
        answers = [{"text": "film", "answer_start": draw(st.one_of(st.just(2), plain))}]
        question = {"id": "1", "question": "what", "answers": answers}
        question |= draw(st.dictionaries(st.sampled_from(["id", "question", "answers"]), values))
        whole = {"data": [{"paragraphs": [{"context": "a film", "qas": [question]}]}]}
        good = {file: encoded(json.dumps(whole)) for file in SQUAD[name].files.values()}
    else:
        name = "xsum"
        listed = draw(st.one_of(st.lists(st.text(max_size=9), max_size=3), values))
        whole = dict.fromkeys(("train", "validation", "test"), listed)
        good = {XSUM_SPLIT: encoded(json.dumps(whole))}
    files: dict[str, bytes | None] = {}
    for file, content in good.items():
        damage = draw(st.integers(0, 9))
        if damage:
            files[f"g/{file}"] = content if damage < 4 else draw(spoiled(content))
    overrides = (f"task.data_dir={WORK}/g", "train.max_length=64")
    return Input(("tasks", "show", "--model", MODEL, "--task", name, *overrides), files)


@st.composite
def questions(draw: st.DrawFn) -> Input:
    """Rows for ``iwlora predict`` with a finished run."""
    ending, whole = draw(tables())
    out = draw(st.sampled_from([".csv", ".csv", ".jsonl", ".xlsx", "", "/", f"/d{ending}"]))
    arguments = ("predict", f"{KEEP}/run", "--input", f"{WORK}/d{ending}")
    return Input((*arguments, "--output", f"{WORK}/out{out}"), {f"d{ending}": whole})
