"""The result of a run: one checked model that training writes and everything else reads."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
    model_validator,
)
from typing_extensions import Self

from iwlora.results.fingerprint import Fingerprint
from iwlora.results.formats import Document, FileName, StoredModel


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
    """The rank that a method ended with at one matrix, or the size of a part of a mixture.

    Args:
        name: Path of the matrix, or of the layer.
        kind: The kind of the matrix, or the part's name; ``decoder_`` is before it in the decoder
            of an encoder-decoder model.
        depth: The number of the block, from 0.
        rank: The rank; of other parts the bottleneck or the number of prefix tokens; None: the
            part has no size, as biases.
        parameters: How many the part trains in this layer; None for a matrix.
    """

    name: Name
    kind: Name
    depth: int
    rank: Amount | None
    parameters: Count | None = None

    @model_serializer(mode="wrap")
    def _as_older_versions(self, stored: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = stored(self)
        if self.parameters is None:
            del fields["parameters"]
        return fields


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
        half_width: Half of the 95% interval of the primary metric over the scored rows (a bounded
            sample of many, which gives a wider one); None: not known, or too few rows.
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
            (``resumed_at_step``) only that of the steps after n. Of steps that were computed for n
            runs together, each has an n-th.
        measure_seconds: Wall time spent on batches before training.
        examples_per_second: Training examples.
        peak_memory_bytes: Of the GPU, or of the process where there is none, until the run ended.
        other_runs: How many the process trained beside this one; the memory is that of all.
        train_examples: Rows of the training split.
        left_out_rows: {split: rows that cannot be used}, with ``task.on_bad=skip``.
        epochs: Passes over them.
        learning_rate: The largest of the schedule.
        rank: The value of the method's size field.
        precision: "fp32" or "bf16".
        coverage: The share of the matrix parameters of the model's blocks that the adapted
            matrices have, from 0 to 1; None for a method that does not adapt single matrices.
        ranks: The final rank of each matrix, if the method gives them different ones; of a mixture
            the size of each part of each layer.
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
    other_runs: Count = 0
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
    half_width: Amount | None = None
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
    def own_peak_memory_bytes(self) -> int | None:
        """The peak of the run alone; None if it is not known or that of several runs."""
        return None if self.other_runs else self.peak_memory_bytes

    @property
    def total_seconds(self) -> float | None:
        """Wall time of measuring and training; None if it is not known in full."""
        if self.train_seconds is None or self.resumed_at_step:
            return None
        return self.train_seconds + (self.measure_seconds or 0.0)
