"""SQuAD 1.1 and 2.0 (Rajpurkar et al., 2016, arXiv 1606.05250; 2018, arXiv 1806.03822).

The official JSON files, or the hub's copy. All answers of the dev file are kept: a prediction is
scored against the best match among them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iwlora.errors import BadRow, IwloraError
from iwlora.inputs.lines import read_text
from iwlora.inputs.tables.squad import squad_questions, squad_row
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.corpus import Corpus, Row, parse_records
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

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """The questions of a file."""
        path = folder / self.files[split]
        text = read_text(path)
        try:
            questions = list(squad_questions(from_json(text)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IwloraError(f"{path} is not a file of SQuAD: {error!r}") from None
        return parse_records((split, path), "question", questions, self._parse, bad)

    def _parse(self, record: tuple[Any, Any]) -> Row:
        row = squad_row(*record)
        question, context = row["question"], row["context"]
        if not isinstance(question, str) or not isinstance(context, str):
            raise ValueError("the question or its passage is not a text")
        texts = (question.strip(), context)
        return (*texts, self.kind.complete_label(texts, self.kind.parse_label(row["answers"])))

    def hub_rows(self, records: Any) -> Sequence[Row]:
        """The rows of the hub's copy, which calls the label ``answers``."""
        return [(record["question"], record["context"], record["answers"]) for record in records]


TASKS: Mapping[str, SquadCorpus] = {
    "squad/v1.1": SquadCorpus(
        summary="which span of the passage answers the question? 87,599 questions",
        version="1.1",
        hub_id="rajpurkar/squad",
        kind=QuestionAnswering(),
    ),
    "squad/v2.0": SquadCorpus(
        summary="as v1.1, but a third of the questions have no answer; 130,319 questions",
        version="2.0",
        hub_id="rajpurkar/squad_v2",
        kind=QuestionAnswering(no_answer=True),
    ),
}
