"""When a change of the recipe is suggested: each limit from both sides, on numbers made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from iwlora.errors import BadRow
from iwlora.tasks import Task
from iwlora.tasks.kinds.classification import Classification
from iwlora.tasks.kinds.question_answering import QuestionAnswering
from iwlora.tasks.kinds.regression import Regression
from iwlora.tasks.splits import dataset_from_rows
from iwlora.tasks.vocabulary_fit import VocabularyFit
from iwlora.training.recipe import build
from iwlora.training.suggestion.changes import changes

pytestmark = pytest.mark.quick

LATIN = VocabularyFit(unknown=0.0, per_character=0.3, scripts={"Latin": 1.0}, rows=9)
BAD = (BadRow("train", "a.csv", "line 2", "empty"), BadRow("train", "a.csv", "line 2", "odd"))


def settings(
    labels: list[Any] | None = None,
    lengths: list[int] | None = None,
    fit: VocabularyFit = LATIN,
    copies: int = 0,
    kind: Any = None,
    bad: tuple[BadRow, ...] = (),
    task: dict[str, Any] | None = None,
    **train: Any,
) -> list[str]:
    """What is suggested for 100 rows to score and a model that reads 512 tokens."""
    recipe = build(
        {
            "model": "builtin/minilm",
            "task": {"train": "a.csv", "validation": "b.csv", **(task or {})},
            "method": {"name": "lora"},
            "train": {"max_length": 128, **train},
        }
    )
    rows = [("t", label) for label in (labels or [0, 1])]
    split = dataset_from_rows(["text"], rows, kind)
    classes = ("x", "y") if kind is None else ()
    schema = ("t", ("text",), classes, ("accuracy",))
    scored = dataset_from_rows(["text"], [rows[0]] * 100, kind)
    splits = {"train": split, "validation": scored}
    loaded = Task(*schema, kind=kind or Classification(), splits=splits, bad_rows=bad)
    sizes = np.array(lengths or [20])
    found = changes(recipe, loaded, sizes, 512, fit, {"validation": (copies, 0)})
    return [change.setting for change in found]


def test_nothing_odd_suggests_nothing() -> None:
    assert settings() == []


@pytest.mark.parametrize(
    ("long", "length", "expected"),
    [
        (5, 130, []),  # of 100 rows: not more than a twentieth
        (6, 130, ["train.max_length=144"]),
        (6, 900, ["train.max_length=512"]),  # what the model reads
        (60, 4000, ["train.max_length=512"]),
    ],
)
def test_long_rows(long: int, length: int, expected: list[str]) -> None:
    lengths = [20] * (100 - long) + [length] * long
    assert settings(lengths=lengths) == expected
    assert settings(lengths=lengths, max_length=512) == []


def test_passages_are_not_cut_off() -> None:
    answers = [{"text": ["t"], "answer_start": [0]}]
    assert settings(answers, [900] * 9, kind=QuestionAnswering()) == []


def test_rare_classes() -> None:
    balanced = ["train.class_weights=balanced"]
    assert settings([0] * 10 + [1]) == []
    assert settings([0] * 11 + [1]) == balanced
    assert settings([0] * 11 + [1], class_weights="balanced") == []
    assert settings([0] * 11 + [1], sampler="balanced") == []
    assert settings([0.5] * 11 + [1.0], kind=Regression()) == []


def test_foreign_vocabularies() -> None:
    for fit in (
        VocabularyFit(unknown=0.011, per_character=0.3, scripts={"Han": 1.0}, rows=9),
        VocabularyFit(unknown=0.0, per_character=1.01, scripts={"Thai": 1.0}, rows=9),
    ):
        assert settings(fit=fit) == ["model=xlm-roberta-base"]
    enough = VocabularyFit(unknown=0.01, per_character=1.0, scripts={}, rows=9)
    assert settings(fit=enough) == []


def test_copies_among_scored_rows() -> None:
    assert settings(copies=5) == []
    assert settings(copies=6) == ["task.validation=null"]
    held_out = {"validation": None}
    assert settings(copies=6, task=held_out) == [], "equal texts stay on one side then"


def test_rows_that_cannot_be_used() -> None:
    assert settings(bad=BAD) == ["task.on_bad=skip"]
    assert settings(bad=BAD, task={"on_bad": "skip"}) == []
