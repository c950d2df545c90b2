"""Averages of the weights of adapters that have nothing in common, against PEFT and formulas."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import set_peft_model_state_dict
from peft.utils.merge_utils import prune
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification

from iwlora.compose.compose import compose
from iwlora.compose.pool import Pool
from iwlora.compose.weight_averages import WEIGHT_AVERAGES, averaged_weights
from runs import as_foreign

pytestmark = pytest.mark.quick

ALPHAS = {"x": 8.0, "y": 2.0, "z": 5.0}
"""lora_alpha of the sources: their updates count unequally."""
RANK = 4
DENSITIES = (0.25, 0.5, 0.8)
Factors = Mapping[str, tuple[Tensor, Tensor]]
"""{layer: (A, B)}; the update is B A."""


@pytest.fixture(scope="module")
def unlike(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """Three sources with random A and B."""
    folder = tmp_path_factory.mktemp("unlike")
    for seed, (name, alpha) in enumerate(ALPHAS.items()):
        source, drawn = folder / name, torch.Generator().manual_seed(seed)
        shutil.copytree(runs / "a", source)
        as_foreign(source)
        file = source / "adapter" / "adapter_model.safetensors"
        tensors = {n: torch.randn(t.shape, generator=drawn) for n, t in load_file(file).items()}
        save_file(tensors, file, {"format": "pt"})
        file = source / "adapter" / "adapter_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        assert settings["r"] == RANK
        file.write_text(json.dumps({**settings, "lora_alpha": alpha}), encoding="utf-8")
        file = source / "recipe.yaml"
        text = file.read_text(encoding="utf-8")
        assert "lora_alpha: 16.0" in text
        file.write_text(text.replace("lora_alpha: 16.0", f"lora_alpha: {alpha}"), encoding="utf-8")
    return Pool.load(compose([folder / name for name in ALPHAS], folder / "pool"))


def scaled(pool: Pool) -> list[Factors]:
    """Of each source √s A and √s B, whose product is its update s B A."""
    of_sources = []
    for name in pool.names:
        tensors = load_file(pool.source(name).path / "adapter" / "adapter_model.safetensors")
        layers = {key.removesuffix(".lora_A.weight") for key in tensors if "lora_A" in key}
        root = (ALPHAS[name] / RANK) ** 0.5
        of_sources.append(
            {
                layer.removeprefix("base_model.model."): (
                    root * tensors[f"{layer}.lora_A.weight"],
                    root * tensors[f"{layer}.lora_B.weight"],
                )
                for layer in layers
            }
        )
    return of_sources


def merged(model: Any) -> tuple[Factors, Mapping[str, Tensor]]:
    """({layer: its merged A and B}, {layer: what it adds to the weight})."""
    layers = {
        name.removeprefix("base_model.model."): layer
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer)
    }
    factors = {n: (x.lora_A["merged"].weight, x.lora_B["merged"].weight) for n, x in layers.items()}
    assert len(factors) == 12
    return factors, {n: x.get_delta_weight("merged") for n, x in layers.items()}  # type: ignore[operator]


def ours(pool: Pool, name: str, density: float | None = None) -> Any:
    how = WEIGHT_AVERAGES[name]
    return averaged_weights(pool, pool.names, replace(how, density=density))[0]


def by_formula(pool: Pool, merge: Callable[[list[Tensor]], Tensor]) -> Mapping[str, Tensor]:
    """{layer: B A}, where ``merge`` makes A of the As and B of the Bs."""
    sources = scaled(pool)
    updates = {}
    for layer in sources[0]:
        a, b = (merge([of_source[layer][side] for of_source in sources]) for side in (0, 1))
        updates[layer] = b @ a
    return updates


def trimmed_sign_mean(tensors: list[Tensor], density: float) -> Tensor:
    """TIES, one number at a time, of tensors √s_i x_i; the signs are elected by the x_i alone."""
    roots = [(alpha / RANK) ** 0.5 for alpha in ALPHAS.values()]
    columns = []
    for tensor, root in zip(tensors, roots, strict=True):
        values = (tensor / root).flatten().tolist()
        largest = sorted(range(len(values)), key=lambda k: -abs(values[k]))
        kept = {*largest[: int(density * len(values))]}
        columns.append([value if k in kept else 0.0 for k, value in enumerate(values)])
    found = []
    for values in zip(*columns, strict=True):
        sign = 1 if sum(values) >= 0 else -1
        agreeing = [r * x for r, x in zip(roots, values, strict=True) if x * sign > 0]
        found.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(found).reshape(tensors[0].shape)


def test_linear_is_the_product_of_the_means(unlike: Pool) -> None:
    expected = by_formula(unlike, lambda tensors: torch.stack(tensors).mean(dim=0))
    assert_close(merged(ours(unlike, "linear"))[1], expected, rtol=1e-4, atol=1e-5)


def test_svd_is_the_nearest_of_its_rank_to_the_mean_of_the_updates(unlike: Pool) -> None:
    sources, updates = scaled(unlike), merged(ours(unlike, "svd"))[1]
    for layer, found in updates.items():
        mean = sum(b @ a for a, b in (of_source[layer] for of_source in sources)) / len(sources)
        u, s, v = torch.linalg.svd(mean)
        assert s[RANK] > 0.1, "else the mean has this rank, and nothing is cut off"
        assert_close(found, (u[:, :RANK] * s[:RANK]) @ v[:RANK], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_ties_is_the_mean_of_the_large_values_of_the_elected_sign(
    unlike: Pool, density: float
) -> None:
    expected = by_formula(unlike, lambda tensors: trimmed_sign_mean(tensors, density))
    assert_close(merged(ours(unlike, "ties", density))[1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("density", DENSITIES)
def test_dare_is_the_mean_of_values_of_which_each_is_kept_or_not(
    unlike: Pool, density: float
) -> None:
    """A number of A or B is the mean of some of the sources' numbers, divided by the density."""
    sources, factors = scaled(unlike), merged(ours(unlike, "dare", density))[0]
    subsets = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * len(sources))
    kept = []
    for layer, found in factors.items():
        for side in (0, 1):
            numbers = torch.stack([of_source[layer][side] for of_source in sources], dim=-1)
            possible = numbers @ subsets.T / (density * len(sources))
            distance, chosen = (possible - found[side][..., None]).abs().min(dim=-1)
            assert distance.max() < 1e-5
            kept.append(subsets[chosen].flatten())
    share = torch.cat(kept).mean().item()
    assert abs(share - density) < 0.02, "of 5 standard deviations"


