"""One system call fails: the script finds no untrue end, and finds those that are planted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import failing_calls
from iwlora.cli import main
from system_calls.commands import Study
from system_calls.strace import unavailable
from warm_processes import start

COMMAND, CASES = "predict", 8


def ends_with_0(arguments: Sequence[str]) -> int:
    main(arguments)
    return 0


def write_in_place(path: Path, text: str) -> None:
    with Path(path).open("wb", buffering=0) as stream:  # a buffer would be written once more
        stream.write(text.encode())


DEFECTS: dict[str, tuple[str, Callable[..., Any], str]] = {
    "an error ends with 0": (
        "system_calls.commands.main",
        ends_with_0,
        "exit 0, and the result is another one",
    ),
    "a file is written in place": (
        "iwlora.training.prediction.tables.write_text",
        write_in_place,
        "lost answers.csv",
    ),
}


def try_all(root: Path, answer: Path) -> None:
    """What the script does, with and without a defect; the outcomes go into a file."""
    study = Study(root)
    study.make_first_states()
    command = study.commands[COMMAND]
    undisturbed = failing_calls.observe(study, command)
    cases = failing_calls.failures(study, command, undisturbed, CASES)
    found: dict[str, Any] = {"none": [(outcome, details) for _, _, outcome, details in cases]}
    for defect, (name, replacement, _) in DEFECTS.items():
        with mock.patch(name, replacement):
            undisturbed = failing_calls.observe(study, command)
            calls = [call for call in undisturbed.calls if "answers.csv" in call.path]
            cases = failing_calls.failures(study, command, replace(undisturbed, calls=calls), CASES)
            found[defect] = next((d for _, _, outcome, d in cases if outcome == "FAILED"), "")
    answer.write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if reason := unavailable():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("calls")
    process = start(try_all, folder / "root", folder / "found.json")
    process.join()
    return json.loads((folder / "found.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_end_is_true(found: Any) -> None:
    outcomes = [outcome for outcome, _ in found["none"]]
    assert len(outcomes) == CASES
    assert "FAILED" not in outcomes, found["none"]
    assert "message" in outcomes, "no call failed"


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(found: Any, defect: str) -> None:
    assert found[defect].startswith(DEFECTS[defect][2])
