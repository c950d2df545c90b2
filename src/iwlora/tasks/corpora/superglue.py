"""SuperGLUE (Wang et al., 2019, arXiv 1905.00537): BoolQ, CB, COPA, WiC and RTE.

The official JSON Lines files, or the hub's copy. A model reads a pair of texts. COPA: the premise
with its question, and the two choices. WiC: the word with the first sentence, and the second
sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iwlora.errors import BadRow
from iwlora.inputs.lines import read_lines
from iwlora.inputs.yaml_json import from_json
from iwlora.tasks.corpora.corpus import BenchmarkCorpus, Row, parse_records

FILES = {"train": "train.jsonl", "validation": "val.jsonl"}

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class SuperGlueCorpus(BenchmarkCorpus):
    """One task of SuperGLUE, and the fields of its official files."""

    benchmark = "SuperGLUE"
    hub_id: str | None = "aps/super_glue"
    files: Mapping[str, str] = field(default_factory=lambda: FILES)
    fields: tuple[str, ...] = ()
    """The fields that hold text, where they differ from ``text``."""
    make_texts: Callable[[Record], tuple[str, str]] | None = None
    """The pair of texts made of ``fields``; None: ``text`` as it is."""
    codes: tuple[Any, ...] = ()
    """How the files write the classes, in the order of their ids, where they differ from
    ``labels``."""

    def texts(self, record: Record) -> tuple[Any, ...]:
        """The texts of a record."""
        return self.make_texts(record) if self.make_texts else tuple(record[n] for n in self.text)

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """The rows of a JSON Lines file; ``IwloraError`` lists the lines that are malformed."""
        path = self.file(folder, split)
        return parse_records((split, path), "line", read_lines(path), self._parse, bad)

    def _parse(self, line: str) -> Row | None:
        """``(*texts, class id)`` of a line; the ``ValueError`` says what is wrong with it."""
        if not line.strip():
            return None
        record = from_json(line)
        if not isinstance(record, dict):
            raise ValueError(f"a {type(record).__name__} instead of a JSON object")
        fields = self.fields or self.text
        missing = [name for name in (*fields, "label") if name not in record]
        if missing:
            raise ValueError(f"no field {', '.join(map(repr, missing))}")
        codes = self.codes or self.labels
        if record["label"] not in codes:
            raise ValueError(f"unknown label {record['label']!r} (accepted: {codes})")
        not_text = [name for name in fields if not isinstance(record[name], str)]
        if not_text:
            raise ValueError(f"no text in field {', '.join(map(repr, not_text))}")
        return (*self.texts(record), codes.index(record["label"]))

    def hub_rows(self, records: Any) -> Sequence[Row]:
        """The rows of the hub's copy, which has the fields of the files."""
        return [(*self.texts(record), record["label"]) for record in records]


def _copa_texts(record: Record) -> tuple[str, str]:
    is_cause = record["question"] == "cause"
    question = "What was the cause?" if is_cause else "What happened as a result?"
    return f"{record['premise']} {question}", f"1: {record['choice1']} 2: {record['choice2']}"


def _wic_texts(record: Record) -> tuple[str, str]:
    return f"{record['word']}: {record['sentence1']}", record["sentence2"]


TASKS: Mapping[str, SuperGlueCorpus] = {
    "superglue/boolq": SuperGlueCorpus(
        summary="is the answer to the question yes? 9,427 questions with a passage",
        folder="BoolQ",
        text=("question", "passage"),
        labels=("False", "True"),
        codes=(False, True),
    ),
    "superglue/cb": SuperGlueCorpus(
        summary="entailment, contradiction or neutral? 250 pairs",
        folder="CB",
        text=("premise", "hypothesis"),
        labels=("entailment", "contradiction", "neutral"),
        metrics=("accuracy", "macro_f1"),
    ),
    "superglue/copa": SuperGlueCorpus(
        summary="which choice is the cause, or the effect? 400 premises",
        folder="COPA",
        text=("premise", "choices"),
        fields=("premise", "question", "choice1", "choice2"),
        make_texts=_copa_texts,
        labels=("choice1", "choice2"),
        codes=(0, 1),
    ),
    "superglue/wic": SuperGlueCorpus(
        summary="does the word have the same meaning in both sentences? 5,428 pairs",
        folder="WiC",
        text=("sentence1", "sentence2"),
        fields=("word", "sentence1", "sentence2"),
        make_texts=_wic_texts,
        labels=("False", "True"),
        codes=(False, True),
    ),
    "superglue/rte": SuperGlueCorpus(
        summary="does the premise entail the hypothesis? 2,490 pairs",
        folder="RTE",
        text=("premise", "hypothesis"),
        labels=("entailment", "not_entailment"),
    ),
}
