"""Carries out an input and says how it ended: accepted, refused, a traceback, a hang, a loss."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import time
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

WAITING = 20
ENDINGS = ("accepted", "refused", "traceback", "hang")


class Stopped(BaseException):
    """An accepted command has come to its real work."""


class TooLong(BaseException):
    """The time of an input is over."""


@dataclass(frozen=True)
class Outcome:
    """How an input ended, what was said at last, and the good files that it harmed."""

    ending: str
    told: str
    lost: tuple[str, ...]
    seconds: float


class Guard:
    """Carries out inputs beside good results in ``root``, each for ``limit`` seconds of work."""

    def __init__(self, root: Path, limit: float = 20.0, command: Command = main) -> None:
        self._root, self._keep, self._work = root, root / "keep", root / "work"
        self._limit, self._command = limit, command
        self._good = snapshot(self._keep)

    def judge(self, given: Input) -> Outcome:
        """Carry one out; harmed results are put right again."""
        shutil.rmtree(self._work, ignore_errors=True)
        self._lay_out(given)
        arguments = [self._filled(one) for one in given.arguments]
        began = time.monotonic()
        ending, told = self._carry_out(arguments, given.trains)
        return Outcome(ending, told, self._mend(), time.monotonic() - began)

    def _carry_out(self, arguments: list[str], trains: bool) -> tuple[str, str]:
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
        words = err.buffer.getvalue().decode("utf-8", "replace")  # type: ignore[attr-defined]
        return judged(code, words)

    def _filled(self, text: str) -> str:
        for name, path in ((WORK, self._work), (KEEP, self._keep), (MODEL, self._root / "model")):
            text = text.replace(name, str(path))
        return text

    def _lay_out(self, given: Input) -> None:
        self._work.mkdir()
        for place, which in given.copies.items():
            shutil.copytree(self._keep / which, self._work / place)
        for name, fields in given.edits.items():
            path = self._work / name
            if path.is_file():
                path.write_bytes(edited(path, fields, self._filled))
        for name, (part, more) in given.cuts.items():
            path = self._work / name
            if path.is_file():
                whole = path.read_bytes()
                path.write_bytes(whole[: int(part * len(whole))] + more)
        for name, content in given.files.items():
            path = self._work / name
            if content is None:
                path.unlink(missing_ok=True)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(self._filled(content.decode("latin-1")).encode("latin-1"))
        for name, target in given.links.items():
            path = self._work / name
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(self._filled(target))

    def _mend(self) -> tuple[str, ...]:
        """The good files that are gone or others now; everything is put back as it was."""
        found = snapshot(self._keep)
        if found == self._good:
            return ()
        lost = tuple(
            name
            for name, content in self._good.items()
            if found.get(name) != content and not _grown(name, content, found.get(name))
        )
        shutil.rmtree(self._keep)
        for name, content in self._good.items():
            path = self._keep / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return lost


def judged(code: int, words: str) -> tuple[str, str]:
    """("accepted" | "refused" | "traceback", what was said) of a command that ended by itself.

    A refusal says why, on lines that begin with ``error:`` or ``usage:``. Anything else that ends
    with an error counts as a traceback.
    """
    if "Traceback (most recent call last)" in words:
        return "traceback", words
    if code in (0, 1):
        return "accepted", words
    lines = words.splitlines()
    plain = bool(lines) and lines[0].startswith(("error: ", "usage: iwlora"))
    return ("refused" if code == 2 and plain else "traceback"), f"exit {code}: {words}"


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder; the locks of processes are not results."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _grown(name: str, before: bytes, after: bytes | None) -> bool:
    """Whether a comparison's plan has all that it had, and more."""
    if Path(name).name != "comparison.yaml" or after is None:
        return False
    old, new = yaml.safe_load(before), yaml.safe_load(after)
    return all(set(old[part]) <= set(new[part]) for part in ("methods", "seeds"))


def edited(path: Path, fields: Any, filled: Callable[[str], str]) -> bytes:
    """A JSON or YAML file with some fields changed."""
    as_json = path.suffix == ".json"
    value = json.loads(path.read_bytes()) if as_json else yaml.safe_load(path.read_bytes())
    for place, new in fields:
        value = changed(value, place, new)
    text = json.dumps(value) if as_json else to_yaml(value)
    return filled(text).encode("utf-8", "surrogatepass")


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLong` in a block that works for so long, or is there ``WAITING`` times that.

    What works slowly on a busy machine does not hang.
    """

    def over(*_: object) -> None:
        raise TooLong

    clocks = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, WAITING * seconds),
    }
    before = {number: signal.signal(number, over) for number in clocks}
    for clock, after in clocks.values():
        signal.setitimer(clock, after)
    try:
        yield
    finally:
        for clock, _ in clocks.values():
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stopped_before_work(wanted: bool) -> Iterator[None]:
    """Stop runs where training begins, and comparisons before their first run.

    A comparison never begins one: its runs are what the inputs of ``iwlora train`` try.
    """

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch("iwlora.compare.execute.scheduler.Scheduler.execute", stop))
        if wanted:
            stack.enter_context(
                mock.patch("iwlora.training.loop.trainer.FineTuningTrainer.fit", stop)
            )
        yield
