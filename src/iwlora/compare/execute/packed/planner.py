"""Which runs are packed, and how many at a time."""

from __future__ import annotations

from typing import Any

from iwlora.tasks.kinds import KINDS
from iwlora.training.model.backbone import meta_model
from iwlora.training.recipe import Recipe

MOST_RUNS = 64
"""Of a pack: beyond this the work that each run does by itself outweighs what a pass saves."""
_PART_OF_MEMORY = 0.7  # the rest: weights, gradients, the optimizers' states, what is freed late


_ALONE = {name for name, kind in KINDS.items() if kind.processor == "codes"}
"""Kinds whose models read class prompts, which no joint pass knows."""


def not_packable(recipe: Recipe) -> str | None:
    """Why a run is not trained together with others; None if it can be."""
    settings = recipe.train
    reasons = {
        f"{recipe.method.name}: {recipe.method.not_packable}": recipe.method.not_packable,
        f"quantize={recipe.quantize}": recipe.quantize,
        f"task.kind={recipe.task.kind_name}": recipe.task.kind_name in _ALONE,
        "train.deterministic=true": settings.deterministic,
        "train.gradient_checkpointing=true": settings.gradient_checkpointing,
        f"train.cache_frozen={settings.cache_frozen}": settings.cache_frozen not in (False, "auto"),
    }
    return next((reason for reason, applies in reasons.items() if applies), None)


def pack_key(recipe: Recipe) -> tuple[Any, ...] | None:
    """Runs of equal keys are trained in one pack; None for a run that is trained alone."""
    if not_packable(recipe):
        return None
    task, train = recipe.task, recipe.train
    return (
        *(recipe.model, recipe.trust_remote_code, task.title, task.train),
        *(train.precision, train.frozen_dtype, train.fast_kernels, train.max_length),
    )


def runs_that_fit(recipe: Recipe, free: int) -> int:
    """About how many runs one pass can hold in ``free`` bytes of memory; at least 1.

    A pass keeps at most L s b h (34 + 5 a s / h) bytes of activations of 2 bytes each for a run of
    b rows of s tokens, in L blocks of width h with a heads. Where this is too high, a pass holds
    fewer runs than it could; where it is too low, the pack halves.

    Source:
        Korthikanti et al. 2022, arXiv:2205.05198, equation 2.
    """
    model = meta_model(recipe)
    config: Any = model.config
    of_images = model.main_input_name == "pixel_values"
    names = ["hidden_size", "num_hidden_layers", "num_attention_heads"]
    names += ["image_size", "patch_size"] if of_images else []
    if not all(isinstance(getattr(config, name, None), int) for name in names):
        return MOST_RUNS
    width, blocks, heads = (getattr(config, name) for name in names[:3])
    rows = recipe.train.batch_size // recipe.train.accumulate
    patches = (config.image_size // config.patch_size) ** 2 if of_images else 0
    tokens = patches + 1 if of_images else recipe.train.max_length
    of_run = 2 * blocks * tokens * rows * width * (34 + 5 * heads * tokens / width)  # 4 bytes each
    return max(1, int(_PART_OF_MEMORY * free / of_run))
