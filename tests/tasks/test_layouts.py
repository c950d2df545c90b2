"""Files as people have them: each layout is read as it should be, and each damaged one refused.

``python tests/tasks/test_layouts.py`` prints the table of docs/data-files.md.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pandas
import pyarrow
import pytest
from pyarrow import feather, parquet

from documentation import ROOT
from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec
from iwlora.tasks.columns import parsed_file
from iwlora.tasks.columns.infer import infer_columns
from iwlora.tasks.columns.parsed_file import parse_file
from iwlora.training.overrides import override

FILES = Path(__file__).parents[1] / "fixtures" / "layouts"


@dataclass(frozen=True)
class Layout:
    """A file, and what must be read of it; at most one ``setting`` helps."""

    file: str
    what: str
    kind: str
    text: tuple[str, ...]
    label: tuple[str, ...]
    rows: int
    first: tuple[Any, ...]
    setting: str | None = None
    made_from: str | None = None
    """The stored file whose rows the test writes in this layout."""

    def __str__(self) -> str:
        return self.file


def chat(*turns: tuple[str, str], **fields: Any) -> str:
    return json.dumps([{"role": role, "content": content, **fields} for role, content in turns])


HOTEL = ("Clean room, quiet street.", "good")
TRAIN_CHAT = chat(
    ("system", "You know trains."),
    ("user", "When does the 7 leave?"),
    ("assistant", "At ten past."),
)
BASIL = chat(("user", "How do I store basil?"), ("assistant", "In a glass of water."))
TIDES = json.dumps(
    [
        {"role": "user", "content": "High tide in Brest?"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "c1",
                    "type": "function",
                    "function": {"name": "tide", "arguments": {"port": "Brest"}},
                }
            ],
            "content": "",
        },
        {"role": "tool", "tool_call_id": "c1", "content": "14:05"},
        {"role": "assistant", "content": "At 14:05."},
    ]
)
TIDE_TOOL = json.dumps(
    [
        {
            "type": "function",
            "function": {
                "name": "tide",
                "parameters": {"type": "object", "properties": {"port": {"type": "string"}}},
            },
        }
    ]
)
HARBOUR = (["Anna", "sails", "to", "Oslo"], ["B-PER", "O", "O", "B-LOC"])

LAYOUTS = [
    Layout(
        "hotels.csv",
        "CSV, with quoted commas, quotation marks and line breaks",
        *("classification", ("text",), ("label",), 6, HOTEL),
    ),
    Layout(
        "parcels.tsv",
        "TSV, where quotation marks are ordinary characters",
        *("classification", ("text",), ("category",), 5),
        ('Where is my "parcel', "delivery"),
    ),
    Layout(
        "sensors.jsonl",
        "JSON Lines, with numbers as classes",
        *("classification", ("text",), ("label",), 5, ("Pump 3 vibrates at start", "1")),
    ),
    Layout(
        "gardens.ndjson",
        "JSON Lines under their other name",
        *("classification", ("sentence",), ("label",), 4, ("The roses need shade.", "no")),
    ),
    Layout(
        "recipes.csv",
        "pairs of texts",
        *("classification", ("premise", "hypothesis"), ("label",), 4),
        ("The soup simmers.", "Something is cooking.", "yes"),
    ),
    Layout(
        "wines.csv",
        "numbers as labels",
        *("regression", ("review",), ("score",), 5, ("Thin and sour", 1.5)),
    ),
    Layout(
        "films.csv",
        "several classes in a cell",
        *("multi-label", ("text",), ("genres",), 6),
        ("A detective falls for a ghost", ["crime", "romance"]),
        "task.label=genres",
    ),
    Layout(
        "forum.csv",
        "columns of 0 and 1",
        *("multi-label", ("comment",), ("rude", "spam"), 4, ("Read the manual, fool", ["rude"])),
        "task.label=[rude, spam]",
    ),
    Layout(
        "repairs.csv",
        "a column with a name of its own",
        *("classification", ("body",), ("label",), 4, ("Screen stays black", "display")),
        "task.text=body",
    ),
    Layout(
        "trains.jsonl",
        "chats: OpenAI's messages",
        *("instruction", ("messages",), (), 3, (TRAIN_CHAT, "At ten past.")),
    ),
    Layout(
        "tides.jsonl",
        "chats: messages with tools",
        *("instruction", ("messages", "tools"), (), 2, (TIDES, TIDE_TOOL, "At 14:05.")),
    ),
    Layout(
        "kitchen.jsonl",
        "chats: ShareGPT's conversations",
        *("instruction", ("conversations",), (), 2, (BASIL, "In a glass of water.")),
    ),
    Layout(
        "quiz.jsonl",
        "Alpaca's instruction, input and output",
        *("instruction", ("instruction", "input"), ("output",), 3),
        ("Name the capital.", "Peru", "Lima"),
    ),
    Layout(
        "limericks.jsonl",
        "prompts and completions",
        *("instruction", ("prompt",), ("completion",), 2),
        ("There was a young baker of Kent", "whose bread rose wherever he went"),
    ),
    Layout(
        "signs.csv",
        "translations: source and target",
        *("seq2seq", ("source",), ("target",), 3, ("No entry", "Kein Eingang")),
    ),
    Layout(
        "minutes.jsonl",
        "documents and summaries",
        *("seq2seq", ("document",), ("summary",), 2),
        (
            "The council met on Monday. It voted for the bridge after two hours.",
            "The council wants the bridge.",
        ),
    ),
    Layout(
        "harbours.jsonl",
        "words and their tags as lists",
        *("token-labels", ("tokens",), ("ner_tags",), 2, HARBOUR),
    ),
    Layout(
        "grammar.csv",
        "words and their tags, separated by spaces",
        *("token-labels", ("tokens",), ("tags",), 3, (["Dogs", "bark"], ["NOUN", "VERB"])),
    ),
    Layout(
        "museum.jsonl",
        "questions, passages and answers",
        *("question-answering", ("question", "context"), ("answers",), 2),
        (
            "Who painted the ceiling?",
            "The ceiling was painted by Lena Voss in 1910.",
            {"text": ["Lena Voss"], "answer_start": [27]},
        ),
    ),
    # --- delimiters, encodings, headers ---
    Layout(
        "rents.csv",
        "a semicolon as delimiter, and decimal commas",
        *("regression", ("text",), ("rating",), 4, ("Zwei Zimmer, hell", 3.5)),
    ),
    Layout(
        "boats.csv",
        "a vertical bar as delimiter",
        *("classification", ("text",), ("label",), 4, ("Hull is sound, paint is not", "repair")),
    ),
    Layout(
        "bees.csv",
        "a tab as delimiter in a .csv file",
        *("classification", ("text",), ("label",), 4, ("Queen seen, brood fine", "healthy")),
    ),
    Layout(
        "libraries.txt",
        "a table in a .txt file",
        *("classification", ("text",), ("label",), 4, ("The book is overdue", "loan")),
    ),
    Layout(
        "excel.csv",
        "Excel's `sep=;` in the first line",
        *("classification", ("text",), ("label",), 4, ("Door sticks, left", "wood")),
    ),
    Layout(
        "cafes.csv",
        "UTF-8 with a byte-order mark",
        *("classification", ("text",), ("label",), 4, ("Un café très cher", "non")),
    ),
    Layout(
        "metro.csv",
        'UTF-16 with a byte-order mark, as Excel\'s "Unicode text"',
        *("classification", ("text",), ("label",), 4, ("電車が遅れた", "late")),
    ),
    Layout(
        "bakers.csv",
        "cp1252, which alone makes sense of the bytes",
        *("classification", ("text",), ("label",), 4, ("Brötchen waren altbacken", "schlecht")),
    ),
    Layout(
        "markets.csv",
        "cp1252 in another language",
        *("classification", ("text",), ("label",), 4, ("El niño compró peras", "sí")),
    ),
    Layout(
        "villages.csv",
        "cp1251, where capitals show that it is not KOI8-R",
        *("classification", ("text",), ("label",), 4, ("Дорога закрыта", "плохо")),
    ),
    Layout(
        "bazaars.csv",
        "an encoding that the file alone does not tell",
        *("classification", ("text",), ("label",), 4, ("свежая рыба", "да")),
        "task.encoding=cp1251",
    ),
    Layout(
        "texts.txt",
        "no header, where the first line is clearly a row",
        *("classification", ("column2",), ("column1",), 5),
        ("See you at the station at six", "ham"),
    ),
    Layout(
        "votes.csv",
        "no header, where that is not clear",
        *("classification", ("column2",), ("column1",), 5, ("More trees", "agree")),
        "task.header=false",
    ),
    # --- JSON ---
    Layout(
        "planets.json",
        "a JSON list of objects",
        *("classification", ("text",), ("label",), 4, ("Dust storm on Mars", "weather")),
    ),
    Layout(
        "bikes.json",
        "a JSON list over many lines",
        *("classification", ("text",), ("label",), 4, ("Chain slips", "gear")),
    ),
    Layout(
        "clinics.json",
        "a JSON object with one list of objects",
        *("classification", ("text",), ("label",), 4, ("Cough since May", "lung")),
    ),
    Layout(
        "coins.json",
        "a JSON object with a list for each column",
        *("classification", ("text",), ("label",), 3, ("Silver, worn", "old")),
    ),
    Layout(
        "stamps.json",
        "the same as pandas writes it",
        *("classification", ("text",), ("label",), 4, ("Blue, torn corner", "used")),
    ),
    Layout(
        "shops.jsonl",
        "fields inside of others",
        *("classification", ("review.body",), ("label",), 3, ("The zip broke on day two", "bad")),
        "task.text=review.body",
    ),
    Layout(
        "trains.json",
        "chats as a JSON list",
        *("instruction", ("messages",), (), 3, (TRAIN_CHAT, "At ten past.")),
    ),
    Layout(
        "kitchen.json",
        "ShareGPT's file, a JSON list",
        *("instruction", ("conversations",), (), 2, (BASIL, "In a glass of water.")),
    ),
    Layout(
        "quiz.json",
        "Alpaca's file, a JSON list",
        *("instruction", ("instruction", "input"), ("output",), 3),
        ("Name the capital.", "Peru", "Lima"),
    ),
    Layout(
        "castles.json",
        "SQuAD's file",
        *("question-answering", ("question", "context"), ("answers",), 3),
        (
            "When was the keep built?",
            "The keep was built in 1204 by Count Odo.",
            {"text": ["1204"], "answer_start": [22]},
        ),
    ),
    # --- words with tags ---
    Layout(
        "news.conll",
        "CoNLL-2003: a word and its tags on each line; the last column is the label",
        *("token-labels", ("tokens",), ("tags",), 3),
        (["Maria", "flew", "to", "Lima", "."], ["B-PER", "O", "O", "B-LOC", "O"]),
    ),
    Layout(
        "streets.txt",
        "the same in a .txt file",
        *("token-labels", ("tokens",), ("tags",), 3),
        (["Elm", "Road", "is", "closed"], ["B-STREET", "I-STREET", "O", "O"]),
    ),
    Layout(
        "genes.tsv",
        "the same in a .tsv file, with tags B, I and O",
        *("token-labels", ("tokens",), ("tags",), 2),
        (["BRCA1", "is", "active"], ["B", "O", "O"]),
    ),
    Layout(
        "birds.conllu",
        "CoNLL-U",
        *("token-labels", ("tokens",), ("tags",), 2),
        (["Owls", "hunt", "."], ["NOUN", "VERB", "PUNCT"]),
    ),
    # --- folders ---
    Layout(
        "writing",
        "a folder of .txt files for each class",
        *("classification", ("text",), ("label",), 3, ("Roses wilt,\nso do I.", "poem")),
    ),
    Layout(
        "cinema",
        "the same for train and test, as in the IMDb reviews",
        *("classification", ("text",), ("label",), 4, ("Too long", "neg")),
    ),
    Layout(
        "novel",
        "a folder of .txt files: plain texts",
        *("language-modeling", ("text",), (), 2),
        ("Chapter one. The lamp went out.\n\nNobody spoke.", ""),
    ),
    Layout(
        "ballad.txt",
        "plain texts in one file, with blank lines between them",
        *("language-modeling", ("text",), (), 3),
        ("The ferry left at nine,\nthe fog came in at ten.", ""),
    ),
    Layout(
        "diary.jsonl",
        "a table of plain texts",
        *("language-modeling", ("text",), (), 3, ("Rain all day, the boat stayed in.", "")),
    ),
    # --- compressed and binary ---
    *(
        Layout(
            file,
            what,
            *("classification", ("text",), ("label",), 6, HOTEL),
            made_from="hotels.csv",
        )
        for file, what in {
            "hotels.csv.gz": "CSV, compressed",
            "hotels.tsv.gz": "TSV, compressed (line breaks became spaces)",
            "hotels.jsonl.gz": "JSON Lines, compressed",
            "hotels.json.gz": "a JSON list, compressed",
            "hotels.xlsx": "Excel",
            "hotels.ods": "LibreOffice",
            "hotels.parquet": "Parquet",
            "hotels.feather": "Feather",
            "hotels.arrow": "an Arrow stream, as `datasets` caches it",
            "hotels-saved": "a folder that `datasets` saved",
        }.items()
    ),
]


# --- the layouts that the test writes ---


def records(stored: str) -> list[dict[str, str]]:
    with (FILES / stored).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def make(layout: Layout, folder: Path) -> Path:
    """The file of a layout in ``folder``: a copy of the stored one, or written from its rows."""
    target = folder / layout.file
    if layout.made_from is None:
        stored = FILES / layout.file
        return Path((shutil.copytree if stored.is_dir() else shutil.copy)(stored, target))
    write(target, records(layout.made_from))
    return target


def write(target: Path, rows: list[dict[str, str]]) -> None:
    """Write rows in the layout that the name of the file says."""
    if target.suffix == ".gz":
        plain = target.with_suffix("")
        write(plain, rows)
        target.write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
        plain.unlink()
        return
    table = pyarrow.Table.from_pylist(rows)
    cells = [list(rows[0]), *(list(row.values()) for row in rows)]
    match target.suffix:
        case ".csv":
            target.write_bytes(written(cells, ","))
        case ".tsv":
            flat = [[cell.replace("\n", " ") for cell in row] for row in cells]
            target.write_bytes(written(flat, "\t", csv.QUOTE_NONE))
        case ".jsonl":
            target.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        case ".json":
            target.write_text(json.dumps(rows))
        case ".parquet":
            parquet.write_table(table, target)
        case ".feather":
            feather.write_feather(table, target)
        case ".arrow":
            with pyarrow.ipc.new_stream(target, table.schema) as stream:
                stream.write_table(table)
        case ".xlsx":
            book = pytest.importorskip("openpyxl").Workbook()
            for row in cells:
                book.active.append(row)
            book.save(target)
        case ".ods":
            pytest.importorskip("odf")
            frame = pandas.DataFrame(cells[1:], columns=cells[0])
            frame.to_excel(target, engine="odf", index=False)
        case _:
            datasets.disable_progress_bars()
            datasets.Dataset.from_list(rows).save_to_disk(target)


# --- reading and judging ---


def read(
    path: Path, setting: str | None
) -> tuple[str, tuple[str, ...], tuple[str, ...], list[Any]]:
    """(kind, text columns, label columns, rows) by guess, and the one setting if there is one."""
    recipe = override({"task": {"train": str(path)}}, [setting] if setting else [])
    spec = TaskSpec(**recipe["task"])
    columns = infer_columns(spec)
    rows = parse_file(str(path), columns, "train").rows.drop_columns(
        ["other_references"] if columns.kind.several_references and columns.label else []
    )
    return (
        columns.kind.name,
        columns.text,
        columns.label,
        [tuple(r.values()) for r in rows.to_pylist()],
    )


def problem_with(path: Path, layout: Layout) -> str | None:
    """What is wrong with how a sound file is read; None where nothing is."""
    try:
        kind, text, label, rows = read(path, layout.setting)
    except IwloraError as error:
        return f"refused: {error}"
    found = (kind, text, label, len(rows), rows[0])
    expected = (layout.kind, layout.text, layout.label, layout.rows, layout.first)
    return None if found == expected else f"{found} instead of {expected}"


@dataclass(frozen=True)
class Mutant:
    """A changed copy of a file, and whether the same rows must be read of it."""

    how: str
    content: bytes
    same: bool


def problem_with_mutant(path: Path, mutant: Mutant, layout: Layout, rows: list[Any]) -> str | None:
    """What is wrong with how a changed file is answered; None where nothing is.

    Either the same rows are read, or the message names the file, the place and the way out.
    """
    path.write_bytes(mutant.content)
    try:
        kind, *_, found = read(path, layout.setting)
    except IwloraError as error:
        message = str(error)
    except Exception as error:
        return f"a traceback: {error!r}"
    else:
        if kind == "language-modeling" != layout.kind and mutant.how.startswith(WITHOUT_LABELS):
            return None  # plain texts, as its notes say
        if found != rows:
            return f"other rows: {found}"
        return None if mutant.same else "a broken file was read without a word"
    if mutant.same:
        return f"refused: {message}"
    for part, name in (
        (re.escape(str(path)), "file"),
        (r"(line|row|column|question|columns:) |is not an? ", "place"),
        (r"task\.\w+|accepted|must|the header has|is not an? .* file", "way out"),
    ):
        if not re.search(part, message):
            return f"no {name} in the message: {message}"
    return None


WITHOUT_LABELS = ("without ", "a lost column")


def mutants(path: Path, layout: Layout) -> Iterator[Mutant]:
    """The changes that this file can have."""
    content = path.read_bytes()
    if layout.made_from:
        yield Mutant("cut short", content[: len(content) // 2], same=False)
        rows = [{"text": row["text"]} for row in records(layout.made_from)]
        write(path, rows)
        yield Mutant("without a label", path.read_bytes(), same=False)
        return
    encoding = ENCODINGS.get(layout.file, "utf-8")
    text = content.decode(encoding)
    if encoding == "utf-8":
        yield Mutant("BOM", b"\xef\xbb\xbf" + content, same=True)
        yield Mutant("UTF-16", text.encode("utf-16"), same=True)
    if layout.file != "hotels.csv":  # the line break in its quoted cell would change too
        yield Mutant("CRLF", text.replace("\n", "\r\n").encode(encoding), same=True)
    lost = (layout.label or layout.text)[0]
    is_list = text.lstrip("\n")[:1] in "[{" and path.suffix == ".json"
    if is_list:
        yield Mutant("cut short", text.rstrip()[:-9].encode(encoding), same=False)
        if layout.file not in ("coins.json", "stamps.json", "castles.json", "clinics.json"):
            rows = [drop(row, lost) for row in json.loads(text)]
            yield Mutant(f"without {lost}", json.dumps(rows).encode(), same=False)
            broken = text.replace("},", "}},", 1)
            yield Mutant("a brace too many", broken.encode(), same=False)
    elif layout.kind == "token-labels" and path.suffix not in (".csv", ".jsonl"):
        yield Mutant("a line with one word", f"{text}word\n".encode(encoding), same=False)
        yield Mutant("blank lines", text.replace("\n\n", "\n\n\n").encode(), same=True)
    elif layout.file == "ballad.txt":
        yield Mutant("more blank lines", text.replace("\n\n", "\n \n\n").encode(), same=True)
    elif path.suffix in (".csv", ".tsv", ".txt"):
        yield from _delimited_mutants(path, layout, text, encoding)
    else:
        yield from _json_lines_mutants(text, lost)


ENCODINGS = {
    "cafes.csv": "utf-8-sig",
    "metro.csv": "utf-16",
    "bakers.csv": "cp1252",
    "markets.csv": "cp1252",
    "villages.csv": "cp1251",
    "bazaars.csv": "cp1251",
}
USED = {"rents.csv": ";", "boats.csv": "|", "excel.csv": ";", "bakers.csv": ";"}
TABS = ("bees.csv", "metro.csv")
HEADLESS = ("texts.txt", "votes.csv")


def drop(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def _delimited_mutants(path: Path, layout: Layout, text: str, encoding: str) -> Iterator[Mutant]:
    is_plain = path.suffix in (".tsv", ".txt")
    used = "\t" if is_plain or layout.file in TABS else USED.get(layout.file, ",")
    quoting = csv.QUOTE_NONE if is_plain else csv.QUOTE_MINIMAL
    text = text.removeprefix("sep=;\n")
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=used, quoting=quoting))
    for sign in ",;\t|":
        plainly = csv.QUOTE_NONE if is_plain and sign == "\t" else csv.QUOTE_MINIMAL
        yield Mutant(f"divided by {sign!r}", written(rows, sign, plainly, encoding), same=True)
    if layout.file not in HEADLESS:
        position = rows[0].index((layout.label or layout.text)[0])
        without = [row[:position] + row[position + 1 :] for row in rows]
        yield Mutant("a lost column", written(without, used, quoting, encoding), same=False)
    for more in (1, -1):
        broken = [*rows, ["x"] * (len(rows[0]) + more)]
        changed = written(broken, used, quoting, encoding)
        yield Mutant(f"a row with {more:+} fields", changed, same=False)


def written(
    rows: list[list[str]],
    delimiter: str,
    quoting: Any = csv.QUOTE_MINIMAL,
    encoding: str = "utf-8",
) -> bytes:
    """Rows of a table; without quoting as GLUE's TSV files have them."""
    if quoting == csv.QUOTE_NONE:
        return "".join(f"{delimiter.join(row)}\n" for row in rows).encode(encoding)
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return out.getvalue().encode(encoding)


