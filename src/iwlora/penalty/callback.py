"""Importance-weighted LoRA in any transformers Trainer: ``trainer.add_callback(...)``."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging

from iwlora.errors import IwloraError, unknown
from iwlora.importance import NORMALIZATIONS, Importance, check_beta
from iwlora.inputs.yaml_json import from_json
from iwlora.penalty import diagnostics_log
from iwlora.penalty.apply import ROUTES, Attachment, Penalty, check_alpha, innermost
from iwlora.penalty.calibration import measure_before, measure_in_flight, why_not_before
from iwlora.penalty.diagnostics import verdict
from iwlora.penalty.schedule import named
from iwlora.results import layout
from iwlora.results.sensitivity import Sensitivity
from iwlora.results.writing import write_text
from iwlora.sensitivity.estimators import ESTIMATORS
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.measure import Loss
from iwlora.sensitivity.running_estimate import check_stopping

logger = logging.get_logger(__name__)

Weigh = Callable[[Sensitivity], Mapping[str, float]]


class IWLoraCallback(TrainerCallback):
    """Measures which matrices matter and penalises the others' updates, in any Trainer.

    The model must be a PEFT model with LoRA; it is saved as the plain LoRA adapter that it is.

    ``alpha, beta, normalize``: R = α Σ_k c_k ‖Δ_k‖_F², as ``iwlora.Importance`` weighs.
    ``route``: ``gradient``, ``loss`` or ``decoupled``, see ``iwlora.Penalty``. Here ``loss``
    puts ∇R, once a step, under the gradients that backward then adds to: the same as a term of
    the loss, whatever the Trainer multiplies its loss by.
    ``relative``: ‖Δ_k‖² / ‖W_k‖² in place of ‖Δ_k‖².
    ``schedule``: ``constant``, or ``warmup`` or ``cosine`` with ``warmup`` as a part of training.
    ``measure``: ``before`` the first step, on the trainer's data with ``loss(model, batch)`` (by
    default ``model(**batch).loss``), or ``in-flight``, from the first training steps, without
    a penalty until it is known. Where ``before`` cannot be (a stream of data, a sharded model,
    batches without labels), it is in flight, and says so.
    ``estimator, max_batches, tolerance``: how, and when it ends, as in ``iwlora.measure``; in
    flight also ``lora``, which costs nothing.
    ``sensitivity``: one measured earlier, in place of all this.
    ``weigh``: a function from the sensitivity to {site name: c_k}, in place of ``beta`` and
    ``normalize``.

    A checkpoint holds the measurement in ``sensitivity.json``, half done if it is in flight, and
    a resumed run goes on from there. At each logging step ``penalty.jsonl`` in the output folder
    gets, per site, ‖Δ_k‖_F and the ratio of penalty gradient to task gradient. When the penalty
    did nothing, dominated or never began, ``verdict`` says so at the end, and with ``warn`` a
    warning does.

    Raises ``IwloraError`` for options that it does not know, and where training begins for a
    model without LoRA, DeepSpeed, or a resumed run without a stored measurement.

    >>> IWLoraCallback(alpha=1e-4, beta=1.0).route
    'gradient'
    """

    def __init__(
        self,
        alpha: float = 1e-4,
        beta: float = 1.0,
        normalize: str = "sum",
        route: str = "gradient",
        relative: bool = False,
        schedule: str = "constant",
        warmup: float = 0.1,
        measure: Literal["before", "in-flight"] = "before",
        estimator: str = "exact",
        max_batches: int = 200,
        tolerance: float = 0.02,
        sensitivity: Sensitivity | None = None,
        loss: Loss | None = None,
        weigh: Weigh | None = None,
        warn: bool = True,
    ) -> None:
        if route not in ROUTES:
            raise unknown("route", route, ROUTES)
        if measure not in ("before", "in-flight"):
            raise unknown("measure", measure, ("before", "in-flight"))
        accepted = [*ESTIMATORS, *(["lora"] if measure == "in-flight" else [])]
        if estimator not in accepted:
            raise unknown("estimator", estimator, accepted)
        if normalize not in NORMALIZATIONS:
            raise unknown("normalisation", normalize, NORMALIZATIONS)
        check_alpha(alpha)
        check_beta(beta)
        check_stopping(max_batches, tolerance)
        named(schedule, total=1, warmup_part=warmup)
        self.alpha, self.beta, self.normalize, self.route = alpha, beta, normalize, route
        self.relative, self.schedule, self.warmup = relative, schedule, warmup
        self.measure, self.loss, self.warn = measure, loss, warn
        self.weigh: Weigh = weigh or (lambda s: Importance(s, normalize).coefficients(beta))
        self.how: dict[str, Any] = {
            "estimator": estimator,
            "max_batches": max_batches,
            "tolerance": tolerance,
        }
        self.sensitivity = sensitivity
        self.penalty: Penalty | None = None
        self.history: list[dict[str, float]] = []
        self.verdict: str | None = None
        self._in_flight: InFlight | None = None
        self._measured = False
        self._attached: Attachment | None = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        optimizer: Any = None,
        train_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        """Find the measurement or make it, and start."""
        if getattr(args, "deepspeed", None):
            raise IwloraError(
                "DeepSpeed keeps parameters and gradients in places of its own, which the penalty "
                "does not reach; train with DDP or FSDP2"
            )
        self._stop()
        self.history = diagnostics_log.keep(_log(args), state.global_step, args.should_save)
        stored = _checkpoint(args, state) / layout.SENSITIVITY
        if state.global_step and stored.is_file():
            self.sensitivity = Sensitivity.load(stored)
        if self.sensitivity is None:
            self._begin_measuring(args, state, model, train_dataloader)
        if self.sensitivity is not None:
            self._begin_penalty(self.sensitivity, state, model, optimizer)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the schedule's place; on the route ``loss``, lay ∇R under the gradients."""
        if self.penalty is None:
            return
        self.penalty.step = state.global_step
        every = max(int(state.logging_steps or 0), 1)
        due = args.logging_strategy != "steps" or (state.global_step + 1) % every == 0
        self.penalty.recording = due or (args.logging_first_step and state.global_step == 0)
        if self.route == "loss":
            self.penalty.add_gradient(_loss_scale(kwargs["optimizer"]))

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read a micro-batch, when measuring in flight."""
        self._read(kwargs["optimizer"])

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the last micro-batch of a step, when measuring in flight."""
        self._read(kwargs["optimizer"])

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the penalty, once measuring in flight has enough."""
        if self._in_flight is not None and self._measured:
            self.sensitivity = self._in_flight.result()
            self._stop()
            self._begin_penalty(self.sensitivity, state, kwargs["model"], kwargs["optimizer"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write what the penalty did at this step beside the task."""
        if self.penalty is None or not self.penalty.effects or "loss" not in (logs or {}):
            return
        found, self.penalty.effects = self.penalty.effects, {}
        if self.route == "loss":
            clip = _clip(args, (logs or {}).get("grad_norm"))
            found = {name: effect.without_penalty(clip) for name, effect in found.items()}
        self.history.append({name: effect.ratio for name, effect in found.items()})
        if args.should_save:
            diagnostics_log.append(_log(args), state.global_step, found)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Store the measurement with the checkpoint, whole or half done."""
        folder = _checkpoint(args, state)
        if self.sensitivity is not None and args.should_save:
            self.sensitivity.save(folder / layout.SENSITIVITY)
        elif self._in_flight is not None and args.should_save:
            write_text(
                folder / layout.PARTIAL_SENSITIVITY, json.dumps(self._in_flight.state()) + "\n"
            )

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take all hooks off, and say it if the penalty was too weak, too strong or too late."""
        if self._in_flight is not None:
            self.verdict = (
                f"the penalty never began: {state.global_step} steps were not enough to measure "
                f"in flight to a tolerance of {self.how['tolerance']} or for "
                f"{self.how['max_batches']} batches; raise the one or lower the other, or measure "
                "before training"
            )
        else:
            self.verdict = verdict(self.history)
        self._stop()
        if self.verdict is not None and self.warn and args.should_save and self.alpha > 0:
            warnings.warn(self.verdict, stacklevel=1)

    def _begin_measuring(
        self, args: TrainingArguments, state: TrainerState, model: nn.Module, loader: Any
    ) -> None:
        obstacle = why_not_before(model, loader, self.loss) if self.measure == "before" else ""
        if obstacle is not None:
            if obstacle:
                logger.warning(f"Measuring from the first training steps, for {obstacle}.")
            self._in_flight = measure_in_flight(model, **self.how)
            half = _checkpoint(args, state) / layout.PARTIAL_SENSITIVITY
            if state.global_step and half.is_file():
                self._in_flight.restore(from_json(half.read_text(encoding="utf-8")))
        elif state.global_step:
            raise IwloraError(
                f"training goes on from step {state.global_step}, but there is no "
                f"{_checkpoint(args, state) / layout.SENSITIVITY}, and the model is not the one "
                "to measure any more; give the measurement as "
                "IWLoraCallback(sensitivity=iwlora.Sensitivity.load(FILE))"
            )
        else:
            size, seed = args.train_batch_size, args.seed
            self.sensitivity = measure_before(model, loader, size, seed, self.loss, **self.how)

    def _read(self, optimizer: Any) -> None:
        """Take in the backward pass that has just run, when measuring in flight."""
        if self._in_flight is not None:
            self._measured = self._in_flight.step(_loss_scale(optimizer))

    def _begin_penalty(
        self, sensitivity: Sensitivity, state: TrainerState, model: nn.Module, optimizer: Any
    ) -> None:
        schedule = named(self.schedule, state.max_steps, self.warmup)
        self.penalty = Penalty(model, self.weigh(sensitivity), self.alpha, self.relative, schedule)
        self._attached = self.penalty.attach(innermost(optimizer), self.route)

    def _stop(self) -> None:
        if self._attached is not None:
            self._attached.remove()
        if self._in_flight is not None:
            self._in_flight.close()
        self._attached = self._in_flight = self.penalty = None
        self._measured = False


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)


def _log(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / layout.PENALTY


def _loss_scale(optimizer: Any) -> float:
    """What accelerate multiplies the loss by in float16."""
    scaler = getattr(optimizer, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


def _clip(args: TrainingArguments, norm: float | None) -> float:
    """What the Trainer multiplied the gradients of the step by."""
    if not args.max_grad_norm or norm is None:
        return 1.0
    return min(1.0, args.max_grad_norm / (norm + 1e-6))
