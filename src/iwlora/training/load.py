"""What a recipe names, loaded: the task, the model on its device, its processor, encoded rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers import set_seed as seed_everything

from iwlora import distributed, tasks
from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.inputs.models.loading import loading_errors
from iwlora.methods.contract import Method
from iwlora.sensitivity.called_sites import uncalled_sites
from iwlora.sites import Site, abbreviate_names, coverage
from iwlora.sites import sites as find_sites
from iwlora.tasks.kinds.contract import Evaluation
from iwlora.training.class_balance import with_class_weights
from iwlora.training.device import run_device
from iwlora.training.kernels import training_numerics
from iwlora.training.loop.row_order import DrawnRows, EpochSampler
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.frozen_dtype import frozen_loading
from iwlora.training.model.gradient_checkpointing import enable_gradient_checkpointing
from iwlora.training.model.new_weights import new_weights_notes
from iwlora.training.model.quantization import quantized_loading
from iwlora.training.model.recipe_head import add_tokens, declare_modules
from iwlora.training.model.target_units import scale_for_head
from iwlora.training.model.vocabulary import check_generated_length, check_token_ids
from iwlora.training.recipe import Recipe

logger = logging.getLogger("iwlora")

_ROWS_OF_A_PASS, _MOST_PASSES = 2, 8  # to see which layers are called; one pass mostly suffices
_WHOLE = 0.995  # a share of the parameters above which nothing is missing that matters


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe's task, processor, model and data, before any method changes the model.

    ``processor`` is the tokenizer of the model, or its image processor. ``encoded`` has the rows of
    each split as it reads them, ``collate`` makes batches of them, ``head``
    has the modules that every method trains beside its adapter, and ``notes`` says what a user
    should know about the model, the sites and the rows. ``sites`` are the chosen matrices, except
    the ``uncalled`` ones, whose layers the task's forward pass does not call.
    """

    recipe: Recipe
    task: tasks.Task
    processor: Any
    model: PreTrainedModel
    sites: list[Site]
    encoded: Mapping[str, Any]
    collate: Any
    head: Sequence[str] = ()
    notes: tuple[str, ...] = ()
    uncalled: tuple[Site, ...] = ()

    @property
    def coverage(self) -> float | None:
        """The share of the matrix parameters of the model's blocks that the sites have.

        None for a method that does not adapt sites.
        """
        return coverage(self.model, self.sites) if self.recipe.method.adapts_sites else None

    def training_batches(self) -> Iterator[Mapping[str, Tensor]]:
        """The batches of the first epoch as training will see them, alike in all processes."""
        order = self.epoch_sampler()
        rows = self.training_rows(order)
        yield from DataLoader(rows, order.batch_size, sampler=order, collate_fn=self.collate)

    def training_rows(self, order: EpochSampler) -> Any:
        """The encoded training rows; where they are augmented, each with its draw in an epoch."""
        rows = self.encoded["train"]
        return DrawnRows(rows, order) if self.task.kind.augments else rows

    def epoch_sampler(self) -> EpochSampler:
        """The order of the training rows."""
        rows, settings = self.encoded["train"], self.recipe.train
        lengths = rows["length"][:] if settings.group_by_length else None
        classes = rows["labels"][:] if settings.sampler == "balanced" else None
        return EpochSampler(len(rows), settings.batch_size, settings.seed, lengths, classes)

    def evaluation(self, split: str, outputs: Mapping[str, Any]) -> Evaluation:
        """The rows of a split with a model's outputs for them."""
        rows, encoded = self.task.splits[split], self.encoded[split]
        return Evaluation(self.task, rows, encoded, outputs, self.processor)

    def score(self, split: str, outputs: Mapping[str, Any]) -> dict[str, float]:
        """The metrics of a split from a model's outputs for its rows."""
        evaluation = self.evaluation(split, outputs)
        return self.task.kind.score(evaluation, self.task.kind.predictions(evaluation))


