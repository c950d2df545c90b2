"""One changed byte: the script finds none that is silent, and finds one that is."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import pytest

import bit_flips
from bit_flips import FINISHED, KILLED, Flip
from warm_processes import start

KINDS = ("labels", "recipe")
LAST_WEIGHT = Flip(KILLED, "checkpoints", "checkpoints/checkpoint-10/trainable.safetensors", -1, 1)
A_ROW = Flip(FINISHED, "digests of rows", "row-digests.json", 400, 1)
CHECKPOINTS, VERIFY = "iwlora.training.state.checkpoints", "iwlora.training.state.verify"
DEFECTS: dict[str, tuple[Flip, tuple[str, ...], object]] = {
    "checkpoints are not compared": (
        LAST_WEIGHT,
        (f"{CHECKPOINTS}.damage", f"{VERIFY}.damage"),
        lambda folder: None,
    ),
    "verify skips the files of a result": (A_ROW, (f"{VERIFY}._listed",), lambda *_: ()),
}


def flip_some(root: Path, answer: Path) -> None:
    """What the script does, with and without a defect; the silent flips go into a file."""
    bit_flips.make(root)
    found: dict[str, list[str]] = {"none": []}
    flips = [*bit_flips.choose(root, 4, KINDS), LAST_WEIGHT, A_ROW]
    found["table"] = [bit_flips.flip_all(root, flips, found["none"].append)]
    for defect, (flip, names, replacement) in DEFECTS.items():
        found[defect] = []
        with ExitStack() as stack:
            for name in names:
                stack.enter_context(mock.patch(name, replacement))
            bit_flips.flip_all(root, [flip], found[defect].append)
    answer.write_text(json.dumps(found), encoding="utf-8")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    folder = tmp_path_factory.mktemp("flips")
    (folder / "root").mkdir()
    process = start(flip_some, folder / "root", folder / "found.json")
    process.join()
    answer: dict[str, list[str]] = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return answer


@pytest.mark.slow
def test_no_change_is_silent(found: dict[str, list[str]]) -> None:
    assert found["none"] == []
    (table,) = found["table"]
    assert "| both | all | 6 |" in table
    assert "| killed | recipe | 1 |" in table


@pytest.mark.slow
@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(found: dict[str, list[str]], defect: str) -> None:
    assert found[defect] == [f"silent: {DEFECTS[defect][0]}"]
