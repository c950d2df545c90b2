"""A few random inputs of every category, and a judge that notices every kind of failure."""

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
@pytest.mark.parametrize("category", fuzz.CATEGORIES)
def test_a_few_inputs_of_every_category(root: Path, category: str) -> None:
    count = 2 if category == "comparison folders" else 6  # each of which draws a report
    result = fuzz.run_category(category, count, Guard(root, limit=60.0))
    assert result.failures == []
    assert result.endings["inputs"] == count
    assert fuzz.failure_count(result.endings) == 0


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
    assert "KeyError: 'train'" in outcome.output


@pytest.mark.parametrize(
    ("errors", "code", "ending"),
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
def test_a_refusal_says_why(tmp_path: Path, errors: str, code: int, ending: str) -> None:
    def refusing(_arguments: Sequence[str]) -> int:
        sys.stderr.write(errors)
        return code

    assert guard(tmp_path, refusing).judge(Input(())).ending == ending


@pytest.mark.parametrize("pause", [0.0, 0.01], ids=["working", "sleeping"])
def test_a_hang_is_noticed_and_ended(tmp_path: Path, pause: float) -> None:
    def hanging(_arguments: Sequence[str]) -> int:
        while True:
            time.sleep(pause)

    outcome = guard(tmp_path, hanging, limit=0.02).judge(Input(()))
    assert outcome.ending == "hang"
    assert "in hanging" in outcome.output


@pytest.mark.parametrize("harm", ["changed", "removed", "folder", "none"])
def test_a_lost_result_is_noticed_and_restored(tmp_path: Path, harm: str) -> None:
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


def test_a_failure_is_counted_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(_arguments: Sequence[str]) -> int:
        raise IwloraError("the command line would have caught this")

    result = fuzz.run_category("tables of scores", 5, guard(tmp_path, failing))
    endings = result.endings
    assert fuzz.failure_count(endings) == endings["traceback"] == len(result.failures) == 5
    assert "| all | 5 | 0 | 0 | 5 | 0 | 0 |" in fuzz.table({"tables of scores": endings})


def test_the_inputs_are_the_same_every_time(tmp_path: Path) -> None:
    digests = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        result = fuzz.run_category("key=value", 20, guard(tmp_path / name, lambda _: 0))
        digests.add(result.digest)
    assert len(digests) == 1
    assert sum(count for _, count in fuzz.CATEGORIES.values()) == 10_000
