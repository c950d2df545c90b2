"""What a recipe says about its task: a name, or the user's own files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from iwlora.errors import IwloraError, unknown
from iwlora.tasks.catalog import ENTAILMENT, kind_of_name, names
from iwlora.tasks.kinds import KINDS, Kind

Filled = Annotated[str, Field(min_length=1)]


class TaskSpec(BaseModel):
    """The ``task:`` part of a recipe: ``name``, or ``train`` and what else is known of it.

    Raises pydantic's ``ValidationError`` that lists every problem at once.

    >>> TaskSpec(name="glue/rte", data_dir="glue", max_train=100).name
    'glue/rte'
    >>> TaskSpec(train="train.csv", text="sentence", label="mood").text
    ['sentence']
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: Filled | None = None
    """One of ``iwlora tasks``."""
    data_dir: Filled | None = None
    """Folder in the task's official layout; None: the hub."""
    max_train: PositiveInt | None = None
    """Training rows: the first of a shuffle seeded by ``train.seed``; None: all."""
    max_validation: PositiveInt | None = None
    """Rows of each validation split: the same ones for every seed; None: all."""
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Part of the training rows to hold out and score in place of the reported splits, the same
    rows for every seed; None: train on all and score what the task reports."""
    train: Filled | None = None
    """The user's file: CSV, TSV, JSON Lines or Parquet, by its ending; or a folder that
    ``datasets`` saved."""
    validation: Filled | None = None
    """None: a tenth of each class of ``train`` is held out."""
    test: Filled | None = None
    """A labelled file, scored instead of ``validation``; None: none."""
    text: list[Filled] | None = None
    """One column, or two for pairs; a plain string means one; None: guessed where obvious."""
    label: Filled | list[Filled] | None = None
    """The column with the class; several columns of 0 and 1, one a class, for multi-label."""
    kind: dict[str, Any] | None = None
    """What is learned: a name and its options, see ``KINDS``; None: as the data look."""
    selection: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Part of each class of the training rows to hold out, the same rows for every seed: the
    epoch with the best score on it is kept; None: the last checkpoint is."""

    @property
    def kind_name(self) -> str | None:
        """The kind that is given by name."""
        return (self.kind or {}).get("name")

    def kind_of(self, default: Kind) -> Kind:
        """``default`` with the given options; raises ``IwloraError`` for what does not fit."""
        problems = self._problems_of_kind(type(default))
        if problems:
            raise IwloraError("\n".join(problems))
        options = {k: v for k, v in (self.kind or {}).items() if k != "name"}
        return type(default)(**{**default.model_dump(), **options})

    def _problems_of_kind(self, kind: type[Kind]) -> list[str]:
        if self.kind_name not in (None, kind.name):
            return [f"task.kind.name={self.kind_name}: {self.title} is of kind {kind.name}"]
        options = {k: v for k, v in (self.kind or {}).items() if k != "name"}
        try:
            kind(**options)
        except ValidationError as error:
            accepted = ", ".join(kind.model_fields) or "none"
            return [
                f"task.kind.{name}: unknown option of {kind.name} (accepted: {accepted})"
                if one["type"] == "extra_forbidden"
                else f"task.kind.{name}={one['input']!r}: {one['msg'][0].lower()}{one['msg'][1:]}"
                for one in error.errors()
                for name in [".".join(map(str, one["loc"]))]
            ]
        return []

    @property
    def title(self) -> str:
        """What tables call the task: its name, or the path of the training file."""
        return self.name or str(self.train)

    @field_validator("text", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("kind", mode="before")
    @classmethod
    def _named_kind(cls, value: Any) -> Any:
        given = {"name": value} if isinstance(value, str) else value
        name = given.get("name") if isinstance(given, dict) else None
        if name is not None and name not in KINDS:
            raise unknown("kind", str(name), KINDS)
        return given

    @field_validator("name")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in names():
            raise unknown("task", value, names())
        return value

    @model_validator(mode="after")
    def _name_or_files(self) -> TaskSpec:
        problems = self._problems_of_name() if self.name is not None else self._problems_of_files()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _problems_of_name(self) -> list[str]:
        own = ("train", "validation", "test", "text", "label")
        kind = kind_of_name(str(self.name))
        problems = [
            f"task.{field} is for your own files and task.name={self.name} is given; "
            "remove one of the two"
            for field in own
            if getattr(self, field) is not None
        ]
        if self.data_dir is not None and self.name == ENTAILMENT:
            problems.append(f"task.data_dir: {self.name} reads no files; remove it")
        return problems + self._problems_of_kind(type(kind))

    def _problems_of_files(self) -> list[str]:
        if self.train is self.validation is self.test is None:
            return [
                "no task: give task.name (see `iwlora tasks`), "
                "or task.train=FILE task.text=COLUMN task.label=COLUMN for your own files"
            ]
        problems = []
        if self.data_dir is not None:
            problems.append("task.data_dir goes with task.name; remove it")
        if self.train is None:
            problems.append("task.train is missing: the file to train on")
        if self.kind_name is not None:
            problems += self._problems_of_kind(KINDS[self.kind_name])
        text = self.text or []
        if self.text is not None and not 1 <= len(text) <= 2:
            problems.append(f"task.text names {len(text)} columns; 1 or 2 are accepted")
        if len(set(text)) < len(text):
            problems.append(f"task.text names a column twice: {text}")
        labels = [self.label] if isinstance(self.label, str) else self.label or []
        if set(labels) & set(text):
            problems.append(f"task.label={self.label} is a text column too")
        elif len(set(labels)) < len(labels):
            problems.append(f"task.label names a column twice: {labels}")
        elif "label" in text:
            problems.append("task.text: the name 'label' is kept for the class; rename the column")
        return problems
