"""The states of optimizer, schedule and random generators that are loaded from a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from iwlora.errors import IwloraError, is_out_of_memory


@contextmanager
def loading_state(file: Path) -> Iterator[None]:
    """Raise ``IwloraError`` for a file whose content torch or Python refuses in the block."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        if is_out_of_memory(e):
            raise
        raise _damaged(file, str(e)) from e


@contextmanager
def loading_optimizer(
    optimizer: Any, schedule: Any, step: int | None, file: Path
) -> Iterator[None]:
    """Raise ``IwloraError`` unless the block loads the states of this optimizer and schedule.

    The settings and numbers must have the form of a new optimizer and schedule, the moments the
    shapes of the parameters, and the schedule must be that of the checkpoint's step.

    Args:
        optimizer: As training has prepared it; the block loads its state.
        schedule: The scheduler of its learning rates; the block loads its state.
        step: The optimizer steps of the checkpoint, as its name says them.
        file: Where the states come from, for the message.
    """
    new_groups, new_schedule = _settings(optimizer), schedule.state_dict()
    with loading_state(file):
        yield
    loaded_schedule = schedule.state_dict()
    differences = [
        _difference(_settings(optimizer), new_groups, "the optimizer"),
        _difference(loaded_schedule, new_schedule, "the schedule"),
    ]
    if loaded_schedule.get("last_epoch") != step:
        differences.append(f"the schedule is not that of step {step}")
    for parameter, state in optimizer.state.items():
        for name in ("exp_avg", "exp_avg_sq"):
            moment = state.get(name, parameter)
            if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                differences.append(f"{name} does not fit its parameter")
    if reason := next(filter(None, differences), ""):
        raise _damaged(file, reason)


def _damaged(file: Path, reason: str) -> IwloraError:
    return IwloraError(
        f"{file} is damaged ({reason}); remove {file.parent}, and the run resumes from the "
        "checkpoint before it"
    )


def _settings(optimizer: Any) -> list[dict[str, Any]]:
    """The parameter groups without their parameters."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def _difference(loaded: Any, new: Any, where: str) -> str:
    """Where a state has another form than a new one; empty if nowhere."""
    if isinstance(new, Mapping):  # another version of torch may have had more settings
        if not isinstance(loaded, Mapping) or not loaded.keys() >= new.keys():
            return f"{where} lacks settings"
        return _first(_difference(loaded[key], new[key], f"{where}: {key}") for key in new)
    if isinstance(new, (list, tuple)):
        if not isinstance(loaded, (list, tuple)) or len(loaded) != len(new):
            return f"{where} has another length"
        return _first(_difference(*pair, where) for pair in zip(loaded, new, strict=True))
    if isinstance(new, (int, float)) and not isinstance(new, bool):
        is_number = isinstance(loaded, (int, float)) and not isinstance(loaded, bool)
        return "" if is_number and math.isfinite(loaded) else f"{where} is no finite number"
    return "" if isinstance(loaded, type(new)) else f"{where} is of type {type(loaded).__name__}"


def _first(differences: Iterable[str]) -> str:
    return next(filter(None, differences), "")
