"""The advice as it is returned and printed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from iwlora.advice.fitting import Candidate, on_gpu
from iwlora.advice.importance_map import importance_map, share_with_error
from iwlora.advice.measured import Measured
from iwlora.advice.peft_settings import as_json, as_python
from iwlora.advice.rules import Reason
from iwlora.compare.report.text_columns import TERMINAL_WIDTH, align
from iwlora.results.durations import format_duration
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.recipe import Recipe
from iwlora.training.suggestion.recipe import Suggestion

_ALLOCATOR = 1.4
"""A process on a CPU has held up to so many times the memory of its tensors and libraries, see
"Accuracy of the dry run" in docs/cost-and-memory.md."""


@dataclass(frozen=True)
class Neighbor:
    """A cheaper choice: its label, its cost, and what it cost in points as far as that is known."""

    label: str
    candidate: Candidate
    points: Reason


@dataclass(frozen=True)
class Advice:
    """What :func:`iwlora.advise` found; ``str(advice)`` is what ``iwlora advise`` prints.

    Args:
        suggestion: the recipe, with the reason of each field.
        measured: the importance, and what the task and the model are.
        chosen: the recipe, the matrices that it adapts, and its predicted cost.
        reasons: the rule for each part of the advice, with the rows that it rests on.
        remarks: what was done for the limits, in words.
        neighbors: cheaper choices.
        least: the names of the least important matrices.
        leaving_out: what is known about leaving them out.
        peft: the arguments of a ``peft.LoraConfig`` for the same matrices, ranks and scaling.
        device: the type of the device that the costs were predicted on.
    """

    suggestion: Suggestion
    measured: Measured
    chosen: Candidate
    reasons: tuple[Reason, ...]
    remarks: tuple[str, ...]
    neighbors: tuple[Neighbor, ...]
    least: tuple[str, ...]
    leaving_out: Reason
    peft: Mapping[str, Any]
    device: str

    @property
    def sensitivity(self) -> Sensitivity:
        """The measurement."""
        return self.measured.sensitivity

    @property
    def recipe(self) -> Recipe:
        """The recipe, as ``iwlora.train`` takes it."""
        return self.chosen.recipe

    @property
    def recipe_yaml(self) -> str:
        """The recipe as a file, with a comment on each field."""
        return self.suggestion.commented()

    @property
    def peft_python(self) -> str:
        """Python code that makes the ``peft.LoraConfig``."""
        return as_python(self.peft)

    @property
    def peft_json(self) -> str:
        """The ``peft.LoraConfig`` as JSON."""
        return as_json(self.peft)

    def __str__(self) -> str:
        return _text(self)


def _text(advice: Advice) -> str:
    """The advice, its reasons, cheaper neighbors, the recipe and the PEFT configuration."""
    recipe, measured = advice.recipe, advice.measured
    blocks = [
        _filled(
            f"advice for {recipe.model} on {recipe.task.title}: {measured.kind}, "
            f"{measured.training_rows:,} training rows, {measured.backbone:,} parameters",
            0,
        ),
        importance_map(advice.sensitivity),
        "\n".join(["what to train:", *_answers(advice)]),
        "\n".join(["why:", *_reasons(advice)]),
    ]
    if advice.remarks:
        blocks.append("\n".join(["limits:", *(_filled(r, 2) for r in advice.remarks)]))
    blocks += [
        "\n".join(["cheaper neighbors:", *_neighbors(advice)]),
        "\n".join(["safe to leave out?", *_leaving_out(advice)]),
        "recipe:\n\n" + advice.recipe_yaml.rstrip("\n"),
        "PEFT, Python:\n\n" + advice.peft_python,
        "PEFT, JSON:\n\n" + advice.peft_json,
    ]
    return "\n\n".join(blocks) + "\n"


def _answers(advice: Advice) -> Iterator[str]:
    chosen, recipe, cost = advice.chosen, advice.recipe, advice.chosen.cost
    adapter, memory = cost.adapter_parameters, cost.memory
    share = adapter / advice.measured.backbone
    covered = "" if cost.coverage is None else f", {cost.coverage:.1%} of the blocks' parameters"
    yield f"  matrices       {chosen.layout.title}{covered}"
    yield f"  rank           {chosen.rank}: {adapter:,} parameters, {share:.2%} of the model's"
    yield f"  method         {recipe.method.name}"
    yield f"  learning rate  {recipe.train.lr:g}, to begin with"
    yield (
        f"  time           about {format_duration(cost.seconds)} on this {advice.device}: "
        f"{cost.steps:,} steps of {cost.step_seconds:.3f} s"
    )
    if advice.device == "cpu":
        yield (
            f"  memory         about {_mib(memory.tensors)} of tensors and libraries; the process "
            f"may hold {_ALLOCATOR} times that"
        )
        yield (
            f"                 on a GPU about {_mib(on_gpu(memory))}: an estimate, computed on "
            "this CPU and not measured"
        )
    else:
        yield f"  memory         about {_mib(memory.peak)} of the {advice.device}"


def _reasons(advice: Advice) -> Iterator[str]:
    for reason in advice.reasons:
        yield _filled(f"{reason.subject}: {reason.text}", 2)
        yield from _quoted(reason, 4)


def _quoted(reason: Reason, margin: int) -> Iterator[str]:
    for row in reason.rows:
        yield _filled(f"- {row.sentence()}", margin)
    for missing in reason.missing:
        yield _filled(f"- {missing}", margin)


def _neighbors(advice: Advice) -> Iterator[str]:
    whole = advice.chosen.cost
    columns = [["  choice"], ["parameters"], ["time"], ["faster"], ["memory"], ["points"]]
    notes: list[str] = []
    for neighbor in advice.neighbors:
        cost, rows = neighbor.candidate.cost, neighbor.points.rows
        points = "not measured"
        if rows:
            notes.append(_filled(f"- {rows[0].sentence()}", 2))
            points = f"{rows[0].difference:+.1f} ({rows[0].verdict})"
        cells = (
            f"  rank {neighbor.candidate.rank}, {neighbor.candidate.layout.title}",
            f"{cost.adapter_parameters:,}",
            format_duration(cost.seconds),
            f"{whole.seconds / cost.seconds:.1f} ×",
            _mib(cost.memory.tensors),
            points,
        )
        for column, cell in zip(columns, cells, strict=True):
            column.append(cell)
    if len(columns[0]) == 1:
        yield "  none: this is the smallest choice"
        return
    yield from align(columns)
    yield "  time: by a dry run of each, which other work on the machine disturbs"
    yield "  points: against rank 8 at all matrices, from the table:"
    yield from notes or ["  not measured for this kind"]


def _leaving_out(advice: Advice) -> Iterator[str]:
    shares = {site.name: site for site in advice.sensitivity.included}
    total = math.fsum(site.value for site in shares.values()) or 1.0
    held = math.fsum(shares[name].value for name in advice.least) / total
    names = ", ".join(
        f"{name} ({share_with_error([shares[name]], total)}%)" for name in advice.least
    )
    yield _filled(
        f"the least important {len(advice.least)} of {len(shares)} matrices for their size have "
        f"{held:.1%} of the importance: {names}",
        2,
    )
    yield from _quoted(advice.leaving_out, 2)


def _filled(text: str, margin: int) -> str:
    first = " " * margin
    return fill(
        text,
        TERMINAL_WIDTH,
        initial_indent=first,
        subsequent_indent=first + "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _mib(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"
