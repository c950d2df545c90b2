"""What happened to each family, and which outcomes are accepted."""

from __future__ import annotations

import re
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iwlora import IwloraError

SECONDS = 60
"""A family that computes for longer has failed."""


class OutOfTime(BaseException):
    """No ``Exception``: code that reports any error as its own must not catch it."""


@dataclass(frozen=True)
class Outcome:
    """What ended a step for one family with one method.

    Args:
        family: The model type of transformers.
        kind: The kind of task.
        method: The method; "" before the first one.
        result: ``equal``: all steps were right; ``wrong``: a check failed; ``refused``: a message
            of iwlora; ``traceback``: any other error of iwlora; ``not computed``: transformers
            alone cannot compute the model.
        message: What was wrong, or the error.
    """

    family: str
    kind: str
    method: str
    result: str
    message: str = ""


@dataclass(frozen=True)
class LeftOut:
    """A reason to leave families out.

    Args:
        families: A pattern of their names.
        message: A pattern that is in the message of the outcome.
        reason: Why it is right to leave them out.
        result: The result of the outcome.
    """

    families: str
    message: str
    reason: str
    result: str = "refused"

    def accepts(self, outcome: Outcome) -> bool:
        """Whether this is the reason for an outcome."""
        return (
            outcome.result == self.result
            and re.fullmatch(self.families, outcome.family) is not None
            and re.search(self.message, outcome.message) is not None
        )


def run_family(
    family: str, kind: str, methods: Sequence[str], **changes: Any
) -> tuple[Outcome, ...]:
    """Take a tiny model of a family through every step with every method.

    Args:
        family: The model type of transformers.
        kind: The kind of task.
        methods: The names of the methods.
        changes: Fields of the model's configuration.

    Returns:
        An outcome for each method, and more where several checks of a method failed.
    """
    steps = _Steps(family, kind)
    try:
        with TemporaryDirectory() as folder, _time_limit():
            _run(Path(folder), steps, methods, changes)
    except OutOfTime:
        steps.add("", "wrong", f"computing takes more than {SECONDS} s")
    return tuple(steps.outcomes)


@dataclass
class _Steps:
    """Runs steps, and collects what ends one early."""

    family: str
    kind: str
    outcomes: list[Outcome] = field(default_factory=list)

    def add(self, method: str, result: str, message: str = "") -> None:
        self.outcomes.append(Outcome(self.family, self.kind, method, result, message))

    def attempt(self, method: str, step: Callable[[], Any]) -> Any:
        """The result of a step; None where it failed."""
        try:
            return step()
        except AssertionError as error:
            self.add(method, "wrong", str(error))
        except IwloraError as error:
            self.add(method, "refused", str(error))
        except Exception as error:  # that is what this looks for
            self.add(method, "traceback", _describe(error))
        return None


def _run(folder: Path, steps: _Steps, methods: Sequence[str], changes: Mapping[str, Any]) -> None:
    from families.checkpoints import save_checkpoint
    from families.journey import Journey

    journey = Journey(folder / "checkpoint", steps.kind, folder)
    try:
        save_checkpoint(journey.checkpoint, steps.family, steps.kind, **changes)
        journey.plain_loss()
    except Exception as error:  # a model of transformers raises anything
        steps.add("", "not computed", _describe(error))
        if journey.checkpoint.is_dir():  # then iwlora must say so too
            steps.attempt("", partial(journey.train, methods[0]))
            steps.outcomes[:] = [row for row in steps.outcomes if row.result != "refused"]
        return
    steps.attempt("", journey.measure)
    for method in methods:
        before = len(steps.outcomes)
        trained = steps.attempt(method, partial(journey.train, method))
        for check in journey.checks if trained is not None else ():
            steps.attempt(method, partial(check, trained))
        if len(steps.outcomes) == before:
            steps.add(method, "equal")


def _describe(error: Exception) -> str:
    """The error in one line, and the place that raised it."""
    text = " ".join(str(error).split())
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}:{frame.lineno})"


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise ``OutOfTime`` after ``SECONDS`` of this process's own computing."""

    def stop(_signal: int, _frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGPROF, stop)
    # Again and again: an exception in a callback of the garbage collector is lost.
    signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
