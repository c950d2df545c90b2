"""AdaLoRA against its paper: orthogonality, schedule, pruning, and what is saved."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.testing import assert_close
from transformers import (
    AutoModelForSequenceClassification,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from conftest import tiny_config
from iwlora.errors import IwloraError
from iwlora.methods import Attached
from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.sites import sites as find_sites

STEPS = 20


def classifier() -> Any:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny_config("bert"))


def batches(count: int) -> list[dict[str, Tensor]]:
    random = torch.Generator().manual_seed(1)
    outcome = []
    for _ in range(count):
        ids = torch.randint(5, 50, (8, 10), generator=random)
        outcome.append({"input_ids": ids, "labels": ids[:, 0] % 2})
    return outcome


def adalora(method: AdaLora, dtype: torch.dtype = torch.float64) -> Attached:
    model = classifier().to(dtype)
    return method.attach(model, find_sites(model), seed=0)


def factors(model: Any, letter: str) -> dict[str, nn.Parameter]:
    """{site name: P, Λ or Q}, as B, E or A."""
    end = f".lora_{letter}.default"
    return {
        name.removesuffix(end): parameter
        for name, parameter in model.get_base_model().named_parameters()
        if name.endswith(end)
    }


def prune(
    attached: Attached,
    tmp_path: Path,
    steps: int = STEPS,
    before_step: Callable[[int], None] = lambda step: None,
    after_step: Callable[[int], None] = lambda step: None,
) -> None:
    """A whole training by hand: the callback is called as the Trainer would call it.

    ``before_step(t)`` and ``after_step(t)`` are called around step t = 1, 2, …
    """
    (callback,) = attached.callbacks
    arguments = TrainingArguments(output_dir=str(tmp_path), report_to="none", use_cpu=True)
    state, control = TrainerState(max_steps=steps), TrainerControl()
    assert attached.regularizer is not None
    attached.model.train()
    callback.on_train_begin(arguments, state, control)
    trainable = [attached.model.get_parameter(name) for name in attached.trainable]
    optimizer = torch.optim.AdamW(trainable, lr=1e-2, weight_decay=0.0)
    for step, batch in enumerate(batches(steps)):
        state.global_step = step
        logits = attached.model(batch["input_ids"]).logits
        (cross_entropy(logits, batch["labels"]) + attached.regularizer()).backward()
        before_step(step + 1)
        callback.on_pre_optimizer_step(arguments, state, control)
        optimizer.step()
        callback.on_optimizer_step(arguments, state, control)
        after_step(step + 1)
        optimizer.zero_grad()


@pytest.mark.parametrize("weight", [0.5, 0.1])
def test_the_orthogonality_term_is_what_peft_adds_to_the_loss(weight: float) -> None:
    attached = adalora(AdaLora(rank=3, orthogonality=weight))
    with torch.no_grad():
        for letter in "AB":
            for factor in factors(attached.model, letter).values():
                factor.normal_()
    batch = batches(1)[0]
    with_labels = attached.model(**batch)
    added = with_labels.loss - cross_entropy(with_labels.logits, batch["labels"])
    assert attached.regularizer is not None
    assert added > weight
    assert_close(attached.regularizer(), added, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("given", "schedule"),
    [
        ({"t_init": 0.15, "t_final": 0.3, "delta_t": 2}, (3, 6, 2)),
        ({"t_init": 3, "t_final": 6, "delta_t": 0.1}, (3, 6, 2)),
        ({"t_init": 0, "t_final": 0.0, "delta_t": 0.01}, (0, 0, 1)),
        ({"t_init": 1, "t_final": 18.0, "delta_t": 1.0}, (1, 18, 1)),
    ],
)
def test_the_schedule_is_in_parts_of_training_or_in_steps(
    given: dict[str, float], schedule: tuple[int, int, int], tmp_path: Path
) -> None:
    attached = adalora(AdaLora(rank=3, **given))
    prune(attached, tmp_path, steps=20)
    config = attached.model.peft_config["default"]
    assert (config.total_step, config.init_r, config.target_r) == (20, 4, 3)
    assert (config.tinit, config.tfinal, config.deltaT) == schedule
    assert sum(int(E.count_nonzero()) for E in factors(attached.model, "E").values()) == 36


@pytest.mark.parametrize(
    "given", [{"t_init": 1.5}, {"t_final": -1}, {"delta_t": 0}, {"t_init": 1e999}]
)
def test_what_is_no_duration_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"fraction of all steps below 1|greater than|finite"):
        AdaLora(**given)


@pytest.mark.parametrize("steps", [1, 2])
def test_a_training_too_short_to_prune_is_refused(steps: int, tmp_path: Path) -> None:
    attached = adalora(AdaLora(rank=3, t_init=0.1, t_final=0.8))
    with pytest.raises(IwloraError, match=rf"no step for pruning: of {steps} training st"):
        prune(attached, tmp_path, steps=steps)


def test_fractions_that_leave_no_time_are_refused() -> None:
    with pytest.raises(ValueError, match=r"t_init=0\.5 and t_final=0\.5 leave no steps"):
        AdaLora(t_init=0.5, t_final=0.5)


@pytest.mark.parametrize("steps", [3, 10, 37])
@pytest.mark.parametrize("rank", [1, 2, 5])
def test_training_ends_at_exactly_the_budget_of_triplets(
    rank: int, steps: int, tmp_path: Path
) -> None:
    attached = adalora(AdaLora(rank=rank))
    initial = sum(E.numel() for E in factors(attached.model, "E").values())
    prune(attached, tmp_path, steps=steps)
    left = sum(int(E.count_nonzero()) for E in factors(attached.model, "E").values())
    assert initial == max(rank + 1, round(1.5 * rank)) * 12
    assert left == rank * 12


@pytest.mark.parametrize("betas", [(0.85, 0.85), (0.6, 0.9)])
def test_pruning_follows_the_papers_equations_over_a_whole_training(
    betas: tuple[float, float], tmp_path: Path
) -> None:
    """Zhang et al. 2023, equations 7 to 12 and algorithm 1, from the weights and gradients alone.

    I = |w ∂L/∂w|, Ī and Ū its moving average and that of |I − Ī|, s = Ī Ū; a triplet's score
    is s(λ) + mean s(P_·i) + mean s(Q_i·); the b(t) triplets with the highest are kept.
    """
    first, last, every, (beta1, beta2) = 2, 13, 2, betas
    method = AdaLora(rank=3, t_init=0.1, t_final=7, delta_t=every, beta1=beta1, beta2=beta2)
    attached = adalora(method)
    model = attached.model
    start, target = 4 * 12, 3 * 12
    smooth: dict[tuple[str, str], Tensor] = defaultdict(lambda: torch.zeros(()))
    unsure: dict[tuple[str, str], Tensor] = defaultdict(lambda: torch.zeros(()))
    expected: dict[int, dict[str, Tensor]] = {}
    kept: dict[int, dict[str, Tensor]] = {}

    def follow(step: int) -> None:
        scores: dict[str, Tensor] = {}
        for letter, over in (("E", 1), ("B", 0), ("A", 1)):
            for site, w in factors(model, letter).items():
                assert w.grad is not None
                key, now = (letter, site), (w.detach() * w.grad).abs()
                smooth[key] = beta1 * smooth[key] + (1 - beta1) * now
                unsure[key] = beta2 * unsure[key] + (1 - beta2) * (now - smooth[key]).abs()
                s = (smooth[key] * unsure[key]).mean(dim=over)
                scores[site] = scores[site] + s if site in scores else s
        if first < step <= last and (step % every == 0 or step == last):
            left = 1 - (step - first) / (last - first)
            budget = int(target + (start - target) * left**3)
            limit = torch.cat(list(scores.values())).sort(descending=True).values[budget - 1]
            expected[step] = {site: score >= limit for site, score in scores.items()}

    def observe(step: int) -> None:
        kept[step] = {site: E.detach().flatten() != 0 for site, E in factors(model, "E").items()}

    prune(attached, tmp_path, steps=20, before_step=follow, after_step=observe)

    assert sorted(expected) == [4, 6, 8, 10, 12, 13]
    counts = [sum(int(mask.sum()) for mask in kept[step].values()) for step in sorted(expected)]
    assert counts == [42, 39, 37, 36, 36, 36]
    for step, masks in expected.items():
        assert all(torch.equal(kept[step][site], mask) for site, mask in masks.items()), step
    assert len({int(mask.sum()) for mask in expected[last].values()}) > 1  # it does choose
    for step in range(last, 21):  # after the last pruning the choice stays
        assert all(torch.equal(kept[step][site], mask) for site, mask in expected[last].items())
    assert attached.ranks is not None
    assert attached.ranks() == {site: int(mask.sum()) for site, mask in expected[last].items()}


def test_importance_is_of_the_weights_before_the_step(tmp_path: Path) -> None:
    """Where λ = 0 at first, so is its importance; read after the step it would not be."""
    attached = adalora(AdaLora(rank=3))
    allocator = attached.model.base_model.rankallocator

    def look(step: int) -> None:
        if step == 1:
            of = [value for name, value in allocator.ipt.items() if "lora_E" in name]
            assert len(of) == 12
            assert not any(value.any() for value in of)

    prune(attached, tmp_path, after_step=look)
    assert any(value.any() for name, value in allocator.ipt.items() if "lora_E" in name)


def test_what_adalora_saves_is_its_pruned_update_as_plain_lora(tmp_path: Path) -> None:
    attached = adalora(AdaLora(rank=2, lora_alpha=10), torch.float32)
    prune(attached, tmp_path)
    kept = {site: int(E.count_nonzero()) for site, E in factors(attached.model, "E").items()}
    # A site that loses all its triplets has no update, and none is saved.
    empty = next(iter(kept))
    pattern = attached.model.peft_config["default"].rank_pattern
    pattern[f"{empty}.lora_E.default"] = [False] * len(pattern[f"{empty}.lora_E.default"])
    with torch.no_grad():
        factors(attached.model, "E")[empty].zero_()
    kept.pop(empty)
    attached.save(tmp_path)
    assert attached.ranks is not None
    assert attached.ranks() == {empty: 0, **kept}

    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["rank_pattern"] == {site: rank for site, rank in kept.items() if rank}
    assert sorted(config["target_modules"]) == sorted(config["rank_pattern"])
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for site, rank in config["rank_pattern"].items():
        assert tensors[f"base_model.model.{site}.lora_A.weight"].shape[0] == rank
        assert tensors[f"base_model.model.{site}.lora_B.weight"].shape[1] == rank
    written = sum(tensor.numel() for name, tensor in tensors.items() if ".lora_" in name)
    assert attached.count() == written

    loaded = PeftModel.from_pretrained(classifier(), str(tmp_path / "adapter"))
    ids = batches(1)[0]["input_ids"]
    with torch.no_grad():
        outcome = loaded.eval()(ids).logits
        assert_close(outcome, attached.model.eval()(ids).logits, rtol=1e-5, atol=1e-6)
        assert (outcome - classifier()(ids).logits).abs().max() > 1e-3


@pytest.mark.parametrize("targets", ["all", ["query", "ffn_up"]])
def test_adaloras_parameters_are_about_as_predicted(targets: Any, tmp_path: Path) -> None:
    model = classifier()
    outcome, method = find_sites(model, targets), AdaLora(rank=3)
    predicted = method.parameters(model, outcome)
    attached = method.attach(model, outcome, seed=0)
    prune(attached, tmp_path)
    sizes = [site.d_in + site.d_out for site in outcome]
    triplets = 3 * len(sizes)
    assert predicted == 3 * sum(sizes)
    assert triplets * min(sizes) <= attached.count() <= triplets * max(sizes)
