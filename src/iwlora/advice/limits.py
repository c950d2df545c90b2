"""What the user can spend: parameters, memory and time."""

from __future__ import annotations

import re
from dataclasses import dataclass

from iwlora.errors import IwloraError, raise_all, short_repr

_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True)
class Limits:
    """The most that a run may take; None where there is no limit.

    Args:
        params: adapter parameters, as a ``budget`` of a recipe: ``0.5%``, ``300K`` or a number.
        memory: bytes, on the device that trains.
        seconds: of the whole run.
    """

    params: str | float | None = None
    memory: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(
        cls, params: str | float | None, memory: str | float | None, time: str | float | None
    ) -> Limits:
        """The limits as they are typed.

        Raises:
            IwloraError: a text has another form; it lists all of them.

        Example:
            >>> Limits.parse("0.5%", "16GB", "1.5h")
            Limits(params='0.5%', memory=16000000000, seconds=5400.0)
        """
        problems: list[str] = []
        size = _number("memory", memory, _BYTES, "16GB or 800MiB", problems)
        seconds = _number("time", time, _SECONDS, "90s, 30min or 2h", problems)
        try:
            _check_params(params)
        except IwloraError as error:
            problems.insert(0, str(error))
        raise_all(problems)
        return cls(params, None if size is None else round(size), seconds)


def _check_params(params: str | float | None) -> None:
    from iwlora.methods.budget import parse_budget

    if params is not None:
        parse_budget(params, backbone=10**12, option="params")


def _number(
    name: str, given: str | float | None, units: dict[str, int], example: str, problems: list[str]
) -> float | None:
    if given is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]+)\s*", str(given), re.ASCII)
    factors = {unit.lower(): factor for unit, factor in units.items()}
    if match and match[2].lower() in factors and float(match[1]) > 0:
        return float(match[1]) * factors[match[2].lower()]
    problems.append(
        f"{name}={short_repr(given)} was given; accepted are numbers above 0 with a unit "
        f"({', '.join(units)}), such as {example}"
    )
    return None
