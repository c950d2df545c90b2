"""LoRA's relatives against PEFT itself: same seed, same start, the same steps."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, EvaConfig, LoraConfig, PeftModel, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from peft.tuners.lora.eva import initialize_lora_eva_weights
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import AutoModelForSequenceClassification, TrainingArguments

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.methods import Attached, Method
from iwlora.methods.low_rank.lora_variants import Dora, Eva, LoraPlus, Pissa, RsLora
from iwlora.methods.low_rank.svd_lora import SvdLora
from iwlora.sites import sites as find_sites
from iwlora.training.loop.row_order import EpochSampler
from iwlora.training.loop.trainer import FineTuningTrainer

LR = 1e-2


def classifier() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config("bert"))


def batches(count: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)
    computed = []
    for _ in range(count):
        ids = torch.randint(5, 50, (8, 10), generator=random)
        mask = (torch.arange(10) < torch.randint(4, 11, (8, 1), generator=random)).long()
        computed.append({"input_ids": ids, "attention_mask": mask, "labels": ids[:, 0] % 2})
    return computed


def places() -> dict[str, Any]:
    names = [site.name for site in find_sites(classifier())]
    return {"target_modules": names, "modules_to_save": ["classifier"], "task_type": "SEQ_CLS"}


def pefts(config: Any) -> Any:
    """PEFT's model, drawn as our seed 7 draws."""
    model = classifier()
    torch.manual_seed(7)
    return get_peft_model(model, config)


def ours(method: Method) -> Attached:
    model = classifier()
    return method.attach(model, find_sites(model), seed=7)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LR)


def descend(
    model: Any, optimizer: torch.optim.Optimizer, extra: Callable[[], Tensor] | None = None
) -> None:
    model.train()
    for batch in batches(5):
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = cross_entropy(logits, batch["labels"])
        (loss if extra is None else loss + extra()).backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_equal(computed: nn.Module, expected: nn.Module) -> None:
    one, two = computed.state_dict(), expected.state_dict()
    assert one.keys() == two.keys()
    different = [name for name in one if not torch.equal(one[name], two[name])]
    assert different == []


OPTIONS: list[tuple[Method, dict[str, Any]]] = [
    (Dora(rank=4), {"use_dora": True}),
    (RsLora(rank=4), {"use_rslora": True}),
    (Pissa(rank=4), {"init_lora_weights": "pissa"}),
]


@pytest.mark.parametrize(
    ("method", "option"), OPTIONS, ids=lambda given: getattr(given, "name", "")
)
def test_the_options_train_as_pefts_own_do(method: Method, option: dict[str, Any]) -> None:
    computed = ours(method).model
    expected = pefts(LoraConfig(r=4, lora_alpha=16, **places(), **option))
    assert_equal(computed, expected)
    for model in (computed, expected):
        descend(model, adamw(model))
    assert_equal(computed, expected)
    plain = pefts(LoraConfig(r=4, lora_alpha=16, **places()))
    descend(plain, adamw(plain))
    ids = batches(1)[0]["input_ids"]
    assert not torch.equal(computed(ids).logits, plain(ids).logits)


def test_doras_magnitudes_are_counted_and_its_low_rank_part_is_declared() -> None:
    attached = ours(Dora(rank=4))
    model = attached.model
    magnitudes = [n for n in attached.adapter if "magnitude" in n]
    assert len(magnitudes) == len(attached.pairs) == 12
    by_hand = sum(4 * (s.d_in + s.d_out) + s.d_out for s in find_sites(classifier()))
    assert (
        attached.count() == by_hand == sum(model.get_parameter(n).numel() for n in attached.adapter)
    )


# LoRA+


def factors_of(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    names = {p: name for name, p in model.named_parameters()}
    return {names[p]: g["lr"] / LR for g in optimizer.param_groups for p in g["params"]}


def test_lora_plus_trains_as_pefts_own_does(tmp_path: Path) -> None:
    attached = ours(LoraPlus(rank=4, ratio=8))
    trainer = FineTuningTrainer(
        attached=attached,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            learning_rate=LR,
            optim="adamw_torch",
            report_to="none",
            use_cpu=True,
        ),
        sampler=EpochSampler(8, 4, seed=0),
    )
    optimizer = trainer.create_optimizer()
    theirs = pefts(LoraConfig(r=4, lora_alpha=16, **places()))
    expected = create_loraplus_optimizer(
        theirs, torch.optim.AdamW, lr=LR, loraplus_lr_ratio=8, weight_decay=0.0
    )
    # PEFT speeds up biases too; the only ones here are the head's, which all methods train alike.
    expected.param_groups[-1]["lr"] = LR
    assert factors_of(optimizer, attached.model) == factors_of(expected, theirs)
    assert set(factors_of(optimizer, attached.model).values()) == {1.0, 8.0}
    descend(attached.model, optimizer)
    descend(theirs, expected)
    assert_equal(attached.model, theirs)
    plain = pefts(LoraConfig(r=4, lora_alpha=16, **places()))
    descend(plain, adamw(plain))
    name = attached.adapter[0]
    assert not torch.equal(attached.model.get_parameter(name), plain.get_parameter(name))


# PiSSA


