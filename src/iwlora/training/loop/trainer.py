"""The Trainer of transformers with our loss, our order of rows and small checkpoints."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from iwlora.distributed import full_tensor
from iwlora.errors import IwloraError, short_repr
from iwlora.inputs.tensors import load_tensors
from iwlora.methods.contract import Attached
from iwlora.results import layout
from iwlora.results.writing import write_errors
from iwlora.tasks.kinds import Kind
from iwlora.tasks.kinds.classification import Classification
from iwlora.training.kernels import fast_kernels
from iwlora.training.loop.callbacks import RestoreLoggedLoss, TrackerPanels
from iwlora.training.loop.divergence import DivergenceCheck
from iwlora.training.loop.optimizer_state import loading_optimizer, loading_state
from iwlora.training.loop.parameter_groups import split_groups
from iwlora.training.loop.row_order import EpochSampler, LongestFirstSampler, MicroBatchSampler
from iwlora.training.loop.task_loss import task_loss
from iwlora.training.loop.weight_average import AverageLastSteps
from iwlora.training.model import sharding
from iwlora.training.state.checkpoints import is_torn, seconds_until


class FineTuningTrainer(Trainer):
    """A Trainer whose checkpoints hold the declared trainable parameters and nothing else.

    It raises :class:`iwlora.errors.Diverged` when a loss or a gradient becomes NaN or infinite.

    Args:
        attached: the method on its model, with its regularizer, callbacks, groups of parameters
            and optimizer.
        sampler: the order of the training rows.
        kind: the kind of the task; classification if None.
        processor: the tokenizer of the model, for kinds that generate text; or what it has instead.
        callbacks: further callbacks, called after those of the method.
        scores: metrics of outputs (arrays, first axis the row) on the rows of ``eval_dataset``.
        use_fast_kernels: train and score with the kernels of :mod:`iwlora.training.kernels`.
        skipping: makes a context in which the model trains and is scored without frozen blocks.
        **kwargs: arguments of ``transformers.Trainer``.
    """

    _operations_of_token: int | None = None

    def __init__(
        self,
        *,
        attached: Attached,
        sampler: EpochSampler,
        kind: Kind | None = None,
        processor: Any = None,
        callbacks: Sequence[TrainerCallback] = (),
        scores: Callable[[Mapping[str, Any]], dict[str, float]] | None = None,
        use_fast_kernels: bool = False,
        skipping: Callable[[], AbstractContextManager[None]] = nullcontext,
        **kwargs: Any,
    ) -> None:
        if scores is not None:
            rows = kwargs["eval_dataset"]
            kwargs["compute_metrics"] = lambda prediction: scores(_in_row_order(rows, prediction))
        super().__init__(
            model=attached.model,
            compute_loss_func=task_loss(attached.regularizer, kind),
            callbacks=[
                *attached.callbacks,
                *callbacks,
                RestoreLoggedLoss(self),
                *([TrackerPanels(self, attached.panels)] if kwargs["args"].report_to else []),
            ],
            **kwargs,
        )
        model_is_sharded = sharding.is_sharded(attached.model)
        if model_is_sharded and not hasattr(self, "is_distributed_loading_by_transformers"):
            raise IwloraError("train.shard=true needs transformers 5.23 or later; upgrade it")
        # With this the Trainer does not wrap the model, and averages gradients of whole parameters.
        self.is_distributed_loading_by_transformers = model_is_sharded
        self._kind, self.processor = kind or Classification(), processor
        self._final, self.use_fast_kernels = False, use_fast_kernels
        self.attached, self._skipping = attached, skipping
        self._module, self._trainable = attached.model, attached.trainable
        self.epoch_sampler = sampler
        self.micro_batch_sampler = MicroBatchSampler(
            sampler,
            self.args.gradient_accumulation_steps,
            self.args.process_index,
            self.args.world_size,
        )
        self._divergence = DivergenceCheck(
            self.micro_batch_sampler.step_rows, every=int(self.args.logging_steps)
        )
        self._before = self._started = self._scoring = 0.0
        self.waited = 0.0
        """Seconds in which the steps of other runs were computed, in the same process."""
        self.other_runs = 0
        """Those that the process trains beside this one."""
        self._ended: float | None = None
        self._average: AverageLastSteps | None = None

    def average_last_steps(self, average: AverageLastSteps) -> None:
        """Score and keep the mean of the last parameters in place of the last ones."""
        self._average = average
        self.add_callback(average)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This process's micro-batches, in the order of the run."""
        loader: DataLoader[Any] = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=self.micro_batch_sampler,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )
        # accelerate must move batches to the device only: they are split over processes already.
        options = {"device": self.accelerator.device, "num_processes": 1, "process_index": 0}
        return prepare_data_loader(loader, put_on_device=True, **options)  # type: ignore[no-any-return]

    def _get_eval_sampler(self, eval_dataset: Any) -> LongestFirstSampler:
        return LongestFirstSampler(eval_dataset["length"][:])

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The micro-batches of a step, and the number of items over which its loss is averaged."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        if items is not None:
            counts = [self._kind.count(batch["labels"]) for batch in batches]
            of_this_process = torch.stack(counts).sum().to(self.args.device)
            items = self.accelerator.gather(of_this_process).sum()
        return batches, items

    def prediction_step(self, model: Any, inputs: dict[str, Any], *_: Any, **kwargs: Any) -> Any:
        """(no loss, the outputs that the kind of task needs, labels) of a batch."""
        batch = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            outputs = self._kind.outputs(model, self.processor, batch, self._final)
        return None, outputs, batch["labels"]

    def final_outputs(self, rows: Any) -> Mapping[str, Any]:
        """The trained model's outputs for the encoded rows, as arrays in the order of the rows."""
        scores, self.compute_metrics = self.compute_metrics, None
        self._final = True
        try:
            with fast_kernels(self._module, self.use_fast_kernels), self._skipping():
                return _in_row_order(rows, self.predict(rows))
        finally:
            self.compute_metrics, self._final = scores, False

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """As transformers counts them, but the parameters are gone through once, not each step."""
        given = inputs["pixel_values" if "pixel_values" in inputs else "input_ids"]
        tokens = int(given.numel())
        if self._operations_of_token is None:
            self._operations_of_token = super().floating_point_ops(inputs) // tokens
        return tokens * self._operations_of_token

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The recipe's optimizer or the method's own, with the method's groups of parameters."""
        if self.optimizer is not None:
            return super().create_optimizer(model)
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        optimizer.param_groups[:] = split_groups(optimizer.param_groups, self.attached)
        if self.attached.optimizer is not None:
            keys = ("params", "lr", "weight_decay", "betas")
            groups = [{key: group[key] for key in keys} for group in optimizer.param_groups]
            self.optimizer = optimizer = self.attached.optimizer(groups)
        optimizer.register_load_state_dict_pre_hook(sharding.shard_optimizer_state)
        return optimizer

    @property
    def seconds(self) -> float:
        """Time spent training so far: with that before a resume, without scoring and waiting."""
        now = self._ended or time.perf_counter()
        return self._before + now - self._started - self._scoring - self.waited

    def fit(self, checkpoint: Path | None) -> None:
        """Train, from the beginning or from a checkpoint."""
        self._before = seconds_until(checkpoint)
        self._started = time.perf_counter()
        try:
            with fast_kernels(self._module, self.use_fast_kernels), self._skipping():
                self.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except UnpicklingError as error:
            raise IwloraError(
                f"{checkpoint} contains pickled objects other than tensors and numbers, which are "
                "never loaded; remove it, and the run resumes from the checkpoint before it"
            ) from error
        except Exception as error:
            step, checkpoints = self.state.global_step, Path(str(self.args.output_dir))
            folder = layout.checkpoint_folder(checkpoints, step)
            if not is_torn(folder):
                raise
            # Free its disk space: the state of the run must still be written.
            shutil.rmtree(folder)
            with write_errors(f"the checkpoint of step {step}", checkpoints):
                raise error
        self._divergence.check()
        self._ended = time.perf_counter()

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Forward and backward of a micro-batch, whose loss is kept for the check."""
        loss: Tensor = super().training_step(*args, **kwargs)
        self._divergence.add_loss(loss)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        norm = full_tensor(super()._get_grad_norm(*args, **kwargs))  # type: ignore[no-untyped-call]
        self._divergence.end_step(self.state.global_step, norm)
        if self.attached.gradient_norm is not None:
            self.attached.gradient_norm(float(norm))
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Score, and count the time separately."""
        started = time.perf_counter()
        with self._average.in_place(self.state) if self._average else nullcontext():
            scores: dict[str, float] = super().evaluate(*args, **kwargs)
        self._scoring += time.perf_counter() - started
        return scores

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        tensors = sharding.full_parameters(self._module, self._trainable)
        if self.args.should_save:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, folder / layout.TRAINABLE)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_distributed_loading_by_transformers:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        optimizer, scheduler = cast(Any, self.optimizer), cast(Any, self.lr_scheduler)
        state = sharding.full_optimizer_state(optimizer)
        if self.args.should_save:
            torch.save(state, Path(output_dir) / OPTIMIZER_NAME)
            torch.save(scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _defer_fsdp_gradient_reduction(self) -> Any:
        # Whole gradients, kept until the last micro-batch, would take the memory sharding saves.
        return nullcontext()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        _check_state(Path(resume_from_checkpoint))
        tensors = load_tensors(Path(resume_from_checkpoint) / layout.TRAINABLE)
        if set(tensors) != set(self._trainable):
            raise IwloraError(
                f"{resume_from_checkpoint} is a checkpoint of another model, or of a version of "
                "iwlora that trained other parameters: "
                f"{min(set(tensors) ^ set(self._trainable))} is in one of the two only; remove "
                "the checkpoints to begin again"
            )
        for name, tensor in tensors.items():
            shape = self._module.get_parameter(name).shape
            if tensor.shape != shape:
                raise IwloraError(
                    f"{resume_from_checkpoint} is damaged, or is a checkpoint of another model: "
                    f"{name} has the shape {tuple(tensor.shape)} there, and {tuple(shape)} in this "
                    "model; remove the checkpoints to begin again"
                )
        sharding.set_parameters(self._module, tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        file, step = Path(checkpoint, OPTIMIZER_NAME), layout.checkpoint_step(Path(checkpoint))
        with loading_optimizer(self.optimizer, self.lr_scheduler, step, file):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with loading_state(Path(checkpoint or "", "rng_state.pth")):
            super()._load_rng_state(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Only float16 scales its losses, so that no checkpoint of ours has this file."""


def _check_state(checkpoint: Path) -> None:
    """Raise ``IwloraError`` for a checkpoint whose state of the Trainer is not that of its step."""
    file = checkpoint / TRAINER_STATE_NAME
    try:
        step = TrainerState.load_from_json(str(file)).global_step
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise IwloraError(f"{file} is damaged ({error}); remove {checkpoint}") from error
    if step != layout.checkpoint_step(checkpoint):
        raise IwloraError(f"{file} is that of step {short_repr(step)}; remove {checkpoint}")


def _in_row_order(rows: Any, prediction: Any) -> dict[str, Any]:
    """The predicted outputs in the order of the rows."""
    return LongestFirstSampler(rows["length"][:]).restore(prediction.predictions)
