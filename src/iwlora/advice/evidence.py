"""What was measured of the choices that the advice is about: the table ``evidence.csv``.

This file alone knows the table's columns and what they may hold. The table is filled from studies
whose commands are in this repository; ``source`` names them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from iwlora.errors import raise_all, short_repr, unknown
from iwlora.inputs.limits import Count, Number
from iwlora.inputs.tables.delimited import read_fields
from iwlora.tasks.kinds import KINDS

Verdict = Literal["better", "worse", "within", "open", "lead"]
"""better, worse: the whole interval is above, or below, 0. within: the difference is smaller than
the one that matters. open: none of these is shown. lead: few draws without an interval, no
verdict."""

FILE = Path(__file__).with_suffix(".csv")
_NEAR = 2.0  # a share of parameters up to so many times another one is of the same size
_FEW_ROWS = 500  # up to so many training rows a row of the table is about few rows
_FEW_STEPS = 50  # up to so many steps it is about a training that is cut short

LABELS = {
    "query-value": "LoRA at the queries and values of all blocks",
    "last-third": "LoRA at all matrices of the last third of the blocks",
    "last-block": "LoRA at all matrices of the last block",
    "important-sites": "LoRA at the matrices with the largest s² / (d_in + d_out) on the task",
    "unimportant-sites": "LoRA at those with the smallest",
    "random-sites": "LoRA at random matrices, as many parameters as the choice",
    "without-unimportant-sites": "LoRA at all matrices but those with the smallest",
    "without-random-sites": "LoRA at all matrices but random ones, of the same size as the choice",
    "iw-lora-repaired": "iw-lora with normalize=max and alpha=0.01",
    "iw-lora-repaired-permuted": "iw-lora-permuted with the same options",
    "uniform-penalty": "lora-uniform-penalty with the same options",
    "learning-rate-x1": "a learning rate",
    "learning-rate-x3": "three times that learning rate",
}
"""What the labels mean that are no method's name. Beside them there is ``rank-N-everywhere``, LoRA
of rank N at all matrices, for a choice of matrices or of a rank. For a method, ``lora`` is LoRA
with as many parameters. The arms of the study have the same labels."""


def _blank_is_none(value: Any) -> Any:
    return None if value == "" else value


def _whole_number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else value


def _known_kind(value: str) -> str:
    if value not in KINDS:
        raise ValueError(str(unknown("kind of task", value, KINDS)))
    return value


_Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.+-]*$")]
_Text = Annotated[str, Field(min_length=1)]
_CountOrBlank = Annotated[
    Count | None, BeforeValidator(_whole_number), BeforeValidator(_blank_is_none)
]
_NumberOrBlank = Annotated[Number | None, BeforeValidator(_blank_is_none)]


class Evidence(BaseModel):
    """One row: what a choice scored minus what its baseline scored.

    ``choice`` and ``baseline`` are labels: methods by their names (``adalora``), or what is adapted
    and how, such as ``rank-1-everywhere`` or ``query-value``, see :data:`LABELS`. ``difference`` is
    in points: 100 times that of the task's primary metric; [``low``, ``high``] is its 95% interval.
    ``draws`` is the number of paired draws; of a lead, that of the arm with fewer.
    ``flipped_labels`` is the share of the training rows that got another class at random.
    ``share_of_rank_8`` is ``adapter_parameters`` divided by those of LoRA of rank 8 on all
    matrices. A cell may be blank where a row is about several tasks, or nothing was counted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    choice: _Label
    baseline: _Label
    task: _Text
    kind: Annotated[str, Field(min_length=1), BeforeValidator(_known_kind)]
    model: _Text
    training_rows: _CountOrBlank
    flipped_labels: Annotated[Number, Field(ge=0, lt=1)]
    steps: _CountOrBlank
    adapter_parameters: _CountOrBlank
    share_of_rank_8: _NumberOrBlank
    difference: Number
    low: _NumberOrBlank
    high: _NumberOrBlank
    draws: Annotated[Count, BeforeValidator(_whole_number)]
    verdict: Verdict
    source: _Text

    @model_validator(mode="after")
    def _check_interval(self) -> Evidence:
        low, high, given = self.low, self.high, f"low={self.low}, high={self.high}"
        if self.verdict == "lead":
            if low is not None or high is not None:
                raise ValueError(f"{given} was given for a lead, which has no interval")
            return self
        if low is None or high is None or not low <= self.difference <= high:
            raise ValueError(
                f"{given} was given; accepted is an interval around difference={self.difference}, "
                "or verdict=lead without one"
            )
        if (self.verdict == "better" and low <= 0) or (self.verdict == "worse" and high >= 0):
            raise ValueError(f"verdict={self.verdict} was given, and the interval contains 0")
        return self

    def allows_fewer(self, model: str, training_rows: int) -> bool:
        """Whether it is reason enough to prefer a choice with fewer parameters to its baseline.

        It is for the same model and at most twice as many training rows as were measured, since
        more rows may need more parameters.

        Args:
            model: the model that the advice is for.
            training_rows: of the task.
        """
        measured = self.training_rows is not None and training_rows <= 2 * self.training_rows
        return measured and self.model == model and self.verdict in ("better", "within")

    @property
    def has_few_rows(self) -> bool:
        """Whether it is about few training rows."""
        return self.training_rows is not None and self.training_rows <= _FEW_ROWS

    @property
    def special_regime(self) -> str:
        """What sets its trainings apart, such as ``40% flipped labels``; empty if nothing does."""
        steps = self.steps if self.steps is not None and self.steps <= _FEW_STEPS else None
        parts = [
            f"{self.flipped_labels:.0%} flipped labels" if self.flipped_labels else "",
            f"{self.training_rows:,} training rows" if self.has_few_rows else "",
            f"{steps:,} steps" if steps else "",
        ]
        return ", ".join(part for part in parts if part)

    def applies(self, training_rows: int) -> bool:
        """Whether it says something of a training on so many rows with their own labels.

        A row about flipped labels or very few steps never does. One about few training rows does
        for few rows.
        """
        if self.flipped_labels or (self.steps is not None and self.steps <= _FEW_STEPS):
            return False
        return training_rows <= _FEW_ROWS or not self.has_few_rows

    def sentence(self) -> str:
        """The row in words."""
        interval = "" if self.low is None else f" [{self.low:+.2f}, {self.high:+.2f}]"
        verdict = "a lead, no verdict" if self.verdict == "lead" else self.verdict
        rows = "" if self.training_rows is None else f", {self.training_rows:,} training rows"
        flipped = f", {self.flipped_labels:.0%} flipped labels" if self.flipped_labels else ""
        steps = "" if self.steps is None else f", {self.steps:,} steps"
        draws = f"{self.draws} draw{'s' * (self.draws != 1)}"
        return (
            f"{self.choice} against {self.baseline}: {self.difference:+.2f} points{interval}, "
            f"{verdict} ({draws}; {self.task} with {self.model}{rows}{flipped}{steps}; "
            f"{self.source})"
        )


