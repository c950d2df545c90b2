"""The advice: what to adapt, how, at what cost, and on what it rests."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from iwlora.advice.answer import Advice, Neighbor
from iwlora.advice.decision import Decision, decide
from iwlora.advice.evidence import read_evidence
from iwlora.advice.fitting import Candidate, Estimate, candidate, within_memory, within_time
from iwlora.advice.layouts import (
    WHOLE_RANK,
    Layout,
    everywhere,
    least_important,
    spread_thin,
    upper,
)
from iwlora.advice.limits import Limits
from iwlora.advice.measured import measured_on
from iwlora.advice.peft_settings import peft_arguments
from iwlora.advice.rules import Rules, Sized
from iwlora.errors import IwloraError, short_repr
from iwlora.methods.low_rank.lora import Lora
from iwlora.results.sensitivity import Sensitivity
from iwlora.training.device import run_device
from iwlora.training.dry_run.run_cost import RunCost, estimate_run_cost
from iwlora.training.external_settings import check_external_settings
from iwlora.training.overrides import override
from iwlora.training.recipe import Recipe
from iwlora.training.suggestion.data_argument import is_data
from iwlora.training.suggestion.recipe import Suggestion, suggest, suggest_for_task


def advise(
    model: str,
    task: str | None = None,
    settings: Sequence[str] = (),
    *,
    params: str | float | None = None,
    memory: str | None = None,
    time: str | None = None,
    samples: int = 256,
    importance: str | os.PathLike[str] | Sensitivity | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Advice:
    """Advise which matrices to adapt, at which rank, by which method and learning rate.

    The importance of each matrix is measured once, a few steps of the recipe and of its cheaper
    neighbors are timed, and rules ask the table ``iwlora/advice/evidence.csv`` what was measured
    of each choice. Nothing is trained or written.

    Args:
        model: ``builtin/minilm``, a folder, or an id on the hub.
        task: a name from ``iwlora tasks``, or a file or folder of data; may be left out where
            ``settings`` have ``task.train=FILE``.
        settings: fields of the recipe as ``key=value``; they take precedence.
        params: the most adapter parameters: ``"0.5%"`` of the backbone's, ``"300K"``, a number.
        memory: the most memory of a run, such as ``"16GB"``.
        time: the most time of a run, such as ``"30min"``.
        samples: training rows to measure the importance on, at most.
        importance: a measurement, or the file of one, in place of measuring.
        report: gets a line before each part of the work.

    Returns:
        The advice: ``recipe``, ``recipe_yaml``, ``peft_python``, ``peft_json``, ``reasons``,
        ``neighbors`` and the ``sensitivity``.

    Raises:
        IwloraError: a limit or a setting is not accepted, or the model, the data or the
            measurement cannot be read or do not fit each other.

    Example:
        >>> advice = advise("builtin/minilm", "builtin/sentiment", params="0.5%")  # doctest: +SKIP
        >>> advice.recipe.method.rank, advice.recipe.train.lr                      # doctest: +SKIP
        (2, 0.003)
    """
    limits = Limits.parse(params, memory, time)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise IwloraError(
            f"samples={short_repr(samples)} was given; accepted are whole numbers from 1"
        )
    if isinstance(importance, (str, os.PathLike)):
        importance = Sensitivity.load(importance)
    check_external_settings()
    suggestion = _suggest(model, task, settings)
    start = _checked(suggestion.recipe)
    report("measuring the importance" if importance is None else "loading the model")
    measured = measured_on(start, samples, importance)
    whole = everywhere(measured.sensitivity, start.targets)
    rules = Rules(read_evidence(), measured, start.model, whole)
    given = _fields(override({}, settings))
    decision = decide(suggestion.settings, given, rules, limits.params, measured)
    estimate = _estimates(report)
    chosen = candidate(decision.sized.layout, decision.settings, estimate)
    remarks = list(decision.remarks)
    if limits.seconds is not None:
        chosen, remark = within_time(chosen, limits.seconds, estimate)
        remarks += [remark] if remark else []
    if limits.memory is not None:
        chosen, remark = within_memory(chosen, limits.memory, estimate)
        remarks += [remark] if remark else []
    report("checking the names of the matrices in PEFT")
    return Advice(
        suggestion=_explained(suggestion, chosen, decision),
        measured=measured,
        chosen=chosen,
        reasons=decision.reasons,
        remarks=tuple(remarks),
        neighbors=tuple(_neighbors(chosen, whole, rules, estimate)),
        least=tuple(site.name for site in least_important(measured.sensitivity.included)),
        leaving_out=rules.leaving_out(),
        peft=peft_arguments(chosen.recipe, chosen.layout, measured.sensitivity),
        device=run_device().type,
    )


def _suggest(model: str, task: str | None, settings: Sequence[str]) -> Suggestion:
    """The recipe that the rules for a first training suggest."""
    chosen = [f"model={json.dumps(model)}", *settings]
    files = [s.partition("=")[2] for s in settings if s.startswith("task.train=")]
    if task is not None and files:
        raise IwloraError(f"task={task} and task.train={files[-1]} were given; give one of them")
    if task is None and not files:
        raise IwloraError(
            "task: missing; accepted are a name from 'iwlora tasks', a file or folder of data, or "
            "task.train=FILE"
        )
    data = task or files[-1]
    return suggest(data, chosen) if files or is_data(data) else suggest_for_task(data, chosen)


def _fields(given: Mapping[str, Any]) -> set[str]:
    """The dotted names of what the user has set; plain text is the short form of a name."""
    parts = {part: value if isinstance(value, Mapping) else {} for part, value in given.items()}
    inner = {f"{part}.{name}" for part, value in parts.items() for name in value}
    return inner | {*parts} | {f"{part}.name" for part, value in parts.items() if not value}


def _checked(recipe: Recipe) -> Recipe:
    """The recipe, if its rank and its matrices are the advice's to choose."""
    if not isinstance(recipe.method, Lora):
        raise IwloraError(
            f"method.name={recipe.method.name} was given; accepted are lora and its variants, "
            "whose rank the advice chooses; leave it out"
        )
    if recipe.budget is not None:
        raise IwloraError(
            f"budget={recipe.budget} was given; give params (--params) instead, the most "
            "parameters of the adapter"
        )
    return recipe


