"""Two processes prune like one: the importance is computed from averaged gradients."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.sites import sites as find_sites
from iwlora.testing.processes import run_in_two_processes
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.loop.trainer import FineTuningTrainer

STEPS, BATCH, ROWS = 12, 8, 48


class Masks(TrainerCallback):
    """Records the remaining triplets after each step."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.patterns: list[dict[str, list[bool]]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.patterns.append(dict(self.config.rank_pattern or {}))


def fit(folder: Path, per_device: int) -> dict[str, Any]:
    from conftest import tiny_config

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    method = AdaLora(rank=2, t_init=2, t_final=4, delta_t=2)
    attached = method.attach(model, find_sites(model), seed=0)
    random = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 50, (ROWS, 6), generator=random).tolist()
    rows = [{"input_ids": row, "labels": row[0] % 2} for row in ids]
    masks = Masks(attached.model.peft_config["default"])
    trainer = FineTuningTrainer(
        attached=attached,
        args=TrainingArguments(
            output_dir=str(folder / "trainer"),
            max_steps=STEPS,
            per_device_train_batch_size=per_device,
            learning_rate=1e-2,
            save_steps=STEPS // 2,
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            use_cpu=True,
            ddp_backend="gloo" if per_device < BATCH else None,
        ),
        train_dataset=rows,
        data_collator=default_data_collator,
        sampler=EpochSampler(ROWS, BATCH, seed=0),
        callbacks=[masks],
    )
    trainer.train()
    assert attached.ranks is not None
    weights = {name: attached.model.get_parameter(name).detach() for name in attached.trainable}
    return {"masks": masks.patterns, "ranks": dict(attached.ranks()), "weights": weights}


def work(rank: int, folder: Path) -> None:
    warnings.simplefilter("ignore")
    torch.save(fit(folder, BATCH // 2), folder / f"{rank}.pt")


def test_two_processes_select_the_same_triplets_as_one(tmp_path: Path) -> None:
    run_in_two_processes(work, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    one = fit(tmp_path / "one", BATCH)
    assert len(one["masks"]) == STEPS
    assert len({str(masks) for masks in one["masks"]}) > 2  # the selection changes during training
    assert len(set(one["ranks"].values())) > 1
    assert first["masks"] == second["masks"] == one["masks"]
    assert first["ranks"] == second["ranks"] == one["ranks"]
    for name, weight in one["weights"].items():
        assert torch.equal(first["weights"][name], second["weights"][name])
        torch.testing.assert_close(first["weights"][name], weight, rtol=1e-3, atol=1e-4)
    assert (tmp_path / "trainer" / "checkpoint-6" / "adalora.safetensors").is_file()
