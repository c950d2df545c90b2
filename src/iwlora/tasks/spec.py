"""The ``task:`` part of a recipe: a named task, or the user's own files."""

from __future__ import annotations

from os.path import abspath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from iwlora.errors import IwloraError, unknown
from iwlora.inputs.encoding import check_encoding
from iwlora.inputs.limits import LARGEST_COUNT
from iwlora.inputs.tables.reading import Reading
from iwlora.tasks.corpora.entailment_grammar import DEEPEST
from iwlora.tasks.kinds import KINDS, Kind
from iwlora.tasks.kinds.contract import OTHER_REFERENCES
from iwlora.tasks.registry import CORPORA

Positive = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
NonEmpty = Annotated[str, Field(min_length=1)]
_OF_FILES = (
    *("train", "mix", "validation", "test", "text", "label", "labels"),
    *("encoding", "delimiter", "header"),
)
Fraction = Annotated[float, Field(gt=0, lt=1)]


class MixedFile(BaseModel):
    """A further training file: ``train``, and its ``weight`` where files are drawn by weights."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    train: NonEmpty
    """A file like ``task.train``, with the same columns."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)] | None = None
    """Its share of the training rows, relative to 1 for ``task.train``."""


class TaskSpec(BaseModel):
    """The ``task:`` part of a recipe: ``name``, or ``train`` and what else describes the files.

    Raises:
        pydantic.ValidationError: Lists every problem at once.

    Example:
        >>> TaskSpec(name="glue/rte", data_dir="glue", max_train=100).name
        'glue/rte'
        >>> TaskSpec(train="train.csv", text="sentence", label="mood").text
        ['sentence']
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: NonEmpty | None = None
    """One of ``iwlora tasks``."""
    data_dir: NonEmpty | None = None
    """The folder of the task's official files; None: the hub."""
    grammar_seed: Annotated[int, Field(ge=0, le=LARGEST_COUNT)] | None = None
    """The seed of the rows of a generated task (``builtin/…``); None: that of the named task, 0."""
    grammar_depth: Annotated[int, Field(ge=1, le=DEEPEST)] | None = None
    """How many relative clauses ``builtin/entailment`` has in one another, in the pairs that are
    about them; None: 1."""
    max_train: Positive | None = None
    """Training rows: the first ones of a shuffle seeded by ``train.seed``; None: all."""
    draw: Literal["shuffle", "balanced"] = "shuffle"
    """Which rows ``max_train`` leaves: shuffle: the first ones of the shuffle; balanced: of these,
    the first ones of each class, as many of each class to within one, where it has so many."""
    max_validation: Positive | None = None
    """Rows of each validation split, the same for every seed; None: all."""
    max_test: Positive | None = None
    """Rows of the test split, the same for every seed; None: all."""
    flip_labels: Fraction | None = None
    """Share of the training rows that get another class at random, by ``train.seed``, after
    ``max_train``: to train on noisy labels. Rows that are scored keep theirs; None: no row."""
    score_rows: Positive | Literal["all"] | None = None
    """Rows to reserve from the training rows before any draw, and to score beside the reported
    splits: a number, or all that draws of ``max_train`` rows leave. Every seed and arm has the same
    ones; None: the reported splits alone are scored."""
    draw_rows: Positive | None = None
    """The training rows of the largest draw, where other arms of a comparison have larger ones than
    ``max_train``; set by the comparison."""
    holdout: Fraction | None = None
    """Fraction of the training rows to hold out and score instead of the reported splits, the same
    rows for every seed; None: train on all and score the reported splits."""
    train: NonEmpty | None = None
    """The user's file or folder, in one of the layouts of ``docs/data-files.md``."""
    mix: list[MixedFile] = []
    """Further training files. Without weights the rows of all files are trained on. With weights as
    many rows, at most ``max_train``, are drawn once, by ``train.seed``: of a file whose share is
    smaller than the file, a part; of one whose share is larger, all rows in turn."""
    validation: NonEmpty | None = None
    """A labeled file that is scored; None: a tenth of ``train`` is held out, as ``split`` says."""
    test: NonEmpty | None = None
    """A labeled file that is scored instead of ``validation``; None: there is none."""
    text: list[NonEmpty] | None = None
    """One column, or two for pairs; a plain string means one; None: inferred where obvious."""
    label: NonEmpty | list[NonEmpty] | None = None
    """The column with the class; for multi-label tasks also several columns of 0 and 1, one per
    class."""
    labels: list[NonEmpty] = []
    """The classes in their order, where the training rows may lack one, as those of one source of a
    pool may; empty: those of the training rows, sorted."""
    kind: dict[str, Any] | None = None
    """The kind of task: its name and its options; None: inferred from the data."""
    selection: Fraction | None = None
    """Fraction of the training rows to hold out, the same rows for every seed. The epoch with the
    best score on them is kept; None: the last checkpoint is kept."""
    group: NonEmpty | None = None
    """A column, such as the patient or the author of a text: rows with an equal value stay together
    where training rows are held out; None: only rows with equal texts do."""

    encoding: NonEmpty | None = None
    """The encoding of the files, such as cp1252; None: UTF-8, UTF-16 with its mark, or the one
    encoding in which a file makes sense."""
    delimiter: NonEmpty | None = None
    """What divides the fields of a CSV, TSV or text file: one character; None: the one that divides
    all records alike."""
    header: bool | None = None
    """Whether tables begin with the names of their columns; without them the columns are called
    column1, column2, …; None: yes, unless the first line is clearly a row."""

    split: Literal["grouped", "by-class"] = "grouped"
    """How training rows are held out for validation, selection and holdout. grouped: rows with
    equal texts (or an equal ``group``) on one side, each class on both where possible; by-class: as
    recipes of format 1 and 2 had it."""
    on_bad: Literal["refuse", "skip", "report"] = "refuse"
    """What becomes of rows that cannot be used: such as those with another number of fields than
    the header, an empty text, or a class that is not in the training rows. refuse: an error lists
    them; skip: they are left out, counted, and listed in a file; report: they are listed, and
    nothing is trained."""
    former_kind_defaults: bool = False
    """Whether the options of the kind have the defaults of recipe format 2. Runs that an older
    version began have it set."""

    @property
    def reading(self) -> Reading:
        """How the files are read."""
        learns_texts = self.kind_name is not None and KINDS[self.kind_name].learns_texts
        return Reading(self.encoding, self.delimiter, self.header, learns_texts)

    @property
    def kind_name(self) -> str | None:
        """The name of the kind, where the recipe gives one."""
        return (self.kind or {}).get("name")

    @property
    def _kind_options(self) -> dict[str, Any]:
        return {key: value for key, value in (self.kind or {}).items() if key != "name"}

    def build_kind(self, default: Kind) -> Kind:
        """``default``, or another kind that learns the same rows, with the options of this recipe.

        Raises:
            IwloraError: The recipe names another kind, or an option is not accepted.
        """
        problems = self._problems_of_kind(type(default))
        if problems:
            raise IwloraError("\n".join(problems))
        if self.kind_name in type(default).same_rows:
            default = KINDS[self.kind_name]()
        former = type(default).former_defaults if self.former_kind_defaults else {}
        return type(default)(**{**default.model_dump(), **former, **self._kind_options})

    def _problems_of_kind(self, kind: type[Kind]) -> list[str]:
        if self.kind_name in kind.same_rows:
            kind = KINDS[self.kind_name]
        if self.kind_name not in (None, kind.name):
            return [f"task.kind.name={self.kind_name}: {self.title} is of kind {kind.name}"]
        fitted = [name for name in kind.fitted_options if name in self._kind_options]
        if fitted:
            return [
                f"task.kind.{name} follows from the training rows; remove it" for name in fitted
            ]
        try:
            kind(**self._kind_options)
        except ValidationError as invalid:
            options = [name for name in kind.model_fields if name not in kind.fitted_options]
            accepted = ", ".join(options) or "none"
            return [
                f"task.kind.{option}: unknown option of {kind.name} (accepted: {accepted})"
                if error["type"] == "extra_forbidden"
                else f"task.kind.{option}={error['input']!r}: {_lower_first(error['msg'])}"
                for error in invalid.errors()
                for option in [".".join(map(str, error["loc"]))]
            ]
        return []

    @property
    def title(self) -> str:
        """What tables call the task: its name, or the path of the training file."""
        if self.name or not self.mix:
            return self.name or str(self.train)
        return f"{self.train} and {len(self.mix)} more"

    @property
    def sources(self) -> tuple[str, ...]:
        """The paths of the training files."""
        return (str(self.train), *(file.train for file in self.mix))

    @property
    def weights(self) -> tuple[float, ...]:
        """The weight of each training file; none where no file has one."""
        if all(file.weight is None for file in self.mix):
            return ()
        return (1.0, *(1.0 if file.weight is None else file.weight for file in self.mix))

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, value: str | None) -> str | None:
        return None if value is None else check_encoding(value)

    @field_validator("delimiter", mode="before")
    @classmethod
    def _one_character(cls, value: Any) -> Any:
        named = {"tab": "\t", "\\t": "\t"}.get(value, value) if isinstance(value, str) else value
        if isinstance(named, str) and (len(named) != 1 or named in '"\r\n'):
            raise ValueError("accepted: one character, such as ';', or tab")
        return named

    @field_validator("text", mode="before")
    @classmethod
    def _one_column(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("kind", mode="before")
    @classmethod
    def _known_kind(cls, value: Any) -> Any:
        options = {"name": value} if isinstance(value, str) else value
        name = options.get("name") if isinstance(options, dict) else None
        if name is not None and name not in KINDS:
            raise unknown("kind", str(name), KINDS)
        return options

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str | None) -> str | None:
        if value is not None and value not in CORPORA:
            raise unknown("task", value, CORPORA)
        return value

    @model_validator(mode="after")
    def _name_or_files(self) -> TaskSpec:
        problems = self._problems_of_name() if self.name is not None else self._problems_of_files()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @model_validator(mode="after")
    def _check_draw(self) -> TaskSpec:
        if self.draw == "balanced" and self.max_train is None:
            raise ValueError(
                "task.draw=balanced says which rows task.max_train leaves, and task.max_train is "
                "not given; give it, or take train.sampler=balanced, which draws all classes "
                "equally often"
            )
        if self.draw == "balanced" and self.weights:
            raise ValueError(
                "task.draw=balanced was given, and task.mix has weights: both say which rows are "
                "trained on; remove one of the two"
            )
        return self

    def _problems_of_name(self) -> list[str]:
        corpus = CORPORA[str(self.name)]
        problems = [
            f"task.{field} is for your own files, but task.name={self.name} is given too; "
            "remove one of the two"
            for field in _OF_FILES
            if getattr(self, field) not in (None, [])
        ]
        if self.group is not None and self.group not in corpus.text:
            accepted = " or ".join(corpus.text)
            problems.append(f"task.group={self.group}: {self.name} has no such column ({accepted})")
        if self.data_dir is not None and corpus.hub_id is None:
            problems.append(f"task.data_dir: {self.name} reads no files; remove it")
        if self.grammar_seed is not None and corpus.grammar_seed is None:
            generated = " and ".join(n for n, c in CORPORA.items() if c.grammar_seed is not None)
            problems.append(
                f"task.grammar_seed={self.grammar_seed} was given, and the rows of {self.name} are "
                f"not generated, as those of {generated} are; remove it"
            )
        if self.grammar_depth is not None and corpus.grammar_depth is None:
            nested = " and ".join(n for n, c in CORPORA.items() if c.grammar_depth is not None)
            problems.append(
                f"task.grammar_depth={self.grammar_depth} was given, and {self.name} has no depth, "
                f"as {nested} has; remove it"
            )
        return problems + self._problems_of_kind(type(corpus.kind))

    def _problems_of_files(self) -> list[str]:
        if self.train is self.validation is self.test is None:
            return [
                "no task: give task.name (see `iwlora tasks`), "
                "or task.train=FILE task.text=COLUMN task.label=COLUMN for your own files"
            ]
        problems = []
        if self.data_dir is not None:
            problems.append("task.data_dir is for tasks with a name (task.name); remove it")
        problems += [
            f"task.{field} is for generated tasks (task.name); remove it"
            for field in ("grammar_seed", "grammar_depth")
            if getattr(self, field) is not None
        ]
        if self.train is None:
            problems.append("task.train is missing: the file to train on")
        files = [abspath(path) for path in self.sources]
        twice = [path for n, path in enumerate(self.sources) if files[n] in files[:n]]
        problems += [f"task.mix names {path} twice; give it once" for path in twice]
        if self.kind_name is not None:
            problems += self._problems_of_kind(KINDS[self.kind_name])
        if self.kind_name and KINDS[self.kind_name].learns_texts and self.label is not None:
            problems.append(
                f"task.label={self.label}: a task of kind {self.kind_name} has no label, it learns "
                "the texts; remove task.label, or give another task.kind"
            )
        if len(set(self.labels)) < len(self.labels):
            problems.append(f"task.labels names a class twice: {self.labels}")
        text = self.text or []
        if self.text is not None and not 1 <= len(text) <= 2:
            problems.append(f"task.text names {len(text)} columns; 1 or 2 are accepted")
        if len(set(text)) < len(text):
            problems.append(f"task.text names a column twice: {text}")
        labels = [self.label] if isinstance(self.label, str) else self.label or []
        if self.group is not None and self.group in (*labels, "label"):
            problems.append(
                f"task.group={self.group} is the label, or has its name; give another column"
            )
        if self.group is not None and self.split == "by-class":
            problems.append("task.group is for task.split=grouped; remove one of the two")
        if set(labels) & set(text):
            problems.append(f"task.label={self.label} is a text column too")
        elif len(set(labels)) < len(labels):
            problems.append(f"task.label names a column twice: {labels}")
        elif reserved := {"label", OTHER_REFERENCES}.intersection(text):
            problems.append(
                f"task.text: the name {min(reserved)!r} is reserved for the class or the accepted "
                "texts; rename the column"
            )
        return problems


def _lower_first(message: str) -> str:
    return message[0].lower() + message[1:]
