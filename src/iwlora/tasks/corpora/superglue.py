"""SuperGLUE (Wang et al., 2019, arXiv 1905.00537): BoolQ, CB, COPA, WiC and RTE.

The official JSON Lines files, or the hub's copy. A model reads one text or a pair: of COPA the
premise with its question, and the two choices; of WiC the word with the first sentence, and the
second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import raise_all, read_lines
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.hub import check_classes, fetch
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.task import Task, columns

if TYPE_CHECKING:
    import datasets

HUB_ID = "aps/super_glue"
FILES = {"train": "train.jsonl", "validation": "val.jsonl"}
ACCURACY = ("accuracy",)

Texts = Callable[[Mapping[str, Any]], tuple[str, str]]


@dataclass(frozen=True)
class SuperGlueTask:
    """Where one task's fields are: ``fields`` are needed, ``texts`` makes the pair of them."""

    summary: str
    folder: str
    config: str
    text: tuple[str, str]
    fields: tuple[str, ...]
    texts: Texts
    labels: tuple[str, ...]
    codes: tuple[Any, ...]
    """How the files write the classes, in the order of their ids."""
    metrics: tuple[str, ...] = ACCURACY
    files: Mapping[str, str] = field(default_factory=lambda: FILES)

    @property
    def kind(self) -> Kind:
        """Classes."""
        return Classification()


def _pair(first: str, second: str) -> Texts:
    return lambda row: (row[first], row[second])


def _copa(row: Mapping[str, Any]) -> tuple[str, str]:
    question = "What was the cause?" if row["question"] == "cause" else "What happened as a result?"
    return f"{row['premise']} {question}", f"1: {row['choice1']} 2: {row['choice2']}"


TASKS: Mapping[str, SuperGlueTask] = {
    "superglue/boolq": SuperGlueTask(
        summary="is the answer to the question yes? 9,427 questions with a passage",
        folder="BoolQ",
        config="boolq",
        text=("question", "passage"),
        fields=("question", "passage"),
        texts=_pair("question", "passage"),
        labels=("False", "True"),
        codes=(False, True),
    ),
    "superglue/cb": SuperGlueTask(
        summary="entailment, contradiction or neutral? 250 pairs",
        folder="CB",
        config="cb",
        text=("premise", "hypothesis"),
        fields=("premise", "hypothesis"),
        texts=_pair("premise", "hypothesis"),
        labels=("entailment", "contradiction", "neutral"),
        codes=("entailment", "contradiction", "neutral"),
        metrics=("accuracy", "macro_f1"),
    ),
    "superglue/copa": SuperGlueTask(
        summary="which choice is the cause, or the effect? 400 premises",
        folder="COPA",
        config="copa",
        text=("premise", "choices"),
        fields=("premise", "question", "choice1", "choice2"),
        texts=_copa,
        labels=("choice1", "choice2"),
        codes=(0, 1),
    ),
    "superglue/wic": SuperGlueTask(
        summary="has the word the same meaning in both sentences? 5,428 pairs",
        folder="WiC",
        config="wic",
        text=("sentence1", "sentence2"),
        fields=("word", "sentence1", "sentence2"),
        texts=lambda row: (f"{row['word']}: {row['sentence1']}", row["sentence2"]),
        labels=("False", "True"),
        codes=(False, True),
    ),
    "superglue/rte": SuperGlueTask(
        summary="does the premise entail the hypothesis? 2,490 pairs",
        folder="RTE",
        config="rte",
        text=("premise", "hypothesis"),
        fields=("premise", "hypothesis"),
        texts=_pair("premise", "hypothesis"),
        labels=("entailment", "not_entailment"),
        codes=("entailment", "not_entailment"),
    ),
}


def load(name: str, data_dir: str | None = None) -> Task:
    """The SuperGLUE task ``name``, from a folder or, where ``data_dir`` is None, from the hub.

    ``data_dir`` holds the folders BoolQ, CB, ... or is the task's own folder. Raises
    ``IwloraError`` that names file and line.
    """
    task = TASKS[name]
    splits = _from_hub(name, task) if data_dir is None else _from_folder(task, data_dir)
    return Task(name, task.text, task.labels, splits, task.metrics, kind=task.kind)


def _from_folder(task: SuperGlueTask, data_dir: str) -> dict[str, datasets.Dataset]:
    root = Path(data_dir).expanduser()
    train = FILES["train"]
    folder = root / task.folder if (root / task.folder).is_dir() else root
    if folder == root and not (root / train).is_file():
        raise IwloraError(f"task.data_dir={data_dir} has neither {task.folder}/{train} nor {train}")
    return {split: _read(folder / file, task) for split, file in FILES.items()}


def _read(path: Path, task: SuperGlueTask) -> datasets.Dataset:
    rows: list[tuple[Any, ...]] = []
    problems: list[str] = []
    for number, line in read_lines(path):
        if not line.strip():
            continue
        try:
            row = from_json(line)
            absent = [name for name in (*task.fields, "label") if name not in row]
            if absent:
                raise ValueError(f"no field {', '.join(map(repr, absent))}")
            if row["label"] not in task.codes:
                raise ValueError(f"unknown label {row['label']!r} (accepted: {task.codes})")
            strange = [name for name in task.fields if not isinstance(row[name], str)]
            if strange:
                raise ValueError(f"no text in field {', '.join(map(repr, strange))}")
            if not all(isinstance(row[name], str) for name in task.fields):
                raise ValueError(f"one of {', '.join(task.fields)} is no text")
            rows.append((*task.texts(row), task.codes.index(row["label"])))
        except (ValueError, TypeError) as error:
            problems.append(f"{path}, line {number}: {error}")
    raise_all(problems)
    if not rows:
        raise IwloraError(f"{path} holds no rows")
    return columns(task.text, rows)


def _from_hub(name: str, task: SuperGlueTask) -> dict[str, datasets.Dataset]:
    hub = fetch(name, HUB_ID, task.config, f"SuperGLUE's {task.folder}/{FILES['train']}")
    splits = {}
    for split in FILES:
        check_classes(name, hub[split], "label", task.labels)
        splits[split] = columns(task.text, [(*task.texts(row), row["label"]) for row in hub[split]])
    return splits
