"""AdaLoRA's importance, masks and schedule at every step of whole trainings, from the equations.

Zhang et al. 2023, arXiv:2303.10512, equations 7 to 12 and algorithm 1, computed again here from
nothing but the weights and gradients that the training has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, get_peft_model
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from iwlora.methods import Attached
from iwlora.methods.low_rank.adalora import AdaLora
from iwlora.methods.low_rank.adalora_schedule import RankAllocation
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import sites
from iwlora.training.run import train
from runs import recipe, with_options

Factor = tuple[str, str]  # ("P", "Λ" or "Q", the site)
LETTERS = {"B": "P", "E": "Λ", "A": "Q"}  # PEFT's names


def factors(model: Any) -> Iterator[tuple[str, Factor, nn.Parameter]]:
    """(PEFT's name, P, Λ or Q of which site, parameter)."""
    for name, parameter in model.named_parameters():
        path, _, letter = name.removesuffix(".default").rpartition(".lora_")
        if letter in LETTERS:
            yield name, (LETTERS[letter], path), parameter


class Paper(TrainerCallback):
    """Follows a training of ``steps`` steps, and compares with the callback beside it.

    I = |w ∂L/∂w|; Ī and Ū are the moving averages of I and |I − Ī|; s = Ī Ū; a triplet's score is
    s(λ) + mean s(P_·i) + mean s(Q_i·); the b(t) triplets with the highest are kept.
    """

    def __init__(self, attached: Attached, method: AdaLora, steps: int, times: tuple[int, ...]):
        (self.callback,) = attached.callbacks
        self.model: Any = attached.model.get_base_model()
        self.method, self.steps, (self.first, self.final, self.every) = method, steps, times
        self.smooth: dict[Factor, Tensor] = defaultdict(lambda: torch.zeros(()))
        self.unsure: dict[Factor, Tensor] = defaultdict(lambda: torch.zeros(()))
        self.scores: dict[str, Tensor] = {}
        self.kept: dict[str, Tensor] = {}
        self.pruned_at: dict[int, int] = {}
        self.followed = 0

    def budget(self, step: int) -> int:
        """b(t) of equation 12."""
        outcome = [(name, len(p)) for _, (name, _), p in factors(self.model) if name == "Λ"]
        start, target = sum(rank for _, rank in outcome), len(outcome) * self.method.rank
        last = self.steps - self.final
        if step < self.first:
            return start
        if step >= last:
            return target
        part = 1 - (step - self.first) / (last - self.first)
        return int(target + (start - target) * part**3)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Equations 8 to 11, from the weights and gradients before the step."""
        self.scores = {}
        for _, (letter, site), w in factors(self.model):
            assert w.grad is not None
            key, now = (letter, site), (w.detach() * w.grad).abs()
            b1, b2 = self.method.beta1, self.method.beta2
            self.smooth[key] = b1 * self.smooth[key] + (1 - b1) * now
            self.unsure[key] = b2 * self.unsure[key] + (1 - b2) * (now - self.smooth[key]).abs()
            s = (self.smooth[key] * self.unsure[key]).mean(dim=0 if letter == "P" else 1)
            self.scores[site] = self.scores.get(site, torch.zeros(())) + s

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare importance, schedule and masks after the step."""
        step, last = state.global_step, self.steps - self.final
        self.followed += 1
        assert isinstance(self.callback, RankAllocation)
        allocator = self.callback._allocator
        if step <= last:
            for name, key, _ in factors(self.model):
                assert_close(allocator.exp_avg_ipt[name], self.smooth[key], rtol=1e-5, atol=0)
                assert_close(allocator.exp_avg_unc[name], self.unsure[key], rtol=1e-4, atol=1e-14)
            assert allocator.budget_schedule(step)[0] == self.budget(step)
        if step == last or (self.first < step < last and step % self.every == 0):
            order = torch.cat(list(self.scores.values())).sort(descending=True).values
            limit = order[self.budget(step) - 1]
            self.kept = {site: score >= limit for site, score in self.scores.items()}
            self.pruned_at[step] = self.budget(step)
        elif step <= last:  # between two prunings what was pruned may grow again
            return
        for _, (letter, site), w in factors(self.model):
            if letter == "Λ":
                assert torch.equal(w.detach().flatten() != 0, self.kept[site]), (step, site)


@pytest.mark.parametrize(
    ("precision", "accumulate", "options"),
    [
        ("fp32", 1, {}),
        ("fp32", 2, {"beta1": 0.6, "beta2": 0.9}),
        ("bf16", 2, {}),
    ],
)
def test_a_run_follows_the_equations_at_every_step(
    precision: str,
    accumulate: int,
    options: dict[str, float],
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 epochs of 6 steps, scored after each; the gradients are those that the optimizer takes."""
    papers: list[Paper] = []
    attach = AdaLora.attach

    def observed(self: AdaLora, *args: Any, **kwargs: Any) -> Attached:
        attached = attach(self, *args, **kwargs)
        papers.append(Paper(attached, self, steps=18, times=(2, 5, 2)))
        return replace(attached, callbacks=(*attached.callbacks, papers[-1]))

    monkeypatch.setattr(AdaLora, "attach", observed)
    wanted = recipe(
        tiny_bert, reviews, "adalora", epochs=3, precision=precision, accumulate=accumulate
    )
    options = {"rank": 3, "t_init": 0.1, "t_final": 5, "delta_t": 2, **options}
    result = train(with_options(wanted, **options), tmp_path / "run")

    (paper,) = papers
    assert paper.followed == 18
    assert paper.pruned_at == {4: 42, 6: 39, 8: 37, 10: 36, 12: 36, 13: 36}
    counts = [int(mask.sum()) for mask in paper.kept.values()]
    assert len(set(counts)) > 1  # it does choose
    assert sorted(one["rank"] for one in result["ranks"]) == sorted(counts)


def test_under_autocast_the_orthogonality_term_is_as_precise() -> None:
    """Of near orthogonal factors, bfloat16 would round the products to those of orthogonal ones."""
    model = tiny_model("bert")
    attached = AdaLora(rank=3).attach(model, sites(model), seed=0)
    with torch.no_grad():
        for _, (letter, _), w in factors(model):
            if letter != "Λ":
                nn.init.orthogonal_(w).mul_(1.0005)
    assert attached.regularizer is not None
    plain = attached.regularizer()
    assert 0 < plain < 1e-2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(attached.regularizer(), plain, rtol=1e-6, atol=0)


def test_pefts_own_allocation_makes_the_same_choices_from_the_same_numbers() -> None:
    """PEFT reads weights after the optimizer's step; here they stand still, so both see the same.

    At the last pruning PEFT chooses without the gradients of that step, so until then they agree.
    """
    steps, times = 12, {"tinit": 2, "tfinal": 3, "deltaT": 2}
    ours_on, theirs_on = tiny_model("bert"), tiny_model("bert")
    attached = AdaLora(rank=3, t_init=2, t_final=3, delta_t=2).attach(
        ours_on, sites(ours_on), seed=0
    )
    config = AdaLoraConfig(
        init_r=4, target_r=3, total_step=steps, target_modules=[s.name for s in sites(theirs_on)],
        **times,
    )  # fmt: skip
    peft_model: Any = get_peft_model(theirs_on, config)
    (allocation,) = attached.callbacks
    state = TrainerState(max_steps=steps)
    given: tuple[Any, Any, Any] = (TrainingArguments(report_to="none"), state, TrainerControl())
    allocation.on_train_begin(*given)
    random = torch.Generator().manual_seed(0)
    own = {name: w for name, _, w in factors(ours_on)}
    other = {name: w for name, _, w in factors(theirs_on)}
    assert own.keys() == other.keys()
    with torch.no_grad():
        for name, w in own.items():
            w.copy_(torch.randn(w.shape, generator=random))
            other[name].copy_(w)
    ours, theirs = attached.model.peft_config["default"], peft_model.peft_config["default"]
    kept = []
    for step in range(1, steps - times["tfinal"]):
        for name, w in own.items():
            other[name].grad = w.grad = torch.randn(w.shape, generator=random)
        state.global_step = step - 1
        allocation.on_pre_optimizer_step(*given)
        allocation.on_optimizer_step(*given)
        peft_model.base_model.update_and_allocate(step)
        for name, w in own.items():
            assert torch.equal(w, other[name]), (step, name)
        if step > 3:
            assert ours.rank_pattern == theirs.rank_pattern
            kept.append(sum(map(sum, ours.rank_pattern.values())))
    assert kept == [40, 40, 36, 36, 36]
