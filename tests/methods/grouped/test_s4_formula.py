"""S4 on six architectures: forward and a training step against plain formulas in float64."""

from __future__ import annotations

import copy
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from iwlora.methods.grouped.grouped import Grouped
from iwlora.methods.saving import saved_name
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites

SIZE, BLOCKS = 2, 6
# The groups of six layers, and where self-attention and the end of a layer are, below it.
GROUPS = [0, 1, 1, 2, 2, 3]
PARTS = ["pfeiffer lora", "pfeiffer prefix", "pfeiffer prefix bitfit", "prefix bitfit lora"]
PLACES = {
    "bert": ("attention.self", "output.LayerNorm"),
    "roberta": ("attention.self", "output.LayerNorm"),
    "t5": ("layer.0.SelfAttention", ""),
    "bart": ("self_attn", "final_layer_norm"),
    "gpt2": ("attn", ""),
    "llama": ("self_attn", ""),
}
STACKS = {
    "bert": ["bert.encoder.layer"],
    "roberta": ["roberta.encoder.layer"],
    "t5": ["transformer.encoder.block", "transformer.decoder.block"],
    "bart": ["model.encoder.layers", "model.decoder.layers"],
    "gpt2": ["transformer.h"],
    "llama": ["model.layers"],
}


class Plain:
    """The frozen model with every part added by its formula, from the parameters by name."""

    def __init__(self, architecture: str, model: Any, p: dict[str, Tensor], patch: Any) -> None:
        self.model, self.p, self.architecture = model, p, architecture
        self.prefixes: dict[nn.Module, str] = {}
        attention, end = PLACES[architecture]
        for stack in STACKS[architecture]:
            for number, group in enumerate(GROUPS):
                path, parts = f"{stack}.{number}", PARTS[group].split()
                if "prefix" in parts:
                    module = model.get_submodule(f"{path}.{attention}")
                    self.prefixes[module] = f"{path}.{attention}.prefix"
                if "pfeiffer" in parts:
                    place = f"{path}.{end}".rstrip(".")
                    if architecture == "t5":  # the end of the last sublayer
                        place += f".layer.{len(model.get_submodule(path).layer) - 1}"
                    model.get_submodule(place).register_forward_hook(self.bottleneck(place))
        model.set_attn_implementation("eager")
        code = sys.modules[type(next(iter(self.prefixes))).__module__]
        patch.setattr(code, "eager_attention_forward", self.attention)

    def bottleneck(self, place: str) -> Any:
        def adapter(x: Tensor) -> Tensor:
            down, up, b, c = (
                self.p[f"{place}.adapter.{n}"] for n in ("down", "up", "down_bias", "up_bias")
            )
            return torch.relu(x @ down.T + b) @ up.T + c

        def hook(module: Any, inputs: Any, output: Any) -> Any:
            if "norm" in type(module).__name__.lower():
                return module.forward(inputs[0] + adapter(output))
            if isinstance(output, tuple):
                return (output[0] + adapter(output[0]), *output[1:])
            return output + adapter(output)

        return hook

    def attention(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **kw: Any
    ) -> tuple[Tensor, None]:
        scale = kw.get("scaling")
        scale = query.shape[-1] ** -0.5 if scale is None else scale
        scores = query @ key.mT * scale
        if kw.get("position_bias") is not None:
            scores = scores + kw["position_bias"]
        if mask is not None:
            scores = scores + mask
        if module in self.prefixes:
            heads, d = key.shape[1], key.shape[-1]
            prefix = self.p[self.prefixes[module]]
            keys, values = prefix.view(2, SIZE, heads, d).transpose(1, 2)
            scores = torch.cat([query @ keys.mT * scale, scores], -1)
            value = torch.cat([values.expand(len(value), -1, -1, -1), value], 2)
        return (scores.softmax(-1) @ value).transpose(1, 2), None

    def __call__(self, **inputs: Tensor) -> Tensor:
        changed = {
            name: self.p[name] for name, _ in self.model.named_parameters() if name in self.p
        }
        for name, A in self.p.items():
            if name.endswith(".lora_A.weight"):
                place = name.removesuffix(".lora_A.weight")
                update = 16.0 / SIZE * self.p[f"{place}.lora_B.weight"] @ A
                weight = self.model.get_parameter(f"{place}.weight")
                is_transposed = self.architecture == "gpt2"
                changed[f"{place}.weight"] = weight + (update.T if is_transposed else update)
        output: Tensor = functional_call(self.model, changed, (), inputs).logits
        return output


@pytest.mark.parametrize("architecture", PLACES)
def test_forward_and_a_training_step_are_those_of_the_formulas(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = tiny_model(architecture, blocks=BLOCKS).double()
    model = copy.deepcopy(frozen)
    attached = Grouped(preset="s4", part_size=SIZE).attach(model, sites(model), seed=0)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name in attached.adapter:
            tensor = model.get_parameter(name)
            tensor += 0.3 * torch.randn(tensor.shape, generator=random, dtype=tensor.dtype)
    names = {saved_name(name): name for name in attached.trainable}
    p = {saved: model.get_parameter(name).detach().clone() for saved, name in names.items()}
    for tensor in p.values():
        tensor.requires_grad_()
    plain = Plain(architecture, frozen.requires_grad_(False), p, monkeypatch)
    ids = torch.randint(6, 60, (4, 7), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    if frozen.config.is_encoder_decoder:
        ids[:, -1] = frozen.config.eos_token_id
        mask[1, :2] = 0
    else:
        ids[1, -2:], mask[1, -2:] = 0, 0
    labels = torch.tensor([0, 1, 2, 0])

    expected = plain(input_ids=ids, attention_mask=mask)
    computed = model(input_ids=ids, attention_mask=mask).logits
    assert_close(computed, expected, rtol=1e-9, atol=1e-11)
    assert (computed - frozen(input_ids=ids, attention_mask=mask).logits).abs().max() > 1e-3

    ours = torch.optim.AdamW([model.get_parameter(names[saved]) for saved in p], 1e-2)
    theirs = torch.optim.AdamW(list(p.values()), 1e-2)
    for logits, optimizer in ((computed, ours), (expected, theirs)):
        cross_entropy(logits, labels).backward()
        optimizer.step()
    for saved, tensor in p.items():
        parameter = model.get_parameter(names[saved])
        assert_close(parameter.grad, tensor.grad, rtol=1e-7, atol=1e-11)
        assert_close(parameter, tensor, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        for saved, tensor in p.items():
            if saved.endswith(".prefix"):
                tensor *= 1.5
        wrong = plain(input_ids=ids, attention_mask=mask)
        assert (wrong - model(input_ids=ids, attention_mask=mask).logits).abs().max() > 1e-7
