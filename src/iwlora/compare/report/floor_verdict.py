"""What a score is worth beside its floors: the sentence under a run, and in a report."""

from __future__ import annotations

from collections.abc import Sequence

from iwlora.compare.number_format import display_scale
from iwlora.results.metric_direction import lower_is_better
from iwlora.results.run import FloorScore


def floor_verdict(metric: str, floors: Sequence[FloorScore]) -> str:
    """What a run or an arm shows against its floors, to follow its name; "" without floors.

    It beats a floor where the whole interval of its margin is above 0. A run that does not beat a
    trivial floor has learned nothing, or is not shown to learn.

    Args:
        metric: The primary metric.
        floors: Its floors, see :func:`iwlora.compare.statistics.floors.mean_floors` for an arm.

    Example:
        >>> words = FloorScore(name="bag of words", trivial=False, rows=277,
        ...     metrics={"accuracy": 0.6}, margin=0.042, low=0.011, high=0.073)
        >>> floor_verdict("accuracy", [words])
        'beats the bag of words by 4.2 points (95% interval 1.1 to 7.3)'
    """
    known = sorted(
        ((floor.margin, floor) for floor in floors if floor.margin is not None),
        key=lambda pair: pair[0],
    )
    if not known:
        names = " and ".join(f"the {floor.name}" for floor in floors)
        return f"cannot be compared with {names}: a score is not a number" if floors else ""
    trivial = next((floor for _, floor in known if floor.trivial), None)
    # Above is lower where a lower score is better: then it would be read the wrong way.
    lower = lower_is_better(metric)
    above, below = ("better than", "worse than") if lower else ("above", "below")
    reading = next((floor for _, floor in known if not floor.trivial), None)
    if trivial and (trivial.margin or 0.0) <= 0:
        return f"learned nothing: not {above} the {trivial.name} ({_signed(metric, trivial)})"
    if trivial and not is_beaten(trivial):
        return (
            f"is not shown to learn: {above} the {trivial.name} by {_amount(metric, trivial)}; "
            f"{trivial.rows:,} scored rows are too few to tell"
        )
    if reading and not is_beaten(reading):
        also = f"; it beats the {trivial.name} by {_amount(metric, trivial)}" if trivial else ""
        if reading.high is not None and reading.high < 0:
            return f"is {below} the {reading.name} by {_amount(metric, reading, -1)}{also}"
        return f"is not shown to beat the {reading.name} ({_signed(metric, reading)}){also}"
    hardest = known[0][1]
    return f"beats the {hardest.name} by {_amount(metric, hardest)}"


def is_beaten(floor: FloorScore) -> bool:
    """Whether the run is above the floor with its whole interval."""
    return floor.low is not None and floor.low > 0


def _amount(metric: str, floor: FloorScore, sign: int = 1) -> str:
    """The margin, or minus the margin, with its unit and its interval."""
    margin = sign * (floor.margin or 0.0)
    ends = [end for end in (floor.low, floor.high) if end is not None]
    text = _number(metric, margin) + (" points" if display_scale(metric) > 1 else "")
    if len(ends) < 2:
        return f"{text}, with too few rows for an interval"
    low, high = sorted(sign * end for end in ends)
    return f"{text} (95% interval {_number(metric, low)} to {_number(metric, high)})"


def _signed(metric: str, floor: FloorScore) -> str:
    plus = "+" if (floor.margin or 0.0) > 0 else ""
    return plus + _amount(metric, floor).replace(" (", ", ").removesuffix(")")


def _number(metric: str, value: float) -> str:
    scale = display_scale(metric)
    rounded = round(value * scale, 1) if scale > 1 else float(f"{value:.3g}")
    return f"{rounded + 0.0:.1f}" if scale > 1 else f"{rounded + 0.0:g}"
