"""Held-out training rows: scored in place of the reported splits, never trained on."""

from __future__ import annotations

import pytest

from iwlora import tasks
from iwlora.errors import IwloraError
from iwlora.tasks.spec import TaskSpec


def rows(task: tasks.Task, split: str) -> set[tuple[object, ...]]:
    return {tuple(row[name] for name in ("text", "label")) for row in task.splits[split]}


@pytest.fixture
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("numbers")
    for name, first, count in (("train", 0, 100), ("validation", 100, 20)):
        lines = [f"sentence {i},{'ab'[i % 2]}" for i in range(first, first + count)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation")}
    return {**files, "text": "text", "label": "label"}


def test_held_out_rows_are_scored_and_not_trained_on(plain: dict[str, str]) -> None:
    whole = tasks.load(TaskSpec(**plain), seed=0)
    held = tasks.load(TaskSpec(**plain, holdout=0.2), seed=0)
    assert set(held.splits) == {"train", "validation"}
    assert held.reported == ("validation",)
    train, scored = rows(held, "train"), rows(held, "validation")
    assert (len(train), len(scored)) == (80, 20)
    assert train | scored == rows(whole, "train")
    assert not scored & rows(whole, "validation"), "the reported rows stay unseen"


def test_they_are_the_same_for_every_seed_and_small_for_a_small_training(
    plain: dict[str, str],
) -> None:
    one, two = (
        tasks.load(TaskSpec(**plain, holdout=0.2, max_train=30), seed=seed) for seed in (0, 1)
    )
    assert rows(one, "validation") == rows(two, "validation")
    assert len(one.splits["validation"]) == 6
    assert len(one.splits["train"]) == 30
    assert rows(one, "train") != rows(two, "train")


@pytest.mark.parametrize(("holdout", "word"), [(0.001, "score"), (0.999, "train on")])
def test_nothing_left_is_an_error(plain: dict[str, str], holdout: float, word: str) -> None:
    with pytest.raises(IwloraError, match=f"leaves nothing to {word}"):
        tasks.load(TaskSpec(**plain, holdout=holdout), seed=0)
