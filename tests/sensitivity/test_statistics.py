"""Every statistic against the gradients of single examples, and its standard error."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

import iwlora
from iwlora.errors import IwloraError
from iwlora.results.sensitivity import FORMULAS
from iwlora.sensitivity.statistics import STATISTICS
from iwlora.sites import Site, sites
from sensitivity_models import batches, classifier, end_of_sequence, oracle

PAIRS = [
    (name, estimator)
    for name, statistic in STATISTICS.items()
    for estimator in statistic.estimators
]


@cache
def measured_and_expected(architecture: str, count: int) -> tuple[Any, list[Any], Any]:
    """A model, its batches, and the oracle of each statistic, computed once."""
    model = classifier(architecture)
    data = batches(count, eos=end_of_sequence(model))
    return model, data, cache(lambda statistic: oracle(model, data, statistic))


@pytest.mark.parametrize(("statistic", "estimator"), PAIRS)
def test_equals_the_oracle(statistic: str, estimator: str) -> None:
    """Sketches too: a matrix of at most 64 columns is not projected."""
    model, data, expected = measured_and_expected("bert", 2)
    measured = iwlora.measure(model, data, estimator=estimator, statistic=statistic, tolerance=0)
    assert measured.statistic == statistic
    for name, value in measured.values.items():
        assert value == pytest.approx(expected(statistic)[name], rel=1e-8, abs=1e-14), name


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_equals_the_oracle_on_other_architectures(architecture: str, statistic: str) -> None:
    model, data, expected = measured_and_expected(architecture, 2)
    values = iwlora.measure(model, data, statistic=statistic, tolerance=0).values
    # Llama's norms are computed in float32 for any dtype of the model, so the results of a batch
    # differ a little from those of its examples.
    precision = 1e-6 if architecture == "llama" else 1e-8
    assert values == pytest.approx(expected(statistic), rel=precision, abs=1e-14)


def test_the_statistics_are_different_numbers() -> None:
    model, _, expected = measured_and_expected("bert", 2)
    site = sites(model)[0].name
    numbers = {f"{expected(statistic)[site]:.6e}" for statistic in STATISTICS}
    assert len(numbers) == len(STATISTICS) == len(FORMULAS)
    assert set(FORMULAS) == set(STATISTICS)


@pytest.mark.parametrize("statistic", ["mean", "example"])
def test_how_examples_are_batched_does_not_matter(statistic: str) -> None:
    model = classifier("bert")
    whole = batches(1, rows=6)
    cut = [{k: v[part] for k, v in whole[0].items()} for part in (slice(0, 4), slice(4, 6))]
    one, two = (iwlora.measure(model, d, statistic=statistic).values for d in (whole, cut))
    assert two == pytest.approx(one, rel=1e-9)


@pytest.mark.parametrize("statistic", STATISTICS)
def test_padding_does_not_matter(statistic: str) -> None:
    model, data = classifier("bert"), batches(2)
    padded = [
        {k: v if k == "labels" else nn.functional.pad(v, (0, 5)) for k, v in batch.items()}
        for batch in data
    ]
    one, two = (iwlora.measure(model, d, statistic=statistic).values for d in (data, padded))
    assert two == pytest.approx(one, rel=1e-9)


class Linear(nn.Module):
    """y = x Wᵀ, so that ∂L/∂W for the loss Σ y·label is labelᵀ x: gradients of any law."""

    def __init__(self, d_in: int, d_out: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Linear(d_in, d_out, bias=False)])

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> Any:
        return type("Output", (), {"loss": (self.blocks[0](x) * labels).sum(-1).mean()})


@pytest.mark.parametrize("statistic", ["norm", "mean"])
def test_standard_errors_are_the_spread_of_repeated_measurements(statistic: str) -> None:
    model = Linear(3, 4).double()
    generator = torch.Generator().manual_seed(0)
    values, errors = [], []
    for _ in range(100):
        data = []
        for _ in range(16):
            x = 1 + 0.5 * torch.randn(4, 1, 3, generator=generator).double()
            data.append({"x": x, "labels": torch.ones(4, 1, 4).double()})
        site = iwlora.measure(model, data, statistic=statistic, tolerance=0).sites[0]
        values.append(site.value)
        assert site.stderr is not None
        errors.append(site.stderr)
    spread = float(torch.tensor(values).std())
    assert sum(errors) / len(errors) == pytest.approx(spread, rel=0.2)


def test_the_sketch_of_a_mean_is_near_it() -> None:
    model = Linear(700, 4).double()
    generator = torch.Generator().manual_seed(0)
    data = [
        {"x": torch.randn(4, 1, 700, generator=generator).double() + 1,
         "labels": torch.randn(4, 1, 4, generator=generator).double() + 1}
        for _ in range(4)
    ]  # fmt: skip
    exact, sketched = (
        iwlora.measure(model, data, estimator, statistic="mean", tolerance=0).sites[0].value
        for estimator in ("exact", "sketch")
    )
    assert sketched != exact
    assert sketched == pytest.approx(exact, rel=4 / math.sqrt(2 * 64))


def test_what_cannot_be_computed_is_refused() -> None:
    model = classifier("bert")
    with pytest.raises(IwloraError, match="unknown statistic 'norms'; did you mean 'norm'"):
        iwlora.measure(model, batches(1), statistic="norms")
    with pytest.raises(IwloraError, match="'saliency' cannot be computed with estimator='sketch'"):
        iwlora.measure(model, batches(1), estimator="sketch", statistic="saliency")
    flat = [{"x": torch.randn(4, 3), "labels": torch.randn(4, 2)}]
    with pytest.raises(IwloraError, match=r"blocks\.0 has inputs of shape \(4, 3\)"):
        iwlora.measure(Linear(3, 2), flat, statistic="example")
    still = Linear(3, 2)
    nn.init.zeros_(still.blocks[0].weight)
    with pytest.raises(IwloraError, match=r"the norm 0\.0; take another"):
        iwlora.measure(still, flat, statistic="relative")


def test_a_site_of_another_model_does_not_affect_the_others() -> None:
    model = classifier("bert")
    every_site = [*sites(model), Site("elsewhere", nn.Linear(2, 2), "other", 2, 2, 0)]
    for statistic in ("norm", "mean"):
        values = iwlora.measure(model, batches(1), sites=every_site, statistic=statistic).values
        assert values["elsewhere"] == 0.0
        assert sum(values.values()) > 0
