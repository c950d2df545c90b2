"""GLUE (Wang et al., 2019, arXiv 1804.07461): the official TSV files, or the hub's copy of them.

The official files hold stray, unbalanced quotation marks, so a field ends at a tab and nothing
else; MRPC starts with a byte-order mark; CoLA has no header line; MNLI keeps its class in the last
of many columns and marks pairs without a majority by ``-``, which are left out; some rows of QQP
are short, and are left out and counted. Class ids are the hub's. GLUE scores RTE by accuracy; F1 is
given as well, its positive class is ``entailment``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import raise_all, read_lines
from iwlora.tasks.corpora.hub import check_classes, fetch
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.task import Task, columns

if TYPE_CHECKING:
    import datasets

HUB_ID = "nyu-mll/glue"
TRAIN_DEV = {"train": "train.tsv", "validation": "dev.tsv"}


@dataclass(frozen=True)
class GlueTask:
    """Where one task's fields are: ``text`` maps our names to the files' column names."""

    summary: str
    folder: str
    config: str
    text: Mapping[str, str]
    label: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    positive: int = 1
    codes: tuple[str, ...] = ("0", "1")
    """How the files write the classes, in the order of their ids."""
    files: Mapping[str, str] = field(default_factory=lambda: TRAIN_DEV)
    header: tuple[str, ...] | None = None
    """The columns of files without a header line; None: the first line names them."""
    unlabelled: str | None = None
    """The code of rows without a class, which are left out."""
    short_rows: bool = False
    """Whether the official files have rows without their last columns, which are left out."""
    hub_splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "validation"}
    )

    @property
    def kind(self) -> Kind:
        """Classes, or a number where there are none."""
        return Classification() if self.labels else Regression()


TASKS: Mapping[str, GlueTask] = {
    "glue/rte": GlueTask(
        summary="does the first sentence entail the second? 2,490 pairs",
        folder="RTE",
        config="rte",
        text={"sentence1": "sentence1", "sentence2": "sentence2"},
        label="label",
        labels=("entailment", "not_entailment"),
        codes=("entailment", "not_entailment"),
        metrics=("accuracy", "f1"),
        positive=0,
    ),
    "glue/sst2": GlueTask(
        summary="is the film review positive? 67,349 phrases",
        folder="SST-2",
        config="sst2",
        text={"sentence": "sentence"},
        label="label",
        labels=("negative", "positive"),
        metrics=("accuracy",),
    ),
    "glue/mrpc": GlueTask(
        summary="do the two sentences say the same? 3,668 pairs",
        folder="MRPC",
        config="mrpc",
        text={"sentence1": "#1 String", "sentence2": "#2 String"},
        label="Quality",
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    "glue/cola": GlueTask(
        summary="is the sentence acceptable English? 8,551 sentences",
        folder="CoLA",
        config="cola",
        text={"sentence": "sentence"},
        label="label",
        labels=("unacceptable", "acceptable"),
        metrics=("matthews_correlation",),
        header=("source", "label", "mark", "sentence"),
    ),
    "glue/stsb": GlueTask(
        summary="how alike are the two sentences, from 0 to 5? 5,749 pairs",
        folder="STS-B",
        config="stsb",
        text={"sentence1": "sentence1", "sentence2": "sentence2"},
        label="score",
        labels=(),
        metrics=("pearson", "spearman"),
    ),
    "glue/qqp": GlueTask(
        summary="do the two questions ask the same? 363,846 pairs",
        folder="QQP",
        config="qqp",
        text={"question1": "question1", "question2": "question2"},
        label="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        short_rows=True,
    ),
    "glue/qnli": GlueTask(
        summary="does the sentence answer the question? 104,743 pairs",
        folder="QNLI",
        config="qnli",
        text={"question": "question", "sentence": "sentence"},
        label="label",
        labels=("entailment", "not_entailment"),
        codes=("entailment", "not_entailment"),
        metrics=("accuracy",),
        positive=0,
    ),
    "glue/wnli": GlueTask(
        summary="does the sentence with the pronoun filled in follow? 635 pairs",
        folder="WNLI",
        config="wnli",
        text={"sentence1": "sentence1", "sentence2": "sentence2"},
        label="label",
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
    ),
    "glue/mnli": GlueTask(
        summary="entailment, neutral or contradiction? 392,702 pairs, two validation sets",
        folder="MNLI",
        config="mnli",
        text={"premise": "sentence1", "hypothesis": "sentence2"},
        label="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        codes=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        files={
            "train": "train.tsv",
            "validation": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
        },
        unlabelled="-",
        hub_splits={
            "train": "train",
            "validation": "validation_matched",
            "validation_mismatched": "validation_mismatched",
        },
    ),
}


def load(name: str, data_dir: str | None = None) -> Task:
    """The GLUE task ``name``, from the folder ``data_dir`` or, where it is None, from the hub.

    ``data_dir`` holds the folders RTE, SST-2, ... or is the task's own folder. Raises
    ``IwloraError`` that names file and line, or the way out when the hub cannot be reached.

    >>> load("glue/rte", data_dir="no/such")
    Traceback (most recent call last):
    iwlora.errors.IwloraError: task.data_dir=no/such has neither RTE/train.tsv nor train.tsv
    """
    task = TASKS[name]
    notes: list[str] = []
    splits = _from_hub(name, task) if data_dir is None else _from_folder(task, data_dir, notes)
    if "f1" in task.metrics:
        notes.append(f"f1 counts the class {task.labels[task.positive]!r} as positive")
    text = tuple(task.text)
    return Task(
        name, text, task.labels, splits, task.metrics, task.positive, tuple(notes), task.kind
    )


def _from_folder(task: GlueTask, data_dir: str, notes: list[str]) -> dict[str, datasets.Dataset]:
    root = Path(data_dir).expanduser()
    train = task.files["train"]
    folder = root / task.folder if (root / task.folder).is_dir() else root
    if folder == root and not (root / train).is_file():
        raise IwloraError(f"task.data_dir={data_dir} has neither {task.folder}/{train} nor {train}")
    return {split: read_tsv(folder / file, task, notes) for split, file in task.files.items()}


def read_tsv(path: Path, task: GlueTask, notes: list[str]) -> datasets.Dataset:
    """One official file as a split with ``task``'s text columns and class ids, or numbers.

    Raises ``IwloraError`` that names the file, and the line of every row with a wrong number of
    columns or an unknown label. What is left out is added to ``notes``.
    """
    lines = read_lines(path)
    header = task.header or tuple(next(lines)[1].split("\t"))
    wanted = [*task.text.values(), task.label]
    missing = [name for name in wanted if name not in header]
    if missing:
        raise IwloraError(
            f"{path}, line 1: no column {', '.join(map(repr, missing))} in the header; "
            f"{task.folder} has {', '.join(wanted)}, this file has {', '.join(header)}"
        )
    places = [header.index(name) for name in task.text.values()]
    label = header.index(task.label)
    rows: list[tuple[Any, ...]] = []
    problems: list[str] = []
    short = 0
    for number, line in lines:
        fields = line.split("\t")
        if not line:
            continue
        if len(fields) < len(header) and task.short_rows:
            short += 1
        elif len(fields) != len(header):
            problems.append(
                f"{path}, line {number}: {len(fields)} tab-separated columns instead of "
                f"{len(header)}"
            )
        elif fields[label] != task.unlabelled:
            try:
                rows.append((*(fields[place] for place in places), _label(task, fields[label])))
            except ValueError as error:
                problems.append(f"{path}, line {number}: unknown label {error}")
    raise_all(problems)
    if short:
        notes.append(f"{path}: {short} rows with missing columns are left out")
    if not rows:
        raise IwloraError(f"{path} holds no labelled rows")
    return columns(tuple(task.text), rows, task.kind)


def _label(task: GlueTask, code: str) -> int | float:
    """The class id, or the number; the ``ValueError`` says what is accepted."""
    if not task.labels:
        return float(Regression().label(code))
    if code not in task.codes:
        raise ValueError(f"{code!r} (accepted: {', '.join(task.codes)})")
    return task.codes.index(code)


def _from_hub(name: str, task: GlueTask) -> dict[str, datasets.Dataset]:
    hub = fetch(name, HUB_ID, task.config, f"GLUE's {task.folder}/{task.files['train']}")
    splits = {}
    for ours, theirs in task.hub_splits.items():
        split = hub[theirs]
        if task.labels:
            check_classes(name, split, "label", task.labels)
        rows = zip(*(split[column][:] for column in (*task.text, "label")), strict=True)
        splits[ours] = columns(tuple(task.text), list(rows), task.kind)
    return splits
