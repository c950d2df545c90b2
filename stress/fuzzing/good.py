"""The good results that no input may harm: finished runs and a comparison, with their data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_study
from fuzzing.inputs import KEEP, MODEL
from fuzzing.recipes import BASE
from iwlora.cli import main
from iwlora.compare.plan.recipe import load_plan
from iwlora.inputs.yaml_json import to_yaml
from iwlora.training.recipe import load
from iwlora.training.run import train


def make(root: Path) -> None:
    """Write into ``root`` a ``model``, and into ``keep`` the data, two runs and a comparison."""
    tiny_study.save_model(root / "model")
    keep = root / "keep"
    tiny_study.save_task(keep / "task")
    checkpoints = {**BASE["train"], "save_steps": 1}
    measured = {**BASE, "method": {"name": "iw-lora", "rank": 2}, "train": checkpoints}
    train(load(_recipe(root, "run", measured)), keep / "run")
    train(load(_recipe(root, "bits", {**BASE, "method": "bitfit"})), keep / "bits")
    arms: dict[str, Any] = {key: value for key, value in BASE.items() if key != "method"}
    arms |= {"methods": ["head", {"name": "lora", "rank": 2}], "seeds": [0, 1]}
    plan = _recipe(root, "comparison", arms)
    for run in load_plan(plan).runs:
        train(run.recipe, run.folder(keep / "comparison"))
    main(["compare", plan, "--out", str(keep / "comparison")])  # all of its runs are done


def _recipe(root: Path, name: str, settings: Any) -> str:
    text = to_yaml(settings).replace(MODEL, str(root / "model")).replace(KEEP, str(root / "keep"))
    path = root / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)
