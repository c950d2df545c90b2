"""What every method owes, whatever the architecture: one suite over every row of ``METHODS``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.testing import assert_close
from transformers import (
    AutoModelForSequenceClassification,
    TrainerCallback,
    TrainingArguments,
    default_data_collator,
)

from conftest import VOCABULARY, save_tiny, tiny_config
from iwlora.errors import IwloraError
from iwlora.methods import METHODS, Attached, Method
from iwlora.methods.budget import count
from iwlora.sensitivity.measure import measure
from iwlora.sites import Site, head_modules
from iwlora.sites import sites as find_sites
from iwlora.training.order import EpochOrder
from iwlora.training.trainer import FineTuner, task_loss

ARCHITECTURES = ("bert", "roberta", "deberta-v2", "llama", "gpt2", "t5", "bart")
RANK = 4
STEPS = 12
BATCH = 4

Rows = list[dict[str, Any]]


@dataclass
class Trained:
    """A method trained on an architecture, and what it was before."""

    method: Method
    base: Path
    rows: Rows
    attached: Attached
    frozen_logits: Tensor
    initial_logits: Tensor
    initial: Mapping[str, Tensor]
    saved: Path


def load(base: Path, head_seed: int) -> Any:
    """The base model with a new head of three classes."""
    torch.manual_seed(head_seed)
    return AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)


def make_rows(eos: int) -> Rows:
    """Random sentences that all end in ``eos``; a class is seen in their first word."""
    random = torch.Generator().manual_seed(0)
    rows = []
    for row in range(24):
        ids = [6 + row % 3, *torch.randint(6, len(VOCABULARY), (6,), generator=random).tolist()]
        rows.append({"input_ids": [*ids, eos], "attention_mask": [1] * 8, "labels": row % 3})
    return rows


def attach(method: Method, model: Any, sites: Sequence[Site], rows: Rows) -> Attached:
    wanted = method.calibration()
    sensitivity = None
    if wanted is not None:
        batches = [default_data_collator(rows[k : k + BATCH]) for k in range(0, len(rows), BATCH)]
        sensitivity = measure(model, batches, sites=sites, **wanted)
    size = RANK if method.size_knob else None
    attached = method.attach(model, sites, size, seed=5, sensitivity=sensitivity)
    if attached.initialize is not None:
        attached.initialize([default_data_collator(rows)])
    return attached


def fit(attached: Attached, rows: Rows, folder: Path, accumulate: int = 1) -> None:
    FineTuner(
        model=attached.model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            per_device_train_batch_size=BATCH // accumulate,
            gradient_accumulation_steps=accumulate,
            learning_rate=1e-2,
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=rows,
        data_collator=default_data_collator,
        compute_loss_func=task_loss(attached.regularizer),
        order=EpochOrder(len(rows), BATCH, seed=0),
        trainable=attached.trainable,
        learning_rates=attached.learning_rates,
        callbacks=list(attached.callbacks),
    ).train()


@torch.no_grad()
def logits(model: nn.Module, rows: Rows) -> Tensor:
    batch = default_data_collator(rows)
    found: Tensor = model.eval()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return found


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer, under the names of ``named_parameters``."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(
    scope="module",
    params=[(name, architecture) for architecture in ARCHITECTURES for name in METHODS],
    ids=lambda pair: "-".join(pair),
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name, architecture = request.param
    folder = tmp_path_factory.mktemp(f"{name}-{architecture}")
    base = save_tiny(folder / "base", architecture)
    model = load(base, head_seed=0)
    rows = make_rows(eos=model.config.eos_token_id if model.config.is_encoder_decoder else 5)
    frozen_logits = logits(model, rows)
    method = METHODS[name]()
    attached = attach(method, model, find_sites(model), rows)
    initial_logits = logits(attached.model, rows)
    initial = snapshot(attached.model)
    fit(attached, rows, folder / "trainer")
    attached.save(folder / "saved")
    return Trained(
        method, base, rows, attached, frozen_logits, initial_logits, initial, folder / "saved"
    )


def reload(trained: Trained) -> Any:
    """What others load: PEFT on the base model with a head of its own, or transformers alone."""
    if (trained.saved / "adapter").is_dir():
        return PeftModel.from_pretrained(
            load(trained.base, head_seed=99), str(trained.saved / "adapter")
        )
    return AutoModelForSequenceClassification.from_pretrained(trained.saved / "model")


def saved_parameters(saved: Path, model: nn.Module) -> int:
    """Numbers in the saved file that are not the task head's."""
    if (saved / "adapter").is_dir():
        tensors = load_file(saved / "adapter" / "adapter_model.safetensors")
        return sum(t.numel() for name, t in tensors.items() if ".lora_" in name)
    heads = head_modules(model)
    tensors = load_file(saved / "model" / "model.safetensors")
    return sum(t.numel() for name, t in tensors.items() if name.split(".")[0] not in heads)


def test_the_output_at_first_is_the_frozen_models(trained: Trained) -> None:
    same = torch.equal(trained.initial_logits, trained.frozen_logits)
    assert same == trained.method.identity_at_init


def test_training_changes_the_output(trained: Trained) -> None:
    after = logits(trained.attached.model, trained.rows)
    assert (after - trained.initial_logits).abs().max() > 1e-3


