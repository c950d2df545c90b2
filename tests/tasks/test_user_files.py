"""The user's own files: round trips through every format, and a message for every mistake."""

import csv
import json
from collections import Counter

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.columns.infer import Columns
from iwlora.tasks.columns.parsed_file import parse_file
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.splits import FILE, LINE

pytestmark = pytest.mark.quick


def parse(path, columns):
    """Texts and a label, as classification reads them."""
    *text, label = columns if len(columns) > 1 else [*columns, None]
    columns = Columns(
        Classification(), tuple(text), (label,) if label else (), unlabeled=label is None
    )
    return parse_file(path, columns, "train")


def listed(table):
    return [tuple(row.values()) for row in table.rows.to_pylist()]


FORMATS = (".csv", ".jsonl", ".ndjson", ".json", ".parquet")
# Any text that says something and is not changed by cutting blanks at its ends.
words = (
    st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), min_size=1)
    .map(str.strip)
    .filter(bool)
)


def write(path, rows):
    """Write rows by each format's own writer."""
    if path.suffix == ".csv":
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def examples(count, labels=("bad", "good")):
    return [{"id": i, "text": f"text {i}", "mood": labels[i % len(labels)]} for i in range(count)]


def task_of(train, text="text", label="mood", **files):
    return load(TaskSpec(train=train, text=text, label=label, **files), seed=0)


def error_of(function, *arguments, **keywords):
    with pytest.raises(IwloraError) as caught:
        function(*arguments, **keywords)
    return str(caught.value)


@pytest.fixture
def table(tmp_path):
    """Write a file with the given name and content; its path as a string."""

    def make(name, content):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(tmp_path / name)

    return make


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_task_from_each_format(tmp_path, suffix):
    files = {
        split: write(tmp_path / f"{split}{suffix}", examples(count))
        for split, count in (("train", 8), ("validation", 4), ("test", 2))
    }
    task = task_of(**files)
    assert task.labels == ("bad", "good")
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 8,
        "validation": 4,
        "test": 2,
    }
    row = list(task.splits["train"])[3]
    assert (row["text"], row["label"]) == ("text 3", 1)
    assert (task.reported, task.name) == (("test",), files["train"])
    assert [note.split(" have ")[0] for note in task.notes] == [
        "validation: 4 of 4 rows",
        "test: 2 of 2 rows",
    ]


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries({"a": words, "b": words}), min_size=1, max_size=5))
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_any_text_survives(tmp_path_factory, suffix, rows):
    path = write(tmp_path_factory.mktemp("rows") / f"rows{suffix}", rows)
    columns = Columns(Classification(), ("b", "a"), (), unlabeled=True)
    found = parse_file(path, columns, "train").rows.to_pylist()
    assert found == [{"b": row["b"], "a": row["a"]} for row in rows]


def test_quotes_in_tsv_are_characters(table):
    path = table("a.tsv", '\ufefftext\tmood\r\n"stray\tgood\r\nfine\tbad "one"\r\n')
    assert listed(parse(path, ["text", "mood"])) == [('"stray', "good"), ("fine", 'bad "one"')]


def test_a_quoted_line_break_keeps_the_line_numbers_right(table):
    path = table("a.csv", 'text,mood\n"one\ntwo",good\n\nthree,\n')
    assert error_of(parse, path, ["text", "mood"]) == f"{path}, line 5: column 'mood' is empty"


def test_a_very_long_text_and_python_s_limit_afterwards(table):
    python_s = csv.field_size_limit(131_072)
    long = "word " * 100_000
    try:
        rows = listed(parse(table("a.csv", f"text\n{long}\n"), ["text"]))
    finally:
        assert csv.field_size_limit(python_s) == 131_072
    assert rows == [(long.strip(),)]


def test_numbers_and_truth_values_become_text(table):
    path = table("a.jsonl", '{"text": 2012, "mood": true}\n{"text": 1.5, "mood": "x"}\n')
    assert listed(parse(path, ["text", "mood"])) == [("2012", "true"), ("1.5", "x")]


def test_number_labels_are_sorted_by_value(tmp_path):
    path = write(tmp_path / "a.csv", examples(60, labels=(10, 9, -1)))
    assert task_of(path).labels == ("-1", "9", "10")
    path = write(tmp_path / "b.csv", examples(60, labels=("10", "9", "x")))
    assert task_of(path).labels == ("10", "9", "x")


