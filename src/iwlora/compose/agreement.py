"""Whether runs can answer together: one backbone, one kind of task, the same classes and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from iwlora.errors import IwloraError, raise_all, short_repr
from iwlora.results.fingerprint import MODEL_PARTS, PROCESSORS, Fingerprint
from iwlora.tasks.metrics.logits import Average
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

_PARTS = (*MODEL_PARTS, *PROCESSORS)


def check_agreement(sources: Mapping[str, RunDir]) -> None:
    """Raise ``IwloraError`` with everything in which runs differ that must be the same.

    Args:
        sources: {name: finished run}.
    """
    problems = [problem for name, run in sources.items() for problem in _alone(name, run)]
    raise_all(problems)
    first, *others = sources
    of_first = _facts(sources[first])
    for name in others:
        of_other = _facts(sources[name])
        for what, (value, shown) in of_first.items():
            other_value, other_shown = of_other[what]
            if value != other_value:
                differ = f": {shown} and {other_shown}" if shown else ""
                problems.append(f"{what} of {first} and {name} differ{differ}{_cure(what)}")
    raise_all(problems)


def average_of(source: RunDir, asked: Average | None) -> Average | None:
    """What is averaged: what was asked for, or the default of the kind of task.

    Raises ``IwloraError`` where the kind has no such thing.
    """
    kind = stored_task(source).kind
    if asked is None:
        return kind.averages[0] if kind.averages else None
    if asked not in kind.averages:
        raise IwloraError(
            f"--average {asked}: tasks of kind {kind.name} have numbers, which are averaged as "
            "they are; leave out --average"
        )
    return asked


def _alone(name: str, run: RunDir) -> list[str]:
    """What is wrong with a run whatever the others are."""
    problems = []
    kind, result = stored_task(run).kind, run.result()
    if kind.not_averaged:
        problems.append(
            f"{name} ({run.path}) is a task of kind {kind.name}, which has no average: "
            f"{kind.not_averaged}"
        )
    if result is None or result.fingerprint is None:
        problems.append(
            f"{name} ({run.path}) has no fingerprint, so nothing says whether its backbone is that "
            "of the others; train it again with this version of iwlora"
        )
    return problems


def _facts(run: RunDir) -> dict[str, tuple[Any, str]]:
    """{what must be the same: (its value, the value for a message)}."""
    task, recipe, result = stored_task(run), run.recipe(), run.result()
    parts = (result.fingerprint if result else None) or Fingerprint(parts={})
    # Of a model that was not on the disk, only the name is known.
    known = {f"the {part}": (parts.parts.get(part, recipe.model), "") for part in _PARTS}
    plain = {
        "the kinds of task": task.kind.name,
        "the text columns": list(task.text),
        "the classes": list(task.labels),
        "train.max_length": recipe.train.max_length,
        "add_tokens": list(recipe.add_tokens),
    }
    return {**{what: (value, _shown(value)) for what, value in plain.items()}, **known}


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(str, value))}]" if len(value) < 10 else short_repr(list(value))
    return str(value)


def _cure(what: str) -> str:
    if what == "the classes":
        return (
            "; give task.labels=[CLASS, ...] to all runs, which fixes the classes and their order"
        )
    return ""
