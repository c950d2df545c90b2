"""What ``result.json`` of a finished run says, checked field by field."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from typing_extensions import Self


def _printable(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("a name of printable characters is needed")
    return text


def _folder_name(label: str) -> str:
    if "/" in label or "\\" in label or label in {".", ".."}:
        raise ValueError("a label names a folder, so it holds no '/' and no '\\'")
    return label


MOST_BUDGET_DIFFERENCE = 0.05
"""Arms whose adapter parameters differ by a larger part do not have the same budget."""

Name = Annotated[str, AfterValidator(_printable)]
Label = Annotated[Name, AfterValidator(_folder_name)]
Count = Annotated[int, Field(ge=0)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SiteRank(BaseModel):
    """The rank that a method ended with at one matrix."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    name: Name
    kind: Name
    depth: int
    rank: Amount


class Score(BaseModel):
    """What statistics need of a run, whatever tool carried it out; costs may be unknown.

    ``metrics`` keeps the finite numbers only, so a run that diverged has no ``score``.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    method: Name
    label: Label
    model: Name
    task: Name
    seed: int
    metrics: dict[Name, float]
    primary_metric: Name
    evaluated_on: Name | None = None
    selected_on: Name | None = None
    trainable_parameters: Count | None = None
    adapter_parameters: Count | None = None
    head_parameters: Count | None = None
    train_seconds: Amount | None = None
    measure_seconds: Amount | None = None
    examples_per_second: Amount | None = None
    peak_memory_bytes: Count | None = None
    train_examples: Count | None = None
    epochs: Amount | None = None
    learning_rate: Amount | None = None
    rank: Count | None = None
    ranks: list[SiteRank] = []
    resumed_at_step: Count = 0
    data_digest: Name | None = None
    head_digest: Name | None = None
    notes: list[str] = []

    @model_validator(mode="after")
    def _keep_finite_metrics(self) -> Self:
        if self.primary_metric not in self.metrics:
            raise ValueError(f"primary_metric {self.primary_metric!r} is not among the metrics")
        for name in [name for name, value in self.metrics.items() if not math.isfinite(value)]:
            del self.metrics[name]
        return self

    @property
    def score(self) -> float | None:
        """The primary metric, or None when it was not a finite number."""
        return self.metrics.get(self.primary_metric)


class Result(Score):
    """What ``result.json`` of a finished run says; fields unknown here are ignored.

    A run with ``resumed_at_step`` n > 0 knows the training time of the steps after n only.
    ``ranks`` are the ranks of the matrices where the method gave them different ones.

    >>> Result(method="lora", label="lora", model="m", task="t", seed=0, rank=8,
    ...     metrics={"f1": 0.9, "loss": float("nan")}, primary_metric="f1",
    ...     evaluated_on="validation", selected_on="last checkpoint", trainable_parameters=10,
    ...     adapter_parameters=8, head_parameters=2, train_seconds=1.0, measure_seconds=0.0,
    ...     examples_per_second=5.0, peak_memory_bytes=None, train_examples=5, epochs=1.0,
    ...     learning_rate=1e-3).metrics
    {'f1': 0.9}
    """

    evaluated_on: Name
    selected_on: Name
    trainable_parameters: Count
    adapter_parameters: Count | None
    head_parameters: Count | None
    train_seconds: Amount
    measure_seconds: Amount
    examples_per_second: Amount | None
    peak_memory_bytes: Count | None
    train_examples: Count
    epochs: Amount
    learning_rate: Amount
    rank: Count | None