def load(recipe: Recipe) -> LoadedRecipe:
    """Load what a recipe names, seed the random generators, and move the model to the device.

    A model that is sharded over processes and that no measurement needs whole stays on the CPU,
    and a quantized one is already on its device.

    Args:
        recipe: the checked recipe.

    Returns:
        The task, the processor, the model, its sites, and the encoded rows of each split.

    Raises:
        IwloraError: the model or the data cannot be loaded, or does not fit the recipe.
    """
    settings = recipe.train
    task = with_class_weights(tasks.load(recipe.task, settings.seed), settings)
    seed_everything(settings.seed)
    trust = recipe.trust_remote_code
    loading = frozen_loading(recipe) | quantized_loading(recipe, task.kind, trust)
    model, processor = load_backbone(recipe.model, task.labels, task.kind, trust, loading)
    notes = [*new_weights_notes(recipe.model, model), *declare_modules(model, recipe)]
    notes += add_tokens(model, processor, recipe)
    task = task.ranked(processor)
    if not recipe.quantize and (not shards(recipe) or recipe.method.calibration()):
        model.to(run_device())  # type: ignore[arg-type]
    task = _for_head(task, model)
    if settings.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    every_target = find_sites(model, recipe.targets, recipe.exclude)
    chosen = recipe.method.adaptable(every_target, recipe.targets)
    of_rows = _left_out(recipe.method, every_target, chosen)
    check_generated_length(model, task.kind.generated_tokens)
    encoded = task.encode(processor, settings.max_length, model.config, of_rows)
    check_token_ids(model, processor, encoded.values())
    collate = task.kind.collator(processor, model)
    uncalled: list[Site] = []
    # Whether a model reads images of the size that its processor makes, only a pass can say.
    if recipe.method.adapts_sites or task.kind.reads_images:
        rows = "images" if task.kind.reads_images else "texts"
        few_rows = DataLoader(encoded["train"], _ROWS_OF_A_PASS, collate_fn=collate)
        passes = islice(few_rows, _MOST_PASSES)
        # Without autocast where that is possible: torch's fast path, which calls fewer layers, is
        # not taken under it. Frozen weights in bfloat16 need it beside a head in float32.
        precision = "bf16" if settings.frozen_dtype == "bfloat16" else "fp32"
        with (
            loading_errors(
                lambda reason, _: f"model={recipe.model} cannot compute {rows}: {reason}"
            ),
            training_numerics(model, False, precision, run_device()),
        ):
            used = chosen if recipe.method.adapts_sites else []
            uncalled = uncalled_sites(model, used, passes, task.kind.batch_loss)
    if recipe.method.adapts_sites:
        of_rows += _notes_on_sites(recipe, model, chosen, uncalled)
    if distributed.rank() == 0:
        for note in of_rows:
            logger.warning(note)
    notes += of_rows
    sites = [site for site in chosen if site not in uncalled]
    recipe.method.check_model(model, sites)
    return LoadedRecipe(
        recipe=recipe,
        task=task,
        processor=processor,
        model=model,
        sites=sites,
        encoded=encoded,
        collate=collate,
        head=head_modules(model),
        notes=tuple(notes),
        uncalled=tuple(uncalled),
    )


def _notes_on_sites(
    recipe: Recipe, model: Any, chosen: list[Site], uncalled: list[Site]
) -> Iterator[str]:
    """What is not adapted although ``targets`` asks for it; ``IwloraError`` if nothing is left."""
    sites = [site for site in chosen if site not in uncalled]
    names = abbreviate_names([site.name for site in uncalled])
    if not sites:
        raise IwloraError(
            f"targets={recipe.targets} and exclude={recipe.exclude} choose {len(chosen)} matrices, "
            "and the task's forward pass calls the layer of none of them, so adapters would have "
            f"no effect: {names}"
        )
    if uncalled:
        yield (
            f"{len(uncalled)} of {len(chosen)} matrices are not adapted, because an adapter has no "
            "effect there: the task's forward pass does not use them, or uses their weights "
            f"without calling their layers: {names}"
        )
    share = coverage(model, sites)
    if recipe.targets in ("all", "all-linear") and not recipe.exclude and share < _WHOLE:
        yield (
            f"the {len(sites)} adapted matrices have {share:.1%} of the matrix parameters of the "
            "model's blocks"
        )


def _for_head(task: tasks.Task, model: PreTrainedModel) -> tasks.Task:
    """The task whose kind, and whose notes, say whether the head can return numbers in units."""
    if task.kind.scaling is None:
        return task
    scale = scale_for_head(task.kind.scaling, model)
    note = (
        f"the trained model cannot be exported, because it returns its targets on another scale: "
        f"{scale.not_in_head}; `iwlora predict` returns them in their units"
    )
    notes = (*task.notes, note) if scale.not_in_head else task.notes
    return replace(task, kind=task.kind.with_scaling(scale), notes=notes)


def _left_out(method: Method, targets: Sequence[Site], chosen: Sequence[Site]) -> list[str]:
    """A remark on the weights of experts and routers that a method does not adapt."""
    adapted = {site.name for site in chosen}
    left_out = [site.name for site in targets if site.name not in adapted]
    if not left_out:
        return []
    return [
        f"{method.name} leaves out {len(left_out)} of {len(targets)} matrices, which PEFT adapts "
        f"as parameters, such as those of experts and routers: {method.not_for_parameters} "
        f"({abbreviate_names(left_out)})"
    ]


def shards(recipe: Recipe) -> bool:
    """Whether several processes share the weights of the model."""
    return recipe.train.shard and distributed.world_size() > 1
