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
from iwlora.inputs.yaml_json import read_mapping, validation_errors
from iwlora.penalty import diagnostics_log
from iwlora.penalty.apply import Attachment, Penalty, check_alpha, innermost
from iwlora.penalty.calibration import measure_before, measure_in_flight, obstacle_before
from iwlora.penalty.diagnostics import Effect, panels, verdict
from iwlora.penalty.routes import DEFAULT_ROUTE, ROUTES
from iwlora.penalty.schedule import named_schedule
from iwlora.results import layout
from iwlora.results.sensitivity import Sensitivity
from iwlora.results.writing import write_text
from iwlora.sensitivity.estimators import ESTIMATORS
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.measure import Loss
from iwlora.sensitivity.options import DEFAULTS, MeasureOptions

logger = logging.get_logger(__name__)

Weigh = Callable[[Sensitivity], Mapping[str, float]]


class IWLoraCallback(TrainerCallback):
    """Measures which matrices matter, and penalizes the updates of the others more, in any Trainer.

    It adds α Σ_k c_k ‖Δ_k‖_F² to the training of a PEFT model with LoRA. The model is saved as a
    plain LoRA adapter. A checkpoint has the measurement in ``sensitivity.json``, or in
    ``sensitivity-in-flight.json`` while it is unfinished, and a resumed run continues from it. At
    each logging step, ``penalty.jsonl`` in the output folder gets ‖Δ_k‖_F and the ratio of the
    penalty's to the task's gradient, for each site.

    Args:
        alpha: the strength α.
        beta: the exponent β of ``iwlora.Importance.coefficients``.
        normalize: how sensitivities become weights, see ``iwlora.Importance``.
        route: ``gradient`` (default), ``loss`` or ``decoupled``, see ``iwlora.Penalty``.
            ``gradient`` works in any Trainer, no matter how the Trainer scales its loss. With
            ``loss``, the gradient of the penalty R is added once per step before the backward
            pass, which has the same effect as adding R to the loss. Without gradient clipping,
            ``gradient`` and ``loss`` give the same training.
        relative: use ‖Δ_k‖² / ‖W_k‖² in place of ‖Δ_k‖².
        schedule: ``constant``, ``warmup`` or ``cosine``: how α changes during training.
        warmup: the part of training in which ``warmup`` and ``cosine`` raise α from 0.
        measure: ``in-flight`` (default), in the first training steps, without a penalty until the
            measurement is finished, or ``before`` the first step, on the Trainer's data. If
            measuring before is not possible (a stream of data, a sharded model, batches without
            labels), it measures in flight and logs a warning.
        estimator: as in ``iwlora.measure``; in flight also ``lora``, which costs nothing. None is
            ``exact`` before training. In flight it chooses the most exact estimator, and as many
            batches, as add at most 2% to the operations of the run.
        max_batches: as in ``iwlora.measure``.
        tolerance: as in ``iwlora.measure``.
        sensitivity: an earlier measurement, which is used instead of a new one.
        loss: ``loss(model, batch)`` for measuring before; by default ``model(**batch).loss``.
        weigh: a function from the sensitivity to {site name: c_k}, in place of ``beta`` and
            ``normalize``.
        warn: whether to warn after training if the penalty had no effect, dominated or never
            started. ``verdict`` has the text in any case.

    Raises:
        IwloraError: an option is unknown; or, when training starts, the model has no LoRA,
            DeepSpeed is used, or a resumed run has no stored measurement.

    Example:
        >>> IWLoraCallback(alpha=1e-4, beta=1.0).route
        'gradient'
    """

    def __init__(
        self,
        alpha: float = 1e-4,
        beta: float = 1.0,
        normalize: str = "sum",
        route: str = DEFAULT_ROUTE,
        relative: bool = False,
        schedule: str = "constant",
        warmup: float = 0.1,
        measure: Literal["before", "in-flight"] = "in-flight",
        estimator: str | None = None,
        max_batches: int = DEFAULTS.max_batches,
        tolerance: float = DEFAULTS.tolerance,
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
        self.estimator, exact = estimator, DEFAULTS.estimator
        self.options = MeasureOptions.checked(estimator or exact, max_batches, tolerance, accepted)
        if normalize not in NORMALIZATIONS:
            raise unknown("normalization", normalize, NORMALIZATIONS)
        check_alpha(alpha)
        check_beta(beta)
        named_schedule(schedule, total=1, warmup_part=warmup)
        self.alpha, self.beta, self.normalize, self.route = alpha, beta, normalize, route
        self.relative, self.schedule, self.warmup = relative, schedule, warmup
        self.measure, self.loss, self.warn = measure, loss, warn
        self.weigh: Weigh = weigh or (lambda s: Importance(s, normalize).coefficients(beta))
        self.sensitivity = sensitivity
        self.penalty: Penalty | None = None
        self.history: list[dict[str, float]] = []
        self.effects: Mapping[str, Effect] = {}
        self.verdict: str | None = None
        self._in_flight: InFlight | None = None
        self._measured = False
        self._attachment: Attachment | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Load the measurement or make it, and start the penalty."""
        if getattr(args, "deepspeed", None):
            raise IwloraError(
                "DeepSpeed keeps its own copies of parameters and gradients, which the penalty "
                "cannot change; train with DDP or FSDP2"
            )
        self._stop()
        log = _log_file(args)
        self.history = diagnostics_log.truncate(log, state.global_step, args.should_save)
        stored = _checkpoint(args, state) / layout.SENSITIVITY
        if state.global_step and stored.is_file():
            self.sensitivity = Sensitivity.load(stored)
        if self.sensitivity is None:
            self._start_measuring(args, state, kwargs["model"], kwargs.get("train_dataloader"))
        if self.sensitivity is not None:
            self._start_penalty(self.sensitivity, state, kwargs["model"], kwargs["optimizer"])

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the schedule's step; on the route ``loss``, add ∇R before the backward pass."""
        if self.penalty is None:
            return
        self.penalty.step = state.global_step
        every = max(int(state.logging_steps or 0), 1)
        due = args.logging_strategy != "steps" or (state.global_step + 1) % every == 0
        self.penalty.recording = due or (args.logging_first_step and state.global_step == 0)
        if self.route == "loss":
            self.penalty.add_gradient(_loss_scale(kwargs["optimizer"]))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the backward pass that has just run, if measuring in flight."""
        if self._in_flight is not None:
            self._measured = self._in_flight.step(_loss_scale(kwargs["optimizer"]))

    on_substep_end = on_pre_optimizer_step  # after each micro-batch except the last one

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the penalty when measuring in flight is finished."""
        if self._in_flight is not None and self._measured:
            self.sensitivity = self._in_flight.result()
            self._stop()
            self._start_penalty(self.sensitivity, state, kwargs["model"], kwargs["optimizer"])

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log the penalty's effect at this step."""
        logs = kwargs["logs"]
        if self.penalty is None or not self.penalty.effects or "loss" not in logs:
            return
        effects, self.penalty.effects = self.penalty.effects, {}
        if self.route == "loss":
            clip = clip_factor(args, logs.get("grad_norm"))
            effects = {name: effect.without_penalty(clip) for name, effect in effects.items()}
        self.effects = effects
        self.history.append({name: effect.ratio for name, effect in effects.items()})
        if args.should_save:
            diagnostics_log.append(_log_file(args), state.global_step, effects)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the measurement with the checkpoint, finished or not."""
        folder = _checkpoint(args, state)
        if self.sensitivity is not None and args.should_save:
            self.sensitivity.save(folder / layout.SENSITIVITY)
        elif self._in_flight is not None and args.should_save:
            text = json.dumps(self._in_flight.state()) + "\n"
            write_text(folder / layout.PARTIAL_SENSITIVITY, text)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Remove all hooks, and warn if the penalty was too weak, too strong or too late."""
        if self._in_flight is not None:
            self.verdict = (
                f"the penalty never started: {state.global_step} steps were not enough to measure "
                f"in flight to a tolerance of {self.options.tolerance} or for "
                f"{self.options.max_batches} batches; raise the tolerance, lower max_batches, or "
                "measure before training"
            )
        else:
            self.verdict = verdict(self.history)
        self._stop()
        if self.verdict is not None and self.warn and args.should_save and self.alpha > 0:
            warnings.warn(self.verdict, stacklevel=1)

    def panels(self) -> dict[str, float]:
        """What was measured and the penalty's effect at the last logged step, for a tracker.

        ``trainer.log(callback.panels())`` sends it; iwlora's own runs do so at each logging step.
        See :func:`iwlora.penalty.diagnostics.panels`.
        """
        measured = self.sensitivity
        return panels(Importance(measured).weights if measured else {}, self.effects)

    def _start_measuring(
        self, args: TrainingArguments, state: TrainerState, model: nn.Module, loader: Any
    ) -> None:
        obstacle = obstacle_before(model, loader, self.loss) if self.measure == "before" else ""
        if obstacle is not None:
            if obstacle:
                logger.warning(f"Measuring in the first training steps, because {obstacle}.")
            options = {**self.options.measure_arguments(), "estimator": self.estimator}
            passes = args.gradient_accumulation_steps * args.world_size
            self._in_flight = measure_in_flight(
                model, **options, steps=state.max_steps, passes_per_step=passes
            )
            partial = _checkpoint(args, state) / layout.PARTIAL_SENSITIVITY
            if state.global_step and partial.is_file():
                with validation_errors(partial):
                    self._in_flight.restore(read_mapping(partial))
        elif state.global_step:
            raise IwloraError(
                f"training resumes at step {state.global_step} without "
                f"{_checkpoint(args, state) / layout.SENSITIVITY}, and a model that is partly "
                "trained cannot be measured; pass the measurement with "
                "IWLoraCallback(sensitivity=iwlora.Sensitivity.load(FILE))"
            )
        else:
            size, seed = args.train_batch_size, args.seed
            self.sensitivity = measure_before(
                model, loader, size, seed, self.loss, **self.options.measure_arguments()
            )

    def _start_penalty(
        self, sensitivity: Sensitivity, state: TrainerState, model: nn.Module, optimizer: Any
    ) -> None:
        schedule = named_schedule(self.schedule, state.max_steps, self.warmup)
        self.penalty = Penalty(model, self.weigh(sensitivity), self.alpha, self.relative, schedule)
        self._attachment = self.penalty.attach(innermost(optimizer), self.route)

    def _stop(self) -> None:
        if self._attachment is not None:
            self._attachment.remove()
        if self._in_flight is not None:
            self._in_flight.close()
        self._attachment = self._in_flight = self.penalty = None
        self._measured = False


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)


def _log_file(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / layout.PENALTY


def _loss_scale(optimizer: Any) -> float:
    """The factor that accelerate multiplies the loss by in float16."""
    scaler = getattr(optimizer, "scaler", None)
    return float(scaler.get_scale()) if scaler is not None else 1.0


def clip_factor(args: TrainingArguments, norm: float | None) -> float:
    """The factor by which the Trainer clipped the gradients of a step, from their norm before."""
    if not args.max_grad_norm or norm is None:
        return 1.0
    return min(1.0, args.max_grad_norm / (norm + 1e-6))
