"""What a recipe names, loaded: the task, the model on its device, the tokenizer, encoded rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers import set_seed as seed_everything

from iwlora import distributed, tasks
from iwlora.errors import Diverged
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.training.device import run_device
from iwlora.training.loop.divergence import list_rows
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.quantization import quantization
from iwlora.training.recipe import Recipe


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe's task, tokenizer, model and data, before any method changes the model.

    ``encoded`` has the tokenized rows of each split, ``collate`` makes batches of them.
    """

    recipe: Recipe
    task: tasks.Task
    tokenizer: PreTrainedTokenizerBase
    model: PreTrainedModel
    sites: list[Site]
    encoded: Mapping[str, Any]
    collate: Any

    def training_batches(self) -> Iterator[Mapping[str, Tensor]]:
        """The batches of the first epoch as training will see them, alike in all processes."""
        sampler = self.epoch_sampler()
        yield from DataLoader(
            self.encoded["train"],
            batch_size=sampler.batch_size,
            sampler=sampler,
            collate_fn=self.collate,
        )

    def epoch_sampler(self) -> EpochSampler:
        """The order of the training rows."""
        rows, settings = self.encoded["train"], self.recipe.train
        lengths = rows["length"][:] if settings.group_by_length else None
        return EpochSampler(len(rows), settings.batch_size, settings.seed, lengths)

    @contextmanager
    def naming_rows(self) -> Iterator[None]:
        """Add the rows of the batch to the ``Diverged`` of a measurement on the training split."""
        try:
            yield
        except Diverged as error:
            if error.batch is None:
                raise
            sampler = self.epoch_sampler()
            start = error.batch * sampler.batch_size
            rows = list(sampler)[start : start + sampler.batch_size]
            raise Diverged(f"{error}; its rows {list_rows(rows)}", error.batch) from None


def load(recipe: Recipe) -> LoadedRecipe:
    """Load what a recipe names, seed the random generators, and move the model to the device.

    A model that is sharded over processes and that no measurement needs whole stays on the CPU,
    and a quantized one is already on its device.

    Args:
        recipe: the checked recipe.

    Returns:
        The task, the tokenizer, the model, its sites, and the encoded rows of each split.

    Raises:
        IwloraError: the model or the data cannot be loaded, or does not fit the recipe.
    """
    settings = recipe.train
    task = tasks.load(recipe.task, settings.seed)
    seed_everything(settings.seed)
    model, tokenizer = load_backbone(
        recipe.model, task.labels, task.kind, recipe.trust_remote_code, quantization(recipe)
    )
    if not recipe.quantize and (not shards(recipe) or recipe.method.calibration()):
        model.to(run_device())  # type: ignore[arg-type]
    sites = find_sites(model, recipe.targets)
    recipe.method.check_model(model, sites)
    encoded = task.encode(tokenizer, settings.max_length, model.config)
    collate = task.kind.collator(tokenizer, model)
    return LoadedRecipe(recipe, task, tokenizer, model, sites, encoded, collate)


def shards(recipe: Recipe) -> bool:
    """Whether several processes share the weights of the model."""
    return recipe.train.shard and distributed.world_size() > 1
