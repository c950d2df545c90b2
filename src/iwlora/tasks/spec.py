"""What a recipe says about its task: a name, or the user's own files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from iwlora.errors import unknown
from iwlora.tasks.catalog import names

Filled = Annotated[str, Field(min_length=1)]


class TaskSpec(BaseModel):
    """The ``task:`` part of a recipe: ``name`` or ``train`` + ``text`` + ``label``, never both.

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
    """Folder in the official GLUE layout, of all tasks or of this one; None: the hub."""
    max_train: PositiveInt | None = None
    """Training rows: the first of a shuffle seeded by ``train.seed``; None: all."""
    max_validation: PositiveInt | None = None
    """Rows of each validation split: the same ones for every seed; None: all."""
    holdout: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Part of the training rows to hold out and score in place of the reported splits, the same
    rows for every seed; None: train on all and score what the task reports."""
    train: Filled | None = None
    """The user's file: CSV, TSV, JSON Lines or Parquet, by its ending."""
    validation: Filled | None = None
    """None: a tenth of each class of ``train`` is held out."""
    test: Filled | None = None
    """A labelled file, scored instead of ``validation``; None: none."""
    text: list[Filled] | None = None
    """One column, or two for sentence pairs; a plain string means one."""
    label: Filled | None = None
    """The column with the class."""

    @property
    def title(self) -> str:
        """What tables call the task: its name, or the path of the training file."""
        return self.name or str(self.train)

    @field_validator("text", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

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
        problems = [
            f"task.{field} is for your own files and task.name={self.name} is given; "
            "remove one of the two"
            for field in own
            if getattr(self, field) is not None
        ]
        if self.data_dir is not None and not str(self.name).startswith("glue/"):
            problems.append(f"task.data_dir: {self.name} reads no files; remove it")
        return problems

    def _problems_of_files(self) -> list[str]:
        if self.train is self.validation is self.test is None:
            return [
                "no task: give task.name (see `iwlora tasks`), "
                "or task.train=FILE task.text=COLUMN task.label=COLUMN for your own files"
            ]
        problems = []
        if self.data_dir is not None:
            problems.append("task.data_dir goes with task.name=glue/...; remove it")
        for field, wanted in (
            ("train", "the file to train on"),
            ("text", "the column that holds the text, or a list of two for pairs"),
            ("label", "the column that holds the class"),
        ):
            if getattr(self, field) is None:
                problems.append(f"task.{field} is missing: {wanted}")
        text = self.text or []
        if self.text is not None and not 1 <= len(text) <= 2:
            problems.append(f"task.text names {len(text)} columns; 1 or 2 are accepted")
        if len(set(text)) < len(text):
            problems.append(f"task.text names a column twice: {text}")
        if self.label in text:
            problems.append(f"task.label={self.label} is a text column too")
        elif "label" in text:
            problems.append("task.text: the name 'label' is kept for the class; rename the column")
        return problems
