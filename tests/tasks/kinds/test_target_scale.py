"""The scale of targets: there and back, for every transform and size of numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import rankdata

from iwlora.errors import IwloraError
from iwlora.tasks.kinds.target_scale import TargetScale

pytestmark = pytest.mark.quick

LARGE = 1e200  # whose square is infinite
numbers = st.floats(-LARGE, LARGE) | st.floats(-10, 10) | st.integers(1990, 2020).map(float)


@settings(max_examples=50, deadline=None)
@given(targets=st.lists(numbers, min_size=1, max_size=30))
def test_there_and_back(targets: list[float]) -> None:
    scale = TargetScale.fit(targets)
    z = scale.to_z(targets)
    assert np.isfinite(z).all()
    spread = max(float(np.ptp(targets)), abs(float(np.max(np.abs(targets)))))
    np.testing.assert_allclose(scale.to_targets(z), targets, atol=1e-12 * spread, rtol=0)
    if np.ptp(targets) > 1e-9 * np.max(np.abs(targets)):
        assert z.mean() == pytest.approx(0, abs=1e-6)
        assert z.std() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("targets", [[3.0] * 5, [0.0], [-1e9] * 2])
def test_constant_targets_have_the_standard_deviation_1(targets: list[float]) -> None:
    scale = TargetScale.fit(targets)
    assert (scale.mean, scale.sd) == (targets[0], 1.0)
    assert scale.to_z(targets).tolist() == [0.0] * len(targets)


def test_the_scale_is_numpy_s() -> None:
    for targets in ([1990.0, 2005.0, 2020.0, 2020.0], [1e9, 1e9 + 2, 1e9 + 5], [0.0, 5.0, 2.5]):
        scale = TargetScale.fit(targets)
        assert scale.mean == pytest.approx(np.mean(targets), rel=1e-15)
        assert scale.sd == pytest.approx(np.std(targets), rel=1e-9)


@pytest.mark.parametrize("transform", ["log", "log1p", "rank"])
def test_transforms_of_heavy_tails(transform: str) -> None:
    targets = np.random.default_rng(0).lognormal(3, 3, 400)
    scale = TargetScale.fit(targets, transform)  # type: ignore[arg-type]
    z = scale.to_z(targets)
    assert (z.mean(), z.std()) == (pytest.approx(0), pytest.approx(1))
    assert np.abs(z).max() < 5 < np.abs(TargetScale.fit(targets).to_z(targets)).max()
    np.testing.assert_allclose(scale.to_targets(z), targets, rtol=1e-9)
    assert TargetScale(**scale.model_dump()) == scale
    assert "is not linear" in str(scale.not_in_head)
    if transform != "rank":
        function = np.log if transform == "log" else np.log1p
        np.testing.assert_allclose(z * scale.sd + scale.mean, function(targets))
        assert np.isinf(scale.to_targets([1e6])).all()
    else:
        assert scale.to_targets([-9.0, 9.0]).tolist() == [targets.min(), targets.max()]


def test_ranks_with_ties_are_scipy_s() -> None:
    targets = [1.0, 2.0, 2.0, 2.0, 5.0]
    scale = TargetScale.fit(targets, "rank", standardize=False)
    np.testing.assert_allclose(scale.to_z(targets), (rankdata(targets) - 1) / 4)
    many = np.random.default_rng(0).integers(0, 50, 5000).astype(float)
    scale = TargetScale.fit(many.tolist(), "rank", standardize=False)
    assert len(scale.quantiles) == 1000
    np.testing.assert_allclose(scale.to_z(many), rankdata(many) / 5000, atol=2e-3)


@pytest.mark.parametrize(
    ("transform", "targets", "message"),
    [
        ("log", [1.0, 0.0, -0.5], "above 0; 2 of 3 are not, such as 0; take log1p or rank"),
        ("log", [1.0, -3.0], "above 0; 1 of 2 are not, such as -3; take rank"),
        ("log1p", [1.0, -1.0], "above -1; 1 of 2 are not, such as -1; take rank"),
    ],
)
def test_a_transform_that_is_not_defined(
    transform: str, targets: list[float], message: str
) -> None:
    with pytest.raises(IwloraError, match=rf"task\.kind\.transform={transform} needs .*{message}"):
        TargetScale.fit(targets, transform)  # type: ignore[arg-type]
