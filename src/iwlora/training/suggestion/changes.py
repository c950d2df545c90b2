"""What to change in a recipe for its data: settings as they are typed, each with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from iwlora.errors import count_rows
from iwlora.tasks import Task
from iwlora.tasks.kinds.contract import Kind
from iwlora.tasks.vocabulary_fit import VocabularyFit
from iwlora.training.recipe import Recipe
from iwlora.training.suggestion.settings import fit_length

_MANY = 0.05  # a share of the rows that is worth a change
_TIMES = 10  # as many rows of the most frequent class as of the rarest one
# Models that read many scripts.
_ENCODER, _DECODER = "xlm-roberta-base", "Qwen/Qwen2.5-0.5B"


class Change(NamedTuple):
    """A setting as it is typed on the command line, and the reason for it."""

    setting: str
    reason: str


def changes(
    recipe: Recipe,
    task: Task,
    lengths: npt.NDArray[np.int64],
    limit: int,
    fit: VocabularyFit,
    copies: Mapping[str, tuple[int, int]],
) -> list[Change]:
    """What the data of a recipe suggest to change in it.

    Args:
        recipe: The recipe.
        task: Its task, loaded without the rows that cannot be used.
        lengths: The tokens of training rows without truncation.
        limit: The most tokens that the model reads.
        fit: How the vocabulary fits the training rows.
        copies: {split: (rows with the texts of a training row, those with another label)}.
    """
    return [
        *_bad_rows(recipe, task),
        *_model(recipe, task, fit),
        *_length(recipe, task, lengths, limit),
        *_class_weights(recipe, task),
        *_validation(recipe, task, copies),
    ]


def _bad_rows(recipe: Recipe, task: Task) -> Iterator[Change]:
    if task.bad_rows and recipe.task.on_bad != "skip":
        rows = _rows(count_rows(task.bad_rows))
        yield Change("task.on_bad=skip", f"{rows} cannot be used; without it nothing is trained")


def _model(recipe: Recipe, task: Task, fit: VocabularyFit) -> Iterator[Change]:
    writes = task.kind.generated_tokens or task.kind.learns_texts
    multilingual = _DECODER if writes else _ENCODER
    if fit.is_foreign and recipe.model != multilingual:
        script = next(iter(fit.scripts), "unknown")
        what = (
            f"{fit.unknown:.1%} of the tokens are unknown to {recipe.model}"
            if fit.unknown
            else f"{recipe.model} has {fit.per_character:.1f} tokens for each character"
        )
        yield Change(
            f"model={multilingual}",
            f"{what}; most letters are {script}: take a model that reads it",
        )


def _length(
    recipe: Recipe, task: Task, lengths: npt.NDArray[np.int64], limit: int
) -> Iterator[Change]:
    now = recipe.train.max_length
    longer = float(np.mean(lengths > now))
    longest, share = fit_length(lengths, limit)
    if longer > _MANY and longest > now and task.kind.overflow == Kind.overflow:
        yield Change(
            f"train.max_length={longest}",
            f"{longer:.1%} of the rows have more than {now} tokens, {1 - share:.1%} more than "
            f"{longest}",
        )


def _class_weights(recipe: Recipe, task: Task) -> Iterator[Change]:
    settings = recipe.train
    if not task.kind.one_class or settings.class_weights != "none":
        return
    if settings.sampler == "balanced":
        return
    rows = Counter(task.splits["train"].select_columns("label")["label"][:])
    (most, many), *_, (rarest, few) = rows.most_common() if len(rows) > 1 else [(0, 0)] * 2
    if many > _TIMES * few:
        yield Change(
            "train.class_weights=balanced",
            f"{task.labels[most]!r} has {many:,} rows and {task.labels[rarest]!r} {few:,}: look at "
            "the mean F1, not at accuracy",
        )


def _validation(
    recipe: Recipe, task: Task, copies: Mapping[str, tuple[int, int]]
) -> Iterator[Change]:
    spec = recipe.task
    for split, path in (("validation", spec.validation), ("test", spec.test)):
        shared, _ = copies.get(split, (0, 0))
        rows = len(task.splits[split]) if split in task.splits else 0
        if path is not None and rows and shared > _MANY * rows:
            yield Change(
                f"task.{split}=null",
                f"{shared:,} of its {_rows(rows)} have the texts of a training row, so its scores "
                "are too high; give other rows, or let rows of task.train be held out",
            )


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"
