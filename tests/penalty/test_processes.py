"""Two processes train as one: DDP under a Trainer, and parameters that FSDP2 shards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import iwlora
from iwlora.testing.processes import run_in_two_processes

Saved = dict[str, Any]


def train(folder: Path, route: str, per_device: int, **how: Any) -> Saved:
    from trainer_models import fit, make_model

    options: Any = {"measure": "before", "tolerance": 0.0, **how}
    callback = iwlora.IWLoraCallback(0.3, route=route, **options)
    trained = fit(
        folder,
        [callback],
        make_model(),
        per_device_train_batch_size=per_device,
        ddp_backend="gloo" if per_device == 4 else None,
    )
    return {"weights": trained, "sensitivity": callback.sensitivity}


def train_in_two(rank: int, folder: Path) -> None:
    import warnings

    warnings.simplefilter("ignore")
    for route in ("loss", "gradient", "decoupled"):
        saved = train(folder, route, per_device=4)
        torch.save(saved, folder / f"{route}-{rank}.pt")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the penalty (had|dominates)")
def test_ddp_takes_the_path_of_one_process(tmp_path: Path) -> None:
    from trainer_models import distance

    run_in_two_processes(train_in_two, tmp_path)
    for route in ("loss", "gradient", "decoupled"):
        first, second = (
            torch.load(tmp_path / f"{route}-{rank}.pt", weights_only=False) for rank in (0, 1)
        )
        one = train(tmp_path, route, per_device=8)
        assert distance(first["weights"], second["weights"]) == 0
        assert first["sensitivity"].values == second["sensitivity"].values
        assert first["sensitivity"].values.keys() == one["sensitivity"].values.keys()
        given = train_with(tmp_path, route, first["sensitivity"])
        assert distance(first["weights"], given) < 1e-5


def train_with(folder: Path, route: str, sensitivity: Any) -> dict[str, torch.Tensor]:
    from trainer_models import fit, make_model

    callback = iwlora.IWLoraCallback(0.3, route=route, sensitivity=sensitivity)
    return fit(folder, [callback], make_model())


def sharded_model() -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4))
    model = get_peft_model(base, LoraConfig(target_modules=["0", "2"], r=3))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model


def steps(model: Any, route: str, x: torch.Tensor) -> None:
    coefficients = {"0": 0.5, "2": 0.25}
    penalty = iwlora.Penalty(model, coefficients, alpha=0.1, relative=True)
    penalty.recording = True
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-2)
    penalty.attach(optimizer, route)
    for _ in range(3):
        loss = model(x).square().mean()
        (loss + penalty() if route == "loss" else loss).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert penalty.effects.keys() == coefficients.keys()


def inputs() -> torch.Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(1))


def shard_in_two(rank: int, folder: Path) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2,))
    for route in ("loss", "gradient", "decoupled"):
        model = sharded_model()
        unsharded = iwlora.Penalty(model, {"0": 1.0, "2": 1.0})
        fully_shard(model, mesh=mesh)
        steps(model, route, inputs()[rank::2])
        whole = {
            n: p.detach().full_tensor() for n, p in model.named_parameters() if p.requires_grad
        }
        torch.save(whole, folder / f"{route}-{rank}.pt")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(iwlora.IwloraError, match="after preparing or sharding"):
            unsharded.attach(optimizer)
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_fsdp2_takes_the_path_of_one_process(tmp_path: Path) -> None:
    from trainer_models import distance

    run_in_two_processes(shard_in_two, tmp_path)
    for route in ("loss", "gradient", "decoupled"):
        model = sharded_model()
        steps(model, route, inputs())
        one = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        for rank in (0, 1):
            two = torch.load(tmp_path / f"{route}-{rank}.pt")
            assert distance(one, two) < 1e-6
