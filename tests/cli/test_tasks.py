"""``iwlora tasks``; tests/tasks has what ``show`` and ``average`` print."""

from __future__ import annotations

import pytest

from commands import call
from iwlora.tasks import names
from iwlora.tasks.kinds import KINDS

pytestmark = pytest.mark.quick


def test_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    listed = call(capsys, "tasks")
    assert listed.code == 0
    lines = listed.out.splitlines()
    assert [line.split()[0] for line in lines][: len(names())] == list(names())
    assert all(kind in listed.out for kind in KINDS)
    assert "task.train=FILE" in lines[-1]
