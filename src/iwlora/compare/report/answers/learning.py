"""Which arms learned nothing, and what each score is worth beside its floors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from iwlora.compare.report.caveats import constant_runs
from iwlora.compare.report.floor_verdict import floor_verdict, is_beaten
from iwlora.compare.statistics.floors import mean_floors
from iwlora.errors import listed
from iwlora.results.comparison import Comparison
from iwlora.results.run import FloorScore


def unlearned(comparison: Comparison) -> list[str]:
    """The arms that learned nothing; it reads the predictions of all runs.

    Every run predicts the same for every row, or a trivial floor is not beaten.
    """
    constant = {arm for arm, (runs, known) in constant_runs(comparison).items() if runs == known}
    return [arm for arm in comparison.arms if arm in constant or _is_at_floor(comparison, arm)]


def below_reading(comparison: Comparison, arm: str) -> str | None:
    """The floor that reads the texts, such as the bag of words, and that an arm does not beat."""
    floors = [f for f in _floors(comparison, arm) if not f.trivial and f.margin is not None]
    return next((floor.name for floor in floors if not is_beaten(floor)), None)


def floor_sentences(comparison: Comparison, without: Sequence[str]) -> Iterator[str]:
    """What each arm shows against its floors; arms that show the same share a sentence.

    Args:
        comparison: The runs on one task.
        without: The arms that learned nothing, see :func:`unlearned`.
    """
    beaten: list[tuple[str, str]] = []
    others_of: dict[str, list[str]] = {}
    for arm in comparison.arms:
        text = floor_verdict(comparison.metrics[0], _floors(comparison, arm))
        if arm in without and not text.startswith(("learned nothing", "is not shown to learn")):
            text = "learned nothing: every run predicts the same for every row"
            others_of.setdefault(text, []).append(arm)
        elif text.startswith("beats"):
            beaten.append((arm, text))
        elif text:
            others_of.setdefault(text, []).append(arm)
    for text, arms in others_of.items():
        plural = text.replace("is ", "are ", 1) if text.startswith("is ") else text
        yield f"{listed(arms)} {text if len(arms) == 1 else plural}."
    if beaten:
        (first, text), *others = sorted(beaten, key=lambda pair: pair[0] != comparison.baseline)
        yield f"{first} {text}."
        if others:
            beat = "beats its floors" if len(others) == 1 else "beat their floors"
            yield f"{listed([arm for arm, _ in others])} also {beat}."


def _is_at_floor(comparison: Comparison, arm: str) -> bool:
    trivial = [f for f in _floors(comparison, arm) if f.trivial and f.margin is not None]
    return not all(map(is_beaten, trivial))


def _floors(comparison: Comparison, arm: str) -> list[FloorScore]:
    return mean_floors([run.result for run in comparison.of(arm)])
