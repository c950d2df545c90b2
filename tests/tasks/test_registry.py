"""The list of tasks: a line for every name and kind, which says what loading gives."""

from __future__ import annotations

import pytest

from iwlora.tasks import TaskSpec, list_tasks, load, names
from iwlora.tasks.kinds import KINDS

pytestmark = pytest.mark.quick


def test_every_name_and_kind_has_a_line() -> None:
    lines = list_tasks()
    assert [line.name for line in lines[: len(names())]] == list(names())
    assert {line.name for line in lines[len(names()) :]} == {"(your files)"}
    assert {line.kind for line in lines} == set(KINDS)
    assert all(line.metrics and line.splits and line.summary for line in lines)


def test_a_line_says_what_loading_gives() -> None:
    task = load(TaskSpec(name="builtin/entailment"), seed=0)
    (line,) = [line for line in list_tasks() if line.name == task.name]
    assert (line.metrics, line.splits) == (task.metrics, tuple(task.splits))
    assert line.kind == task.kind.name