def test_what_requires_grad_is_what_is_declared(trained: Trained) -> None:
    attached = trained.attached
    counted = count(attached)
    by_hand = [p for p in attached.model.parameters() if p.requires_grad]
    assert counted["trainable_parameters"] == sum(p.numel() for p in by_hand)
    assert set(attached.adapter).isdisjoint(attached.head)
    assert attached.head
    assert counted["head_parameters"] == sum(
        attached.model.get_parameter(name).numel() for name in attached.head
    )


def test_a_stray_parameter_is_found(trained: Trained) -> None:
    model = trained.attached.model
    model.register_parameter("stray", nn.Parameter(torch.zeros(1)))
    try:
        with pytest.raises(IwloraError, match=r"not those declared; 1 differ, .* stray$"):
            count(trained.attached)
    finally:
        del model.stray


def test_a_declared_parameter_that_does_not_train_is_found(trained: Trained) -> None:
    name = trained.attached.adapter[0]
    parameter = trained.attached.model.get_parameter(name)
    parameter.requires_grad_(False)
    try:
        with pytest.raises(IwloraError, match="not those declared; 1 differ") as caught:
            count(trained.attached)
    finally:
        parameter.requires_grad_(True)
    assert str(caught.value).endswith(name)


def test_only_declared_parameters_move(trained: Trained) -> None:
    attached, after = trained.attached, snapshot(trained.attached.model)
    assert after.keys() == trained.initial.keys()
    moved = {name for name in after if not torch.equal(after[name], trained.initial[name])}
    declared = {id(attached.model.get_parameter(name)) for name in attached.trainable}
    named = attached.model.named_parameters(remove_duplicate=False)  # tied ones by all names
    assert moved <= {name for name, parameter in named if id(parameter) in declared}
    assert moved >= set(attached.head)
    for site in find_sites(attached.model):
        assert any(site.name in name for name in moved & set(attached.adapter)), site.name


def test_loading_what_was_saved_gives_the_same_logits(trained: Trained) -> None:
    live = logits(trained.attached.model, trained.rows)
    assert_close(logits(reload(trained), trained.rows), live, rtol=1e-5, atol=1e-6)


def test_merged_logits_agree(trained: Trained) -> None:
    model = reload(trained)
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    assert not any("lora" in name for name, _ in merged.named_parameters())
    live = logits(trained.attached.model, trained.rows)
    assert_close(logits(merged, trained.rows), live, rtol=1e-4, atol=1e-5)


def test_a_saved_adapter_is_plain_lora(trained: Trained, tmp_path: Path) -> None:
    if (trained.saved / "model").is_dir():
        assert [path.name for path in trained.saved.iterdir()] == ["model"]
        return
    LoraConfig().save_pretrained(str(tmp_path))
    expected = json.loads((tmp_path / "adapter_config.json").read_text())
    config = json.loads((trained.saved / "adapter" / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"
    assert config.keys() == expected.keys()
    assert config["base_model_name_or_path"] == str(trained.base)


def test_the_count_is_that_of_the_saved_file(trained: Trained) -> None:
    written = saved_parameters(trained.saved, load(trained.base, 0))
    assert trained.attached.count() == written - trained.attached.derived


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_foretold_exactly_where_all_sites_have_one_shape(
    name: str, tmp_path: Path
) -> None:
    model = load(save_tiny(tmp_path / "base", "bert"), head_seed=0)
    rows, sites = make_rows(eos=5), find_sites(model, ["query", "value", "attention_output"])
    method = METHODS[name]()
    foretold = method.parameters(model, sites, RANK if method.size_knob else None)
    attached = attach(method, model, sites, rows)
    fit(attached, rows, tmp_path / "trainer")
    attached.save(tmp_path / "saved")
    written = saved_parameters(tmp_path / "saved", load(tmp_path / "base", 0))
    assert foretold == written - attached.derived


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", [name for name, row in METHODS.items() if row.size_knob])
def test_parameters_grow_with_the_size(name: str, architecture: str) -> None:
    model = AutoModelForSequenceClassification.from_config(tiny_config(architecture))
    method, sites = METHODS[name](), find_sites(model)
    counts = [method.parameters(model, sites, size) for size in range(1, 9)]
    assert all(a < b for a, b in pairwise(counts))
    by_option = METHODS[name](**{str(method.size_knob): 3})
    assert (by_option.size, by_option.parameters(model, sites, None)) == (3, counts[2])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("accumulate", [1, 4])
def test_callbacks_fire_once_per_optimizer_step(
    name: str, accumulate: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(save_tiny(tmp_path / "base", "bert"), head_seed=0)
    rows = make_rows(eos=5)
    attached = attach(METHODS[name](), model, find_sites(model), rows)
    calls = [spy(callback, monkeypatch) for callback in attached.callbacks]
    stepped: list[Any] = []
    counting = register_optimizer_step_post_hook(lambda *step: stepped.append(step))
    fit(attached, rows, tmp_path / "trainer", accumulate)
    counting.remove()
    assert len(stepped) == STEPS
    assert calls == [list(range(STEPS))] * len(attached.callbacks)


def spy(callback: TrainerCallback, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The list to which every ``on_optimizer_step`` of the callback adds its global step."""
    steps: list[int] = []
    original = callback.on_optimizer_step

    def wrapped(args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        steps.append(state.global_step)
        original(args, state, control, **kwargs)

    monkeypatch.setattr(callback, "on_optimizer_step", wrapped)
    return steps