COLUMNS = tuple(Evidence.model_fields)


class Table:
    """The rows of the table, and those that are about a question.

    Args:
        rows: the rows.
    """

    def __init__(self, rows: Iterable[Evidence]) -> None:
        self.rows = tuple(rows)

    def find(
        self,
        choice: str,
        baseline: str,
        kind: str,
        model: str | None = None,
        share: float | None = None,
        training_rows: int | None = None,
    ) -> Evidence | None:
        """The row that says most of a choice, or None if it was not measured for this kind.

        Rows with an interval come before leads, rows about few training rows before others where
        the task has few and after them where not, rows of the same model before others, and of
        these the one with the most draws.

        Args:
            choice: its label.
            baseline: the label of what it is compared with.
            kind: the name of the kind of task, such as ``classification``.
            model: the model that the advice is for.
            share: where given, only rows whose ``share_of_rank_8`` is up to twice as large or as
                small.
            training_rows: of the task: only rows that apply to it; None: rows of all regimes.

        Example:
            >>> row = read_evidence().find("adalora", "lora", "classification")
            >>> row.verdict, row.draws
            ('open', 32)
        """
        matching = [
            row
            for row in self.rows
            if (row.choice, row.baseline, row.kind) == (choice, baseline, kind)
            and (share is None or _is_near(row.share_of_rank_8, share))
            and (training_rows is None or row.applies(training_rows))
        ]
        few = training_rows is not None and training_rows <= _FEW_ROWS
        return max(
            matching,
            key=lambda row: (
                row.verdict != "lead",
                row.has_few_rows == few,
                row.model == model,
                row.draws,
            ),
            default=None,
        )

    def choices(self, baseline: str, kind: str) -> list[str]:
        """The choices that were compared with a baseline on a kind of task."""
        rows = (row for row in self.rows if (row.baseline, row.kind) == (baseline, kind))
        return list(dict.fromkeys(row.choice for row in rows))


def read_evidence(path: str | Path = FILE) -> Table:
    """Read and check the table.

    Args:
        path: a CSV file; by default the table that comes with iwlora.

    Raises:
        IwloraError: a column is unknown or missing, or a cell holds what is not accepted; it lists
            all problems with their lines.
    """
    lines = read_fields(str(path))
    _, header = next(lines, (1, []))
    problems = [
        f"{path}, line 1: {unknown('column', name, COLUMNS)}"
        for name in header
        if name not in COLUMNS
    ]
    problems += [f"{path}, line 1: no column {name!r}" for name in COLUMNS if name not in header]
    problems += [f"{path}, line 1: two columns {n!r}" for n in COLUMNS if header.count(n) > 1]
    raise_all(problems)
    rows: list[Evidence] = []
    for line, fields in lines:
        if len(fields) != len(header):
            problems.append(f"{path}, line {line}: {len(fields)} cells instead of {len(header)}")
            continue
        try:
            rows.append(Evidence.model_validate(dict(zip(header, fields, strict=True))))
        except ValidationError as error:
            problems += [f"{path}, line {line}: {_describe(problem)}" for problem in error.errors()]
    raise_all(problems)
    return Table(rows)


def evidence_csv(rows: Sequence[Evidence]) -> str:
    """The rows as the text of a file that :func:`read_evidence` reads back."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(row.model_dump() for row in rows)
    return text.getvalue()


def _describe(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return str(message)
    return f"{problem['loc'][0]}={short_repr(problem['input'])}: {message}"


def _is_near(share: float | None, wanted: float) -> bool:
    return share is not None and share > 0 and abs(math.log(share / wanted)) <= math.log(_NEAR)


def not_measured(choice: str, baseline: str, kind: str, elsewhere: Evidence | None = None) -> str:
    """What is said in place of a row that is not there, or that does not apply to the task."""
    if elsewhere is not None:
        return f"measured with {elsewhere.special_regime} only: {elsewhere.sentence()}"
    return f"{choice} against {baseline}: not measured for this kind ({kind})"
