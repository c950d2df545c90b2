"""The relevance prior against closed forms: evidence, dense Hessians, ridge regression."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.testing import assert_close

from iwlora.penalty.low_rank_pair import LowRankPair
from iwlora.testing import CHECKS, Case, packed_equals_alone
from iwlora_study.relevance.callback import Relevance
from iwlora_study.relevance.evidence import damped, mackay, well_determined
from iwlora_study.relevance.method import RELEVANCE, LoraWeightDecay, RelevancePrior, SharedPrior

Args: Any = SimpleNamespace


def fixed_point(h: Tensor, least_squares: Tensor, gamma: Any = well_determined) -> Tensor:
    """The α of each row at which MacKay's updates stay; the mode is ŵ = h / (h + α) w_ML."""
    alpha = torch.ones(len(h), dtype=torch.float64)
    for _ in range(300):
        mode = h / (h + alpha[:, None]) * least_squares
        alpha = damped(alpha, mackay(gamma(h, alpha), mode.square().sum(1)), 0.5)
    return alpha


def test_updates_end_where_the_evidence_is_largest() -> None:
    """For one curvature h in a group of n, the largest evidence is at 1/α = ‖w_ML‖²/n − 1/h."""
    random = torch.Generator().manual_seed(0)
    least_squares = torch.randn(2, 40, generator=random, dtype=torch.float64)
    h = torch.tensor([[4.0], [9.0]], dtype=torch.float64).expand(2, 40)
    closed = 1 / (least_squares.square().mean(1) - 1 / h[:, 0])
    assert_close(fixed_point(h, least_squares), closed, rtol=1e-9, atol=0)

    def all_are_determined(h: Tensor, alpha: Tensor) -> Tensor:
        return torch.full_like(alpha, h.shape[1])

    wrong = fixed_point(h, least_squares, all_are_determined)
    assert ((wrong / closed - 1).abs() > 0.05).all()  # so a wrong γ is seen


def test_updates_end_where_the_evidence_of_uneven_curvatures_is_largest() -> None:
    random = torch.Generator().manual_seed(1)
    least_squares = torch.randn(1, 60, generator=random, dtype=torch.float64)
    h = 20 * torch.rand(1, 60, generator=random, dtype=torch.float64) + 0.5

    def minus_log_evidence(log_alpha: float) -> float:
        alpha = torch.tensor(log_alpha, dtype=torch.float64).exp()
        fit = h * alpha / (h + alpha) * least_squares.square()
        return float((torch.log(h + alpha) - log_alpha + fit).sum() / 2)

    best = minimize_scalar(minus_log_evidence, bounds=(-5, 5), method="bounded").x
    assert fixed_point(h, least_squares).log().item() == pytest.approx(best, abs=1e-4)


def linear_model(rows: int) -> tuple[Tensor, Tensor, LowRankPair]:
    """x, y = s B A x + noise of variance 1, and the pair; A's rows are orthogonal and unequal."""
    random = torch.Generator().manual_seed(2)
    x = torch.randn(rows, 6, generator=random, dtype=torch.float64)
    A = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64)).Q[:2]
    A = A * torch.tensor([[0.5], [2.0]], dtype=torch.float64)
    B = torch.randn(40, 2, generator=random, dtype=torch.float64)
    noise = torch.randn(rows, 40, generator=random, dtype=torch.float64)
    pair = LowRankPair("w", A, B.requires_grad_(), scaling=0.5)
    return x, x @ (0.5 * B.detach() @ A).mT + noise, pair


def half_square(x: Tensor, y: Tensor, pair: LowRankPair) -> Tensor:
    """The mean −log likelihood up to a constant."""
    return (y - x @ (pair.scaling * pair.B @ pair.A).mT).square().sum(1).mean() / 2


def begin(
    pair: LowRankPair, optimizer: Any, rows: int, batch: int, clip: float, alpha: float | None
) -> tuple[Relevance, Any]:
    two = torch.arange(2)
    prior = Relevance([pair], torch.zeros_like(two), torch.ones(2), two, alpha, 0.0, 0.05)
    sizes = {"train_batch_size": batch, "gradient_accumulation_steps": 1, "world_size": 1}
    args = Args(**sizes, max_grad_norm=clip)
    loader = SimpleNamespace(dataset=range(rows))
    state = SimpleNamespace(global_step=0)
    prior.on_train_begin(args, state, optimizer=optimizer, train_dataloader=loader)  # type: ignore[arg-type]
    return prior, args


def test_gamma_is_that_of_the_dense_hessian() -> None:
    """n − α tr H⁻¹ in w, though the callback has only seen clipped gradients of batches in B."""
    rows, batch, alpha = 240, 8, 80.0
    x, y, pair = linear_model(rows)
    scale = pair.scaling * pair.A.norm(dim=1)
    w = (pair.B * scale).detach()

    def total_loss(w: Tensor) -> Tensor:
        of_w = LowRankPair("w", pair.A, w.view(40, 2) / scale, pair.scaling)
        return rows * half_square(x, y, of_w)

    hessian: Any = torch.autograd.functional.hessian(total_loss, w.flatten())  # type: ignore[no-untyped-call]
    precision = alpha * torch.eye(80, dtype=torch.float64)
    exact = 80 - alpha * float(torch.linalg.inv(hessian + precision).trace())

    optimizer = torch.optim.AdamW([pair.B], lr=0.0)
    found = {}
    for seen_batch in (batch, 1):  # 1: as if the gradients were of single rows
        prior, args = begin(pair, optimizer, rows, seen_batch, clip=0.5, alpha=None)
        random = torch.Generator().manual_seed(3)
        for _ in range(4):
            for of_batch in torch.randperm(rows, generator=random).split(batch):
                optimizer.zero_grad()
                half_square(x[of_batch], y[of_batch], pair).backward()
                prior.gradient_norm(float(torch.nn.utils.clip_grad_norm_([pair.B], 0.5)))
                prior.on_pre_optimizer_step(args, None)  # type: ignore[arg-type]
        prior.alpha = torch.tensor([alpha], dtype=torch.float64)
        found[seen_batch] = float(prior.well_determined().sum())
    assert found[batch] == pytest.approx(exact, rel=0.05)
    assert found[1] < 0.6 * exact


