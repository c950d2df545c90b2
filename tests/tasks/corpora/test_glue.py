"""GLUE: the real files where they are at hand, small ones with every quirk, and the hub."""

import datasets
import pytest

from iwlora.errors import IwloraError
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.corpora.glue import TASKS

pytestmark = pytest.mark.quick

# Rows of each class by its name: the official sizes and balance.
OFFICIAL = {
    "glue/rte": {
        "train": {"entailment": 1249, "not_entailment": 1241},
        "validation": {"entailment": 146, "not_entailment": 131},
    },
    "glue/sst2": {
        "train": {"negative": 29780, "positive": 37569},
        "validation": {"negative": 428, "positive": 444},
    },
    "glue/mrpc": {
        "train": {"not_equivalent": 1194, "equivalent": 2474},
        "validation": {"not_equivalent": 129, "equivalent": 279},
    },
    "glue/cola": {
        "train": {"unacceptable": 2528, "acceptable": 6023},
        "validation": {"unacceptable": 322, "acceptable": 721},
    },
}
MNLI_COLUMNS = [
    "index",
    "promptID",
    "pairID",
    "genre",
    "sentence1_binary_parse",
    "sentence2_binary_parse",
    "sentence1_parse",
    "sentence2_parse",
    "sentence1",
    "sentence2",
    "label1",
    "gold_label",
]


def read(name, folder):
    return load(TaskSpec(name=name, data_dir=str(folder)), seed=0)


def error_of(name, folder):
    with pytest.raises(IwloraError) as caught:
        read(name, folder)
    return str(caught.value)


def rows(split):
    return [tuple(row.values()) for row in split]


@pytest.fixture
def rte(tmp_path):
    """A folder with a good, tiny RTE."""
    folder = tmp_path / "RTE"
    folder.mkdir()
    for file in ("train.tsv", "dev.tsv"):
        (folder / file).write_bytes(
            b"index\tsentence1\tsentence2\tlabel\n0\tA.\tB.\tentailment\n1\tC.\tD.\tnot_entailment\n"
        )
    return tmp_path


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_real_files_have_the_official_sizes_and_balance(glue_dir, name):
    task = read(name, glue_dir)
    counts = {
        split: {each: list(data["label"]).count(id) for id, each in enumerate(task.labels)}
        for split, data in task.splits.items()
    }
    assert counts == OFFICIAL[name]
    assert all(text.strip() for data in task.splits.values() for c in task.text for text in data[c])


def test_real_texts_stand_in_their_columns(glue_dir):
    first = read("glue/mrpc", glue_dir).splits["validation"][0]
    assert first["sentence1"].startswith("He said the foodservice pie business doesn't fit")
    assert first["sentence2"].startswith('"The foodservice pie business does not fit')
    assert first["label"] == 1


def test_ids_metrics_and_positive_class():
    table = {name: (task.labels, task.metrics) for name, task in TASKS.items()}
    assert table == {
        "glue/rte": (("entailment", "not_entailment"), ("accuracy", "f1")),
        "glue/sst2": (("negative", "positive"), ("accuracy",)),
        "glue/mrpc": (("not_equivalent", "equivalent"), ("accuracy", "f1")),
        "glue/cola": (("unacceptable", "acceptable"), ("matthews_correlation",)),
        "glue/mnli": (("entailment", "neutral", "contradiction"), ("accuracy",)),
        "glue/stsb": ((), ("pearson", "spearman")),
        "glue/qqp": (("not_duplicate", "duplicate"), ("accuracy", "f1")),
        "glue/qnli": (("entailment", "not_entailment"), ("accuracy",)),
        "glue/wnli": (("not_entailment", "entailment"), ("accuracy",)),
    }
    positive = {name: t.labels[t.positive] for name, t in TASKS.items() if "f1" in t.metrics}
    assert positive == {
        "glue/rte": "entailment",
        "glue/mrpc": "equivalent",
        "glue/qqp": "duplicate",
    }


def test_the_folder_of_all_tasks_or_of_this_one(rte):
    task = read("glue/rte", rte)
    assert rows(task.splits["train"]) == [("A.", "B.", 0), ("C.", "D.", 1)]
    assert rows(read("glue/rte", rte / "RTE").splits["train"]) == rows(task.splits["train"])
    assert task.reported == ("validation",)
    assert "'entailment' as positive" in task.notes[0]


