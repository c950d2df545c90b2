"""‖Δ_k‖ and ranks read from saved adapters, against PEFT's own merged weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.numpy import save_file
from torch import nn

from iwlora.compare.report.formats.summary_json import summary_json
from iwlora.compare.report.update_norms import arm_updates, update_norms
from iwlora.errors import IwloraError
from iwlora.results.comparison import load
from iwlora.results.run import Run, load_run
from report_pages import content_of


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
    updates = update_norms(Run(tmp_path, None))  # type: ignore[arg-type]
    assert updates is not None
    assert {name: norm for name, (norm, _) in updates.items()} == pytest.approx(expected, rel=1e-5)
    ranks = {name: rank for name, (_, rank) in updates.items()}
    assert ranks == {"up": options.get("rank_pattern", {}).get("up", options["r"])} | {
        "down": options["r"]
    }


def test_adapters_that_are_not_a_product_are_left_out(tmp_path: Path) -> None:
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
def test_a_configuration_without_a_valid_scaling_is_refused(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    adapter(tmp_path, r=2)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    with pytest.raises(IwloraError, match=f"adapter_config.json: {next(iter(changes))}"):
        update_norms(Run(tmp_path, None))  # type: ignore[arg-type]


def test_alpha_patterns_are_names_and_not_regular_expressions(tmp_path: Path) -> None:
    expected = adapter(tmp_path, r=2, lora_alpha=5)
    config = tmp_path / "adapter" / "adapter_config.json"
    endless = {"alpha_pattern": {"((.+)+)+!": 7, "p": 7}}  # as a regular expression
    config.write_text(json.dumps(json.loads(config.read_text()) | endless))
    updates = update_norms(Run(tmp_path, None))  # type: ignore[arg-type]
    assert updates is not None
    assert {name: norm for name, (norm, _) in updates.items()} == pytest.approx(expected, rel=1e-5)


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


@pytest.mark.quick
def test_updates_and_chosen_ranks_are_figures_and_numbers(folder: Path) -> None:
    names = [site.name for site in _sensitivity(folder).sites]
    for seed in range(3):
        for label in ("lora", "adalora", "iw-lora"):
            ranks = {
                name: 1 + (number + seed) % 3 if label == "adalora" else 2
                for number, name in enumerate(names)
            }
            save(folder / label / f"seed-{seed}", ranks, size=seed + 1)
    updates = arm_updates(load(folder), "adalora")
    assert list(updates) == names, "in the order of the forward pass"
    assert all(u.norm == pytest.approx(2.0) and u.rank == 2.0 for u in updates.values())
    (folder / "adalora" / "seed-2" / "result.json").unlink()
    content = content_of(folder)
    figures = content.sections[0].figures
    assert [figure.stem for figure in figures][-2:] == ["updates", "ranks-adalora"]
    *heatmap, scale = figures[-2].draw().axes
    assert scale.get_ylim()[1] == pytest.approx(2.0), "one scale of colors for all arms"
    assert [axes.get_title(loc="left") for axes in heatmap] == ["lora", "adalora", "iw-lora"]
    assert {text.get_text() for text in heatmap[0].texts} == {"2.00"}
    arms = {arm["label"]: arm for arm in json.loads(summary_json(content))["arms"]}
    assert arms["lora"]["updates"][names[0]] == {"norm": pytest.approx(2.0), "rank": 2.0}
    assert arms["full"]["updates"] == {}


def _sensitivity(folder: Path) -> Any:
    measured = load_run(folder / "iw-lora" / "seed-0").sensitivity()
    assert measured is not None
    return measured
