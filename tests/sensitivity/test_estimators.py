"""Norms of a gradient: exact ones against numpy, random ones against their own promises."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from iwlora.errors import IwloraError
from iwlora.sensitivity.estimators import (
    COLUMNS,
    ESTIMATORS,
    auto,
    exact,
    ghost,
    lora_sketch,
    projection,
    sketch,
)

pytestmark = pytest.mark.quick

shapes = {
    "lead": st.lists(st.integers(1, 4), min_size=1, max_size=3),
    "d_in": st.integers(1, 6),
    "d_out": st.integers(1, 6),
    "seed": st.integers(0, 10**6),
}


def draw(*lead: int, d_in: int, d_out: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*lead, d_in, dtype=torch.float64, generator=generator)
    return x, torch.randn(*lead, d_out, dtype=torch.float64, generator=generator)


def truth(x: Tensor, delta: Tensor) -> float:
    rows = x.reshape(-1, x.shape[-1]).numpy(), delta.reshape(-1, delta.shape[-1]).numpy()
    return math.sqrt(float((np.einsum("ni,nj->ij", rows[1], rows[0]) ** 2).sum()))


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_all_estimators_are_exact_over_shapes(
    lead: list[int], d_in: int, d_out: int, seed: int
) -> None:
    """The sketch too: below 64 inputs it has nothing to project."""
    x, delta = draw(*lead, d_in=d_in, d_out=d_out, seed=seed)
    for name, estimator in ESTIMATORS.items():
        computed = float(estimator(x, delta, "seed"))
        assert computed == pytest.approx(truth(x, delta), rel=1e-10, abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(silent=st.lists(st.booleans(), min_size=12, max_size=12), **shapes)
def test_tokens_without_gradient_change_nothing(
    silent: list[bool], lead: list[int], d_in: int, d_out: int, seed: int
) -> None:
    x, delta = draw(12, d_in=d_in, d_out=d_out, seed=seed)
    delta[torch.tensor(silent)] = 0
    for estimator in ESTIMATORS.values():
        assert float(estimator(x, delta, "s")) == pytest.approx(truth(x, delta), abs=1e-12)


def test_what_is_not_a_number_is_not_left_out() -> None:
    x, delta = draw(4, d_in=3, d_out=2)
    delta[1, 0] = math.nan
    assert math.isnan(exact(x, delta))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_unsupported_ranks_raise(estimator: str) -> None:
    for x, delta in [((3,), (3,)), ((2, 3), (4, 5)), ((2, 2, 3), (2, 5))]:
        with pytest.raises(IwloraError, match="cannot form a weight gradient"):
            ESTIMATORS[estimator](torch.zeros(*x), torch.zeros(*delta), "seed")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_accumulated_in_float32(dtype: torch.dtype) -> None:
    x, delta = torch.randn(64, 80).to(dtype), torch.randn(64, 8).to(dtype)
    for estimator in ESTIMATORS.values():
        computed = estimator(x, delta, "seed")
        assert computed.dtype == torch.float32
        wide = float(estimator(x.double(), delta.double(), "seed"))
        assert float(computed) == pytest.approx(wide, rel=1e-5)


def check_unbiased(estimate: Callable[[int], Tensor], square: float, spread: float) -> None:
    """The mean of many squares is within five of its standard errors; the errors are as told."""
    draws = torch.stack([estimate(i) for i in range(1500)]).double().square()
    error = float(draws.std()) / math.sqrt(len(draws))
    assert error < spread * square / math.sqrt(len(draws)), "the sketch is noisier than it says"
    assert abs(float(draws.mean()) - square) < 5 * error, (
        f"biased by a factor {float(draws.mean()) / square:.4f}: is the projection scaled right, "
        "and are its rows independent?"
    )


def test_the_squared_sketch_is_unbiased() -> None:
    x, delta = draw(9, d_in=40, d_out=5)
    square = truth(x, delta) ** 2
    check_unbiased(lambda i: sketch(x, delta, f"w/{i}", columns=8), square, math.sqrt(2 / 8))


def test_the_check_finds_a_biased_sketch() -> None:
    x, delta = draw(9, d_in=40, d_out=5)
    square = truth(x, delta) ** 2

    def same_rows(i: int) -> Tensor:
        repeated = projection(f"w/{i}", 20, 8).double().repeat(2, 1)
        return torch.linalg.vector_norm(delta.mT @ (x @ repeated))

    with pytest.raises(AssertionError, match=r"biased|noisier"):
        check_unbiased(lambda i: 1.05 * sketch(x, delta, f"w/{i}", columns=8), square, 0.55)
    with pytest.raises(AssertionError, match=r"biased|noisier"):
        check_unbiased(same_rows, square, 0.5)


@pytest.mark.parametrize("init", ["uniform", "normal"])
def test_loras_gradient_is_an_unbiased_sketch(init: str) -> None:
    x, delta = draw(9, d_in=40, d_out=5)
    G = delta.mT @ x
    messages, computed = [], []
    for i in range(3000):
        generator = torch.Generator().manual_seed(i)
        A = torch.empty(8, 40, dtype=torch.float64)
        if init == "uniform":
            A.uniform_(-0.3, 0.3, generator=generator)
        else:
            A.normal_(0, 2.0, generator=generator)
        square, error = lora_sketch(A, 1.5 * G @ A.mT, scaling=1.5)
        computed.append(float(square))
        messages.append(float(error))
    square, spread = truth(x, delta) ** 2, float(np.std(computed))
    assert abs(np.mean(computed) - square) < 5 * spread / math.sqrt(len(computed))
    assert np.sqrt(np.mean(np.square(messages))) == pytest.approx(spread, rel=0.15)


def test_autograd_gives_lora_the_gradient_that_the_sketch_reads() -> None:
    """At any B: the projection is of the gradient where the weights are now."""
    x, _ = draw(6, d_in=5, d_out=4)
    W, A, B = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in
               [(4, 5), (5, 5), (4, 5)])  # fmt: skip
    torch.tanh(x @ W.mT + 2.0 * x @ A.mT @ B.mT).pow(3).sum().backward()
    assert W.grad is not None
    assert B.grad is not None
    torch.testing.assert_close(B.grad, 2.0 * W.grad @ A.detach().mT)
    orthonormal = torch.linalg.qr(A.detach()).Q  # a square orthogonal A loses nothing
    square, _ = lora_sketch(orthonormal, 2.0 * W.grad @ orthonormal.mT, scaling=2.0)
    assert float(square) == pytest.approx(float(W.grad.square().sum()), rel=1e-12)


def test_a_sketch_that_does_not_fit_is_refused() -> None:
    with pytest.raises(IwloraError, match="accepted are"):
        lora_sketch(torch.zeros(2, 3), torch.zeros(4, 3), 1.0)


def test_projections_depend_on_their_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first = projection("layer.0/3", 7, 5)
    assert torch.equal(first, projection("layer.0/3", 7, 5))
    assert not torch.equal(first, projection("layer.1/3", 7, 5))
    assert torch.equal(first.abs(), torch.full((7, 5), 5**-0.5))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("count", "d_in", "d_out", "same"),
    [
        (20, 96, 96, ghost),  # 20·192 < 96·96
        (200, 96, 96, exact),
        (2100, 2048, 1024, lambda x, delta: sketch(x, delta, "s")),  # an eighth of exact
    ],
)
def test_auto_takes_the_cheapest(
    count: int, d_in: int, d_out: int, same: Callable[[Tensor, Tensor], Tensor]
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, d_in, generator=generator)
    delta = torch.randn(count, d_out, generator=generator)
    assert torch.equal(auto(x, delta, "s"), same(x, delta))
    assert float(auto(x, delta, "s")) == pytest.approx(
        float(exact(x, delta)), rel=3 / math.sqrt(2 * COLUMNS)
    )
