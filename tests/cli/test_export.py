"""``iwlora export``."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import call

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("merge", [False, True])
def test_export(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], merge: bool
) -> None:
    to = tmp_path / "deep" / "adapter"
    outcome = call(capsys, "export", finished, "--to", to, *(["--merge"] if merge else []))
    assert outcome.code == 0
    assert outcome.out == f"{to}\n"
    weights = "model.safetensors" if merge else "adapter_model.safetensors"
    assert (to / weights).is_file()
