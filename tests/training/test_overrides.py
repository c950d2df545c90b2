"""Overrides: ``key=value`` with dots in the key and YAML in the value."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.errors import IwloraError
from iwlora.training.overrides import is_assignment, override
from iwlora.training.recipe import apply_overrides

pytestmark = pytest.mark.quick


def test_override_changes_a_copy() -> None:
    before = {"train": {"lr": 0.1, "seed": 1}, "model": "a"}
    after = override(before, ["train.lr=2e-4", "model=b", "task.name=glue/rte", "label="])
    assert after == {
        "train": {"lr": 2e-4, "seed": 1},
        "model": "b",
        "task": {"name": "glue/rte"},
        "label": None,
    }
    assert before == {"train": {"lr": 0.1, "seed": 1}, "model": "a"}


def test_override_takes_values_with_equals_signs_and_lists() -> None:
    assert override({}, ["a=b=c", "task.text=[x, y]", "p={q: 1}"]) == {
        "a": "b=c",
        "task": {"text": ["x", "y"]},
        "p": {"q": 1},
    }


def test_the_last_override_counts() -> None:
    assert override({}, ["a=1", "a=2"]) == {"a": 2}


def test_a_short_form_stays_under_its_name() -> None:
    settings = {"task": "glue/rte", "method": "lora"}
    assert override(settings, ["task.max_train=5", "method.rank=2"]) == {
        "task": {"name": "glue/rte", "max_train": 5},
        "method": {"name": "lora", "rank": 2},
    }


def test_all_wrong_overrides_are_reported_at_once() -> None:
    with pytest.raises(IwloraError) as caught:
        override({}, ["a", "b=1", "=c", "d..e=1"])
    assert len(str(caught.value).splitlines()) == 3


def test_another_method_drops_only_what_it_does_not_have() -> None:
    settings = {"method": {"name": "iw-lora", "rank": 4, "alpha": 1, "wrong": 2}}
    assert apply_overrides(settings, ["method.name=lora"])["method"] == {
        "name": "lora",
        "rank": 4,
        "wrong": 2,  # a mistake in the file is still reported
    }
    kept = apply_overrides(settings, ["method.name=lora", "method.alpha=3"])["method"]
    assert kept["alpha"] == 3
    assert apply_overrides(settings, ["method.rank=5"])["method"]["alpha"] == 1
    assert apply_overrides(settings, ["method.name=iw-lora"])["method"]["alpha"] == 1


def test_an_assignment_may_be_longer_than_the_name_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_assignment(f"task.labels=[{','.join(f'class-{number}' for number in range(1000))}]")
    assert is_assignment("a=b.yaml")
    Path("a=b.yaml").touch()
    assert not is_assignment("a=b.yaml")