def test_stsb_has_numbers(tmp_path):
    head = (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore\n"
    )
    text = head + '0\tg\tf\t2012\t1\tnone\tnone\tA "quote.\tB.\t2.750\n'
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / file).write_text(text)
    task = read("glue/stsb", tmp_path)
    assert rows(task.splits["train"]) == [('A "quote.', "B.", 2.75)]
    assert (task.kind.name, task.labels) == ("regression", ())
    for wrong in ("nan", "good", ""):
        (tmp_path / "dev.tsv").write_text(text.replace("2.750", wrong))
        assert error_of("glue/stsb", tmp_path).startswith(f"{tmp_path / 'dev.tsv'}, line 2: ")


def test_short_rows_of_qqp_are_left_out_and_counted(tmp_path):
    head = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    good = "1\t2\t3\tWhy?\tWhy not?\t1\n"
    (tmp_path / "train.tsv").write_text(head + good + "4\t5\t6\tHow can I\n" + good)
    (tmp_path / "dev.tsv").write_text(head + good)
    task = read("glue/qqp", tmp_path)
    assert rows(task.splits["train"]) == [("Why?", "Why not?", 1)] * 2
    assert task.notes[0] == f"{tmp_path / 'train.tsv'}: 1 rows with missing columns are left out"
    (tmp_path / "dev.tsv").write_text(head + good.replace("\n", "\textra\n"))
    assert "line 2: 7 tab-separated columns instead of 6" in error_of("glue/qqp", tmp_path)


def test_stray_quotes_marks_and_line_ends(tmp_path):
    text = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\t"A b\t"C" d"\r\n'
    text += '0\t9\t9\tE \u2028 f\x85\tG, "h\r\n'
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / file).write_bytes(text.encode())
    read_rows = rows(read("glue/mrpc", tmp_path).splits["train"])
    assert read_rows == [('"A b', '"C" d"', 1), ("E \u2028 f\x85", 'G, "h', 0)]


def test_cola_has_no_header_and_the_last_line_no_end(tmp_path):
    for file in ("train.tsv", "dev.tsv"):
        (tmp_path / file).write_bytes(b"gj04\t1\t\tHe left.\nbc01\t0\t*\tHim leave.")
    read_rows = rows(read("glue/cola", tmp_path).splits["validation"])
    assert read_rows == [("He left.", 1), ("Him leave.", 0)]


def test_mnli_takes_the_last_column_and_leaves_out_pairs_without_a_majority(tmp_path):
    def line(columns, genre, label1, gold):
        cells = {"genre": genre, "label1": label1, "gold_label": gold}
        cells |= {"sentence1": f"{genre} p", "sentence2": f"{genre} h"}
        return "\t".join(cells.get(column, "( x )") for column in columns)

    dev_columns = [*MNLI_COLUMNS[:-1], "label2", "label3", "label4", "label5", "gold_label"]
    for file, columns, genre in (
        ("train.tsv", MNLI_COLUMNS, "train"),
        ("dev_matched.tsv", dev_columns, "matched"),
        ("dev_mismatched.tsv", dev_columns, "mismatched"),
    ):
        lines = ["\t".join(columns)]
        lines += [line(columns, genre, "neutral", each) for each in ("contradiction", "-")]
        lines.append(line(columns, genre, "contradiction", "entailment"))
        (tmp_path / file).write_text("\n".join(lines) + "\n")
    task = read("glue/mnli", tmp_path)
    assert {name: rows(split) for name, split in task.splits.items()} == {
        "train": [("train p", "train h", 2), ("train p", "train h", 0)],
        "validation": [("matched p", "matched h", 2), ("matched p", "matched h", 0)],
        "validation_mismatched": [
            ("mismatched p", "mismatched h", 2),
            ("mismatched p", "mismatched h", 0),
        ],
    }
    assert task.reported == ("validation", "validation_mismatched")
    limited = load(TaskSpec(name="glue/mnli", data_dir=str(tmp_path), max_validation=1), seed=0)
    assert [len(split) for split in limited.splits.values()] == [2, 1, 1]


