"""Every method does what it did when it was recorded: the same parameters, in the same order.

``tests/fixtures/trainings.json`` has for each method, on a tiny BERT: how many tensors train and a
digest of their names and shapes in order, as optimizers and checkpoints have them; the size of the
adapter; and the loss after four steps, in which all initial values and each step take part. A
formula gives the model's weights, which no version of transformers changes; in double precision,
losses agree to seven digits on all processors.

Where a change is meant, or a new version of a library draws other numbers, record again::

    python tests/methods/test_recorded_trainings.py
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from iwlora.methods import METHODS
from iwlora.methods.tiny_models import refusals
from iwlora.testing import Case

FILE = Path(__file__).parents[1] / "fixtures" / "trainings.json"
ARCHITECTURE = "bert"
STEPS = 4
SINGLE = ("pissa", "corda")
"""PEFT refuses to compute their starts in double precision."""


class CaseOfFormula(Case):
    """A case whose model draws nothing: its matrices have the sine of each place squared."""

    def model(self, head_seed: int = 0) -> Any:
        """Biases stay 0, and the scales of normalizations 1."""
        model, begin = super().model(head_seed), 0
        if self.method.name not in SINGLE:
            model = model.double()
        with torch.no_grad():
            for matrix in (p for p in model.parameters() if p.dim() > 1):
                places = torch.arange(begin, begin + matrix.numel(), dtype=torch.float64)
                matrix.copy_(0.3 * places.square().sin().view_as(matrix))
                begin += matrix.numel()
        return model


def training(name: str, folder: Path) -> dict[str, Any]:
    """What is recorded of a method."""
    case = CaseOfFormula(METHODS[name](), ARCHITECTURE, folder)
    attached = case.attach()
    shapes = {name: attached.model.get_parameter(name).shape for name in attached.trainable}
    lines = "".join(f"{name} {[*shape]}\n" for name, shape in shapes.items())
    parameters = attached.count()
    case.fit(attached, folder, max_steps=STEPS)
    labels = torch.tensor([row["labels"] for row in case.rows])
    return {
        "tensors": len(shapes),
        "names": hashlib.sha256(lines.encode()).hexdigest()[:16],
        "parameters": parameters,
        "loss": round(cross_entropy(case.logits(attached.model), labels).item(), 10),
    }


def recorded() -> dict[str, dict[str, Any]]:
    """What the file has."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def test_every_method_is_recorded_that_goes_there() -> None:
    supported = [
        name
        for name, method in METHODS.items()
        if refusals(method(), [ARCHITECTURE])[ARCHITECTURE] is None
    ]
    assert [*recorded()] == supported
    assert {*METHODS} - {*supported} == {"prompt-generator"}


@pytest.mark.parametrize("name", recorded())
def test_a_method_trains_as_recorded(name: str, tmp_path: Path) -> None:
    expected = recorded()[name]
    expected = {**expected, "loss": pytest.approx(expected["loss"], rel=1e-5)}
    assert training(name, tmp_path) == expected


if __name__ == "__main__":
    found = {}
    for each in METHODS:
        if refusals(METHODS[each](), [ARCHITECTURE])[ARCHITECTURE] is None:
            with tempfile.TemporaryDirectory() as made:
                found[each] = training(each, Path(made))
    FILE.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
