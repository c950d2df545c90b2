"""Averages of the weights of LoRA adapters, beside the mean of predictions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from commands import snapshot
from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool
from iwlora.compose.report import report
from iwlora.compose.weight_averages import (
    WEIGHT_AVERAGES,
    averaged_weights,
    check_weight_averages,
)
from iwlora.errors import IwloraError
from iwlora.inputs.tensors import load_tensors
from iwlora.training.run import train
from iwlora.training.state.artifacts import load_saved
from runs import as_foreign, recipe

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def loras(runs: Path, tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of two LoRA adapters."""
    folder = tmp_path_factory.mktemp("loras")
    rows, scored = (str(runs / f"{name}.csv") for name in ("b", "scored"))
    task = {"train": rows, "validation": scored, "text": "text", "label": "mood"}
    train(recipe(tiny_bert, task, "lora", lr=5e-2, batch_size=4, seed=7), folder / "d")
    return compose([runs / "a", folder / "d"], folder / "pool")


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(3, 27).reshape(3, 8)
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
    return found


@pytest.mark.filterwarnings("ignore:The density 1.0 is greater")
@pytest.mark.parametrize("name", WEIGHT_AVERAGES)
def test_the_average_of_copies_is_the_source(runs: Path, tmp_path: Path, name: str) -> None:
    """With all values kept; at PEFT's plain weights of 1 / n, ``linear`` would be n times B A."""
    pool = Pool.load(compose([f"{k}={runs / 'a'}" for k in "xyz"], tmp_path / "pool"))
    how = WEIGHT_AVERAGES[name]
    how = replace(how, density=how.density and 1.0)
    model, _ = averaged_weights(pool, pool.names, how)
    alone, _ = load_saved(runs / "a")
    assert torch.allclose(logits(model), logits(alone), atol=1e-5)
    wrong, _ = averaged_weights(pool, pool.names, replace(how, power=how.power - 1))
    assert not torch.allclose(logits(wrong), logits(alone), atol=1e-3)


def test_the_scaling_of_rslora_counts_once(runs: Path, tiny_bert: Path, tmp_path: Path) -> None:
    """PEFT scales the merged adapter of copies by √r again."""
    rows = str(runs / "scored.csv")
    task = {"train": rows, "validation": rows, "text": "text", "label": "mood"}
    train(recipe(tiny_bert, task, "rslora", lr=5e-2, batch_size=4), tmp_path / "e")
    pool = Pool.load(compose([f"{k}={tmp_path / 'e'}" for k in "xy"], tmp_path / "pool"))
    alone, _ = load_saved(tmp_path / "e")
    for name in ("linear", "svd"):
        model, _ = averaged_weights(pool, pool.names, WEIGHT_AVERAGES[name])
        assert torch.allclose(logits(model), logits(alone), atol=1e-5)


def test_sources_that_train_other_modules_have_no_average(runs: Path, tmp_path: Path) -> None:
    """Else the modules of one source would be missing in the mean, or be those of one source."""
    shutil.copytree(runs / "a", tmp_path / "other")
    as_foreign(tmp_path / "other")
    file = tmp_path / "other" / "adapter" / "adapter_config.json"
    settings = json.loads(file.read_text(encoding="utf-8"))
    more = {**settings, "modules_to_save": [*settings["modules_to_save"], "pooler"]}
    file.write_text(json.dumps(more), encoding="utf-8")
    pool = compose([runs / "a", tmp_path / "other"], tmp_path / "pool")
    with pytest.raises(IwloraError, match="their ranks, matrices or modules_to_save differ"):
        check_weight_averages(Pool.load(pool))


def test_svd_and_linear_equal_the_formulas(loras: Path) -> None:
    pool = Pool.load(loras)
    files = [
        pool.source(name).path / "adapter" / "adapter_model.safetensors" for name in pool.names
    ]
    tensors = [load_tensors(file) for file in files]
    layer = "base_model.model.bert.encoder.layer.0.attention.self.query"
    factors = [(t[f"{layer}.lora_B.weight"], t[f"{layer}.lora_A.weight"]) for t in tensors]
    rank = len(factors[0][1])
    config = json.loads((files[0].parent / "adapter_config.json").read_text(encoding="utf-8"))
    scaling = config["lora_alpha"] / rank

    def delta(kind: str) -> torch.Tensor:
        model, _ = averaged_weights(pool, pool.names, WEIGHT_AVERAGES[kind])
        adapted = model.get_submodule(layer)
        heads = torch.stack([t["base_model.model.classifier.weight"] for t in tensors])
        saved = [p for n, p in model.named_parameters() if n.endswith("save.default.weight")]
        (head,) = [parameter for parameter in saved if parameter.shape == heads[0].shape]
        assert torch.allclose(head, heads.mean(dim=0))
        computed: torch.Tensor = adapted.get_delta_weight("merged") / scaling
        return computed.detach()

    mean_b, mean_a = (torch.stack(side).mean(dim=0) for side in zip(*factors, strict=True))
    assert torch.allclose(delta("linear"), mean_b @ mean_a, atol=1e-6)
    u, s, v = torch.linalg.svd(sum(b @ a for b, a in factors) / 2)
    best = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert torch.allclose(delta("svd"), best, atol=1e-5)


def test_they_are_scored_beside_the_pool(loras: Path, pool: Path) -> None:
    before = snapshot(loras)
    found = report(loras, weight_averages=True)
    assert snapshot(loras) == before
    assert list(found.weight_averages) == ["linear", "svd", "ties", "dare"]
    assert all(np.isfinite(scores["loss"]) for scores in found.weight_averages.values())
    assert found.weight_averages == report(loras, weight_averages=True).weight_averages
    assert "| svd " in str(found)
    with pytest.raises(IwloraError, match="the weights of b cannot be averaged: only sources that"):
        report(pool, weight_averages=True)
