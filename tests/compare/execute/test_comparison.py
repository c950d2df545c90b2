"""The lock on a comparison's folder."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from iwlora.compare.execute.comparison import lock_folder

pytestmark = pytest.mark.quick


def test_two_comparisons_do_not_write_into_one_folder(tmp_path: Path) -> None:
    announced: list[str] = []
    entered = threading.Event()

    def second() -> None:
        with lock_folder(tmp_path, announced.append):
            entered.set()

    with lock_folder(tmp_path, announced.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.3)
    thread.join(10)
    assert entered.is_set()
    assert "in use by another comparison" in announced[0]
