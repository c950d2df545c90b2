"""A recipe for the user's file, as a start: ``iwlora train data.csv`` and ``iwlora init data.csv``.

The columns and the kind are inferred; the other settings follow the rules of
:mod:`iwlora.training.suggestion.settings`, for a named task too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from iwlora import tasks
from iwlora.errors import IwloraError, count_rows
from iwlora.inputs.yaml_json import assignment, to_yaml
from iwlora.tasks.columns.infer import Columns, infer_columns
from iwlora.tasks.kinds import Kind
from iwlora.tasks.loading import find_kind
from iwlora.training.model.backbone import load_config, load_processor, resolve_model_path
from iwlora.training.recipe import Recipe, apply_overrides, build
from iwlora.training.suggestion.settings import FirstTraining, first_training

MODEL = "builtin/minilm"
# Small models that can do what the default model cannot: {kind of task: name on the hub}.
_EXAMPLES = {
    "seq2seq": "google/flan-t5-small",
    "instruction": "Qwen/Qwen2.5-0.5B-Instruct",
    "language-modeling": "Qwen/Qwen2.5-0.5B",
    "image-classification": "facebook/dinov2-small",
    "image-multi-label": "facebook/dinov2-small",
    "image-regression": "facebook/dinov2-small",
}
_BERT = "bert-base-uncased"
_GIVEN = "as given"
_WIDTH = 40


@dataclass(frozen=True)
class Suggestion:
    """A recipe's fields, ``{dotted field: why it has its value}``, and notes on the columns."""

    data: str
    settings: Mapping[str, Any]
    reasons: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The checked recipe of a run."""
        return build(self.settings)

    def fields(self) -> Iterator[tuple[str, Any]]:
        """(dotted field, value) of all that is set."""
        for part, value in self.settings.items():
            if isinstance(value, Mapping):
                yield from ((f"{part}.{name}", inner) for name, inner in value.items())
            else:
                yield part, value

    def lines(self) -> list[str]:
        """One line for each field, as it is typed to set it, with its reason; then the notes."""
        given = [assignment(field, value) for field, value in self.fields()]
        width = min(max(map(len, given)), _WIDTH)
        reasons = [self.reasons.get(field, _GIVEN) for field, _ in self.fields()]
        lines = [f"  {a:<{width}}  {reason}" for a, reason in zip(given, reasons, strict=True)]
        return [*lines, *(f"note: {note}" for note in self.notes)]

    def commented(self) -> str:
        """The recipe as YAML, with a line of comment before each field."""
        lines = [f"# A recipe for {_one_line(self.data)}. A field is changed here, or on the"]
        lines.append("# command line as key=value, such as train.epochs=5.")
        lines += [f"# note: {_one_line(note)}" for note in self.notes]
        part = ""
        for field, value in self.fields():
            section, dot, name = field.rpartition(".")
            if section != part and dot:
                lines.append(f"{section}:")
            part = section
            margin = "  " if dot else ""
            lines.append(f"{margin}# {_one_line(self.reasons.get(field, _GIVEN))}")
            lines.append(indent(to_yaml({name: value}), margin).rstrip("\n"))
        return "\n".join([*lines, ""])


def suggest(path: str, overrides: Sequence[str] = ()) -> Suggestion:
    """The recipe for a file of data, and why each field has its value.

    Args:
        path: The training data: a file or a folder.
        overrides: ``key=value`` settings, which take precedence; the columns and the model among
            them decide about the rest.

    Raises:
        IwloraError: The columns are unclear, the data are malformed, or no model is there.
    """
    bare = {"model": MODEL, "task": {"train": path}, "method": {"name": "lora"}}
    asked = build(apply_overrides(bare, overrides))  # raises what is wrong with the overrides
    spec, columns = asked.task, infer_columns(asked.task)
    processor, config = _load_reader(asked, columns)
    # Rows that cannot be used are refused, or listed, by what follows the recipe.
    task = tasks.load(spec.model_copy(update={"on_bad": "skip"}), seed=0)
    first = first_training(task, processor, config)
    text, label = (
        names[0] if len(names) == 1 else [*names] for names in (columns.text, columns.label)
    )
    described = {"train": path, "text": text, "label": label, "kind": columns.kind.name}
    if not columns.label:
        del described["label"]
    reasons = _reasons_of_columns(columns)
    return _suggestion(path, asked, task, described, first, reasons, columns.notes, overrides)


def suggest_for_task(name: str, overrides: Sequence[str] = ()) -> Suggestion:
    """The recipe for a named task, by the same rules, and why each field has its value.

    Args:
        name: The task, one of ``iwlora tasks``.
        overrides: ``key=value`` settings, which take precedence.

    Raises:
        IwloraError: The task is unknown, its data are not there, or no model is there.
    """
    bare = {"model": MODEL, "task": {"name": name}, "method": {"name": "lora"}}
    asked = build(apply_overrides(bare, overrides))
    kind = find_kind(asked.task)
    _check_model_is_given(asked, kind)
    config = load_config(asked.model, asked.trust_remote_code)
    processor = load_processor(resolve_model_path(asked.model), kind, asked.trust_remote_code)
    task = tasks.load(asked.task.model_copy(update={"on_bad": "skip"}), asked.train.seed)
    task.kind.auto_class(config)
    first = first_training(task, processor, config)
    return _suggestion(name, asked, task, {"name": name}, first, {}, (), overrides)


def _check_model_is_given(asked: Recipe, kind: Kind) -> None:
    if kind.processor == "codes":
        raise IwloraError(
            f"{asked.task.title} has images to generate ({kind.name}), and for these no recipe is "
            "suggested; give a recipe (docs/generative-transfer.md)"
        )
    if kind.reads_images and asked.model == MODEL:
        raise IwloraError(
            f"{asked.task.title} has images, and iwlora comes with no pretrained model of images. "
            f"Give model=FOLDER or a name on the hub, such as model={_EXAMPLES[kind.name]}"
        )


def _suggestion(
    data: str,
    asked: Recipe,
    task: tasks.Task,
    described: dict[str, Any],
    first: FirstTraining,
    of_columns: Mapping[str, str],
    notes: Sequence[str],
    overrides: Sequence[str],
) -> Suggestion:
    rows = len(task.splits["train"])
    settings: dict[str, Any] = {
        "model": asked.model,
        "task": described,
        "method": {"name": "lora", "rank": 8, "lora_alpha": 16},
        "train": first.train,
    }
    if first.rows < rows:
        settings["task"]["max_train"] = first.rows
    whole = f"{rows:,} rows to train on"
    scored = ", ".join(f"{len(task.splits[name]):,} to score ({name})" for name in task.reported)
    reasons = {
        "model": "the built-in encoder; or a folder, or a name on the hub",
        f"task.{next(iter(described))}": f"{whole}, {scored}",
        **of_columns,
        "task.max_train": f"of {rows:,} rows, for a first result; null trains on all",
        "method.name": "or iw-lora, dora, full and others: iwlora methods",
        "method.rank": "the size of the adapter",
        "method.lora_alpha": "the adapter's output is multiplied by lora_alpha / rank",
        "train.epochs": f"{first.steps:,} steps; fewer rows, more epochs",
        "train.lr": "the learning rate; smaller for wider models",
        "train.batch_size": "rows of a step",
        "train.max_length": f"tokens; {first.held_whole:.1%} of the rows are not longer",
    }
    for given in overrides:
        reasons.pop(given.partition("=")[0], None)
    notes = (*notes, *_note_on_bad_rows(asked, task))
    return Suggestion(data, apply_overrides(settings, overrides), reasons, notes)


def _note_on_bad_rows(asked: Recipe, task: tasks.Task) -> Iterator[str]:
    if task.bad_rows and asked.task.on_bad == "refuse":
        rows = count_rows(task.bad_rows)
        plural = "s" * (rows != 1)
        yield f"{rows:,} row{plural} cannot be used; task.on_bad=skip leaves such rows out"


def _reasons_of_columns(columns: Columns) -> dict[str, str]:
    """Which columns were guessed, and what else they may be."""
    return {
        f"task.{field}": " or ".join(("guessed", *others))
        for field, others in columns.alternatives.items()
    }


def _load_reader(asked: Recipe, columns: Columns) -> tuple[Any, Any]:
    """The tokenizer or image processor, and the configuration, of a model that can do the task.

    Raises ``IwloraError``, which names how to give a model.
    """
    _check_model_is_given(asked, columns.kind)
    trust = asked.trust_remote_code
    try:
        config = load_config(asked.model, trust)
        processor = load_processor(resolve_model_path(asked.model), columns.kind, trust)
        columns.kind.auto_class(config)
    except IwloraError as error:
        if asked.model != MODEL:
            raise
        names = ", ".join((*columns.text, *columns.label))
        example = _EXAMPLES.get(columns.kind.name, _BERT)
        raise IwloraError(
            f"{error}. Give model=FOLDER or a name on the hub, such as model={example} (the kind "
            f"of task is {columns.kind.name}, its columns {names})"
        ) from None
    return processor, config


def _one_line(text: str) -> str:
    """The text as a comment: YAML allows no other characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
