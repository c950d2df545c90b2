"""The Trainer of transformers, with our loss, our data order and small checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader  # type: ignore[import-untyped]
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME

from iwlora.distributed import full_tensor
from iwlora.errors import IwloraError
from iwlora.results.writing import writing
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.training.kernels import fast_kernels
from iwlora.training.loop.divergence import Finite
from iwlora.training.loop.row_order import ByLength, EpochOrder, Pieces
from iwlora.training.model.sharding import (
    optimizer_state,
    parameters,
    pieces_of_state,
    set_parameters,
    sharded,
)
from iwlora.training.state.checkpoints import is_torn, seconds_until

_TRAINABLE_FILE = "trainable.safetensors"


class FineTuner(Trainer):
    """A Trainer whose checkpoints hold the declared trainable parameters and nothing else.

    ``learning_rates`` are factors of the learning rate by parameter, 1 where there is none.
    ``scores`` says how good outputs, arrays of one row each, are for the rows of ``eval_dataset``.
    With ``fast`` it trains and scores with the kernels of :mod:`iwlora.training.kernels`.
    ``seconds`` is the time spent training so far, scoring apart, before a resume included. Raises
    :class:`iwlora.errors.Diverged` for a loss or gradient that is no number.
    """

    def __init__(
        self,
        *,
        order: EpochOrder,
        trainable: Sequence[str],
        kind: Kind | None = None,
        tokenizer: Any = None,
        learning_rates: Mapping[str, float] | None = None,
        scores: Callable[[Mapping[str, Any]], dict[str, float]] | None = None,
        fast: bool = False,
        **kwargs: Any,
    ) -> None:
        if scores is not None:
            rows = kwargs["eval_dataset"]
            kwargs["compute_metrics"] = lambda found: scores(_of_rows(rows, found))
        super().__init__(**kwargs)
        spread = sharded(kwargs["model"])
        if spread and not hasattr(self, "is_distributed_loading_by_transformers"):
            raise IwloraError("train.shard=true needs transformers 5.23 or later; upgrade it")
        # By this the Trainer leaves the model as it is and averages the gradients of what is whole.
        self.is_distributed_loading_by_transformers = spread
        self._kind = kind or Classification()
        self._tokenizer = tokenizer
        self._final = False
        self._fast = fast
        self._module: torch.nn.Module = kwargs["model"]
        self.order = order
        self._trainable = tuple(trainable)
        self._learning_rates = dict(learning_rates or {})
        self._finite = Finite(order.rows, every=int(self.args.logging_steps))
        self._before = self._scoring = 0.0
        self._started: float | None = None
        self._ended: float | None = None

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Every process's pieces of the steps, in the order of the run."""
        args: Any = self.args
        accumulate, count = args.gradient_accumulation_steps, args.world_size
        pieces = Pieces(self.order, accumulate, args.process_index, count)
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=pieces,
            collate_fn=self.data_collator,
            pin_memory=args.dataloader_pin_memory,
        )
        # The pieces are this process's own: accelerate is to bring them to the device, no more.
        mine = {"device": self.accelerator.device, "num_processes": 1, "process_index": 0}
        prepared: DataLoader[Any] = prepare_data_loader(loader, put_on_device=True, **mine)
        return prepared

    def _get_eval_sampler(self, eval_dataset: Any) -> ByLength:
        return ByLength(eval_dataset["length"][:])

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The pieces of a step, and the number of items over which its loss is averaged."""
        pieces, items = super().get_batch_samples(*args, **kwargs)
        if items is not None:
            counts = [self._kind.count(piece["labels"]) for piece in pieces]
            own = torch.stack(counts).sum().to(self.args.device)
            items = self.accelerator.gather(own).sum()
        return pieces, items

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> Any:
        """(no loss, what the kind of task asks of the model, labels) of a batch."""
        batch = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            outputs = self._kind.outputs(model, self._tokenizer, batch, self._final)
        return None, outputs, batch["labels"]

    def final_outputs(self, rows: Any) -> Mapping[str, Any]:
        """What the trained model says of each of the encoded rows, as arrays."""
        scores, self.compute_metrics = self.compute_metrics, None
        self._final = True
        try:
            with fast_kernels(self._module, self._fast):
                return _of_rows(rows, self.predict(rows))
        finally:
            self.compute_metrics, self._final = scores, False

    def create_optimizer(self, *model: Any) -> torch.optim.Optimizer:
        """AdamW, with a group of parameters for each factor of the learning rate.

        Later versions of transformers give it the model, the first ones of version 5 nothing.
        """
        made = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(*model)
        if made:
            optimizer.register_load_state_dict_pre_hook(pieces_of_state)
        if made and self._learning_rates:
            module, named = self._module, self._learning_rates.items()
            factors = {module.get_parameter(name): factor for name, factor in named}
            optimizer.param_groups[:] = [
                {
                    **group,
                    "params": [p for p in group["params"] if factors.get(p, 1.0) == factor],
                    "lr": factor * group["lr"],
                }
                for group in optimizer.param_groups
                for factor in sorted({factors.get(p, 1.0) for p in group["params"]})
            ]
        return optimizer

    @property
    def seconds(self) -> float:
        """Time spent training so far, scoring apart, before a resume included."""
        now = self._ended or time.perf_counter()
        return self._before + now - (self._started or now) - self._scoring

    def fit(self, checkpoint: Path | None) -> None:
        """Train, from the beginning or from a checkpoint."""
        self._before = seconds_until(checkpoint)
        self._started = time.perf_counter()
        try:
            with fast_kernels(self._module, self._fast):
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UnpicklingError as error:
            raise IwloraError(
                f"{checkpoint} holds more than numbers, and nothing else is ever loaded; remove "
                "it, and the run goes on from the one before"
            ) from error
        except Exception as error:
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            if not is_torn(folder):
                raise
            # Its room is needed, to tell the state of the run too.
            shutil.rmtree(folder)
            with writing(f"the checkpoint of step {self.state.global_step}", folder.parent):
                raise error
        self._finite.judge()
        self._ended = time.perf_counter()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of a piece, whose loss must be a number."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._finite.piece(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = full_tensor(super()._get_grad_norm(*args, **kwargs))  # type: ignore[no-untyped-call]
        self._finite.step(self.state.global_step, norm)
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score, and keep account of the time."""
        started = time.perf_counter()
        scores: dict[str, float] = super().evaluate(*args, **kwargs)
        self._scoring += time.perf_counter() - started
        return scores

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        tensors = parameters(self._module, self._trainable)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / _TRAINABLE_FILE)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_distributed_loading_by_transformers:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer, scheduler = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        state = optimizer_state(optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    @contextmanager
    def _defer_fsdp_gradient_reduction(self) -> Iterator[None]:
        # Kept whole until the last piece of a step, gradients would take what sharding saves.
        yield

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        tensors = load_file(Path(resume_from_checkpoint) / _TRAINABLE_FILE)
        if set(tensors) != set(self._trainable):
            raise IwloraError(f"{resume_from_checkpoint} is a checkpoint of another model")
        set_parameters(self._module, tensors)


def _of_rows(rows: Any, found: Any) -> dict[str, Any]:
    """The outputs that were found for the rows, in the order of the rows."""
    return ByLength(rows["length"][:]).restored(found.predictions)


def task_loss(
    regularizer: Callable[[], Tensor] | None, kind: Kind | None = None
) -> Callable[..., Tensor]:
    """The kind's loss, averaged over the whole batch of an optimizer step, plus the regularizer.

    A step's items (rows, or tokens) may come in pieces of unequal size. Each piece carries the
    share of the regularizer that it has of the items, so that the term counts once a step.
    """
    task_kind = kind or Classification()

    def loss(
        outputs: Any, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        total, count = task_kind.loss(outputs, labels), task_kind.count(labels)
        if regularizer is not None and torch.is_grad_enabled():
            total = total + count * regularizer()
        return total / (count if num_items_in_batch is None else num_items_in_batch)

    return loss
