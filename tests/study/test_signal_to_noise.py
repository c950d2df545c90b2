"""Signal to noise against pairs of gradients in float64 and a planted model, and what it sets."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import default_data_collator as collate

from iwlora.errors import Diverged, IwloraError
from iwlora.methods.tiny_models import tiny_model
from iwlora.sites import Site
from iwlora.sites import sites as find_sites
from iwlora.testing import Case
from iwlora_study.assignment import assign
from iwlora_study.gradient_noise import GradientMoments
from iwlora_study.signal_to_noise import SignalToNoise

R, SEED = 4, 3


def model_loss(model: Any, batch: Any) -> Tensor:
    loss: Tensor = model(**batch).loss
    return loss


def batches(tmp_path: Path, size: int = 4) -> list[dict[str, Tensor]]:
    rows = Case(SignalToNoise(), "bert", tmp_path).rows
    return [collate(rows[k : k + size]) for k in range(0, len(rows), size)]


def estimate(gradients: Any) -> Any:
    moments = GradientMoments()
    for gradient in gradients:
        moments.add(torch.as_tensor(gradient))
    return moments.estimate()


@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_it_is_the_mean_over_pairs_of_batches_in_float64(name: str, tmp_path: Path) -> None:
    given, model = batches(tmp_path), tiny_model(name).double().eval()
    sites = find_sites(model)
    weights = [site.layer.weight for site in sites]
    each = [torch.autograd.grad(model_loss(model, batch), weights) for batch in given]
    fresh = tiny_model(name)
    attached = SignalToNoise(rank=R).attach(fresh, find_sites(fresh), SEED)
    initialize = attached.initializer(model_loss)
    assert initialize is not None
    initialize(iter(given))
    by_hand = {}
    for site, gradients in zip(sites, zip(*each, strict=True), strict=True):
        mean = sum(gradients) / len(given)
        noise = sum(float((g - mean).square().sum()) for g in gradients) / (len(given) - 1)
        pairs = [float((a * b).sum()) for a, b in combinations(gradients, 2)]
        by_hand[site.name] = max(sum(pairs) / len(pairs), 0.0) / noise
        assert estimate(gradients).value == pytest.approx(by_hand[site.name], rel=1e-4, abs=1e-6)
    smallest = min(value for value in by_hand.values() if value > 0)
    logs = {n: 0.5 * math.log(value or smallest) for n, value in by_hand.items()}
    found = {
        pair.name: group.lr_factor
        for pair, group in zip(attached.pairs, attached.groups(), strict=True)
    }
    inner = [n for n, factor in found.items() if 0.26 < factor < 3.9]
    shifts = [logs[n] - math.log(found[n]) for n in inner]
    assert len(inner) > 3
    assert max(shifts) - min(shifts) < 1e-2
    assert set(found) - set(inner) <= {n for n, f in found.items() if f in (0.25, 4.0)}
    assert math.fsum(map(math.log, found.values())) == pytest.approx(0, abs=1e-2)
    assert "signal to noise of the gradient of a batch, median by kind" in attached.notes()[0]


def test_a_planted_model_is_found_without_bias_and_with_its_error() -> None:
    random, truth, count, draws = np.random.default_rng(0), 0.05, 16, 400
    mean = random.normal(size=(12, 10))
    mean *= math.sqrt(truth * mean.size) / np.linalg.norm(mean)  # noise of variance 1 an entry
    found, errors, plain = [], [], []
    for _ in range(draws):
        gradients = mean + random.normal(size=(count, 12, 10))
        one = estimate(gradients)
        found.append(one.value)
        errors.append(one.stderr)
        spread = gradients.var(axis=0, ddof=1).sum()
        plain.append(np.linalg.norm(gradients.mean(axis=0)) ** 2 / spread)
    error = np.std(found) / math.sqrt(draws)
    assert abs(np.mean(found) - truth) < 4 * error
    assert np.mean(plain) - truth == pytest.approx(1 / count, rel=0.1)  # ‖mean‖² would fail
    assert 1 <= math.sqrt(np.mean(np.square(errors))) / np.std(found) < 1.4


def test_noise_alone_has_none_and_signal_alone_stays_finite() -> None:
    random = np.random.default_rng(0)
    none = [estimate(random.normal(size=(8, 20, 20))) for _ in range(50)]
    assert np.mean([one.value for one in none]) < 0.02  # 1/8 with ‖mean‖²
    assert all(one.value >= 0 for one in none)
    same = estimate([np.ones((2, 2))] * 4)
    assert 1e4 < same.value < math.inf
    assert math.isnan(same.stderr)
    assert estimate([np.zeros((2, 2))] * 8).value == 0
    with pytest.raises(ValueError, match="1 batches have no noise"):
        estimate([np.ones((2, 2))])


def test_factors_have_the_geometric_mean_one_within_their_limits() -> None:
    method = SignalToNoise(power=1.0, limit=2.0)
    found = method.factors({"a": 8.0, "b": 2.0, "c": 1.0, "d": 0.0})
    assert found == pytest.approx({"a": 2.0, "b": 1.0, "c": 2**-0.5, "d": 2**-0.5}, rel=0.5)
    assert math.prod(found.values()) == pytest.approx(1, abs=1e-3)
    assert found["a"] == 2.0
    assert found["b"] / found["c"] == pytest.approx(2, rel=1e-3)
    assert found["c"] == found["d"]
    assert method.factors({"a": 0.0, "b": 0.0}) == {"a": 1.0, "b": 1.0}


def test_ranks_cost_what_the_uniform_rank_costs(tmp_path: Path) -> None:
    model = tiny_model("bert")
    sites = find_sites(model)
    method = SignalToNoise(rank=R, sets="ranks", max_batches=6)
    attached = method.attach(model, sites, SEED)
    initialize = attached.initializer(model_loss)
    assert initialize is not None
    initialize(batches(tmp_path))
    assert attached.ranks is not None
    ranks = attached.ranks()
    assert attached.groups() == ()
    assert len(set(ranks.values())) > 2
    assert all(1 <= rank <= 4 * R for rank in ranks.values())
    assert attached.count() == R * sum(site.d_in + site.d_out for site in sites)
    assert {pair.scaling for pair in attached.pairs} == {16.0 / R}
    assert set(method.rank_pattern(sites, dict.fromkeys(ranks, 0.0)).values()) == {R}


def test_controls_move_values_within_shapes_only() -> None:
    shapes = [(2, 2)] * 6 + [(2, 4)] * 3
    sites = [Site(str(n), nn.Linear(i, o), "query", i, o, 0) for n, (i, o) in enumerate(shapes)]
    values = {site.name: float(n) for n, site in enumerate(sites)}
    permuted, inverted = (assign(values, sites, how, 1) for how in ("permuted", "inverted"))
    for found in (permuted, inverted):
        assert sorted(list(found.values())[:6]) == [0, 1, 2, 3, 4, 5]
        assert sorted(list(found.values())[6:]) == [6, 7, 8]
    assert list(inverted.values()) == [5, 4, 3, 2, 1, 0, 8, 7, 6]
    assert permuted != values
    assert permuted == assign(values, sites, "permuted", 1) != assign(values, sites, "permuted", 2)
    assert assign(values, sites, "measured", 1) == values


def test_bad_batches_are_refused(tmp_path: Path) -> None:
    model, given = tiny_model("bert"), batches(tmp_path)
    attached = SignalToNoise(rank=R).attach(model, find_sites(model), SEED)
    initialize = attached.initializer(model_loss)
    broken = attached.initializer(lambda m, b: model_loss(m, b) * math.nan)
    assert initialize is not None
    assert broken is not None
    with pytest.raises(IwloraError, match=r"lower train.batch_size"):
        initialize(given[:1])
    with pytest.raises(Diverged, match="NaN"):
        broken(given)
