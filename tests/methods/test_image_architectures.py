"""Backbones of images: their sites, exact sensitivities, and LoRA as PEFT trains it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model

import iwlora
from iwlora.head import head_modules
from iwlora.methods import METHODS
from iwlora.methods.contract import seeded
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.tiny_models import IMAGE_ARCHITECTURES, tiny_batch, tiny_model
from iwlora.sites import blocks, coverage, sites
from iwlora.testing import Case, Check, frozen_blocks_once_equal_plain, packed_equals_alone
from iwlora.training.frozen_layers.leading_blocks import leading_blocks
from lora_models import five_losses


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_sites_are_the_linear_layers_of_the_blocks(architecture: str) -> None:
    model = tiny_model(architecture, blocks=3)
    found = sites(model)
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    between = [name for name in linear if "downsample" in name]  # of Swin's stages
    assert [site.name for site in found] == [
        name for name in linear if name not in (*head_modules(model), *between)
    ]
    attention = ["query", "key", "value", "attention_output"] if architecture != "convnext" else []
    assert [site.kind for site in found] == [*attention, "ffn_up", "ffn_down"] * 3
    assert sorted({site.depth for site in found}) == [0, 1, 2]
    assert [site.depth for site in found] == sorted(site.depth for site in found)
    names = {id(module): name for name, module in model.named_modules()}
    assert [names[id(block)] for block in blocks(model)] == list(
        dict.fromkeys(site.block for site in found)
    )
    assert (coverage(model, found) == 1) == (architecture != "convnext")


@pytest.mark.parametrize("architecture", IMAGE_ARCHITECTURES)
def test_sensitivities_equal_autograd(architecture: str) -> None:
    model, batch = tiny_model(architecture, blocks=3).double(), tiny_batch(architecture)
    batch["pixel_values"] = batch["pixel_values"].double()
    found = sites(model)
    model(**batch).loss.backward()
    expected = {site.name: float(site.layer.weight.grad.norm()) for site in found}  # type: ignore[union-attr, operator]
    model.zero_grad()
    measured = iwlora.measure(model, [batch], estimator="exact")
    assert measured.values == pytest.approx(expected, rel=1e-10)
    assert min(expected.values()) > 0


@pytest.mark.parametrize("architecture", ["vit", "convnext"])
def test_lora_trains_as_peft_trains_it(architecture: str) -> None:
    ours, theirs = (tiny_model(architecture) for _ in range(2))
    names = [site.name for site in sites(ours)]
    attached = Lora(rank=2, lora_alpha=4).attach(ours, sites(ours), seed=3)
    config = LoraConfig(
        r=2, lora_alpha=4, target_modules=names, modules_to_save=head_modules(theirs)
    )
    with seeded(3):
        peft_model = get_peft_model(theirs, config)
    assert five_losses(attached.model, architecture) == five_losses(peft_model, architecture)


@pytest.mark.parametrize("name", ["eva", "corda", "lora-ga"])
@pytest.mark.parametrize("architecture", ["vit", "swin", "convnext"])
def test_starts_are_computed_from_images(name: str, architecture: str, tmp_path: Path) -> None:
    """Layers read tokens, windows of patches, or places in two dimensions."""
    case, plain = (Case(METHODS[n](), architecture, tmp_path) for n in (name, "lora"))
    attached, random = case.attach(), dict(plain.attach().model.named_parameters())
    factors = {n: p for n, p in attached.model.named_parameters() if "lora_A" in n}
    assert len(factors) == len(sites(case.model()))
    for factor_name, factor in factors.items():
        same_shape = factor.shape == random[factor_name].shape
        assert not (same_shape and torch.equal(factor, random[factor_name]))
        if name == "eva":  # principal directions
            gram = factor @ factor.T
            torch.testing.assert_close(gram, torch.eye(len(factor)), rtol=0, atol=1e-4)
    torch.testing.assert_close(case.logits(attached.model), case.logits(case.model()))


@pytest.mark.parametrize(
    ("architecture", "check"),
    [
        ("vit", frozen_blocks_once_equal_plain),
        ("swin", frozen_blocks_once_equal_plain),
        ("convnext", frozen_blocks_once_equal_plain),
        pytest.param("dinov2", packed_equals_alone, marks=pytest.mark.slow),
        pytest.param("convnext", packed_equals_alone, marks=pytest.mark.slow),
    ],
)
def test_runs_share_frozen_blocks_and_passes(
    architecture: str, check: Check, tmp_path: Path
) -> None:
    check(Case(Lora(), architecture, tmp_path))


def test_of_swin_the_blocks_of_the_first_stage_are_computed_once() -> None:
    model = tiny_model("swin", blocks=4)  # of which the first stage has one
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    leading = leading_blocks(model, lambda: model(**tiny_batch("swin")))
    assert leading is not None
    assert len(leading.frozen) == 1
