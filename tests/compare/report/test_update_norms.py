"""‖Δ_k‖ and ranks read from saved adapters, against PEFT's own merged weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from torch import nn

from iwlora.compare.report.figures.plots import front, quality_by_cost
from iwlora.compare.report.figures.selection import pictures
from iwlora.compare.report.html import write_report
from iwlora.compare.report.update_norms import update_norms, updates_of
from iwlora.errors import IwloraError
from iwlora.results.loading import load
from iwlora.results.run import Run, load_run


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 8, bias=False)
        self.down = nn.Linear(8, 6, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.up(x))


def adapter(folder: Path, **options: Any) -> dict[str, float]:
    """Save a random LoRA adapter with PEFT; returns ‖W_merged − W‖ of each matrix."""
    torch.manual_seed(0)
    net = Net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    model: Any = get_peft_model(net, LoraConfig(target_modules=["up", "down"], **options))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.normal_()
    model.save_pretrained(folder / "adapter")
    merged = dict(model.merge_and_unload().named_parameters())
    return {
        name.removesuffix(".weight"): float((merged[name] - w).norm()) for name, w in before.items()
    }


@pytest.mark.parametrize(
    "options",
    [
        {"r": 2, "lora_alpha": 5},
        {"r": 4, "lora_alpha": 5, "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"up": 1}, "alpha_pattern": {"down": 3}},
        {"r": 3, "lora_alpha": 3, "init_lora_weights": "gaussian"},
    ],
)
def test_norms_are_those_of_the_merged_weights(tmp_path: Path, options: dict[str, Any]) -> None:
    expected = adapter(tmp_path, **options)
    found = update_norms(Run(tmp_path, None))  # type: ignore[arg-type]
    assert found is not None
    assert {name: norm for name, (norm, _) in found.items()} == pytest.approx(expected, rel=1e-5)
    ranks = {name: rank for name, (_, rank) in found.items()}
    assert ranks == {"up": options.get("rank_pattern", {}).get("up", options["r"])} | {
        "down": options["r"]
    }


def test_what_is_no_product_is_left_out(tmp_path: Path) -> None:
    adapter(tmp_path / "dora", r=2, use_dora=True)
    assert update_norms(Run(tmp_path / "dora", None)) is None  # type: ignore[arg-type]
    adapter(tmp_path / "pissa", r=2)
    config = tmp_path / "pissa" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"init_lora_weights": "pissa"}))
    assert update_norms(Run(tmp_path / "pissa", None)) is None  # type: ignore[arg-type]
    assert update_norms(Run(None, None)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changes",
    [
        {"lora_alpha": "\x01"},
        {"lora_alpha": None},
        {"lora_alpha": float("nan")},
        {"alpha_pattern": -9e-25},
        {"alpha_pattern": {"up": "x"}},
        {"use_rslora": 3},
    ],
)
def test_a_configuration_that_says_no_scaling_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    adapter(tmp_path, r=2)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(IwloraError, match=f"adapter_config.json: {next(iter(changes))}"):
        update_norms(Run(tmp_path, None))  # type: ignore[arg-type]


def test_a_pattern_is_a_name_and_costs_no_time(tmp_path: Path) -> None:
    expected = adapter(tmp_path, r=2, lora_alpha=5)
    config = tmp_path / "adapter" / "adapter_config.json"
    endless = {"alpha_pattern": {"((.+)+)+!": 7, "p": 7}}  # as a regular expression
    config.write_text(json.dumps(json.loads(config.read_text()) | endless))
    found = update_norms(Run(tmp_path, None))  # type: ignore[arg-type]
    assert found is not None
    assert {name: norm for name, (norm, _) in found.items()} == pytest.approx(expected, rel=1e-5)


def save(run: Path, ranks: dict[str, int], size: float) -> None:
    """An adapter whose update is ``size`` everywhere, with the given ranks."""
    tensors = {}
    for name, rank in ranks.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = np.eye(rank, 8, dtype=np.float32)
        B = np.zeros((8, rank), dtype=np.float32)
        B[0, 0] = size
        tensors[f"base_model.model.{name}.lora_B.weight"] = B
    (run / "adapter").mkdir()
    save_file(tensors, run / "adapter" / "adapter_model.safetensors")
    pattern = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "rank_pattern": ranks}
    pattern["alpha_pattern"] = ranks
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(pattern))


def test_updates_and_chosen_ranks_are_drawn_and_written(folder: Path) -> None:
    names = [site.name for site in _sensitivity(folder).sites]
    for seed in range(3):
        for label in ("lora", "adalora", "iw-lora"):
            chosen = {n: 1 + (i + seed) % 3 if label == "adalora" else 2 for i, n in
                      enumerate(names)}  # fmt: skip
            save(folder / label / f"seed-{seed}", chosen, size=seed + 1)
    comparison = load(folder)
    found = updates_of(comparison, "adalora")
    assert list(found) == names, "in the order of the forward pass"
    assert all(one.norm == pytest.approx(2.0) and one.rank == 2.0 for one in found.values())
    (folder / "adalora" / "seed-2" / "result.json").unlink()
    stems = [one.stem for one in pictures(load(folder))]
    assert stems[-2:] == ["updates", "ranks-adalora"]
    write_report(folder)
    arms = {a["label"]: a for a in json.loads((folder / "summary.json").read_text())["arms"]}
    assert arms["lora"]["updates"][names[0]] == {"norm": pytest.approx(2.0), "rank": 2.0}
    assert arms["full"]["updates"] == {}


def _sensitivity(folder: Path) -> Any:
    measured = load_run(folder / "iw-lora" / "seed-0").sensitivity()
    assert measured is not None
    return measured


def test_the_front_joins_what_none_beats() -> None:
    points = {"a": (1.0, 0.5), "b": (2.0, 0.7), "c": (2.0, 0.6), "d": (3.0, 0.7), "e": (4.0, 0.9)}
    assert front(points) == ["a", "b", "e"]
    assert front({"a": (1.0, 0.5), "b": (1.0, 0.5)}) == ["a", "b"]


def test_costs_are_drawn_where_they_are_known(
    tmp_path: Path, comparison_in: Callable[..., Path]
) -> None:
    folder = comparison_in(tmp_path / "c", seeds=2, peak_memory_bytes=None)
    figure = quality_by_cost(load(folder))
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "trainable parameters",
        "training and measuring, s",
    ]
    marks = {line.get_label(): line for line in figure.axes[1].get_lines()}
    iw = load(folder).of("iw-lora")
    cost = np.mean([run.result.train_seconds + run.result.measure_seconds for run in iw])  # type: ignore[operator]
    assert marks["iw-lora"].get_xdata()[0] == pytest.approx(cost), "measuring is charged"