def test_without_validation_a_tenth_of_each_class_is_held_out(tmp_path):
    labels = ("rare", *["common"] * 4)
    path = write(tmp_path / "a.csv", examples(200, labels))
    task = task_of(path)
    held = Counter(task.labels[each] for each in task.splits["validation"]["label"])
    assert held == {"rare": 4, "common": 16}
    texts = [list(task.splits[split]["text"]) for split in ("train", "validation")]
    assert sorted(texts[0] + texts[1]) == sorted(f"text {i}" for i in range(200))
    assert task.notes == (f"validation: 20 of the 200 rows of {path}, held out",)
    other = load(TaskSpec(train=path, text="text", label="mood"), seed=1)
    assert list(other.splits["validation"]["text"]) == texts[1]


def test_too_few_rows_to_hold_out(tmp_path):
    path = write(tmp_path / "a.csv", examples(1, labels=("0.5",)))
    message = error_of(task_of, path, kind={"name": "regression"})
    assert "has 1 rows, and no two of them differ in texts" in message
    assert "give task.validation=FILE" in message
    ten = write(tmp_path / "b.csv", examples(10))
    assert len(task_of(ten).splits["validation"]) == 2
    message = error_of(task_of, ten, split="by-class")
    assert "10 are needed, of one class if there are classes; give task.validation" in message


def test_a_label_of_validation_or_test_that_train_lacks(tmp_path):
    train = write(tmp_path / "train.csv", examples(4))
    validation = write(tmp_path / "validation.csv", examples(2, labels=("good", "ugly")))
    test = write(tmp_path / "test.jsonl", examples(1, labels=("odd",)))
    assert error_of(task_of, train, validation=validation, test=test).splitlines() == [
        f"{validation}, line 3: label 'ugly' is not in {train} (accepted: bad, good)",
        f"{test}, line 1: label 'odd' is not in {train} (accepted: bad, good)",
    ]


def test_one_class_is_not_a_task(tmp_path):
    message = error_of(task_of, write(tmp_path / "a.csv", examples(20, labels=("same",))))
    assert "column 'mood' holds one class only ('same')" in message


def test_given_classes_may_be_absent_from_the_training_rows(tmp_path):
    train = write(tmp_path / "a.csv", examples(20, labels=("good",)))
    task = task_of(train, labels=["bad", "good"], kind="classification")
    assert task.labels == ("bad", "good")
    assert set(task.splits["train"]["label"]) == {1}
    assert "train has no row of the class 'bad', so it is not learned" in task.notes
    message = error_of(task_of, train, labels=["bad", "best"], kind="classification")
    assert "label 'good' is not in task.labels (accepted: bad, best)" in message
    assert "names one class only" in error_of(task_of, train, labels=["x"], kind="classification")
    numbers = write(tmp_path / "b.csv", examples(20, labels=("1", "2")))
    message = error_of(task_of, numbers, labels=["x", "y"], kind="regression")
    assert message == "task.labels names classes, and a task of kind regression has no classes"


def test_the_home_of_an_unknown_user_is_no_traceback():
    message = error_of(task_of, "~nobody-of-this-name/a.csv")
    assert message == "cannot read ~nobody-of-this-name/a.csv: no such file"


