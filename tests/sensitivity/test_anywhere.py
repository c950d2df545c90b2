"""Whatever the model, its number format, its memory savings and where it lies."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

import iwlora
from conftest import VOCABULARY, tiny_config
from iwlora.sensitivity.capture import capture
from iwlora.sensitivity.estimators import exact
from iwlora.sites import Site, dense_weight, sites
from sensitivity_models import batches, classifier, end_of_sequence, gradients, oracle


def language_model(architecture: str) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    auto: Any = AutoModelForSeq2SeqLM if architecture in ("t5", "bart") else AutoModelForCausalLM
    torch.manual_seed(0)
    return auto.from_config(tiny_config(architecture)).double().eval()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "t5", "bart"])
def test_language_models_with_ignored_labels(architecture: str) -> None:
    model = language_model(architecture)
    batch = batches(1)[0]
    batch["labels"] = torch.randint(5, len(VOCABULARY), (3, 7))
    batch["labels"][0, :3] = -100
    batch["labels"][1, 5:] = -100
    expected = {name: float(g.norm()) for name, g in gradients(model, batch).items()}
    for estimator in ("exact", "ghost", "auto"):
        measured = iwlora.measure(model, [batch], estimator).values
        assert measured == pytest.approx(expected, rel=1e-9, abs=1e-14)
    other = {**batch, "labels": batch["labels"].clamp(min=5)}
    changed = iwlora.measure(model, [other]).values
    assert changed != pytest.approx(expected, rel=1e-3)


class Block(nn.Module):
    """Uses its layers twice, and checkpoints itself where asked."""

    def __init__(self, tied: bool = False, reentrant: bool | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        if tied:
            self.blocks[1].weight = self.blocks[0].weight
        self.reentrant = reentrant

    def _layers(self, h: Tensor) -> Tensor:
        for layer in [*self.blocks, *self.blocks]:
            h = torch.tanh(layer(h)) + h
        return h

    def forward(self, ids: Tensor, labels: Tensor) -> Any:
        h = self.embedding(ids)
        h += 1  # in place, as models do
        if self.reentrant is None:
            h = self._layers(h)
        else:
            h = checkpoint(self._layers, h, use_reentrant=self.reentrant)
        return type("Output", (), {"loss": (h.sum(-1) * labels).mean()})


def rows() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randn(4, 5, generator=generator).double()
    return {"ids": torch.randint(0, 11, (4, 5), generator=generator), "labels": labels}


def test_tied_layers_have_the_norm_of_the_sum_of_all_their_uses() -> None:
    model = Block(tied=True).double()
    expected = gradients(model, rows())
    measured = iwlora.measure(model, [rows()]).values
    assert measured["blocks.0"] == pytest.approx(float(expected["blocks.0"].norm()), rel=1e-12)
    assert measured["blocks.1"] == measured["blocks.0"]


def test_a_module_in_two_places_is_one_site() -> None:
    model = Block().double()
    model.blocks[1] = model.blocks[0]
    expected = float(gradients(model, rows())["blocks.0"].norm())
    assert iwlora.measure(model, [rows()]).values == {"blocks.0": pytest.approx(expected)}


@pytest.mark.parametrize("statistic", ["norm", "example", "mean"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_when_everything_is_frozen(reentrant: bool, statistic: str) -> None:
    plain = Block().double()
    saving = Block(reentrant=reentrant).double()
    saving.load_state_dict(plain.state_dict())
    expected = iwlora.measure(plain, [rows()], statistic=statistic).values
    saving.requires_grad_(False)
    measured = iwlora.measure(saving, [rows()], statistic=statistic).values
    assert measured == pytest.approx(expected, rel=1e-12)
    assert sum(expected.values()) > 0
    assert not any(m._forward_hooks for m in saving.modules())


def test_inputs_are_kept_as_autograd_keeps_them() -> None:
    """Until they were read, and not at all in a checkpointed block, which computes them again."""

    def kept(model: Block) -> list[int]:
        inputs: list[StorageWeakRef] = []
        for layer in model.blocks:
            layer.register_forward_pre_hook(
                lambda _, args: inputs.append(StorageWeakRef(args[0].untyped_storage()))
            )
        counts = []
        with capture(sites(model), lambda _, x, delta: exact(x, delta)) as captured:
            loss = model.requires_grad_(False)(**rows()).loss
            counts.append(sum(not tensor.expired() for tensor in inputs))
            loss.backward()
            counts.append(sum(not tensor.expired() for tensor in inputs))
            assert len(captured.take()) == 2
        return counts

    assert kept(Block().double()) == [4, 0]
    checkpointed = Block(reentrant=False).double()
    checkpointed.embedding.register_forward_hook(lambda _, args, h: h.requires_grad_().clone())
    assert kept(checkpointed)[0] <= 1  # what the block begins with


def test_an_input_that_was_changed_before_it_was_read_is_reported() -> None:
    layer = nn.Linear(3, 2).requires_grad_(False)
    x = torch.ones(4, 3)
    with capture([Site("w", layer, "w", 3, 2, 0)], lambda _, x, delta: exact(x, delta)):
        loss = layer(x).sum()
        x += 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def checkpointing(model: Any, reentrant: bool) -> Any:
    # transformers renames this during version 5
    name = "activation_checkpointing_enable"
    enable = getattr(model, name, None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": reentrant})
    return model


@pytest.mark.parametrize("architecture", ["bert", "llama", "gpt2", "t5"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_models_of_transformers_checkpoint_while_they_are_measured(
    architecture: str, reentrant: bool
) -> None:
    from transformers.modeling_layers import GradientCheckpointingLayer

    model = classifier(architecture)
    data = batches(2, eos=end_of_sequence(model))
    expected = iwlora.measure(model, data).values
    checkpointing(model, reentrant)
    modes: list[bool] = []
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.register_forward_pre_hook(lambda layer, _: modes.append(layer.training))
    assert iwlora.measure(model, data).values == pytest.approx(expected, rel=1e-10)
    assert modes
    assert all(modes)
    assert not any(module.training for module in model.modules())


def test_checkpointing_does_not_bring_dropout_back() -> None:
    for architecture, rate in (("bert", "hidden_dropout_prob"), ("bart", "dropout")):
        model = classifier(architecture, **{rate: 0.5})
        data = batches(1, eos=end_of_sequence(model))
        expected = iwlora.measure(model, data).values
        checkpointing(model, reentrant=False)
        assert iwlora.measure(model.train(), data).values == pytest.approx(expected, rel=1e-10)


def test_bfloat16_is_near_float64() -> None:
    model, data = classifier("bert"), batches(3)
    expected = oracle(model, data)
    measured = iwlora.measure(model.bfloat16(), data, tolerance=0).values
    total = sum(expected.values())
    assert sum(abs(measured[name] - value) for name, value in expected.items()) < 0.03 * total


def test_float16_gradients_neither_vanish_nor_overflow() -> None:
    model, data = classifier("bert"), batches(3)
    expected = oracle(model, data)
    total = sum(expected.values())
    # ...a loss so small that its gradients are below float16, and one so large that they are
    # above it at the first loss scale.
    for factor in (1e-4, 1.0, 3e2):
        measured = iwlora.measure(
            copy.deepcopy(model).half(),
            data,
            tolerance=0,
            loss=lambda model, batch, f=factor: model(**batch).loss.float() * f,
        ).values
        wrong = sum(abs(measured[name] / factor - value) for name, value in expected.items())
        assert wrong < 0.03 * total, factor


def test_autocast_does_not_reach_what_is_read() -> None:
    """The model computes in bfloat16; its gradients are multiplied in float32."""
    model, batch = classifier("bert").float(), batches(1)[0]
    dtypes = []

    def read(_: Any, x: Tensor, delta: Tensor) -> Tensor:
        dtypes.append((torch.mm(x.flatten(0, -2).float().mT, delta.flatten(0, -2).float())).dtype)
        return exact(x, delta)

    with torch.autocast("cpu", torch.bfloat16), capture(sites(model), read) as captured:
        model.eval().requires_grad_(False)(**batch).loss.backward()
        captured.take()
    assert set(dtypes) == {torch.float32}


def test_dense_weights_of_every_layer() -> None:
    for architecture in ("bert", "gpt2"):
        model = classifier(architecture)
        for site in sites(model):
            x = torch.randn(3, site.d_in).double()
            plain = x @ dense_weight(site).mT
            torch.testing.assert_close(site.layer(x) - site.layer(0 * x), plain)


@pytest.mark.parametrize("statistic", ["norm", "relative", "saliency"])
def test_a_model_split_by_a_device_map(statistic: str, tmp_path: Path) -> None:
    """The second block lies on disk, and is loaded when it computes."""
    from accelerate import dispatch_model

    model = classifier("bert")
    data = batches(2)
    expected = iwlora.measure(model, data, statistic=statistic).values
    places = {
        "bert.embeddings": "cpu",
        "bert.encoder.layer.0": "cpu",
        "bert.encoder.layer.1": "disk",
        "bert.pooler": "cpu",
        "dropout": "cpu",
        "classifier": "cpu",
    }
    split = dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    assert split.bert.encoder.layer[1].output.dense.weight.is_meta
    measured = iwlora.measure(split, data, statistic=statistic).values
    assert measured == pytest.approx(expected, rel=1e-9)
