"""AdaLoRA during training: its schedule, its orthogonality term, its state across a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft.tuners.adalora.layer import AdaLoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.errors import IwloraError

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
_STATE_FILE = "adalora.safetensors"


def orthogonality(peft_model: Any) -> Tensor:
    """Mean of ‖PᵀP − I‖_F and ‖QQᵀ − I‖_F over all sites, as PEFT adds it to a model's loss."""
    factors: list[Tensor] = []
    for layer in peft_model.modules():
        if isinstance(layer, AdaLoraLayer):
            Q: Any = layer.lora_A["default"]  # (r, d_in)
            P: Any = layer.lora_B["default"]  # (d_out, r)
            factors += [Q, P.mT]
    by_shape: dict[torch.Size, list[Tensor]] = {}
    for factor in factors:
        by_shape.setdefault(factor.shape, []).append(factor)
    total = factors[0].new_zeros(())
    for same in by_shape.values():
        rows = torch.stack(same)  # (sites, r, d)
        identity = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
        total = total + torch.linalg.matrix_norm(rows @ rows.mT - identity).sum()
    return total / len(factors)


class RankAllocation(TrainerCallback):
    """Prunes triplets after every optimizer step, while the gradients are still there."""

    def __init__(self, peft_model: Any, t_init: float, t_final: float) -> None:
        self._adalora = peft_model.base_model
        self._t_init = t_init
        self._t_final = t_final

    @property
    def _config(self) -> Any:
        return self._adalora.peft_config["default"]

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Fix the schedule, now that the number of steps is known."""
        config = self._config
        config.total_step = state.max_steps
        config.tinit = int(self._t_init * state.max_steps)
        # PEFT makes the final choice at exactly step total − tfinal, which must be a step.
        config.tfinal = max(1, round(self._t_final * state.max_steps))
        if config.total_step - config.tfinal - config.tinit < 1:
            raise IwloraError(
                f"adalora has no step left for pruning in a training of {state.max_steps} steps; "
                "train longer, or lower method.t_init or method.t_final"
            )
        if state.global_step:
            self._load(_checkpoint(args, state))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Update the importance of every triplet and prune down to the step's budget."""
        self._adalora.update_and_allocate(state.global_step)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep the moving averages and the chosen ranks with the checkpoint."""
        allocator = self._adalora.rankallocator
        tensors = {
            f"{average}/{name}": tensor.contiguous()
            for average in _AVERAGES
            for name, tensor in getattr(allocator, average).items()
        }
        for name, kept in (self._config.rank_pattern or {}).items():
            tensors[f"rank_pattern/{name}"] = torch.tensor(kept, dtype=torch.uint8)
        save_file(tensors, _checkpoint(args, state) / _STATE_FILE)

    def _load(self, checkpoint: Path) -> None:
        stored = load_file(checkpoint / _STATE_FILE)
        pattern: dict[str, list[bool]] = {}
        for key, tensor in stored.items():
            part, name = key.split("/", 1)
            if part == "rank_pattern":
                pattern[name] = tensor.bool().tolist()
            else:
                parameter = self._adalora.model.get_parameter(name)
                getattr(self._adalora.rankallocator, part)[name] = tensor.to(parameter.device)
        self._config.rank_pattern = pattern or None


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