def test_pissa_is_saved_as_plain_lora_for_the_original_backbone(tmp_path: Path) -> None:
    attached = ours(Pissa(rank=4, lora_alpha=12))
    frozen = classifier().state_dict()
    residual = attached.model.get_base_model().state_dict()
    site = find_sites(classifier())[0].name
    assert not torch.equal(residual[f"{site}.base_layer.weight"], frozen[f"{site}.weight"])

    descend(attached.model, adamw(attached.model))
    attached.save(tmp_path / "first")
    attached.save(tmp_path / "again")  # PEFT's own conversion doubles the rank each time
    ids = batches(1)[0]["input_ids"]
    live = attached.model.eval()(ids).logits
    for folder in ("first", "again"):
        config = json.loads((tmp_path / folder / "adapter" / "adapter_config.json").read_text())
        assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (8, 24, True)
        loaded = PeftModel.from_pretrained(classifier(), str(tmp_path / folder / "adapter"))
        assert_close(loaded.eval()(ids).logits, live, rtol=1e-4, atol=1e-5)
    tensors = load_file(tmp_path / "first" / "adapter" / "adapter_model.safetensors")
    written = sum(tensor.numel() for name, tensor in tensors.items() if ".lora_" in name)
    by_hand = sum(4 * (s.d_in + s.d_out) for s in find_sites(classifier()))
    assert (attached.count(), attached.derived, written) == (by_hand, by_hand, 2 * by_hand)


@pytest.mark.filterwarnings("ignore:PiSSA changes the base weights")
def test_pissas_conversion_is_pefts(tmp_path: Path) -> None:
    attached = ours(Pissa(rank=4))
    peft_model = copy.deepcopy(attached.model)
    peft_model.peft_config["default"].init_lora_weights = True
    peft_model.save_pretrained(str(tmp_path / "initial"))
    peft_model.peft_config["default"].init_lora_weights = "pissa"
    for model in (attached.model, peft_model):
        descend(model, adamw(model))
    attached.save(tmp_path / "ours")
    peft_model.save_pretrained(
        str(tmp_path / "theirs"), path_initial_model_for_weight_conversion=str(tmp_path / "initial")
    )
    computed = load_file(tmp_path / "ours" / "adapter" / "adapter_model.safetensors")
    expected = load_file(tmp_path / "theirs" / "adapter_model.safetensors")
    lora = [name for name in expected if ".lora_" in name]
    assert len(lora) == 24
    assert all(torch.equal(computed[name], expected[name]) for name in lora)


# EVA


def test_eva_begins_where_pefts_own_does() -> None:
    attached = ours(Eva(rank=4))
    assert attached.initialize is not None
    data = batches(4)
    attached.initialize(iter(data))

    # PEFT is told which tokens to look at by the mask; here no label is one for a token.
    config = LoraConfig(
        r=4,
        lora_alpha=16,
        init_lora_weights="eva",
        eva_config=EvaConfig(rho=1.0, use_label_mask=False),
        **places(),
    )
    model = classifier()
    theirs = get_peft_model(model, config, low_cpu_mem_usage=True)
    initialize_lora_eva_weights(theirs, data, show_progress_bar=False)
    expected = {n: p for n, p in theirs.named_parameters() if "lora_A" in n}
    assert len(expected) == 12
    for name, A in expected.items():
        assert_close(attached.model.get_parameter(name), A, rtol=0, atol=0)
        assert_close(A @ A.mT, torch.eye(4), rtol=0, atol=1e-5)
    ids = data[0]["input_ids"]
    assert torch.equal(attached.model.eval()(ids).logits, classifier().eval()(ids).logits)


def test_evas_directions_are_those_of_the_inputs() -> None:
    """The first layer's inputs are the embeddings: their principal axes from a whole SVD."""
    attached, model = ours(Eva(rank=3)), classifier().eval()
    data = batches(1)
    assert attached.initialize is not None
    attached.initialize(data)
    mask = data[0]["attention_mask"].bool()
    rows = model.bert.embeddings(data[0]["input_ids"])[mask]
    axes = torch.linalg.svd(rows - rows.mean(dim=0), full_matrices=False).Vh[:3]
    A = next(p for n, p in attached.model.named_parameters() if "query.lora_A" in n)
    assert_close((A @ axes.mT).abs(), torch.eye(3), rtol=0, atol=2e-2)


def test_eva_needs_as_many_tokens_as_its_rank() -> None:
    attached = ours(Eva(rank=16))
    assert attached.initialize is not None
    small = [{name: tensor[:1] for name, tensor in batch.items()} for batch in batches(3)]
    with pytest.raises(IwloraError, match=r"no batch has as many tokens as method\.rank=16"):
        attached.initialize(small)


# SVD form


def test_svd_lora_trains_as_pefts_adalora_without_allocation() -> None:
    method = SvdLora(rank=4, orthogonality=0.3)
    attached = ours(method)
    theirs = pefts(
        AdaLoraConfig(
            init_r=4, target_r=4, lora_alpha=16, total_step=100, orth_reg_weight=0.3, **places()
        )
    )
    assert_equal(attached.model, theirs)

    def pefts_term() -> Tensor:
        """What PEFT adds to the loss, for which labels must be given."""
        batch = batches(1)[0]
        outputs = theirs(**batch)
        term: Tensor = outputs.loss - cross_entropy(outputs.logits, batch["labels"])
        return term

    descend(attached.model, adamw(attached.model), attached.regularizer)
    descend(theirs, adamw(theirs), pefts_term)
    one, two = attached.model.state_dict(), theirs.state_dict()
    for name in one:
        assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)
    assert attached.callbacks == ()
    by_hand = sum(4 * (s.d_in + s.d_out) for s in find_sites(classifier()))
    assert attached.count() == by_hand
