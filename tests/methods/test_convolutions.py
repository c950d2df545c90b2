"""Convolutions as sites: exact sensitivities, LoRA as PEFT trains it, and who refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.head import head_modules
from iwlora.methods import METHODS
from iwlora.methods.budget import count_parameters, fit_to_budget
from iwlora.methods.contract import seeded
from iwlora.methods.loading import load_adapter
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.tiny_models import IMAGE_ARCHITECTURES, tiny_batch, tiny_model
from iwlora.penalty.apply import Penalty
from iwlora.penalty.lora_pairs import lora_pairs
from iwlora.sensitivity.in_flight import InFlight
from iwlora.sensitivity.statistics import STATISTICS
from iwlora.sites import Site, coverage, sites
from lora_models import five_losses

CONVNEXT = ["all", "patch_embedding", "downsampling"]


def convolution_names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]


def test_convolutions_are_sites_for_those_who_name_them() -> None:
    model = tiny_model("convnext", blocks=3)
    every = sites(model, [*CONVNEXT, "depthwise"])
    assert [site.name for site in every if site.is_convolution] == convolution_names(model)
    described = {site.name.removeprefix("convnext."): site for site in every}
    first, between, inside = (
        described[name]
        for name in (
            "embeddings.patch_embeddings",
            "encoder.stages.1.downsampling_layer.1",
            "encoder.stages.1.layers.0.dwconv",
        )
    )
    assert (first.kind, first.depth, first.block) == ("patch_embedding", 0, "")
    assert (between.kind, between.depth, between.block) == ("downsampling", 1, "")
    assert (inside.kind, inside.depth) == ("depthwise", 1)
    assert inside.block == "convnext.encoder.stages.1.layers.0"
    assert (inside.d_in, inside.d_out) == (7 * 7, 16)  # one channel for each
    for site in every:
        assert site.size == site.layer.weight.numel()  # type: ignore[union-attr, operator]
    assert [site.depth for site in every] == sorted(site.depth for site in every)
    linear = sites(model)
    assert not any(site.is_convolution for site in linear)
    assert sites(model, ["all"]) == linear
    assert coverage(model, linear) < coverage(model, [*linear, inside]) < 1
    assert coverage(model, every) == 1


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_sensitivities_of_convolutions_equal_autograd(architecture: str) -> None:
    model, batch = tiny_model(architecture, blocks=3).double(), _double(tiny_batch(architecture))
    found = sites(model, ["all", *convolution_names(model)])
    model(**batch).loss.backward()
    expected = {site.name: float(site.layer.weight.grad.norm()) for site in found}  # type: ignore[union-attr, operator]
    model.zero_grad()
    assert min(expected.values()) > 0
    measured = iwlora.measure(model, [batch], sites=found)
    assert measured.values == pytest.approx(expected, rel=1e-10)
    assert not measured.excluded
    convolutions = [site for site in found if site.is_convolution]
    for estimator in ("ghost", "sketch", "auto"):
        again = iwlora.measure(model, [batch], estimator=estimator, sites=convolutions)
        expected_ones = {site.name: expected[site.name] for site in convolutions}
        assert again.values == pytest.approx(expected_ones, rel=1e-10)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, dilation=2, stride=2, padding="valid"),
        nn.Conv2d(4, 6, (1, 3), padding="same", padding_mode="reflect", groups=2),
    ],
)
@pytest.mark.parametrize("statistic", [name for name in STATISTICS if name != "example"])
def test_any_convolution_is_measured(layer: nn.Conv2d, statistic: str) -> None:
    model = nn.Module()
    model.layers = nn.ModuleList([layer])  # type: ignore[assignment]
    layer.double()
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)

    def loss(model: Any, x: Tensor) -> Tensor:
        value: Tensor = model.layers[0](x).square().sum()
        return value

    loss(model, x).backward()
    G, W = layer.weight.grad, layer.weight.detach()
    assert G is not None
    layer.weight.grad = None
    expected = {
        "norm": G.norm(),
        "rms": G.norm() / G.numel() ** 0.5,
        "relative": G.norm() / W.norm(),
        "saliency": (G * W).abs().mean(),
        "mean": G.norm(),
    }[statistic]
    measured = iwlora.measure(model, [x], sites=["layers.0"], loss=loss, statistic=statistic)
    assert measured.values == pytest.approx({"layers.0": float(expected)}, rel=1e-10)


@pytest.mark.parametrize(
    ("architecture", "targets"), [("convnext", CONVNEXT), ("vit", ["query", "patch_embedding"])]
)
def test_lora_trains_convolutions_as_peft_trains_them(
    architecture: str, targets: list[str], tmp_path: Path
) -> None:
    ours, theirs = (tiny_model(architecture) for _ in range(2))
    chosen = sites(ours, targets)
    method = Lora(rank=2, lora_alpha=4)
    attached = method.attach(ours, chosen, seed=3)
    names = [site.name for site in chosen]
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=names, modules_to_save=head_modules(theirs)
    )
    with seeded(3):
        peft_model = get_peft_model(theirs, config)
    counted = count_parameters(attached)["adapter_parameters"]
    assert counted == method.parameters(tiny_model(architecture), chosen)
    of_peft = sum(p.numel() for n, p in peft_model.named_parameters() if "lora_" in n)
    assert counted == of_peft
    assert five_losses(attached.model, architecture) == five_losses(peft_model, architecture)
    attached.save(tmp_path)
    loaded = load_adapter(tiny_model(architecture), tmp_path / "adapter").eval()
    batch = tiny_batch(architecture)
    merged: Any = loaded(**batch).logits
    torch.testing.assert_close(merged, attached.model.eval()(**batch).logits)
    plain: Any = loaded.merge_and_unload()  # type: ignore[operator]
    torch.testing.assert_close(plain(**batch).logits, merged)


def test_a_budget_counts_convolutions() -> None:
    model = tiny_model("convnext")
    chosen = sites(model, CONVNEXT)
    fitted = fit_to_budget(Lora(), model, chosen, 3 * sum(s.d_in + s.d_out for s in chosen))
    assert fitted.size == 3


@pytest.mark.parametrize("name", ["iw-lora", "lora-fa", "dora"])
def test_variants_train_convolutions(name: str) -> None:
    model = tiny_model("convnext")
    chosen = sites(model, CONVNEXT)
    batch = tiny_batch("convnext")
    before = model(**batch).logits.detach()
    attached = METHODS[name](rank=2).attach(model, chosen, seed=0)
    torch.testing.assert_close(attached.model(**batch).logits, before)
    assert attached.count() == METHODS[name](rank=2).parameters(model, chosen)


def test_the_penalty_is_that_of_the_whole_update() -> None:
    model = tiny_model("convnext")
    attached = Lora(rank=2).attach(model, sites(model, CONVNEXT), seed=0)
    five_losses(attached.model, "convnext")
    pairs = lora_pairs(attached.model)
    deltas = {
        pair.name: model.get_submodule(pair.name).get_delta_weight("default")  # type: ignore[operator]
        for pair in pairs
    }
    for name, delta in deltas.items():
        alone = {other: float(other == name) for other in deltas}
        value = Penalty(attached.model, alone, alpha=1.0)().item()
        assert value == pytest.approx(delta.square().sum().item(), rel=1e-5)
        assert value > 0


def test_training_steps_measure_frozen_convolutions() -> None:
    expected = _of_convnext_in_float64()
    for estimator, tolerance in (("exact", 1e-10), ("lora", 0.9)):
        model = tiny_model("convnext").double()
        attached = Lora(rank=8).attach(model, sites(model, CONVNEXT), seed=0)
        found = sites(attached.model, CONVNEXT)
        flight = InFlight(found, attached.pairs, estimator, max_batches=1)
        attached.model(**_double(tiny_batch("convnext"))).loss.backward()
        flight.step()
        measured = flight.result()
        assert measured.values == pytest.approx(expected, rel=tolerance)
        assert not measured.excluded
        trained = {name for name, p in attached.model.named_parameters() if p.requires_grad}
        assert trained == set(attached.trainable)


def test_a_sketch_from_lora_is_unbiased_for_a_convolution() -> None:
    layer = nn.Conv2d(2, 5, 3, padding=1, bias=False)
    x = torch.randn(4, 2, 6, 6)
    layer(x).square().sum().backward()
    assert layer.weight.grad is not None
    expected, squares = float(layer.weight.grad.square().sum()), []
    layer.requires_grad_(False)
    for seed in range(24):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["0"])
        model = get_peft_model(nn.Sequential(layer), config)
        (pair,) = lora_pairs(model)
        site = Site("0", layer, "w", layer.weight[0].numel(), len(layer.weight), 0)
        flight = InFlight([site], [pair], "lora", max_batches=1)
        model(x).square().sum().backward()
        flight.step()
        squares.append(flight.result().sites[0].value ** 2)
        model.unload()
    spread = torch.tensor(squares).std() / len(squares) ** 0.5
    assert abs(sum(squares) / len(squares) - expected) < 4 * float(spread)


@pytest.mark.parametrize(
    ("name", "targets", "words"),
    [
        ("lora", "depthwise", r"they have groups.*modules_to_save=\[dwconv\]"),
        ("adalora", "patch_embedding", "PEFT's AdaLoRA has linear layers only"),
        ("pissa", "patch_embedding", "the method starts from linear layers only"),
        ("parallel", "downsampling", "the method adapts linear layers only"),
    ],
)
def test_who_cannot_adapt_a_convolution_says_so(name: str, targets: str, words: str) -> None:
    model = tiny_model("convnext")
    chosen, method = sites(model, targets), METHODS[name]()
    with pytest.raises(IwloraError, match=words):
        method.adaptable(chosen, targets)
    if name != "parallel":
        with pytest.raises(IwloraError, match=words):
            method.attach(model, chosen, seed=0)
    assert not any(hasattr(module, "lora_A") for module in model.modules())


def _of_convnext_in_float64() -> dict[str, float]:
    model, batch = tiny_model("convnext").double(), _double(tiny_batch("convnext"))
    return iwlora.measure(model, [batch], sites=CONVNEXT).values


def _double(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return {**batch, "pixel_values": batch["pixel_values"].double()}
