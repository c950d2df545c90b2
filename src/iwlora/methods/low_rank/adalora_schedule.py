"""AdaLoRA's pruning during training: its schedule, its masks and its checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors
from iwlora.results import layout

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class RankAllocation(TrainerCallback):
    """Prunes triplets by PEFT's ``RankAllocator``, in the order of the paper's algorithm 1.

    ``durations`` are PEFT's ``tinit``, ``tfinal`` and ``deltaT``: fractions of training if below
    1, otherwise steps. The gradients are those that the optimizer uses, of the whole batch and
    averaged over processes, so all processes select the same triplets.
    """

    def __init__(
        self, peft_model: Any, durations: Mapping[str, float], beta1: float, beta2: float
    ) -> None:
        self._adalora = peft_model.base_model
        self._config = peft_model.peft_config["default"]
        self._allocator = self._adalora.rankallocator
        self._allocator.beta1, self._allocator.beta2 = beta1, beta2
        self._durations = dict(durations)
        self.settled = False
        """Whether the last selection is made."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Compute the schedule from the number of training steps."""
        config, total = self._config, state.max_steps
        config.total_step = total
        for name, value in self._durations.items():
            setattr(config, name, round(value * total) if value < 1 else int(value))
        config.deltaT = max(1, config.deltaT)
        if self._last_selection - config.tinit < 1:
            raise IwloraError(
                f"adalora has no step for pruning: of {total} training steps, {config.tinit} come "
                f"before pruning and {config.tfinal} after it; train longer, or lower "
                "method.t_init or method.t_final"
            )
        if state.global_step:
            self._load(_checkpoint(args, state))

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the importance of every weight from the weight and its gradient."""
        if state.global_step < self._last_selection:
            self._allocator.update_ipt(self._adalora.model)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Prune to the budget of this step; steps count from 1."""
        step, model = state.global_step + 1, self._adalora.model
        if step <= self._last_selection:
            budget, due = self._allocator.budget_schedule(step)
            if due or step == self._last_selection:
                self._config.rank_pattern = self._allocator.mask_to_budget(model, budget)
        else:
            self._allocator.mask_using_rank_pattern(model, self._config.rank_pattern)
        self.settled = step >= self._last_selection

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save the moving averages and the selected triplets with the checkpoint."""
        if not args.should_save:
            return
        tensors = {
            f"{average}/{name}": tensor.contiguous()
            for average in _AVERAGES
            for name, tensor in getattr(self._allocator, average).items()
        }
        for name, kept in (self._config.rank_pattern or {}).items():
            tensors[f"rank_pattern/{name}"] = torch.tensor(kept, dtype=torch.uint8)
        save_file(tensors, _checkpoint(args, state) / layout.ADALORA_STATE)

    @property
    def _last_selection(self) -> int:
        """The step of the last selection."""
        return int(self._config.total_step - self._config.tfinal)

    def _load(self, checkpoint: Path) -> None:
        stored = load_tensors(checkpoint / layout.ADALORA_STATE)
        pattern: dict[str, list[bool]] = {}
        for key, tensor in stored.items():
            part, name = key.split("/", 1)
            if part == "rank_pattern":
                pattern[name] = tensor.bool().tolist()
            else:
                parameter = self._adalora.model.get_parameter(name)
                getattr(self._allocator, part)[name] = tensor.to(parameter.device)
        self._config.rank_pattern = pattern or None


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