def _estimates(report: Callable[[str], None]) -> Estimate:
    """The dry run of a recipe, once for each."""
    known: dict[str, RunCost] = {}

    def estimate(recipe: Recipe) -> RunCost:
        key = recipe.digest()
        if key not in known:
            report(f"timing a few steps ({len(known) + 1})")
            known[key] = estimate_run_cost(recipe)
        return known[key]

    return estimate


def _explained(suggestion: Suggestion, chosen: Candidate, decision: Decision) -> Suggestion:
    """The suggested recipe with what was chosen, and why."""
    texts = {reason.subject: reason.text for reason in decision.reasons}
    reasons = {
        **suggestion.reasons,
        "targets": f"{chosen.layout.title}; {texts['matrices and rank']}",
        "method.rank": texts["matrices and rank"],
        "method.name": texts["method"],
        "train.lr": texts["learning rate"],
    }
    chosen_by_user = [field for field in decision.given if field in reasons]
    for field in chosen_by_user:
        del reasons[field]
    order = ("model", "task", "method", "targets")
    settings = {name: chosen.settings[name] for name in order}
    return replace(suggestion, settings={**settings, **chosen.settings}, reasons=reasons)


def _neighbors(
    chosen: Candidate, whole: Layout, rules: Rules, estimate: Estimate
) -> Iterator[Neighbor]:
    """Cheaper choices, with their costs and what is known of their scores."""
    smaller = [Sized(chosen.layout, 1)] if chosen.rank > 1 else []
    if chosen.layout.name == whole.name:
        smaller += [Sized(layout, chosen.rank) for layout in spread_thin(whole)[1:-1]][:1]
    uppers = (upper(chosen.layout), upper(chosen.layout, last_block=True))
    smaller += [Sized(layout, chosen.rank) for layout in uppers if layout]
    labels = {chosen.layout.label(chosen.rank)}
    for sized in smaller:
        if sized.label in labels:
            continue
        labels.add(sized.label)
        settings = override(chosen.settings, [f"method.rank={sized.rank}"])
        cheaper = candidate(sized.layout, settings, estimate)
        points = rules.quote(sized.label, whole.label(WHOLE_RANK), rules.share(sized.parameters))
        yield Neighbor(sized.label, cheaper, points)
