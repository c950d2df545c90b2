"""What is trained under the penalty is a plain LoRA adapter: for PEFT, and in its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

import iwlora
from trainer_models import fit, make_model, make_rows

pytestmark = pytest.mark.filterwarnings("ignore:the penalty (had|dominates)")


@torch.no_grad()
def logits(model: Any) -> Tensor:
    ids = torch.stack([row["input_ids"] for row in make_rows(8)])
    computed: Tensor = model.eval()(input_ids=ids).logits
    return computed


ROUTES = ("loss", "gradient", "decoupled")


@pytest.fixture(params=ROUTES)
def trained(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Path]:
    model = make_model()
    fit(tmp_path / "run", [iwlora.IWLoraCallback(1e-2, route=request.param)], model)
    model.save_pretrained(tmp_path / "adapter")
    return model, tmp_path / "adapter"


def base() -> Any:
    """The frozen model, as ``make_model`` draws it."""
    return make_model().unload()


def test_it_reloads_with_equal_logits_and_merges(trained: tuple[Any, Path]) -> None:
    model, folder = trained
    expected = logits(model)
    reloaded = PeftModel.from_pretrained(base(), str(folder))
    assert torch.equal(logits(reloaded), expected)
    merged = reloaded.merge_and_unload()
    assert not any("lora" in name for name, _ in merged.named_parameters())
    assert_close(logits(merged), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_it_survives_add_weighted_adapter(route: str, tmp_path: Path) -> None:
    model = make_model(head=False)  # PEFT combines no adapters with a head of their own
    fit(tmp_path / "run", [iwlora.IWLoraCallback(1e-2, route=route)], model)
    folder = tmp_path / "adapter"
    model.save_pretrained(folder)
    reloaded = PeftModel.from_pretrained(base(), str(folder))
    reloaded.load_adapter(str(folder), "second")
    reloaded.add_weighted_adapter(["default", "second"], [0.5, 0.5], "both", "cat")
    reloaded.set_adapter("both")
    pairs = {pair.name: pair for pair in iwlora.penalty.lora_pairs.lora_pairs(reloaded)}
    for pair in iwlora.penalty.lora_pairs.lora_pairs(model):
        both = pairs[pair.name]
        assert_close(both.scaling * both.B @ both.A, pair.scaling * pair.B @ pair.A)
    assert_close(logits(reloaded), logits(model), rtol=1e-4, atol=1e-5)


def test_its_files_hold_nothing_of_ours(trained: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = trained
    names = {path.name for path in folder.iterdir()} - {"README.md"}  # PEFT's model card
    assert names == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    LoraConfig().save_pretrained(str(tmp_path / "plain"))
    plain = json.loads((tmp_path / "plain" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config.keys() == plain.keys()
    keys = load_file(folder / "adapter_model.safetensors")
    ends = ("lora_A.weight", "lora_B.weight", "classifier.weight", "classifier.bias")
    assert all(key.startswith("base_model.model.") and key.endswith(ends) for key in keys)