def test_the_problems_of_all_files_are_reported_at_once(tmp_path):
    path = write(tmp_path / "a.csv", examples(4))
    message = error_of(task_of, path, text="txt", validation="no.csv", test="b.docx").splitlines()
    assert len(message) == 3
    assert message[0].endswith(
        "a.csv: unknown column 'txt'; did you mean 'text'? (accepted: id, text, mood)"
    )
    assert message[1] == "cannot read no.csv: no such file"
    assert message[2].startswith("b.docx: unknown file type '.docx' (accepted: .csv, .tsv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", " is empty"),
        ("a.csv", "\n\n", ": unknown column 'text'; (accepted: )"),
        ("a.csv", "text,mood\n", " holds no rows"),
        ("a.csv", "text,mood,text\n", ": the header has column 'text' 2 times"),
        ("a.csv", "text,mood\na,b\nc\n", ", line 3: 1 fields, the header has 2"),
        ("a.csv", "text,mood\na, good, really\n", ", line 2: 3 fields, the header has 2"),
        ("a.csv", 'text,mood\na,b\n"c,d\ne,f\n', ", line 3: unexpected end of data"),
        ("a.csv", "text,mood\n ,b\n", ", line 2: column 'text' is empty"),
        ("a.csv", b"text,mood\nna\xefve,b\n", ", line 2: not UTF-8 (byte 0xef, number 3"),
        ("a.tsv", b"text\tmood\na\tb\xff\n", ", line 2: not UTF-8"),
        ("a.tsv", "text mood\na b\n", ": unknown column 'text'; did you mean 'text mood'?"),
        (
            "a.jsonl",
            '{"text": "a", "mood": 1}\n{"text": "b"\n',
            ", line 2: it is damaged or was cut",
        ),
        (
            "a.jsonl",
            '{"text": "a", "mood": 1}\n["text", "mood"]\n',
            ", line 2: it holds a list; it must hold fields with names; each line must be a",
        ),
        (
            "a.jsonl",
            '{"text": "a", "moods": 1}',
            ", line 1: unknown column 'mood'; did you mean 'mo",
        ),
        ("a.jsonl", '{"text": "a", "mood": null}', ", line 1: column 'mood' is empty"),
        ("a.jsonl", '{"text": "a", "mood": NaN}', ", line 1: column 'mood' is empty"),
        ("a.jsonl", '{"text": ["a"], "mood": 1}', ", line 1: column 'text' holds a list, not text"),
        ("a.jsonl", "\n\n", " holds no rows"),
        ("a.parquet", b"not parquet at all", " is not a Parquet file"),
    ],
)
def test_bad_files(table, name, content, message):
    path = table(name, content)
    assert error_of(parse, path, ["text", "mood"]).startswith(path + message)


def test_bad_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    doubled = pyarrow.table([["a"], ["b"], ["c"]], names=["text", "text", "mood"])
    parquet.write_table(doubled, path)
    assert "column 'text' 2 times" in error_of(parse, str(path), ["text", "mood"])
    write(path, [{"text": "a", "mood": 1}, {"text": None, "mood": 2}])
    message = error_of(parse, str(path), ["text", "mood"])
    assert message == f"{path}, row 2: column 'text' is empty"
    assert "unknown column 'label'" in error_of(parse, str(path), ["text", "label"])


def test_a_folder_is_not_a_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    assert "it is a folder" in error_of(parse, str(tmp_path / "a.csv"), ["text"])


def test_many_problems_are_counted(table):
    path = table("a.csv", "text,mood\n" + "x,\n" * 25)
    message = error_of(parse, path, ["text", "mood"]).splitlines()
    assert len(message) == 21
    assert message[-1] == "… and 5 more"


@pytest.fixture
def sources(tmp_path):
    """Files of 30 and of 10 rows; the texts of the second begin with b."""
    first, second = examples(30), [{**row, "text": f"b {row['id']}"} for row in examples(10)]
    second[0]["mood"] = "odd"
    return write(tmp_path / "a.csv", first), write(tmp_path / "b.jsonl", second)


def mixed(sources, weight=None, **fields):
    first, second = sources
    mix = [{"train": second} | ({} if weight is None else {"weight": weight})]
    spec = TaskSpec(train=first, mix=mix, validation=first, text="text", label="mood", **fields)
    return load(spec, seed=0)


def test_files_without_weights_are_joined(sources):
    task = mixed(sources)
    assert task.labels == ("bad", "good", "odd"), "those of all files"
    assert len(task.splits["train"]) == 40
    assert task.splits["train"].column_names == ["text", "label", LINE, FILE]
    assert task.name == f"{sources[0]} and 1 more"
    assert f"train: 30 rows of {sources[0]} and 10 rows of {sources[1]}" in task.notes


