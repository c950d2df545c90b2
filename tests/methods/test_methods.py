"""Each method against what its paper says, and against PEFT driven by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    AutoModelForSequenceClassification,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.importance import Importance
from iwlora.methods import METHODS, Attached
from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.methods.low_rank.iw_lora import IWLora
from iwlora.methods.low_rank.lora import Lora
from iwlora.methods.selective.full_fine_tuning import Full
from iwlora.penalty.apply import Penalty
from iwlora.penalty.callback import IWLoraCallback
from iwlora.results.sensitivity import Sensitivity
from iwlora.sensitivity.measure import measure
from iwlora.sites import sites as find_sites
from iwlora.training.run import train
from runs import RUN, recipe, weights, with_options


def classifier(architecture: str = "bert") -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config(architecture))


def batches(count: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)
    computed = []
    for _ in range(count):
        ids = torch.randint(5, 50, (8, 10), generator=random)
        computed.append({"input_ids": ids, "labels": ids[:, 0] % 2})
    return computed


def descend(model: nn.Module) -> None:
    """A training loop that knows no method."""
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for batch in batches(5):
        loss = cross_entropy(model(batch["input_ids"]).logits, batch["labels"])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


# LoRA


def test_lora_trains_as_pefts_own_does() -> None:
    model = classifier()
    method = Lora(rank=4, lora_alpha=12, dropout=0.1)
    ours = method.attach(model, find_sites(model), seed=7).model
    torch.manual_seed(3)
    descend(ours)

    plain = classifier()
    names = [name for name, layer in plain.bert.encoder.named_modules() if type(layer) is nn.Linear]
    config = LoraConfig(
        r=4,
        lora_alpha=12,
        lora_dropout=0.1,
        target_modules=[f"bert.encoder.{name}" for name in names],
        modules_to_save=["classifier"],
    )
    torch.manual_seed(7)
    theirs = get_peft_model(plain, config)
    torch.manual_seed(3)
    descend(theirs)

    expected, computed = theirs.state_dict(), ours.state_dict()
    assert len(names) == 12
    assert computed.keys() == expected.keys()
    assert all(torch.equal(computed[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", RUN)
def test_attaching_leaves_the_random_state_alone_and_depends_on_the_seed(name: str) -> None:
    computed = []
    for seed, before in ((0, 10), (0, 11), (1, 11)):
        model = classifier()
        sensitivity = measured(model)
        torch.manual_seed(before)
        expected = torch.random.get_rng_state()
        attached = METHODS[name]().attach(model, find_sites(model), seed, sensitivity)
        assert torch.equal(torch.random.get_rng_state(), expected)
        computed.append([attached.model.get_parameter(p).detach() for p in attached.adapter])
    first, again, other = computed
    assert all(map(torch.equal, first, again))
    assert all(map(torch.equal, first, other)) == (name in ("full", "pissa"))  # nothing is drawn


@pytest.mark.parametrize("method", [Lora(rank=17), IWLora(rank=17), AdaLora(rank=12)])
def test_a_rank_above_the_matrix_is_refused(method: Lora) -> None:
    model = classifier()
    with pytest.raises(
        IwloraError, match=r"=1[78] was given; accepted are 1 to 16, the smaller side"
    ):
        method.attach(model, find_sites(model), seed=0, sensitivity=measured(model))
    method.sized(10).check(find_sites(model))


def test_the_backbone_of_full_fine_tuning_is_what_is_not_the_head() -> None:
    model = classifier("deberta-v2")
    attached = Full().attach(model, find_sites(model), seed=0)
    heads = {name.split(".")[0] for name in attached.head}
    assert heads == {"pooler", "classifier"}
    expected = sum(p.numel() for p in model.deberta.parameters())
    assert Full().parameters(model, []) == attached.count() == expected


# IW-LoRA


def measured(model: nn.Module) -> Sensitivity:
    return measure(model, batches(4))


def begun(attached: Attached) -> Penalty:
    """The penalty of a training that begins."""
    (callback,) = attached.callbacks
    assert isinstance(callback, IWLoraCallback)
    moving = [attached.model.get_parameter(name) for name in attached.trainable]
    args = TrainingArguments(report_to="none", use_cpu=True)
    optimizer = torch.optim.AdamW(moving)
    state, control = TrainerState(max_steps=10), TrainerControl()
    callback.on_train_begin(args, state, control, model=attached.model, optimizer=optimizer)
    assert callback.penalty is not None
    return callback.penalty


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("normalize", ["sum", "max", "mean", "rank"])
def test_the_penalty_is_the_weighted_sum_of_squared_updates(normalize: str, beta: float) -> None:
    model = classifier().double()
    sensitivity = measured(model)
    method = IWLora(rank=3, lora_alpha=12, alpha=0.01, beta=beta, normalize=normalize)
    attached = method.attach(model, find_sites(model), seed=0, sensitivity=sensitivity)
    penalty = begun(attached)
    assert penalty() == 0
    with torch.no_grad():
        for name in attached.adapter:
            attached.model.get_parameter(name).normal_()
    s = sensitivity.values
    if normalize == "mean":
        coefficients = Importance(sensitivity, "mean").coefficients(beta)
    else:
        order = sorted(s, key=s.__getitem__)
        w = {
            "sum": {name: value / sum(s.values()) for name, value in s.items()},
            "max": {name: value / max(s.values()) for name, value in s.items()},
            "rank": {name: (order.index(name) + 0.5) / len(s) for name in s},
        }[normalize]
        coefficients = {name: (1 - weight) ** beta for name, weight in w.items()}
    expected = 0.0
    for name, c in coefficients.items():
        layer = attached.model.get_base_model().get_submodule(name)
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        expected += 0.01 * c * float((12 / 3 * B @ A).detach().norm() ** 2)
    assert penalty().item() == pytest.approx(expected, rel=1e-12)


def test_without_a_measurement_iw_lora_does_not_attach() -> None:
    model = classifier()
    with pytest.raises(IwloraError, match="iw-lora needs the measured sensitivity"):
        IWLora(measure="before").attach(model, find_sites(model), seed=0)


@pytest.fixture(scope="module")
def trained(
    tiny_bert: Path, reviews: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Tensor]]:
    """{name: the adapter's tensors} of LoRA and of IW-LoRA with and without its penalty."""
    folder = tmp_path_factory.mktemp("alpha")
    penalised = recipe(tiny_bert, reviews, "iw-lora")
    recipes = {
        "lora": recipe(tiny_bert, reviews),
        "no penalty": with_options(penalised, alpha=0.0),
        "penalty": with_options(penalised, alpha=1e-2),
    }
    for name, wanted in recipes.items():
        train(wanted, folder / name)
    return {name: weights(folder / name) for name in recipes}


def test_iw_lora_without_penalty_is_lora_bit_for_bit(trained: dict[str, dict[str, Tensor]]) -> None:
    lora, free = trained["lora"], trained["no penalty"]
    assert free.keys() == lora.keys()
    assert all(torch.equal(free[name], lora[name]) for name in lora)


def test_the_penalty_makes_the_update_smaller(trained: dict[str, dict[str, Tensor]]) -> None:
    def size(tensors: dict[str, Tensor]) -> float:
        pairs = [name for name in tensors if ".lora_A." in name]
        return sum(
            float((tensors[name.replace("lora_A", "lora_B")] @ tensors[name]).norm() ** 2)
            for name in pairs
        )

    assert size(trained["penalty"]) < 0.9 * size(trained["lora"])
