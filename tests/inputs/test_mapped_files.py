"""Large files are mapped, and whatever is no file is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.mapped_files import mapped_bytes

pytestmark = pytest.mark.quick


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.bin"
    file.write_bytes(b"")
    assert len(mapped_bytes(file)) == 0
    file.write_bytes(b"abc")
    mapped = mapped_bytes(file)
    with file.open("ab") as stream:
        stream.write(b"def")
    file.unlink()
    assert bytes(mapped) == b"abc"
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 0


@pytest.mark.parametrize("name", ["missing", "."])
def test_whatever_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(IwloraError, match="cannot read "):
        mapped_bytes(tmp_path / name)
