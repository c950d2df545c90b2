"""Which layers a forward pass calls, in every kind of model that leaves some of them out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from iwlora.sensitivity.called_sites import uncalled_sites
from iwlora.sites import abbreviate_names, coverage, sites

WIDTH = 8
TEXT = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 24, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1}
VISION = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION |= {"intermediate_size": 24, "image_size": 16, "patch_size": 4}


def llava() -> Any:
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    text, vision = {"model_type": "llama", **TEXT}, {"model_type": "clip_vision_model", **VISION}
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=60)
    return LlavaForConditionalGeneration(config)


def mllama() -> Any:
    from transformers import MllamaConfig, MllamaForConditionalGeneration

    text = {**TEXT, "num_key_value_heads": 1, "cross_attention_layers": [1]}
    vision = {"hidden_size": 16, "num_hidden_layers": 2, "num_global_layers": 1}
    vision |= {"attention_heads": 2, "intermediate_size": 24, "vision_output_dim": 32}
    vision |= {"image_size": 16, "patch_size": 4, "intermediate_layers_indices": [0]}
    vision |= {"max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]}
    config = MllamaConfig(text_config=text, vision_config=vision, image_token_index=60)
    return MllamaForConditionalGeneration(config)


def mamba() -> Any:
    from transformers import MambaConfig, MambaForCausalLM

    return MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=8, num_hidden_layers=1))


def gpt2_with_cross_attention() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 64, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(**sizes, add_cross_attention=True))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (llava, ["vision_tower"]),
        (mllama, ["vision_model", "layers.1.cross_attn", "layers.1.mlp"]),
        (mamba, ["dt_proj", "out_proj"]),
        (gpt2_with_cross_attention, ["crossattention"]),
    ],
)
def test_layers_that_a_text_does_not_reach_are_uncalled(
    make: Callable[[], Any], expected: list[str]
) -> None:
    model = make()
    ids = torch.randint(5, 50, (2, 6))
    uncalled = uncalled_sites(model, sites(model), [{"input_ids": ids}], lambda m, b: m(**b))
    names = {site.name for site in sites(model) if any(part in site.name for part in expected)}
    assert {site.name for site in uncalled} == names
    assert all(any(part in name for name in names) for part in expected)


class Experts(nn.Module):
    """A block that calls one of three experts, by the first input."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in range(3)])
        self.other = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.experts[int(x.flatten()[0])](x)
        return y


@pytest.mark.quick
def test_an_expert_that_no_row_reaches_counts_as_called() -> None:
    model = nn.Module()
    model.blocks = nn.ModuleList([Experts(), Experts()])
    batches = [torch.zeros(1, WIDTH), torch.ones(1, WIDTH)]
    uncalled = uncalled_sites(model, sites(model), batches, lambda m, x: m.blocks[0](x))
    second = [f"blocks.1.experts.{i}" for i in range(3)]
    assert [site.name for site in uncalled] == ["blocks.0.other", *second, "blocks.1.other"]


@pytest.mark.quick
def test_the_fast_path_of_torch_calls_no_linear_layer() -> None:
    """With a LoRA layer the predictions of this model would be those without LoRA."""
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 12, batch_first=True)
    model = nn.ModuleList([layer])
    before = dict(vars(layer.linear1))
    uncalled = uncalled_sites(model, sites(model), [torch.randn(1, 3, WIDTH)], lambda m, x: m[0](x))
    assert len(uncalled) == 3
    assert vars(layer.linear1) == before
    assert model.training


def test_passes_end_when_every_layer_was_called() -> None:
    model = nn.ModuleList([nn.Linear(WIDTH, WIDTH)])
    read = iter([torch.ones(1, WIDTH)] * 3)
    assert not uncalled_sites(model, sites(model), read, lambda m, x: m[0](x))
    assert len(list(read)) == 2


@pytest.mark.quick
def test_coverage_counts_experts_and_convolutions_but_no_biases_and_norms() -> None:
    block = nn.Module()
    block.linear = nn.Linear(4, 6)  # 24 parameters in its matrix
    block.conv = nn.Conv1d(2, 2, kernel_size=3)  # 12
    block.experts = nn.Parameter(torch.ones(2, 3, 10))  # 60
    block.gate_bias = nn.Parameter(torch.ones(3, 10))
    block.norm = nn.LayerNorm((4, 4))
    block.relative_attention_bias = nn.Embedding(8, 4)
    model = nn.ModuleDict({"embedding": nn.Embedding(9, 9), "blocks": nn.ModuleList([block])})
    assert coverage(model, sites(model)) == pytest.approx(24 / 96)


def test_coverage_ignores_adapters() -> None:
    from peft import LoraConfig, get_peft_model

    model = mamba()
    before = coverage(model, sites(model))
    adapted = get_peft_model(model, LoraConfig(target_modules=["in_proj", "x_proj"]))
    assert coverage(adapted, sites(adapted)) == before


@pytest.mark.quick
def test_names_that_differ_in_numbers_are_one_pattern() -> None:
    names = ["a.0.b.10", "a.1.b.2", "q4_proj"]
    assert abbreviate_names(names) == "a.*.b.* (2), q4_proj"


def test_a_trainer_gives_no_importance_to_lora_without_an_effect(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """PEFT wraps ``out_proj`` of attention, whose weight torch uses without calling the layer."""
    from peft import LoraConfig, get_peft_model
    from torch.utils.data import DataLoader

    from iwlora.penalty.calibration import measure_before

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            block = nn.ModuleDict({"attn": nn.MultiheadAttention(WIDTH, 2), "fc": nn.Linear(8, 8)})
            self.layers = nn.ModuleList([block])

        def forward(self, x: Tensor, labels: Tensor) -> Any:
            y = self.layers[0]["fc"](self.layers[0]["attn"](x, x, x)[0])
            return type("Output", (), {"loss": ((y - labels) ** 2).mean()})

    config = LoraConfig(target_modules=["layers.0.attn.out_proj", "layers.0.fc"])
    model = get_peft_model(Attention(), config)
    rows = [{"x": torch.randn(3, WIDTH), "labels": torch.randn(3, WIDTH)} for _ in range(4)]
    measured = measure_before(model, DataLoader(rows), 2, 0, None)
    assert measured.batches == 2
    assert measured.excluded == ("layers.0.attn.out_proj",)
    assert measured.values["layers.0.attn.out_proj"] > 0
    assert "LoRA has no effect there" in caplog.text
