"""SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016, arXiv 1606.05250; 2018, arXiv 1806.03822).

The official JSON files, or the hub's copy. The answers of the dev file are all kept: a prediction
is scored against the best of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import existing, raise_all
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.hub import fetch
from iwlora.tasks.kinds.question_answering import QuestionAnswering
from iwlora.tasks.task import Task, columns

if TYPE_CHECKING:
    import datasets

TEXT = ("question", "context")


@dataclass(frozen=True)
class SquadTask:
    """One of the two versions."""

    summary: str
    version: str
    hub_id: str
    kind: QuestionAnswering
    metrics: tuple[str, ...] = ("f1", "exact_match")

    @property
    def files(self) -> Mapping[str, str]:
        """The official names."""
        return {
            "train": f"train-v{self.version}.json",
            "validation": f"dev-v{self.version}.json",
        }


TASKS: Mapping[str, SquadTask] = {
    "squad/v1.1": SquadTask(
        "which span of the passage answers the question? 87,599 questions",
        "1.1",
        "rajpurkar/squad",
        QuestionAnswering(),
    ),
    "squad/v2.0": SquadTask(
        "the same, and a third of the questions has no answer; 130,319 questions",
        "2.0",
        "rajpurkar/squad_v2",
        QuestionAnswering(no_answer=True),
    ),
}


def load(name: str, data_dir: str | None = None) -> Task:
    """SQuAD from the folder ``data_dir`` or, where it is None, from the hub.

    Raises ``IwloraError`` that names the file, and the question that is malformed.
    """
    task = TASKS[name]
    if data_dir is None:
        hub = fetch(name, task.hub_id, None, f"SQuAD's {task.files['train']}")
        splits = {
            split: columns(
                TEXT,
                [(row["question"], row["context"], row["answers"]) for row in hub[split]],
                task.kind,
            )
            for split in task.files
        }
    else:
        folder = Path(data_dir).expanduser()
        splits = {split: _read(folder / file, task) for split, file in task.files.items()}
    return Task(name, TEXT, (), splits, task.metrics, kind=task.kind)


def _read(path: Path, task: SquadTask) -> datasets.Dataset:
    try:
        articles = from_json(existing(path).read_text(encoding="utf-8-sig"))["data"]
        questions = list(_questions(articles))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IwloraError(f"{path} is not a file of SQuAD: {error!r}") from None
    rows: list[tuple[Any, ...]] = []
    problems: list[str] = []
    for identity, question, context, answers in questions:
        try:
            if not isinstance(question, str) or not isinstance(context, str):
                raise ValueError("the question or its passage is no text")
            row = (question.strip(), context, task.kind.label(answers))
            task.kind.check(row)
            rows.append(row)
        except ValueError as error:
            problems.append(f"{path}, question {identity}: {error}")
    raise_all(problems)
    if not rows:
        raise IwloraError(f"{path} holds no questions")
    return columns(TEXT, rows, task.kind)


def _questions(articles: Any) -> Iterator[tuple[str, Any, Any, dict[str, list[Any]]]]:
    """(id, question, passage, answers); where ``is_impossible`` there are none."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for one in paragraph["qas"]:
                given = [] if one.get("is_impossible") else one["answers"]
                answers = {
                    "text": [answer["text"] for answer in given],
                    "answer_start": [answer["answer_start"] for answer in given],
                }
                yield one["id"], one["question"], paragraph["context"], answers
