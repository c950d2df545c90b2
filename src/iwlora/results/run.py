"""The result of a run: one checked model that training writes and everything else reads."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field, field_serializer, model_validator
from typing_extensions import Self

from iwlora.errors import IwloraError
from iwlora.inputs.formulas import restore_formula
from iwlora.inputs.tables.delimited import read_fields
from iwlora.inputs.yaml_json import read_mapping, read_utf8
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import Fingerprint, RowDigests
from iwlora.results.formats import (
    DIGEST,
    Document,
    FileName,
    StoredModel,
    check_digest,
    read_log,
    unstamped,
)
from iwlora.results.sensitivity import Sensitivity


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("a name of printable characters is needed")
    return text


def _null_as_nan(value: Any) -> Any:
    return math.nan if value is None else value


def _folder_name(label: str) -> str:
    if "/" in label or "\\" in label or label in {".", ".."}:
        raise ValueError("it names a folder or a file, so it holds no '/' and no '\\'")
    return label


Name = Annotated[str, AfterValidator(_printable)]
Label = Annotated[Name, AfterValidator(_folder_name)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SiteRank(StoredModel):
    """The rank that a method ended with at one matrix."""

    name: Name
    kind: Name
    depth: int
    rank: Amount


class LabelScore(StoredModel):
    """The scores of one class, and the number of scored rows that have it."""

    f1: Amount
    precision: Amount
    recall: Amount
    rows: Count


class FloorScore(StoredModel):
    """The score of a floor, what a simple rule reaches without fine-tuning, beside a run's.

    Args:
        name: What predicts, such as "most frequent class"; a sentence puts "the" before it.
        trivial: Whether a run that learned nothing reaches it, as with the most frequent class;
            not with a bag of words, which reads the texts.
        rows: How many scored rows the metrics and the margin are from; a bounded sample of many.
        metrics: {metric: value} of the floor.
        margin: By how much the run is better in the primary metric, in the metric's unit: positive
            where the run is better, for an error too. None: one of the two is not known.
        low: The lower end of the margin's 95% interval over rows; None: too few rows for one.
        high: The upper end.
    """

    name: Name
    trivial: bool
    rows: Count
    metrics: dict[Name, Annotated[float, Field(allow_inf_nan=False)]]
    margin: Annotated[float, Field(allow_inf_nan=False)] | None = None
    low: Annotated[float, Field(allow_inf_nan=False)] | None = None
    high: Annotated[float, Field(allow_inf_nan=False)] | None = None


class RunResult(Document):
    """What ``result.json`` of a finished run says, or what is known of a run of another tool.

    Fields without a default must be in the file; None means that the value is not known. A score
    from a table (:meth:`from_score`) knows little more than the metric.

    Args:
        method: Name of the fine-tuning method.
        label: The run's name in tables, and of its folder in a comparison.
        model: The backbone, as the recipe names it.
        task: Title of the task.
        seed: Of the task head, the adapter, the order of the rows and dropout.
        metrics: {metric: value}; NaN and infinite values are left out. In the file they are null.
        primary_metric: The metric that runs are compared by.
        signatures: {metric: how it was computed}, such as sacreBLEU's signature.
        label_scores: {class: its scores} on the first reported split, for classification and
            multi-label tasks; empty in runs of older versions.
        floors: What simple rules score on the first reported split; empty in runs of older
            versions and where nothing of the kind is known.
        evaluated_on: The split that is scored.
        selected_on: What chose the parameters that are scored, such as "last checkpoint".
        trainable_parameters: All that trained, ``head_parameters`` of them in the head: the new
            task head and other modules that every method trains beside its adapter.
        adapter_parameters: Those of the adapter that is saved, after pruning.
        train_seconds: Wall time of the training steps; of a run that was resumed at step n > 0
            (``resumed_at_step``) only that of the steps after n.
        measure_seconds: Wall time spent on batches before training.
        examples_per_second: Training examples.
        peak_memory_bytes: Of the GPU, or of the process where there is none.
        train_examples: Rows of the training split.
        left_out_rows: {split: rows that cannot be used}, with ``task.on_bad=skip``.
        epochs: Passes over them.
        learning_rate: The largest of the schedule.
        rank: The value of the method's size field.
        precision: "fp32" or "bf16".
        coverage: The share of the matrix parameters of the model's blocks that the adapted
            matrices have, from 0 to 1; None for a method that does not adapt single matrices.
        ranks: The final rank of each matrix, if the method gives them different ones.
        data_digest: A hash of the training rows and their order.
        head_digest: A hash of the initial values of the head.
        fingerprint: Digests of what the run was computed from; None in runs of older versions.
        files: {path in the run's folder: SHA-256} of what the run left, for ``iwlora verify``.
        head_modules: Paths of the modules that trained and were saved beside the adapter; None in
            runs of version 0.1.0.
        kind: The kind of the task: its ``name`` and its options.
        labels: The classes.
        text: The text columns.
        label_columns: The columns of the user's file that hold the label.
        task_metrics: The metrics of the task, the primary one first.
        notes: What a reader must know about the run.
    """

    format_name: ClassVar[str] = "run"
    is_sealed: ClassVar[bool] = True

    method: Name
    label: Label
    model: Name
    task: Name
    seed: int
    metrics: dict[Name, Annotated[float, BeforeValidator(_null_as_nan)]]
    primary_metric: Name
    evaluated_on: Label | None
    selected_on: Name | None
    trainable_parameters: Count | None
    adapter_parameters: Count | None
    head_parameters: Count | None
    train_seconds: Amount | None
    measure_seconds: Amount | None
    examples_per_second: Amount | None
    peak_memory_bytes: Count | None
    train_examples: Count | None
    epochs: Amount | None
    learning_rate: Amount | None
    precision: Name | None = None
    coverage: Amount | None = None
    rank: Count | None
    ranks: list[SiteRank] = Field(default_factory=list)
    left_out_rows: dict[Name, Count] = Field(default_factory=dict)
    resumed_at_step: Count = 0
    data_digest: Name | None = None
    head_digest: Name | None = None
    fingerprint: Fingerprint | None = None
    files: dict[FileName, str] = Field(default_factory=dict)
    head_modules: list[Name] | None = None
    kind: dict[str, Any] | None = None
    labels: list[str] = Field(default_factory=list)
    text: list[str] = Field(default_factory=list)
    label_columns: list[str] = Field(default_factory=list)
    task_metrics: list[str] = Field(default_factory=list)
    signatures: dict[Name, Name] = Field(default_factory=dict)
    label_scores: dict[str, LabelScore] = Field(default_factory=dict)
    floors: list[FloorScore] = Field(default_factory=list)
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _keep_finite_metrics(self) -> Self:
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric!r} is not among the metrics")
        for name in [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            del self.metrics[name]
        return self

    @field_serializer("metrics")
    def _with_primary_metric(self, metrics: dict[str, float]) -> dict[str, float | None]:
        return {self.primary_metric: None, **metrics}

    @classmethod
    def from_score(
        cls, method: str, task: str, seed: int, metric: str, score: float, **known: Any
    ) -> Self:
        """The result of a run of which only the score is known, and ``known`` fields.

        >>> RunResult.from_score("lora", "glue/rte", 0, "accuracy", 0.7, label="a", model="m").score
        0.7
        """
        required = (name for name, field in cls.model_fields.items() if field.is_required())
        fields = {"method": method, "label": method, "task": task, "seed": seed}
        fields |= {"metrics": {metric: score}, "primary_metric": metric, **known}
        return cls.model_validate({**dict.fromkeys(required), **fields}, strict=False)

    def fields(self) -> dict[str, Any]:
        """All fields, without the coverage where it is unknown, as in runs of older versions."""
        unknown = {"coverage"} if self.coverage is None else set()
        return self.model_dump(mode="json", exclude=unknown)

    @property
    def score(self) -> float | None:
        """The primary metric, or None if it is not a finite number."""
        return self.metrics.get(self.primary_metric)

    @property
    def total_seconds(self) -> float | None:
        """Wall time of measuring and training; None if it is not known in full."""
        if self.train_seconds is None or self.resumed_at_step:
            return None
        return self.train_seconds + (self.measure_seconds or 0.0)


class Status(Document):
    """How a run stands: ``state`` is "running", "failed", "diverged" or "done"."""

    format_name: ClassVar[str] = "status"
    is_sealed: ClassVar[bool] = True

    state: str | None = None
    error: str | None = None

    def fields(self) -> dict[str, Any]:
        """Without an error where there is none."""
        return self.model_dump(exclude_none=True)


def state_of(folder: Path) -> str | None:
    """The state of the run in a folder; None if its file is missing or damaged."""
    try:
        return Status.load(folder / layout.STATUS).state
    except IwloraError:
        return None


def describe_status(folder: Path) -> str:
    """How the run in a folder stands that has no result, for a message.

    Raises ``IwloraError`` for a damaged file.
    """
    path = folder / layout.STATUS
    if not path.exists():
        return "not started"
    status = Status.load(path)
    parts = (f"no {layout.RESULT}; state", status.state, status.error)
    return ": ".join(" ".join(part.split()) for part in parts if part)


@dataclass(frozen=True)
class Run:
    """A finished run: its result, and its folder if it has one."""

    folder: Path | None
    result: RunResult

    def __str__(self) -> str:
        return str(self.folder or f"{self.result.label}, seed {self.result.seed}")

    def relabelled(self, label: str) -> Run:
        """The run under another name."""
        return replace(self, result=self.result.model_copy(update={"label": label}))

    def _file(self, name: str | Path) -> Path | None:
        """A file of the run, None without it; ``IwloraError`` if it is not what the run left."""
        path = self.folder / name if self.folder else None
        if path is None or not path.is_file():
            return None
        expected = self.result.files.get(Path(name).as_posix())
        if expected is not None and file_digest(path) != expected:
            raise IwloraError(f"{path} is damaged: it is not what the run left; restore it")
        return path

    def history(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl``; empty without one.

        Raises ``IwloraError`` for a damaged line.
        """
        path = self._file(layout.METRICS)
        records = read_log(path) if path else ()
        return [unstamped("metrics", record, origin)[0] for origin, record in records]

    def sensitivity(self) -> Sensitivity | None:
        """What the run measured before training; None for a method that measures nothing."""
        path = self._file(layout.SENSITIVITY)
        return Sensitivity.load(path) if path else None

    def environment(self) -> dict[str, Any]:
        """``environment.json``: versions and machine; empty without one."""
        path = self._file(layout.ENVIRONMENT)
        return read_environment(path) if path else {}

    def recipe(self) -> str | None:
        """The text of ``recipe.yaml``."""
        path = self._file(layout.RECIPE)
        return read_utf8(path) if path else None

    def settings(self, fields: Sequence[str]) -> dict[str, Any]:
        """{field: value} of fields of its recipe, such as task.max_train; without unknown ones."""
        path = self._file(layout.RECIPE)
        recipe = read_mapping(path) if path and fields else {}
        known = {}
        for field in fields:
            part, _, name = field.partition(".")
            values = recipe.get(part)
            if isinstance(values, Mapping) and name in values:
                known[field] = values[name]
        return known

    def row_digests(self) -> RowDigests:
        """The digests of its single rows; empty if they are not kept."""
        path = self._file(layout.ROW_DIGESTS)
        return RowDigests.load_if_intact(path) if path else RowDigests()

    def predictions(self) -> tuple[list[str], list[str]] | None:
        """(labels, predictions) of the scored rows; None if they were not kept as classes."""
        return self._predictions

    @property
    def gives_one_answer(self) -> bool:
        """Whether it predicts the same for all scored rows, although their labels differ."""
        kept = self.predictions()
        return kept is not None and len(set(kept[0])) > 1 and len(set(kept[1])) == 1

    @cached_property
    def _predictions(self) -> tuple[list[str], list[str]] | None:
        """What a report asks for many times; each class name is kept once."""
        columns = self.prediction_columns()
        if columns is None:
            return None
        return [*map(intern, columns["label"])], [*map(intern, columns["prediction"])]

    def prediction_columns(self) -> dict[str, list[str]] | None:
        """{column: cells} of the predictions of the scored rows, each with its texts.

        None if they were not kept, or not as a label and a prediction of each row.
        """
        split = self.result.evaluated_on
        path = self._file(layout.predictions_file(Path(), split)) if split else None
        (_, header), *rows = read_fields(str(path)) if path else [(0, list[str]())]
        if not rows or not {"label", "prediction"} <= set(header):
            return None
        for line, row in rows:
            if len(row) != len(header):
                raise IwloraError(
                    f"{path}, line {line}: {len(row)} fields, the header has {len(header)}"
                )
        columns = zip(*(row for _, row in rows), strict=True)
        return {
            name: list(map(restore_formula, column))
            for name, column in zip(map(restore_formula, header), columns, strict=True)
        }


def read_predictions(path: Path) -> list[dict[str, str]]:
    """The rows of a stored file of predictions; ``ValueError`` for rows of unequal length."""
    fields = read_fields(str(path))
    header, *rows = ([restore_formula(cell) for cell in row] for _, row in fields)
    return [dict(zip(header, row, strict=True)) for row in rows]


def read_environment(path: Path) -> dict[str, Any]:
    """The fields of ``environment.json``; ``IwloraError`` where they are not what was written."""
    stored = read_mapping(path)
    fields, _ = unstamped("environment", stored, path)
    check_digest(stored, path)
    return {name: value for name, value in fields.items() if name != DIGEST}


def load_run(folder: str | os.PathLike[str]) -> Run:
    """The finished run in ``folder``; ``IwloraError`` if it is not finished, or damaged."""
    path = Path(folder) / layout.RESULT
    if not path.exists():
        raise IwloraError(
            f"{folder} holds no finished run ({describe_status(Path(folder))}); "
            "finish it with 'iwlora train'"
        )
    return Run(Path(folder), RunResult.load(path))
