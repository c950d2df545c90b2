"""What is printed may get lost; a result may not, nor the exit code that speaks of it."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import warm_processes
from commands import run_settings, write_recipe
from iwlora.cli import main
from iwlora.cli.terminal.streams import LastingOutput, lasting_streams

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors of POSIX")


def gone() -> int:
    """A pipe whose reader is gone."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return write_end


def full() -> int:
    """A disk without space."""
    return os.open("/dev/full", os.O_WRONLY)


LOST = {"gone": gone, "full": full, "closed": None}


def end(arguments: list[str], lost: str, numbers: list[int], errors: Path) -> None:
    """Run a command in this process, whose descriptors ``numbers`` are lost."""
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    for number in numbers:
        if make := LOST[lost]:
            os.dup2(make(), number)
        else:
            os.close(number)
            setattr(sys, ("stdin", "stdout", "stderr")[number], None)
    raise SystemExit(main(arguments))


def code_of(arguments: list[str], lost: str, numbers: list[int], errors: Path) -> int | None:
    process = warm_processes.start(end, arguments, lost, numbers, errors)
    process.join(60)
    return process.exitcode


@pytest.mark.parametrize(
    ("lost", "code", "message"),
    [
        ("gone", 141, ""),
        ("full", 2, "error: cannot print the result: No space left on device\n"),
        ("closed", 2, "error: cannot print the result: it is closed\n"),
    ],
)
@pytest.mark.parametrize("arguments", [["tasks"], ["--help"]], ids=" ".join)
def test_a_command_whose_result_is_printed_fails_if_it_is_lost(
    arguments: list[str], lost: str, code: int, message: str, tmp_path: Path
) -> None:
    errors = tmp_path / "errors"
    assert code_of(arguments, lost, [1], errors) == code
    assert errors.read_text() == message


@pytest.mark.parametrize("lost", LOST)
def test_a_run_ends_without_a_terminal(
    lost: str, tiny_bert: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    recipe = write_recipe(tmp_path / "recipe.yaml", run_settings(tiny_bert, reviews))
    command = ["train", str(recipe), "--out", str(tmp_path / "run")]
    assert code_of(command, lost, [1, 2], tmp_path / "errors") == 0
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize("lost", LOST)
def test_a_refusal_has_its_exit_code_without_a_terminal(lost: str, tmp_path: Path) -> None:
    assert code_of(["report", "no-such-folder"], lost, [1, 2], tmp_path / "errors") == 2


@pytest.mark.quick
def test_a_lost_output_keeps_its_first_error() -> None:
    errors = [OSError(errno.ENOSPC, "full"), OSError(errno.EIO, "broken")]

    class Raw(io.RawIOBase):
        def write(self, data: Any) -> int:
            raise errors.pop(0)

    output = LastingOutput(Raw())
    assert output.write(b"abc") == 3
    assert output.write(b"defg") == 4
    assert output.error is not None
    assert output.error.errno == errno.ENOSPC


@pytest.mark.quick
def test_streams_that_the_caller_replaced_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = io.StringIO()
    monkeypatch.setattr(sys, "stdout", mine)
    with lasting_streams() as output:
        assert sys.stdout is mine
        assert output is None


def test_what_an_ascii_terminal_lacks_is_written_as_an_escape() -> None:
    code = (
        "from iwlora.cli.terminal.streams import lasting_streams\n"
        "with lasting_streams():\n    print('\\u2588', '\\udcff')\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "\\u2588 \\udcff\n"
