"""Commands that need no model answer without torch, which takes seconds to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from comparison_folders import write_comparison
from conftest import drawn_figures
from iwlora.compare.report.write import write_report

_CHILD = """
import contextlib, io, json, sys, time
from iwlora.cli import main

HEAVY = {"torch", "transformers", "peft", "accelerate", "datasets"}

class FirstLine(io.StringIO):
    def write(self, text):
        if text.strip():
            raise KeyboardInterrupt(text)

outcomes = []
for arguments in json.loads(sys.argv[1]):
    output = FirstLine() if arguments[0] == "train" else io.StringIO()
    begin = time.process_time()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
    seconds = time.process_time() - begin
    outcomes.append([code, sorted(HEAVY & sys.modules.keys()), seconds])
print(json.dumps(outcomes))
"""


def start(*commands: list[str], first: str = "") -> list[tuple[int, list[str], float]]:
    """(exit code, heavy libraries, seconds of CPU time) after each command, in one new process.

    ``train`` is interrupted at its first line.
    """
    child = [sys.executable, "-c", first + _CHILD, json.dumps(commands)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    return [(code, loaded, seconds) for code, loaded, seconds in json.loads(done.stdout)]


@pytest.mark.quick
def test_commands_start_in_two_seconds_without_torch(
    tmp_path: Path, recipe: Path, finished: Path
) -> None:
    folder = write_comparison(tmp_path / "comparison", seeds=1)
    with drawn_figures():
        write_report(folder)  # as the comparison does: another report draws nothing
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("model: builtin/minilm\nmethods: [lora, lorra]\nmethod: lorra\n")
    expected = {
        ("--help",): 0,
        ("tasks",): 0,
        ("methods",): 0,
        ("train", str(wrong), "--out", str(tmp_path / "run")): 2,
        ("compare", str(wrong), "--out", str(tmp_path / "run")): 2,
        ("report", str(folder)): 0,
        ("verify", str(finished)): 0,
        ("train", str(recipe), "--out", str(tmp_path / "run")): 130,
    }
    for command, outcome in zip(expected, start(*map(list, expected)), strict=True):
        code, loaded, seconds = outcome
        assert (command, code, loaded) == (command, expected[command], [])
        assert seconds < 2, command


def test_an_import_of_torch_is_seen() -> None:
    ((_, loaded, _),) = start(["tasks"], first="import iwlora.training.device\n")
    assert "torch" in loaded
