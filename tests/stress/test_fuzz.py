"""Strange inputs: a few of every kind, and a judge that notices each way of going wrong."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import fuzz
from fuzzing import good
from fuzzing.guard import Guard
from fuzzing.inputs import Input
from iwlora.errors import IwloraError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("fuzz")
    good.make(folder)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_a_few_inputs_of_every_kind(root: Path, kind: str) -> None:
    found = fuzz.outcomes(kind, 12, Guard(root, limit=60.0))
    assert found.told == []
    assert found.endings["inputs"] == 12
    assert fuzz.bad(found.endings) == 0


def guard(folder: Path, command: Callable[[Sequence[str]], int], limit: float = 5.0) -> Guard:
    """A guard of one small result, around a command that is not ours."""
    (folder / "keep").mkdir()
    (folder / "keep" / "result.json").write_text("{}")
    return Guard(folder, limit, command)


def test_a_traceback_is_noticed(tmp_path: Path) -> None:
    def raising(arguments: Sequence[str]) -> int:
        raise KeyError(arguments[0])

    outcome = guard(tmp_path, raising).judge(Input(("train",)))
    assert outcome.ending == "traceback"
    assert "KeyError: 'train'" in outcome.told


@pytest.mark.parametrize(
    ("words", "code", "ending"),
    [
        ("error: no such file: x\n", 2, "refused"),
        ("usage: iwlora train\n", 2, "refused"),
        ("", 2, "traceback"),
        ("something went wrong\n", 2, "traceback"),
        ("error: no\nTraceback (most recent call last):\n", 2, "traceback"),
        ("error: no such file: x\n", 3, "traceback"),
        ("Traceback (most recent call last):\n", 0, "traceback"),
        ("", 0, "accepted"),
        ("error: no run has finished\n", 1, "accepted"),
    ],
)
def test_a_refusal_says_why(tmp_path: Path, words: str, code: int, ending: str) -> None:
    def refusing(_arguments: Sequence[str]) -> int:
        sys.stderr.write(words)
        return code

    assert guard(tmp_path, refusing).judge(Input(())).ending == ending


@pytest.mark.parametrize("rest", [0.0, 0.01], ids=["working", "sleeping"])
def test_a_hang_is_noticed_and_ended(tmp_path: Path, rest: float) -> None:
    def hanging(_arguments: Sequence[str]) -> int:
        while True:
            time.sleep(rest)

    outcome = guard(tmp_path, hanging, limit=0.1).judge(Input(()))
    assert outcome.ending == "hang"
    assert "in hanging" in outcome.told


@pytest.mark.parametrize("harm", ["changed", "removed", "folder", "none"])
def test_a_lost_result_is_noticed_and_put_back(tmp_path: Path, harm: str) -> None:
    keep = tmp_path / "keep"

    def harming(_arguments: Sequence[str]) -> int:
        if harm == "changed":
            (keep / "result.json").write_text("[]")
        elif harm == "removed":
            (keep / "result.json").unlink()
        elif harm == "folder":
            shutil.rmtree(keep)
        (tmp_path / "keep").mkdir(exist_ok=True)
        (keep / "more.txt").write_text("new files are no harm")
        return 0

    outcome = guard(tmp_path, harming).judge(Input(()))
    assert outcome.lost == (() if harm == "none" else ("result.json",))
    assert (keep / "result.json").read_text() == "{}"
    assert not (keep / "more.txt").exists()


def test_what_is_wrong_fails_the_whole_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_arguments: Sequence[str]) -> int:
        raise IwloraError("the command line would have caught this")

    found = fuzz.outcomes("tables of scores", 5, guard(tmp_path, failing))
    assert fuzz.bad(found.endings) == found.endings["traceback"] == len(found.told) == 5
    assert "| all | 5 | 0 | 0 | 5 | 0 | 0 |" in fuzz.table({"tables of scores": found.endings})


def test_a_seed_tells_the_inputs(tmp_path: Path) -> None:
    seen = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        seen.append(fuzz.outcomes("key=value", 20, guard(tmp_path / name, lambda _: 0)))
    assert seen[0].digest == seen[1].digest
    assert sum(count for _, count in fuzz.KINDS.values()) == 10_000
