"""The forms that the study asks about, each with its controls and the outcome that decides."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["score", "loss", "calibration_error"]

MARGINS: dict[Outcome, float] = {"score": 1.0, "loss": 0.02, "calibration_error": 0.02}
"""The smallest difference that matters: points of the task's score, nats of the loss on study rows,
and the ECE between 0 and 1."""


class Form(BaseModel):
    """A form of "spend capacity where the loss is sensitive".

    Args:
        name: In words.
        arm: Its label in the cells.
        controls: The labels of the arms that have everything of it but the importance.
        rivals: The labels of arms that it has to beat in the confirmation too.
        against: What it has to beat besides: LoRA with its own search, of the same budget.
        outcome: The primary outcome, chosen before any cell was done.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arm: str
    controls: list[str] = Field(default_factory=list)
    rivals: list[str] = Field(default_factory=list)
    against: str = "lora"
    outcome: Outcome = "score"

    def controls_of(self, stage: str) -> list[str]:
        """The arms that it has to beat in a stage, besides ``against``."""
        return [*self.controls, *(self.rivals if stage == "confirm" else ())]
