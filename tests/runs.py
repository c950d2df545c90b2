"""Short training runs of tiny models, and readers of their files."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from iwlora.methods import METHODS
from iwlora.results.formats import unstamped
from iwlora.training.recipe import Recipe, build

# Whole runs take time; the conformance suite checks every row of METHODS.
RUN = ("full", "lora", "adalora", "iw-lora")
# Results that tests compare must not depend on whether the machine multiplies bf16.
SHORT = {"epochs": 2, "lr": 1e-2, "batch_size": 16, "max_length": 32, "precision": "fp32"}


def recipe(model: Path, task: Mapping[str, Any], method: str = "lora", **train: Any) -> Recipe:
    """A method of size 4; ``train`` are settings of the training."""
    knob = METHODS[method].size_knob
    return build(
        {
            "model": str(model),
            "task": dict(task),
            "method": {"name": method, **({knob: 4} if knob else {})},
            "train": {**SHORT, **train},
        }
    )


def with_options(base: Recipe, **options: Any) -> Recipe:
    """The recipe with other options of its method."""
    settings = base.settings()
    return build({**settings, "method": {**settings["method"], **options}})


def weights(run: Path) -> dict[str, Tensor]:
    """Everything that a run saved, adapter or model."""
    (file,) = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors")]
    return load_file(file)


def predictions(run: Path, split: str = "validation") -> list[dict[str, str]]:
    """The rows of the predictions that a run saved."""
    with (run / "predictions" / f"{split}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def logits(run: Path) -> list[list[float]]:
    """The logits among the predictions."""
    return [
        [float(value) for name, value in row.items() if name.startswith("logit_")]
        for row in predictions(run)
    ]


def logged(run: Path) -> list[dict[str, Any]]:
    """The records of metrics.jsonl."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_foreign(run: Path, **changes: Any) -> None:
    """Change a run's result and leave out its digests, as whoever made it up would."""
    stored = json.loads((run / "result.json").read_text(encoding="utf-8")) | changes
    kept = {name: value for name, value in stored.items() if name not in ("files", "digest")}
    (run / "result.json").write_text(json.dumps(kept), encoding="utf-8")


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The scores that a run logged, without their timings and the digests that depend on them."""
    timings = {"runtime", "samples_per_second", "steps_per_second", "digest"}
    return [
        {key: value for key, value in record.items() if key not in timings}
        for record in logged(run)
        if record.get("evaluation")
    ]


def status(run: Path) -> dict[str, Any]:
    """The fields of status.json."""
    fields, _ = unstamped("status", json.loads((run / "status.json").read_text()), "status.json")
    return {name: value for name, value in fields.items() if name != "digest"}