@pytest.mark.parametrize(
    ("name", "density"),
    [("linear", None), *((name, density) for name in ("ties", "dare") for density in DENSITIES)],
)
def test_they_equal_what_peft_makes_of_the_adapters_alone(
    unlike: Pool, tiny_bert: Path, name: str, density: float | None
) -> None:
    """Without heads, loaded in PEFT's own way, with the weights that the table says."""
    if name == "dare" and prune(torch.ones(100), 0.5, "random", rescale=True).max() == 1:
        pytest.skip("this version of PEFT does not divide by the density; ours is right there")
    base = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    model: Any = None
    for source in unlike.names:
        folder = unlike.source(source).path / "adapter"
        config = LoraConfig.from_pretrained(folder)
        config.modules_to_save = config.task_type = None
        if model is None:
            model = get_peft_model(base, config, source)
        else:
            model.add_adapter(source, config)
        tensors = load_file(folder / "adapter_model.safetensors")
        of_adapter = {key: value for key, value in tensors.items() if "lora_" in key}
        set_peft_model_state_dict(model, of_adapter, source)
    weight = {"linear": 1 / 9, "ties": 1.0, "dare": 1 / 9}[name]  # PEFT takes its square root
    torch.manual_seed(0)
    model.add_weighted_adapter(
        [*unlike.names],
        [weight] * 3,
        "merged",
        {"linear": "linear", "ties": "ties", "dare": "dare_linear"}[name],
        density=density,
    )
    found, expected = (merged(m)[1] for m in (ours(unlike, name, density), model))
    assert_close(found, expected, rtol=1e-5, atol=1e-6)
