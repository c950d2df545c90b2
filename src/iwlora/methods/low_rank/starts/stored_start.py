"""The Trainer callback that stores the start of a run with its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import TrainerCallback, TrainerState

from iwlora.distributed import local_shard
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors
from iwlora.methods.low_rank.starts.layers import frozen_weight, lora_layers
from iwlora.methods.low_rank.starts.removed_part import Start
from iwlora.results import layout


class StoreStart(TrainerCallback):
    """Stores A₀ and B₀ with each checkpoint, and restores them and W − s B₀ A₀ in a resumed run.

    A run that resumes computes its start again. On accelerators the gradients, and so A₀ and B₀,
    can differ in their rounding, and singular vectors in their sign; the trained A and B belong to
    the stored ones.
    """

    def __init__(self, peft_model: Any, start: Start) -> None:
        self._model, self._start = peft_model, start

    def on_save(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Store the start."""
        if args.should_save:
            tensors = {
                f"{pair.name}.{factor}": value.cpu().contiguous()
                for pair, values in zip(self._start.pairs, self._start.values, strict=True)
                for factor, value in zip("AB", values, strict=True)
            }
            save_file(tensors, _file(args, state))

    @torch.no_grad()
    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **kwargs: Any) -> None:
        """Continue from the stored start."""
        if not state.global_step:
            return
        file, layers = _file(args, state), lora_layers(self._model)
        stored = load_tensors(file)
        pairs, values = self._start.pairs, self._start.values
        for index, (pair, (A, B)) in enumerate(zip(pairs, values, strict=True)):
            before = tuple(
                _of_shape(stored, f"{pair.name}.{factor}", value, file)
                for factor, value in (("A", A), ("B", B))
            )
            if all(map(torch.equal, before, (A, B))):
                continue
            moved = pair.scaling * (B @ A - before[1] @ before[0])  # (d_out, d_in)
            weight = frozen_weight(layers[pair.name])
            moved = moved.mT if layers[pair.name].fan_in_fan_out else moved
            weight.add_(local_shard(moved.to(weight.dtype).contiguous(), weight))
            values[index] = (before[0], before[1])


def _of_shape(stored: dict[str, Tensor], name: str, like: Tensor, file: Path) -> Tensor:
    if name not in stored or stored[name].shape != like.shape:
        raise IwloraError(
            f"{file} is damaged, or is of another model: it has no {name} of the shape "
            f"{tuple(like.shape)}; remove the checkpoints to begin again"
        )
    return stored[name].to(like)


def _file(args: Any, state: TrainerState) -> Path:
    checkpoint = layout.checkpoint_folder(Path(str(args.output_dir)), state.global_step)
    return checkpoint / layout.START
