"""Pinned numbers of a run: whoever changes them raises ``NUMERICS_VERSION``, and pins new ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from iwlora.results.fingerprint import NUMERICS_VERSION
from iwlora.training.run import train
from runs import logged, recipe, weights, with_options

# {version: {method: (mean loss of ten steps, gradient norm, sum of the squares of all B)}}
PINNED: Mapping[int, Mapping[str, tuple[float, ...]]] = {
    1: {
        "lora": (0.694588, 0.378525, 0.295331),
        "iw-lora": (0.694573, 0.379001, 0.00331207),
        "iw-lora, in flight": (0.694573, 0.378999, 0.00379275),
    },
    2: {
        "lora": (0.694329, 0.387555, 0.450352),
        "iw-lora": (0.694447, 0.386032, 0.00305941),
        "iw-lora, in flight": (0.694446, 0.386029, 0.00306157),
    },
}
# Other processors and libraries sum in another order; a change of what is computed moves more.
RELATIVE = 1e-3


def trajectory(
    model: Path, task: Mapping[str, Any], folder: Path, method: str
) -> tuple[float, ...]:
    """The numbers of a short run with dropout."""
    asked = recipe(model, task, method.partition(",")[0], lr=1e-2)
    options: Mapping[str, Mapping[str, Any]] = {
        "lora": {},
        "iw-lora": {"alpha": 0.3, "measure": "before", "max_batches": 3},
        "iw-lora, in flight": {"alpha": 0.3, "normalize": "mean"},
    }
    train(with_options(asked, **options[method]), folder)
    (record,) = [r for r in logged(folder) if r["step"] == 10 and "grad_norm" in r]
    B = [t.double() for name, t in weights(folder).items() if "lora_B" in name]
    return record["loss"], record["grad_norm"], float(sum(t.square().sum() for t in B))


@pytest.mark.quick
@pytest.mark.parametrize("method", PINNED[NUMERICS_VERSION])
def test_the_numbers_are_those_of_the_numerics_version(
    method: str, with_dropout: Path, reviews: dict[str, str], tmp_path: Path
) -> None:
    pinned = PINNED[NUMERICS_VERSION][method]
    assert trajectory(with_dropout, reviews, tmp_path, method) == pytest.approx(pinned, RELATIVE)


def test_another_trajectory_would_be_noticed(
    with_dropout: Path, reviews: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here the learning rate is 2% larger than the recipe says."""
    from iwlora.training import prepare

    made = prepare._OneGpu

    def faster(**arguments: Any) -> Any:
        return made(**{**arguments, "learning_rate": 1.02 * arguments["learning_rate"]})

    monkeypatch.setattr(prepare, "_OneGpu", faster)
    changed = trajectory(with_dropout, reviews, tmp_path, "lora")
    assert changed != pytest.approx(PINNED[NUMERICS_VERSION]["lora"], RELATIVE)