@pytest.mark.parametrize(("weight", "count"), [(1.0, 20), (3, 30), (1 / 3, 10), (0.1, 4)])
def test_weights_say_how_many_rows_are_drawn_of_each_file(sources, weight, count):
    texts = Counter(mixed(sources, weight).splits["train"]["text"][:])
    drawn = {"a": [], "b": [0] * 10}
    for name in "ab":
        drawn[name] = [n for text, n in texts.items() if text.startswith("b ") == (name == "b")]
    assert (sum(drawn["a"]), sum(drawn["b"])) == (40 - count, count)
    for name, size in (("a", 30), ("b", 10)):
        assert max(drawn[name]) <= -(-sum(drawn[name]) // size), "each row before any twice"


@pytest.mark.parametrize(("limit", "weight", "count"), [(16, 1, 8), (14, 1 / 6, 2), (90, 1, 20)])
def test_a_limit_keeps_the_shares_and_the_note_counts_what_is_trained(
    sources, limit, weight, count
):
    task = mixed(sources, weight, max_train=limit)
    rows, drawn = min(limit, 40), task.splits["train"]["text"][:]
    of_second = Counter(text for text in drawn if text.startswith("b "))
    assert (len(drawn), sum(of_second.values())) == (rows, count)
    assert max(of_second.values()) <= -(-count // 10)
    first, second = sources
    counts = f"train: {rows - count} rows of {first} and {count} rows of {second}, drawn"
    assert any(note.startswith(counts) for note in task.notes)
    joined = mixed(sources, max_train=limit)
    of_first = sum(not text.startswith("b ") for text in joined.splits["train"]["text"][:])
    assert (
        f"train: {of_first} rows of {first} and {rows - of_first} rows of {second}" in joined.notes
    )


def test_weights_of_any_size_are_shares(sources, tmp_path):
    first, second = sources
    third = write(tmp_path / "c.csv", [{**row, "text": f"c {row['id']}"} for row in examples(20)])
    mix = [{"train": path, "weight": 1e308} for path in (second, third)]
    spec = TaskSpec(train=first, mix=mix, validation=first, text="text", label="mood")
    drawn = Counter(text[:2] for text in load(spec, 0).splits["train"]["text"][:])
    assert drawn == {"b ": 30, "c ": 30}


@pytest.mark.parametrize("order", [1, -1])
def test_all_files_of_a_mixture_say_what_the_task_is(table, order):
    """The first file does not decide alone whether numbers are whole and texts are single."""
    whole, parts = "text,score\na,1\nb,2\nc,4\n", "text,score\nd,1.5\ne,0.5\nf,4\n"
    first, second = [table("whole.csv", whole), table("parts.csv", parts)][::order]
    task = load(TaskSpec(train=first, mix=[{"train": second}], text="text", label="score"), 0)
    assert task.kind.name == "regression"
    assert f"inferred from {first} and 1 more: kind=regression" in task.notes

    one = '{"source": "a", "target": "x"}\n{"source": "b", "target": "y"}\n'
    several = '{"source": "c", "target": ["z", "zz"]}\n{"source": "d", "target": "w"}\n'
    first, second = [table("one.jsonl", one), table("several.jsonl", several)][::order]
    mix = [{"train": second}]
    task = load(TaskSpec(train=first, mix=mix, validation=first, kind="seq2seq"), 0)
    rows = task.splits["train"]
    accepted = dict(zip(rows["source"][:], rows["other_references"][:], strict=True))
    assert accepted == {"a": [], "b": [], "c": ["zz"], "d": []}


def test_a_mixture_depends_on_the_seed_and_held_out_rows_are_in_no_part_of_it(sources):
    first, second = sources
    spec = TaskSpec(
        train=first, mix=[{"train": second, "weight": 5}], text="text", label="mood", selection=0.2
    )
    texts = [load(spec, seed).splits["train"]["text"][:] for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    splits = load(spec, 0).splits
    held_out = {*splits["validation"]["text"][:], *splits["selection"]["text"][:]}
    assert not held_out & set(texts[0])


def test_mistakes_in_a_mixture_name_the_file(sources, table):
    first, second = sources
    other = table("c.csv", "text,tone\na,good\n")
    spec = {"train": first, "validation": first, "text": "text", "label": "mood"}
    message = error_of(load, TaskSpec(**spec, mix=[{"train": second}, {"train": other}]), 0)
    assert "c.csv: unknown column 'mood'" in message
    with pytest.raises(ValueError, match=r"task.mix names .*a.csv twice; give it once"):
        TaskSpec(**spec, mix=[{"train": first}])
    other_spelling = first.replace("a.csv", "./a.csv")
    with pytest.raises(ValueError, match=r"task.mix names .*/\./a.csv twice"):
        TaskSpec(**spec, mix=[{"train": second}, {"train": other_spelling}])
    with pytest.raises(ValueError, match="greater than 0"):
        TaskSpec(**spec, mix=[{"train": second, "weight": 0}])
    with pytest.raises(ValueError, match=r"task.mix is for your own files"):
        TaskSpec(name="glue/rte", mix=[{"train": second}])
