"""SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016, arXiv 1606.05250; 2018, arXiv 1806.03822).

The official JSON files, or the hub's copy. All answers of the dev file are kept: a prediction is
scored against the best match among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.lines import raise_all, read_text
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.corpus import Corpus, Rows
from iwlora.tasks.kinds.question_answering import QuestionAnswering


@dataclass(frozen=True, kw_only=True)
class SquadCorpus(Corpus):
    """One of the two versions."""

    text: tuple[str, ...] = ("question", "context")
    metrics: tuple[str, ...] = ("f1", "exact_match")
    version: str

    @property
    def files(self) -> Mapping[str, str]:
        """The official files."""
        return {"train": f"train-v{self.version}.json", "validation": f"dev-v{self.version}.json"}

    @property
    def layout(self) -> str:
        """The first file."""
        return f"SQuAD's {self.files['train']}"

    def file_rows(self, data_dir: str, split: str, notes: list[str]) -> Rows:
        """The questions of a file; ``IwloraError`` lists those that are malformed."""
        path = Path(data_dir).expanduser() / self.files[split]
        text = read_text(path)
        try:
            questions = list(_questions(from_json(text)["data"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IwloraError(f"{path} is not a file of SQuAD: {error!r}") from None
        rows = []
        problems: list[str] = []
        for identifier, question, context, answers in questions:
            try:
                if not isinstance(question, str) or not isinstance(context, str):
                    raise ValueError("the question or its passage is not a text")
                texts = (question.strip(), context)
                label = self.kind.complete_label(texts, self.kind.parse_label(answers))
                rows.append((*texts, label))
            except ValueError as error:
                problems.append(f"{path}, question {identifier}: {error}")
        raise_all(problems)
        if not rows:
            raise IwloraError(f"{path} holds no questions")
        return rows

    def hub_rows(self, records: Any) -> Rows:
        """The rows of the hub's copy, which calls the label ``answers``."""
        return [(record["question"], record["context"], record["answers"]) for record in records]


def _questions(articles: Any) -> Iterator[tuple[str, Any, Any, dict[str, list[Any]]]]:
    """(id, question, passage, answers); no answers where ``is_impossible`` is true."""
    for article in articles:
        for paragraph in article["paragraphs"]:
            for entry in paragraph["qas"]:
                entries = [] if entry.get("is_impossible") else entry["answers"]
                answers = {
                    "text": [answer["text"] for answer in entries],
                    "answer_start": [answer["answer_start"] for answer in entries],
                }
                yield entry["id"], entry["question"], paragraph["context"], answers


TASKS: Mapping[str, SquadCorpus] = {
    "squad/v1.1": SquadCorpus(
        summary="which span of the passage answers the question? 87,599 questions",
        version="1.1",
        hub_id="rajpurkar/squad",
        kind=QuestionAnswering(),
    ),
    "squad/v2.0": SquadCorpus(
        summary="as v1.1, but a third of the questions has no answer; 130,319 questions",
        version="2.0",
        hub_id="rajpurkar/squad_v2",
        kind=QuestionAnswering(no_answer=True),
    ),
}