def test_one_step_by_hand() -> None:
    """After Adam's step, b ← b / (1 + η κ α s²‖a‖² / N / (√v̂ + ε))."""
    A = torch.tensor([[3.0, 4.0], [0.0, 1.0]], dtype=torch.float64)
    B = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    pair = LowRankPair("w", A, B, scaling=2.0)
    optimizer = torch.optim.AdamW([B], lr=0.1, eps=1e-3, weight_decay=0.0)
    prior, args = begin(pair, optimizer, rows=50, batch=5, clip=1.0, alpha=7.0)
    B.grad = torch.tensor([[0.3, 0.4]], dtype=torch.float64)  # of norm 0.5, clipped from 2
    prior.gradient_norm(2.0)
    prior.on_pre_optimizer_step(args, None)  # type: ignore[arg-type]
    optimizer.step()
    state: Any = SimpleNamespace(global_step=2, max_steps=10)
    prior.on_optimizer_step(args, state, optimizer=optimizer)
    clipped = 1.0 / (2.0 + 1e-6)
    for i, (b, g, norm) in enumerate(((1.0, 0.3, 5.0), (-2.0, 0.4, 1.0))):  # v̂ = g², m̂ = g
        stepped = b - 0.1 * g / (g + 1e-3)
        decay = clipped * 7.0 * 2.0**2 * norm**2 / 50
        assert B[0, i].item() == pytest.approx(stepped / (1 + 0.1 * decay / (g + 1e-3)), rel=1e-9)


def test_training_ends_at_the_mode_of_the_posterior() -> None:
    """Ridge regression in w, in spite of clipping and of Adam's metric."""
    rows, alpha = 30, 20.0
    x, y, pair = linear_model(rows)
    z = pair.scaling * x @ pair.A.mT  # (rows, 2): y ≈ z Bᵀ
    precision = alpha * torch.diag(pair.scaling**2 * pair.A.square().sum(1))
    ridge = torch.linalg.solve(z.mT @ z + precision, z.mT @ y).mT
    optimizer = torch.optim.AdamW([pair.B], lr=0.05, weight_decay=0.0)
    prior, args = begin(pair, optimizer, rows, batch=5, clip=0.1, alpha=alpha)
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * 0.985**step
        optimizer.zero_grad()
        half_square(x, y, pair).backward()
        prior.gradient_norm(float(torch.nn.utils.clip_grad_norm_([pair.B], 0.1)))
        prior.on_pre_optimizer_step(args, None)  # type: ignore[arg-type]
        optimizer.step()
        state: Any = SimpleNamespace(global_step=step, max_steps=400)
        prior.on_optimizer_step(args, state, optimizer=optimizer)
    unpenalised = torch.linalg.solve(z.mT @ z, z.mT @ y).mT
    assert (pair.B - ridge).norm() < 0.02 * (unpenalised - ridge).norm()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    method = RelevancePrior(per="component", start="importance", assign="permuted", max_batches=2)
    return Case(method, "bert", tmp_path_factory.mktemp("relevance"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(case: Case, check: Any) -> None:
    check(case)


@pytest.mark.slow
def test_in_a_pack_it_ends_as_alone(case: Case) -> None:
    packed_equals_alone(case)


def test_what_was_learned_is_stored(case: Case) -> None:
    stored = json.loads((case.trained.saved / RELEVANCE).read_text("utf-8"))
    assert len(stored) == len(case.trained.attached.pairs)
    for columns in stored.values():
        assert set(columns) == {"alpha", "squares", "well_determined"}
        assert all(len(column) == 4 and min(column) > 0 for column in columns.values())


def test_experts_have_components_of_their_own() -> None:
    """PEFT keeps their factors in other shapes: B's columns are ordered by rank."""
    random = torch.Generator().manual_seed(4)
    A = torch.randn(6, 5, generator=random, dtype=torch.float64)
    B = torch.randn(7, 6, generator=random, dtype=torch.float64)
    pair = LowRankPair("w", A, B.clone(), scaling=0.5, experts=3)
    prior = Relevance([pair], torch.arange(6), torch.ones(6), torch.arange(6), 1.0, 0.0, 0.0)
    of_A, of_B = pair.matrices()
    expected = [
        (0.5 * torch.outer(of_B[e, :, i], of_A[e, i])).norm() ** 2
        for e in range(3)
        for i in range(2)
    ]
    assert_close(prior.squares(), torch.stack(expected))


def test_the_controls_are_fixed(tmp_path: Path) -> None:
    shared = Case(SharedPrior(alpha=3.0), "bert", tmp_path / "shared")
    shared.fit(shared.attach(), shared.folder)
    decayed = Case(LoraWeightDecay(decay=0.3), "bert", tmp_path).attach()
    (group,) = decayed.parameter_groups
    assert (set(group.names), group.weight_decay) == (set(decayed.adapter), 0.3)
