"""What the study says to people who do not ask about importance, checked against the scores."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from iwlora.compare.number_format import counted
from iwlora.errors import IwloraError
from iwlora_study.runner.cells import regime
from iwlora_study.runner.forms import Outcome
from iwlora_study.runner.page.markdown import OUTCOME, UNIT, improvement
from iwlora_study.runner.scores import CellScores
from iwlora_study.runner.verdicts import contrast


class Lesson(BaseModel):
    """A difference of two arms of a cell, in words.

    Args:
        text: What it says, without numbers.
        cell: The number that the cell's name begins with.
        arm: A label in the cell.
        over: The label of the arm that it is compared with.
        outcome: What is compared.
        verdict: What the text claims: "better", "worse" or "within".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str
    cell: str
    arm: str
    over: str
    outcome: Outcome = "score"
    verdict: str

    def line(self, stored: Sequence[CellScores]) -> str | None:
        """The text with its numbers; None if the cell has no scores yet.

        Raises:
            IwloraError: The scores do not say what the text claims.
        """
        scores = next((s for s in stored if s.cell.startswith(f"{self.cell}-")), None)
        if scores is None:
            return None
        found = contrast(scores, self.arm, self.over, self.outcome)
        if found is None or found.verdict != self.verdict:
            said = found.verdict if found else "nothing, because an arm is missing"
            raise IwloraError(
                f"the lesson '{self.text}' claims {self.verdict}, but cell {self.cell} says "
                f"{said}; correct study/lessons.yaml"
            )
        numbers = f"{improvement(found)} {UNIT[self.outcome]} of the {OUTCOME[self.outcome]}"
        where = f"{regime(scores.settings)}; cell {self.cell}, {scores.stage}"
        return f"{self.text}: {numbers} ({where}, {counted(found.draws, 'draw')})."


def lessons_list(lessons: Sequence[Lesson], stored: Sequence[CellScores]) -> str:
    """The lessons whose cells have scores, as a list."""
    lines = (lesson.line(stored) for lesson in lessons)
    return "\n".join(f"- {line}" for line in lines if line is not None)
