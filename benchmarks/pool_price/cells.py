"""The cells of the study, in the order in which they tell most, and what each will cost.

A cell is a data set, a division of its rows, a number of sources, a schedule and some methods. All
arms of a cell and a seed have the same training rows and are scored on the same rows. What can be
made of sources by averaging them depends on whether they differ, and on whether they began with the
same numbers; so there are cells of each kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SCHEDULES = ("epochs", "steps")
"""What a source has as many of as the union."""
PROMPTS, LORA = ("apt", "head"), ("lora",)
MERGED = ("apt", "lora")  # whose sources are merged into one too
LEARNING_RATES: Mapping[str, tuple[float, ...]] = {
    "apt": (3e-3, 1e-2, 3e-2, 1e-1),
    "head": (1e-3, 3e-3, 1e-2, 3e-2),
    "lora": (3e-4, 1e-3, 3e-3, 1e-2),
}
"""With which the search for the best one begins in each cell; each method has as many."""
EWC_STRENGTHS = (1.0, 10.0, 100.0, 1e3, 1e4, 1e5)
"""From nearly no penalty to one that leaves nearly all as the first source made it."""

_FURTHER_TRIALS = 2  # a guess: the search may add up to four
_SECONDS: Mapping[tuple[str, bool], tuple[float, float, float]] = {
    ("apt", True): (5.0, 0.0012, 12.0),
    ("head", True): (5.0, 0.0003, 2.0),
    ("lora", True): (20.0, 0.013, 0.0),
    ("apt", False): (5.0, 0.0012, 10.0),
    ("head", False): (5.0, 0.0003, 2.0),
    ("lora", False): (8.0, 0.008, 0.0),
}
"""{(method, texts?): seconds of a core for a run with its scores, for a training row in an epoch,
and for what is computed once for a draw}; guesses, before anything has run."""


@dataclass(frozen=True)
class Cell:
    """What is trained and compared.

    Args:
        data: The name of a data set.
        division: One of ``divisions.DIVISIONS``.
        sources: Their number; 1 is the union, all rows in one run.
        schedule: Whether a source trains for as many epochs or as many steps as the union.
        methods: Their names.
        own_starts: Whether each source begins with numbers of its own (prompts, A and head), as
            those of several owners do. Else all of a draw begin with the same, which favors what
            averages them.
    """

    data: str
    division: str
    sources: int
    schedule: str
    methods: tuple[str, ...]
    own_starts: bool = False

    @property
    def name(self) -> str:
        """As in the record and on the command line."""
        parts = [self.data, self.division, str(self.sources), self.schedule, "+".join(self.methods)]
        return " ".join([*parts, *(["own starts"] if self.own_starts else [])])

    @property
    def is_text(self) -> bool:
        """Whether its rows are texts."""
        return self.data.startswith("glue/")

    @property
    def has_sequence(self) -> bool:
        """Whether one adapter is trained on the sources one after another too, as they differ."""
        differ = self.division != "random" and not self.own_starts
        return "lora" in self.methods and differ and self.schedule == "epochs"

    def hours(self, seeds: int, rows: int, epochs: int) -> float:
        """The core-hours of all seeds and the search, as they were guessed."""
        longer = self.sources if self.schedule == "steps" else 1
        seconds = 0.0
        for method in self.methods:
            run, row, draw = _SECONDS[method, self.is_text]
            of_rows = row * rows * epochs * longer
            seconds += seeds * (self.sources * run + of_rows + draw)
            trials = len(LEARNING_RATES[method]) + _FURTHER_TRIALS
            seconds += trials * (run + of_rows / self.sources) + draw
            if self.has_sequence:
                seconds += (2 * seeds + len(EWC_STRENGTHS)) * (run + of_rows)
        return seconds / 3600


def cells(image_data: str) -> list[Cell]:
    """All cells, the most telling first.

    Args:
        image_data: The data set on images.
    """
    text = "glue/sst2"
    differing = ["classes", *(["origins"] if image_data.startswith("core50/") else [])]
    return [
        *(Cell(text, "random", n, "epochs", PROMPTS) for n in (1, 5, 10, 2)),
        Cell(text, "random", 1, "epochs", LORA),
        Cell(text, "random", 5, "epochs", LORA),
        Cell(text, "clusters", 5, "epochs", PROMPTS),
        *(
            Cell(text, division, n, "epochs", MERGED, own_starts=True)
            for division, n in (("random", 10), ("clusters", 5))
        ),
        *(Cell(image_data, "random", 1, "epochs", methods) for methods in (PROMPTS, LORA)),
        *(
            Cell(image_data, division, 5, "epochs", methods)
            for division in differing
            for methods in (PROMPTS, LORA)
        ),
        *(Cell(image_data, of, 5, "epochs", MERGED, own_starts=True) for of in differing),
        *(Cell(text, "random", n, "steps", PROMPTS) for n in (5, 10, 2)),
        *(Cell(image_data, "random", n, "epochs", PROMPTS) for n in (5, 10, 2)),
        *(Cell(image_data, "random", n, "steps", PROMPTS) for n in (5, 10, 2)),
        Cell(text, "clusters", 5, "epochs", LORA),
        *(Cell(text, "random", n, "epochs", LORA) for n in (2, 10)),
        *(Cell(image_data, "random", n, "epochs", LORA) for n in (5, 10, 2)),
        *(Cell(text, "random", n, "steps", LORA) for n in (2, 5, 10)),
        *(Cell(image_data, "random", n, "steps", LORA) for n in (2, 5, 10)),
    ]
