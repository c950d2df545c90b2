"""Executes an input and judges its end: accepted, refused, a traceback, a hang, harmed results."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml

from fuzzing.inputs import KEEP, MODEL, WORK, Input
from fuzzing.recipes import changed
from iwlora.cli import main
from iwlora.inputs.yaml_json import to_yaml

Command = Callable[[Sequence[str]], int]

REAL_TIME_FACTOR = 20
ENDINGS = ("accepted", "refused", "traceback", "hang")


class Stopped(BaseException):
    """An accepted command has reached the work that is not wanted."""


class TooLong(BaseException):
    """An input has used up its time."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended, what it printed or raised, and the good files that it harmed."""

    ending: str
    output: str
    lost: tuple[str, ...]


class Guard:
    """Executes inputs next to good results in ``root``, each for at most ``limit`` CPU seconds."""

    def __init__(self, root: Path, limit: float = 20.0, command: Command = main) -> None:
        self._root, self._keep, self._work = root, root / "keep", root / "work"
        self._limit, self._command = limit, command
        self._good = snapshot(self._keep)

    def judge(self, case: Input) -> Outcome:
        """Execute an input; harmed results are restored."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._write_files(case)
        arguments = [self._fill_in(argument) for argument in case.arguments]
        ending, output = self._execute(arguments, case.trains)
        return Outcome(ending, output, self._restore())

    def _execute(self, arguments: list[str], trains: bool) -> tuple[str, str]:
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        err = io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True)
        try:
            with (
                contextlib.redirect_stdout(out),
                contextlib.redirect_stderr(err),
                stopped_before_work(not trains),
                time_limit(self._limit),
            ):
                code = self._command(arguments)
        except Stopped:
            return "accepted", ""
        except TooLong as error:
            return "hang", "".join(traceback.format_tb(error.__traceback__)[-3:])
        except SystemExit as usage:  # argparse ends this way
            code = int(str(usage.code))
        except BaseException:
            return "traceback", traceback.format_exc()
        errors = err.buffer.getvalue().decode("utf-8", "replace")
        return judge_exit(code, errors)

    def _fill_in(self, text: str) -> str:
        for name, path in ((WORK, self._work), (KEEP, self._keep), (MODEL, self._root / "model")):
            text = text.replace(name, str(path))
        return text

    def _write_files(self, case: Input) -> None:
        self._work.mkdir()
        for folder, result in case.copies.items():
            shutil.copytree(self._keep / result, self._work / folder)
        for name, fields in case.edits.items():
            path = self._work / name
            if path.is_file():
                path.write_bytes(edit_fields(path, fields, self._fill_in))
        for name, (part, more) in case.cuts.items():
            path = self._work / name
            if path.is_file():
                whole = path.read_bytes()
                path.write_bytes(whole[: int(part * len(whole))] + more)
        for name, content in case.files.items():
            path = self._work / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._fill_in(content.decode("latin-1")).encode("latin-1"))
        for name, target in case.links.items():
            path = self._work / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(self._fill_in(target))

    def _restore(self) -> tuple[str, ...]:
        """The good files that are gone or changed; everything is restored."""
        now = snapshot(self._keep)
        if now == self._good:
            return ()
        lost = tuple(
            name
            for name, content in self._good.items()
            if now.get(name) != content and not _has_grown(name, content, now.get(name))
        )
        shutil.rmtree(self._keep)
        for name, content in self._good.items():
            path = self._keep / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return lost


def judge_exit(code: int, errors: str) -> tuple[str, str]:
    """("accepted", "refused" or "traceback"; what was printed) of a command that ended by itself.

    A refusal has exit code 2 and begins with ``error:`` or ``usage:``. Any other end with an error
    counts as a traceback.
    """
    if "Traceback (most recent call last)" in errors:
        return "traceback", errors
    if code in (0, 1):
        return "accepted", errors
    explained = errors.startswith(("error: ", "usage: iwlora"))
    return ("refused" if code == 2 and explained else "traceback"), f"exit {code}: {errors}"


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, except locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _has_grown(name: str, before: bytes, after: bytes | None) -> bool:
    """Whether a comparison still has all of its arms and seeds, and perhaps more."""
    if Path(name).name != "comparison.yaml" or after is None:
        return False
    old, new = yaml.safe_load(before), yaml.safe_load(after)
    return all(set(old[part]) <= set(new[part]) for part in ("methods", "seeds"))


def edit_fields(path: Path, fields: Any, fill_in: Callable[[str], str]) -> bytes:
    """The content of a JSON or YAML file with some fields changed."""
    as_json = path.suffix == ".json"
    value = json.loads(path.read_bytes()) if as_json else yaml.safe_load(path.read_bytes())
    for keys, new in fields:
        value = changed(value, keys, new)
    text = json.dumps(value) if as_json else to_yaml(value)
    return fill_in(text).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLong` after so many CPU seconds, or ``REAL_TIME_FACTOR`` times in real time.

    A block that is slow because the machine is busy does not hang.
    """

    def interrupt(*_: object) -> None:
        raise TooLong

    clocks = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, REAL_TIME_FACTOR * seconds),
    }
    before = {number: signal.signal(number, interrupt) for number in clocks}
    for clock, limit in clocks.values():
        signal.setitimer(clock, limit)
    try:
        yield
    finally:
        for clock, _ in clocks.values():
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopped_before_work(stop_training: bool) -> Iterator[None]:
    """Stop comparisons before their first run, and if asked to, runs where training begins.

    A comparison never starts a run: the inputs of ``iwlora train`` try those.
    """

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with contextlib.ExitStack() as stack:
        stack.enter_context(
            mock.patch("iwlora.compare.execute.scheduling.scheduler.Scheduler.execute", stop)
        )
        if stop_training:
            stack.enter_context(
                mock.patch("iwlora.training.loop.trainer.FineTuningTrainer.fit", stop)
            )
        yield
