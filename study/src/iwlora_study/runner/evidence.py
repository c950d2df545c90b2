"""What the study measured of each arm, as rows of the table that ``iwlora advise`` reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from iwlora.advice.evidence import Evidence
from iwlora_study.runner.forms import Form
from iwlora_study.runner.scores import CellScores
from iwlora_study.runner.verdicts import Contrast, contrast, on_floor

SOURCE = "study/scores"
RANK_8 = 331_776
"""The parameters of LoRA of rank 8 on all 36 matrices of builtin/minilm."""


def rows(stored: Iterable[CellScores], forms: Sequence[Form]) -> list[Evidence]:
    """A row for each arm against the baseline, and for each form against its controls.

    Only complete cells count, of which an arm is above the floor.
    """
    counted = (scores for scores in stored if scores.complete and not on_floor(scores))
    return [_row(scores, pair) for scores in counted for pair in _pairs(scores, forms)]


def _pairs(scores: CellScores, forms: Sequence[Form]) -> Iterator[Contrast]:
    pairs = {(arm, scores.baseline): None for arm in scores.arms if arm != scores.baseline}
    for form in forms:
        pairs |= {(form.arm, other): None for other in (form.against, *form.controls)}
    for arm, other in pairs:
        if (found := contrast(scores, arm, other, "score")) is not None:
            yield found


def _row(scores: CellScores, pair: Contrast) -> Evidence:
    settings, parameters = scores.settings, scores.adapter_parameters(pair.arm)
    known = pair.low is not None and pair.high is not None
    fields = {
        "choice": pair.arm,
        "baseline": pair.other,
        "task": settings["task"]["name"],
        "kind": scores.kind,
        "model": settings["model"],
        "training_rows": settings["task"]["max_train"],
        "flipped_labels": settings["task"].get("flip_labels", 0.0),
        "steps": settings["train"]["max_steps"],
        "adapter_parameters": parameters or None,
        "share_of_rank_8": round(parameters / RANK_8, 4) if parameters else None,
        "difference": round(pair.mean, 4),
        "low": _rounded(pair.low) if known else None,
        "high": _rounded(pair.high) if known else None,
        "draws": pair.draws,
        "verdict": pair.verdict if known else "lead",
        "source": f"{SOURCE}/{scores.cell} ({scores.stage})",
    }
    return Evidence.model_validate(fields)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