def test_a_folder_without_the_task(tmp_path):
    assert f"task.data_dir={tmp_path} has neither SST-2/train.tsv" in error_of(
        "glue/sst2", tmp_path
    )


def test_a_missing_dev_file(rte):
    (rte / "RTE" / "dev.tsv").unlink()
    assert "RTE/dev.tsv: no such file" in error_of("glue/rte", rte)


def test_another_task_s_folder(rte):
    message = error_of("glue/mrpc", rte / "RTE")
    assert (
        "train.tsv, line 1: no column '#1 String', '#2 String', 'Quality' in the header" in message
    )
    assert "this file has index, sentence1, sentence2, label" in message


def test_every_bad_row_is_reported_with_its_line(rte):
    with (rte / "RTE" / "train.tsv").open("a") as file:
        file.write("2\tonly one\tentailment\n\n3\tE.\tF.\tmaybe\n4\tG.\tH.\t-\n")
    assert error_of("glue/rte", rte).splitlines() == [
        f"{rte}/RTE/train.tsv, line 4: 3 tab-separated columns instead of 4",
        f"{rte}/RTE/train.tsv, line 6: unknown label 'maybe' "
        "(accepted: entailment, not_entailment)",
        f"{rte}/RTE/train.tsv, line 7: unknown label '-' (accepted: entailment, not_entailment)",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.tsv is empty"),
        (b"index\tsentence1\tsentence2\tlabel\n", "train.tsv holds no labeled rows"),
        (
            b"index\tsentence1\tsentence2\tlabel\n0\tcaf\xe9\tB\tentailment\n",
            "line 2: not UTF-8 (byte",
        ),
    ],
)
def test_files_that_cannot_be_read(rte, content, message):
    (rte / "RTE" / "train.tsv").write_bytes(content)
    assert message in error_of("glue/rte", rte)


def hub_split(task, classes):
    data = {**{column: ["x", "y"] for column in task.text}, "label": [1, 0], "idx": [0, 1]}
    features = {column: datasets.Value("string") for column in task.text}
    label = datasets.ClassLabel(names=list(classes)) if classes else datasets.Value("float32")
    features |= {"label": label, "idx": datasets.Value("int32")}
    return datasets.Dataset.from_dict(data, features=datasets.Features(features))


@pytest.mark.parametrize("name", TASKS)
def test_the_hub_gives_the_same_columns(monkeypatch, name):
    asked = []

    def load_dataset(*arguments):
        asked.append(arguments)
        return {
            each: hub_split(TASKS[name], TASKS[name].labels)
            for each in (TASKS[name].hub_splits.get(s, s) for s in TASKS[name].splits)
        }

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load(TaskSpec(name=name), seed=0)
    assert asked == [("nyu-mll/glue", name.removeprefix("glue/"))]
    assert list(task.splits) == list(TASKS[name].files)
    for split in task.splits.values():
        assert rows(split) == [("x",) * len(task.text) + (1,), ("y",) * len(task.text) + (0,)]


def test_a_hub_that_numbers_its_classes_otherwise(monkeypatch):
    swapped = hub_split(TASKS["glue/rte"], ("not_entailment", "entailment"))
    hub = {"train": swapped, "validation": swapped}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_: hub)
    with pytest.raises(IwloraError, match="numbers the classes as"):
        load(TaskSpec(name="glue/rte"), seed=0)


@pytest.mark.parametrize(
    "error", [ConnectionError("no network"), ValueError("not in the cache"), FileNotFoundError("?")]
)
def test_without_the_hub_one_sentence_names_the_way_out(monkeypatch, error):
    def load_dataset(*_):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(IwloraError) as caught:
        load(TaskSpec(name="glue/mnli"), seed=0)
    assert str(caught.value) == (
        f"glue/mnli could not be fetched from the hub ({error}): give task.data_dir=FOLDER, "
        "a folder that holds GLUE's MNLI/train.tsv"
    )


def test_a_file_that_leads_out_of_the_folder_is_not_read(rte, tmp_path):
    away = tmp_path.with_name(f"{tmp_path.name}-away.tsv")
    (rte / "RTE" / "dev.tsv").rename(away)
    (rte / "RTE" / "dev.tsv").symlink_to(away)
    assert "dev.tsv is a symbolic link that leads out of" in error_of("glue/rte", rte)
