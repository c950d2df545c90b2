"""GLUE (Wang et al., 2019, arXiv 1804.07461): the official TSV files, or the hub's copy of them.

The official files hold stray, unbalanced quotation marks, so only a tab ends a field. MRPC starts
with a byte-order mark. CoLA has no header line. MNLI keeps its class in the last of many columns,
and marks pairs without a majority label by ``-``; these are left out. Some rows of QQP are too
short; they are left out and counted. Class ids are the hub's. GLUE scores RTE by
accuracy; F1 is computed too, for the class ``entailment``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from iwlora.errors import BadRow, IwloraError
from iwlora.inputs.lines import read_lines
from iwlora.tasks.corpora.corpus import BenchmarkCorpus, Row, parse_records
from iwlora.tasks.kinds.regression import Regression


@dataclass(frozen=True, kw_only=True)
class GlueCorpus(BenchmarkCorpus):
    """One task of GLUE, and the columns of its official files."""

    benchmark = "GLUE"
    hub_id: str | None = "nyu-mll/glue"
    text: tuple[str, ...] = ("sentence1", "sentence2")
    files: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train.tsv", "validation": "dev.tsv"}
    )
    file_columns: tuple[str, ...] = ()
    """What the files call the text columns, where it differs from ``text``."""
    label_column: str = "label"
    codes: tuple[str, ...] = ("0", "1")
    """How the files write the classes, in the order of their ids."""
    header: tuple[str, ...] | None = None
    """The columns of files without a header line; None: the first line names them."""
    unlabeled: str | None = None
    """The code of rows without a class, which are left out."""
    short_rows: bool = False
    """Whether the official files have rows without their last columns, which are left out."""

    @property
    def columns(self) -> tuple[str, ...]:
        """What the files call the text columns and the label column."""
        return (*(self.file_columns or self.text), self.label_column)

    def file_rows(
        self, folder: Path, split: str, notes: list[str], bad: list[BadRow]
    ) -> Sequence[Row]:
        """The rows of a TSV file with class ids, or numbers.

        Raises ``IwloraError`` that names the file, and the line of every row with a wrong number
        of columns or an unknown label.
        """
        path = self.file(folder, split)
        lines = read_lines(path)
        header = self.header or tuple(next(lines)[1].split("\t"))
        *text_indices, label_index = self._column_indices(path, header)
        short_rows = 0

        def parse(line: str) -> Row | None:
            nonlocal short_rows
            fields = line.split("\t")
            if line and len(fields) < len(header) and self.short_rows:
                short_rows += 1
                return None
            if line and len(fields) != len(header):
                raise ValueError(f"{len(fields)} tab-separated columns instead of {len(header)}")
            if not line or fields[label_index] == self.unlabeled:
                return None
            texts = [fields[index] for index in text_indices]
            return (*texts, self._parse_label(fields[label_index]))

        rows = parse_records((split, path), "line", lines, parse, bad)
        if short_rows:
            notes.append(f"{path}: {short_rows} rows with missing columns are left out")
        return rows

    def _column_indices(self, path: Path, header: tuple[str, ...]) -> list[int]:
        missing = [name for name in self.columns if name not in header]
        if missing:
            raise IwloraError(
                f"{path}, line 1: no column {', '.join(map(repr, missing))} in the header; "
                f"{self.folder} has {', '.join(self.columns)}, this file has {', '.join(header)}"
            )
        return [header.index(name) for name in self.columns]

    def _parse_label(self, code: str) -> int | float:
        """The class id, or the number; the ``ValueError`` says what is accepted."""
        if not self.labels:
            return float(self.kind.parse_label(code))
        if code not in self.codes:
            raise ValueError(f"unknown label {code!r} (accepted: {', '.join(self.codes)})")
        return self.codes.index(code)


TASKS: Mapping[str, GlueCorpus] = {
    "glue/rte": GlueCorpus(
        summary="does the first sentence entail the second? 2,490 pairs",
        folder="RTE",
        labels=("entailment", "not_entailment"),
        codes=("entailment", "not_entailment"),
        metrics=("accuracy", "f1"),
        positive=0,
    ),
    "glue/sst2": GlueCorpus(
        summary="is the film review positive? 67,349 phrases",
        folder="SST-2",
        text=("sentence",),
        labels=("negative", "positive"),
    ),
    "glue/mrpc": GlueCorpus(
        summary="do the two sentences say the same? 3,668 pairs",
        folder="MRPC",
        file_columns=("#1 String", "#2 String"),
        label_column="Quality",
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    "glue/cola": GlueCorpus(
        summary="is the sentence acceptable English? 8,551 sentences",
        folder="CoLA",
        text=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews_correlation",),
        header=("source", "label", "mark", "sentence"),
    ),
    "glue/stsb": GlueCorpus(
        summary="how similar are the two sentences, from 0 to 5? 5,749 pairs",
        folder="STS-B",
        label_column="score",
        kind=Regression(),
        metrics=("pearson", "spearman"),
    ),
    "glue/qqp": GlueCorpus(
        summary="do the two questions ask the same? 363,846 pairs",
        folder="QQP",
        text=("question1", "question2"),
        label_column="is_duplicate",
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
        short_rows=True,
    ),
    "glue/qnli": GlueCorpus(
        summary="does the sentence answer the question? 104,743 pairs",
        folder="QNLI",
        text=("question", "sentence"),
        labels=("entailment", "not_entailment"),
        codes=("entailment", "not_entailment"),
        positive=0,
    ),
    "glue/wnli": GlueCorpus(
        summary="does the sentence with the pronoun filled in follow? 635 pairs",
        folder="WNLI",
        labels=("not_entailment", "entailment"),
    ),
    "glue/mnli": GlueCorpus(
        summary="entailment, neutral or contradiction? 392,702 pairs, two validation sets",
        folder="MNLI",
        text=("premise", "hypothesis"),
        file_columns=("sentence1", "sentence2"),
        label_column="gold_label",
        labels=("entailment", "neutral", "contradiction"),
        codes=("entailment", "neutral", "contradiction"),
        splits=("train", "validation", "validation_mismatched"),
        files={
            "train": "train.tsv",
            "validation": "dev_matched.tsv",
            "validation_mismatched": "dev_mismatched.tsv",
        },
        unlabeled="-",
        hub_splits={"validation": "validation_matched"},
    ),
}
