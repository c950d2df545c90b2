"""``IWLoraCallback`` in two processes: measuring in flight under DDP, and on a sharded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments, default_data_collator

import iwlora
from iwlora.penalty.calibration import adapted_sites
from iwlora.testing.processes import run_in_two_processes
from trainer_models import distance, fit, make_model, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:the penalty (had|dominates|never)")

ROUTES = ("loss", "gradient", "decoupled")


def in_flight(**how: Any) -> iwlora.IWLoraCallback:
    how = {"measure": "in-flight", "tolerance": 0.0, "max_batches": 6, **how}
    return iwlora.IWLoraCallback(0.3, **how)


def under_ddp(rank: int, folder: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")
    for estimator in ("exact", "lora"):
        callback = in_flight(estimator=estimator)
        options: Any = {"per_device_train_batch_size": 4, "ddp_backend": "gloo"}
        trained = fit(folder, [callback], make_model(), **options)
        assert callback.sensitivity is not None
        outcome = {"values": callback.sensitivity.values, "batches": callback.sensitivity.batches}
        torch.save({"weights": trained, **outcome}, folder / f"{estimator}-{rank}.pt")


@pytest.mark.slow
def test_ddp_measures_in_flight_alike_in_all_processes(tmp_path: Path) -> None:
    run_in_two_processes(under_ddp, tmp_path)
    for estimator in ("exact", "lora"):
        one, two = (torch.load(tmp_path / f"{estimator}-{rank}.pt") for rank in (0, 1))
        assert one["values"] == two["values"]
        assert one["batches"] == two["batches"] == 6  # three steps of two processes
        assert distance(one["weights"], two["weights"]) == 0
        assert distance(one["weights"], fit(tmp_path, [])) > 1e-3


def drive(model: Any, callback: iwlora.IWLoraCallback, rows: list[Any]) -> dict[str, torch.Tensor]:
    """The events of a Trainer around a loop over one batch, without weights to average.

    Accelerate shards models on accelerators alone, so no Trainer does it on a CPU.
    """
    batch = default_data_collator(rows)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    args = TrainingArguments(report_to="none", use_cpu=True, max_grad_norm=0.0)
    state, control = TrainerState(max_steps=6, logging_steps=2), TrainerControl()
    loader = torch.utils.data.DataLoader(rows, collate_fn=default_data_collator)
    messages = {"model": model, "optimizer": optimizer}
    callback.on_train_begin(args, state, control, train_dataloader=loader, **messages)
    for _ in range(6):
        callback.on_step_begin(args, state, control, **messages)
        model(**batch).loss.backward()
        callback.on_pre_optimizer_step(args, state, control, **messages)
        optimizer.step()
        optimizer.zero_grad()
        state.global_step += 1
        callback.on_step_end(args, state, control, **messages)
    callback.on_train_end(args, state, control, **messages)
    return {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}


def sharded(rank: int, folder: Path) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    rows = make_rows(16)[rank::2]
    for route in ROUTES:
        model = make_model()
        for block in model.get_base_model().bert.encoder.layer:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)
        callback = in_flight(route=route, estimator="exact", max_batches=2)
        trained = drive(model, callback, rows)
        assert callback.sensitivity is not None
        whole = {name: tensor.full_tensor() for name, tensor in trained.items()}  # type: ignore[attr-defined]
        outcome = {"weights": whole, "values": callback.sensitivity.values}
        torch.save(outcome, folder / f"{route}-{rank}.pt")
    with pytest.raises(iwlora.IwloraError, match=r"estimator='lora' .* sharded"):
        drive(model, in_flight(estimator="lora"), rows)
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_a_sharded_model_is_measured_in_flight_and_penalised_as_a_whole_one(tmp_path: Path) -> None:
    run_in_two_processes(sharded, tmp_path)
    halves = [default_data_collator(make_rows(16)[rank::2]) for rank in (0, 1)]
    model = make_model()
    expected = iwlora.measure(model, halves, sites=adapted_sites(model)).values
    for route in ROUTES:
        one, two = (torch.load(tmp_path / f"{route}-{rank}.pt") for rank in (0, 1))
        assert one["values"] == two["values"] == pytest.approx(expected, rel=1e-4)
        assert distance(one["weights"], two["weights"]) == 0
        given = Given(one["values"], route)
        assert distance(one["weights"], drive(make_model(), given, make_rows(16))) < 1e-4


class Given(iwlora.IWLoraCallback):
    """Measures in flight in the first step, then weighs by what two processes found in theirs."""

    def __init__(self, values: dict[str, float], route: str) -> None:
        def weigh(_: Any) -> dict[str, float]:
            total = sum(values.values())
            return {name: 1 - value / total for name, value in values.items()}

        how: Any = {"measure": "in-flight", "tolerance": 0.0, "max_batches": 1}
        super().__init__(0.3, route=route, weigh=weigh, **how)