def _json_lines_mutants(text: str, lost: str) -> Iterator[Mutant]:
    rows = [json.loads(line) for line in text.splitlines()]
    without = [drop(row, lost) for row in rows]
    yield Mutant(f"without {lost}", "\n".join(map(json.dumps, without)).encode(), same=False)
    yield Mutant("a broken line", (text + '{"text": "cut\n').encode(), same=False)


# --- tests ---


@pytest.mark.quick
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_each_layout_is_read_right(layout: Layout, tmp_path: Path) -> None:
    path = make(layout, tmp_path)
    assert problem_with(path, layout) is None


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_changed_files_are_read_the_same_or_refused(layout: Layout, tmp_path: Path) -> None:
    path = make(layout, tmp_path)
    if path.is_dir():
        return
    rows = read(path, layout.setting)[3]
    changes = list(mutants(path, layout))
    problems = {m.how: problem_with_mutant(path, m, layout, rows) for m in changes}
    assert {how: problem for how, problem in problems.items() if problem} == {}


def wrong_readers() -> dict[str, Callable[..., Any]]:
    right = parsed_file.read_records

    def loses_a_row(*arguments: Any) -> Any:
        return list(right(*arguments))[:-1]

    def swaps_columns(*arguments: Any) -> Any:
        return ((number, fields[::-1]) for number, fields in right(*arguments))

    def passes_over_problems(path: str, columns: Any, problems: Any, *rest: Any) -> Any:
        return right(path, columns, [], *rest)

    def crashes(*arguments: Any) -> Any:
        raise KeyError("text")

    return {
        function.__name__: function
        for function in (loses_a_row, swaps_columns, passes_over_problems, crashes)
    }


@pytest.mark.parametrize("wrong", wrong_readers())
def test_a_wrong_reader_is_noticed(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS[0]
    path = make(layout, tmp_path)
    rows = read(path, None)[3]
    changes = list(mutants(path, layout))
    monkeypatch.setattr(parsed_file, "read_records", wrong_readers()[wrong])
    problems = [problem_with_mutant(path, change, layout, rows) for change in changes]
    if wrong in ("loses_a_row", "swaps_columns"):
        problems.append(problem_with(make(layout, tmp_path), layout))
    assert any(problems)


def documented() -> str:
    """The table of the layouts, as docs/data-files.md has it."""
    head = ["| file | what it is | setting, where the guess needs one |", "|---|---|---|"]
    rows = [
        f"| `{layout.file}` | {layout.what} | {f'`{layout.setting}`' if layout.setting else ''} |"
        for layout in LAYOUTS
    ]
    return "\n".join([*head, *rows])


def test_the_documentation_lists_the_layouts() -> None:
    assert documented() in (ROOT / "docs" / "data-files.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(documented())
