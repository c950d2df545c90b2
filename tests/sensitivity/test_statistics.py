"""Every statistic against the gradients of single examples, and its standard error."""

from __future__ import annotations

import math
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


@pytest.mark.parametrize(("statistic", "estimator"), PAIRS)
def test_equals_the_oracle(statistic: str, estimator: str) -> None:
    """Sketches too: a matrix of at most 64 columns is not projected."""
    model = classifier("bert")
    data = batches(3)
    found = iwlora.measure(model, data, estimator=estimator, statistic=statistic, tolerance=0)
    assert found.statistic == statistic
    expected = oracle(model, data, statistic)
    for name, value in found.values.items():
        assert value == pytest.approx(expected[name], rel=1e-8, abs=1e-14), name


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "t5"])
@pytest.mark.parametrize("statistic", STATISTICS)
def test_equals_the_oracle_on_other_architectures(architecture: str, statistic: str) -> None:
    model = classifier(architecture)
    data = batches(2, eos=end_of_sequence(model))
    found = iwlora.measure(model, data, statistic=statistic, tolerance=0).values
    expected = oracle(model, data, statistic)
    # Llama's norms compute in float32 whatever the model is in, so its batches are not quite
    # its examples.
    precision = 1e-6 if architecture == "llama" else 1e-8
    assert found == pytest.approx(expected, rel=precision, abs=1e-14)


def test_the_statistics_are_different_numbers() -> None:
    model, data = classifier("bert"), batches(2)
    found = [oracle(model, data, statistic) for statistic in STATISTICS]
    site = sites(model)[0].name
    assert len({f"{values[site]:.6e}" for values in found}) == len(STATISTICS) == len(FORMULAS)
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
    values, told = [], []
    for _ in range(150):
        data = []
        for _ in range(30):
            x = 1 + 0.5 * torch.randn(4, 1, 3, generator=generator).double()
            data.append({"x": x, "labels": torch.ones(4, 1, 4).double()})
        found = iwlora.measure(model, data, statistic=statistic, tolerance=0).sites[0]
        values.append(found.value)
        assert found.stderr is not None
        told.append(found.stderr)
    spread = float(torch.tensor(values).std())
    assert sum(told) / len(told) == pytest.approx(spread, rel=0.2)


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


def test_what_cannot_be_computed_is_told() -> None:
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


def test_a_site_of_another_model_is_no_trouble_for_the_rest() -> None:
    model = classifier("bert")
    places = [*sites(model), Site("elsewhere", nn.Linear(2, 2), "other", 2, 2, 0)]
    for statistic in ("norm", "mean"):
        found = iwlora.measure(model, batches(1), sites=places, statistic=statistic).values
        assert found["elsewhere"] == 0.0
        assert sum(found.values()) > 0
