"""One adapter from several: averages of the weights of LoRA adapters, as baselines of a pool.

They cost one pass of the model, whatever the number of sources. They are no mean of predictions:
the product of an averaged B and an averaged A is not the average of the products.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from iwlora.compose.pool import Pool
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors
from iwlora.methods.peft_config import checked_settings, peft_config
from iwlora.methods.saving import PEFT_FORMAT
from iwlora.results import layout
from iwlora.training.state.artifacts import load_saved
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

_MERGED = "merged"


@dataclass(frozen=True)
class WeightAverage:
    """A way to average adapters, as PEFT's ``add_weighted_adapter`` does it.

    Args:
        kind: ``combination_type`` of PEFT.
        power: Each of n adapters has the weight n ** -power, so that copies of one adapter give
            this adapter: PEFT multiplies both A and B by the square root of the weight.
        density: The share of the values that is kept.
    """

    kind: str
    power: int
    density: float | None = None


WEIGHT_AVERAGES: Mapping[str, WeightAverage] = {
    "linear": WeightAverage("linear", power=2),
    "svd": WeightAverage("svd", power=1),
    "ties": WeightAverage("ties", power=0, density=0.5),
    "dare": WeightAverage("dare_linear", power=2, density=0.5),
}
"""linear: the mean of A, and that of B. svd: the best approximation of the mean of B A with the
rank of a source. ties: of A and of B the larger half of the values, and of these the mean of those
whose sign prevails (Yadav et al. 2023, arXiv:2306.01708). dare: the mean of A and of B after a
random half of the values is dropped and the others are doubled (Yu et al. 2023, arXiv:2311.03099).
"""


def check_weight_averages(pool: Pool) -> None:
    """Raise ``IwloraError`` where the weights of the sources cannot be averaged."""
    shapes = set()
    for name in pool.names:
        run = pool.source(name)
        file = run.path / layout.ADAPTER / PEFT_FORMAT[0]
        settings = checked_settings(file) if file.is_file() else None
        if (
            settings is None
            or settings["peft_type"] != "LORA"
            or settings.get("use_dora")
            or settings.get("target_parameters")
        ):
            raise IwloraError(
                f"the weights of {name} cannot be averaged: only sources that are plain LoRA "
                f"adapters have such averages, and its method is {run.recipe().method.name}"
            )
        if stored_task(run).kind.scaling is not None:
            raise IwloraError(
                f"the weights of {name} cannot be averaged: the heads of a regression learn on "
                "scales of their own; train with task.kind.standardize=false"
            )
        lists = [settings.get(name) for name in ("target_modules", "modules_to_save")]
        modules = [sorted(value) if isinstance(value, list) else value for value in lists]
        shapes.add(f"{settings.get('r')} {settings.get('rank_pattern')} {modules}")
    if len(shapes) > 1:
        raise IwloraError(
            "the weights of the sources cannot be averaged: their ranks, matrices or "
            "modules_to_save differ"
        )


def averaged_weights(
    pool: Pool, names: Sequence[str], how: WeightAverage, trust_remote_code: bool = False
) -> tuple[Any, Any]:
    """(model, processor) with one adapter and one head, averaged over sources.

    The head is the mean of the sources' heads, whatever averages the adapters.
    """
    runs = [pool.source(name) for name in names]
    model, processor = load_saved(runs[0].path, trust_remote_code=trust_remote_code)
    peft_model: Any = model
    adapters, tensors = ["default"], [_tensors(run) for run in runs]
    for number, (run, of_run) in enumerate(zip(runs[1:], tensors[1:], strict=True)):
        adapters.append(f"source{number}")
        _add(peft_model, adapters[-1], run, of_run)
    weights = [len(runs) ** -float(how.power)] * len(runs)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)  # DARE drops values at random
        if how.kind == "svd":
            _multiply_scaling_into_b(peft_model, adapters)
        peft_model.base_model.add_weighted_adapter(
            adapters, weights, _MERGED, combination_type=how.kind, density=how.density
        )
        _use(peft_model, tensors)
        if how.kind == "dare_linear" and how.density is not None and not _dare_rescales():
            _multiply_merged(peft_model, 1 / how.density)
    return peft_model.eval(), processor


def _tensors(run: RunDir) -> dict[str, Any]:
    return load_tensors(run.path / layout.ADAPTER / PEFT_FORMAT[1])


def _add(model: Any, name: str, run: RunDir, tensors: Mapping[str, Any]) -> None:
    """Add the adapter of a source without its head: PEFT averages no adapters with heads."""
    from peft import PeftModel, set_peft_model_state_dict

    settings = checked_settings(run.path / layout.ADAPTER / PEFT_FORMAT[0])
    # The method of the model's own class would add a head again.
    PeftModel.add_adapter(model, name, peft_config({**settings, "modules_to_save": None}))
    of_adapter = {key: value for key, value in tensors.items() if "lora_" in key}
    set_peft_model_state_dict(model, of_adapter, adapter_name=name)


def _multiply_scaling_into_b(model: Any, adapters: Sequence[str]) -> None:
    """Make the scaling of adapters 1: before 0.21, PEFT's ``svd`` applies it twice."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        for name in layer.lora_B.keys() & set(adapters):
            layer.lora_B[name].weight.mul_(layer.scaling[name])
            layer.scaling[name] = 1.0


def _dare_rescales() -> bool:
    """Whether PEFT divides what DARE keeps by the density; old versions lose the quotient."""
    from peft.utils.merge_utils import prune

    return float(prune(torch.ones(100), 0.5, "random", rescale=True).max()) > 1


def _multiply_merged(model: Any, factor: float) -> None:
    """Multiply A and B of the merged adapter, in which DARE is linear."""
    for name, parameter in model.named_parameters():
        if "lora_" in name and _MERGED in name.split("."):
            parameter.mul_(factor)


def _use(model: Any, tensors: Sequence[Mapping[str, Any]]) -> None:
    """Let all layers use the merged adapter, and the head of the first source be the mean.

    PEFT has multiplied A and B by the scaling of the sources, so the merged adapter has none. For
    adapters with ``use_rslora`` PEFT does not say so itself: alpha = r gives a scaling of √r there.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.save_and_load import get_peft_model_state_dict

    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(_MERGED)
        if isinstance(module, LoraLayer) and _MERGED in module.scaling:
            module.scaling[_MERGED] = 1.0
    own = get_peft_model_state_dict(model, adapter_name="default", save_embedding_layers=False)
    for name, value in own.items():
        if "lora_" not in name:
            value.copy_(torch.stack([of_run[name].to(value) for of_run in tensors]).mean(dim=0))
