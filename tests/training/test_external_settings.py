"""What the environment and torch's own state ask for, where the recipe says something else."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from iwlora.compare.execute.comparison import run_comparison
from iwlora.compare.plan.run_recipes import plan_run_recipes
from iwlora.errors import IwloraError
from iwlora.training.dry_run.run_cost import estimate_run_cost
from iwlora.training.external_settings import (
    REFUSED,
    check_external_settings,
    restoring_determinism,
)
from iwlora.training.measure_recipe import measure_recipe
from iwlora.training.prediction.new_rows import predict
from iwlora.training.run import train
from runs import recipe

pytestmark = pytest.mark.quick

ASKS: dict[str, list[str]] = {
    "ACCELERATE_MIXED_PRECISION": ["bf16", "fp16", "fp8"],
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ["2"],
    "ACCELERATE_DYNAMO_BACKEND": ["INDUCTOR", "EAGER"],
    "ACCELERATE_TORCH_DEVICE": ["cuda:1"],
    "ONEDNN_DEFAULT_FPMATH_MODE": ["BF16", "ANY"],
    "DNNL_DEFAULT_FPMATH_MODE": ["BF16"],
    "SM_HP_MP_PARAMETERS": ['{"partitions": 2}'],
    "WANDB_LOG_MODEL": ["end", "checkpoint"],
}
"""Values of variables that are no switches."""

# What the libraries read in addition, each with why it need not be refused.
HARMLESS = {
    "ACCELERATE_FP8_": "read with ACCELERATE_MIXED_PRECISION=fp8",
    "ACCELERATE_DYNAMO_": "read with ACCELERATE_DYNAMO_BACKEND",
    "ACCELERATE_DEEPSPEED_": "read with ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_CONFIG_DS_FIELDS": "read with ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_GRADIENT_CLIPPING": "read with ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_SAGEMAKER_": "read with ACCELERATE_USE_SAGEMAKER",
    "ACCELERATE_ALLOW_CP_STANDALONE": "read with ACCELERATE_USE_PARALLELISM_CONFIG",
    "ACCELERATE_BYPASS_DEVICE_MAP": "lets a quantized model be prepared",
    "ACCELERATE_INIT_INCLUDE_BUFFERS": "of init_empty_weights, which is not used",
    "ACCELERATE_CPU_AFFINITY": "binds processes to cores",
    "ACCELERATE_NUM_PROCESSES": "of notebooks",
    "ACCELERATE_DEBUG_": "checks collective calls",
    "ACCELERATE_LOG_LEVEL": "logging",
    "ACCELERATE_ENABLE_RICH": "logging",
}


@pytest.fixture(autouse=True)
def with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """ACCELERATE_USE_CPU changes nothing without one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("name", REFUSED)
def test_a_variable_that_asks_for_something_else_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = [REFUSED[name].tracker or "tensorboard"]
    for value in ASKS.get(name, ["1", "true", "YES"]):
        monkeypatch.setenv(name, value)
        with pytest.raises(IwloraError, match=f"^{name}={re.escape(value)} is set"):
            check_external_settings(tracker)
        if REFUSED[name].tracker:
            check_external_settings(["tensorboard"])  # nobody reads it
    for value in REFUSED[name].accepted:
        monkeypatch.setenv(name, value.upper())
        check_external_settings(tracker)


def test_every_variable_of_accelerate_is_known() -> None:
    """A new version of accelerate or transformers may read further ones."""
    sources = []
    for package in ("accelerate", "transformers"):
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin
        sources += [
            path.read_text("utf-8")
            for path in Path(spec.origin).parent.rglob("*.py")
            if "models" not in path.parts and "test_utils" not in path.parts
        ]
    read = set(re.findall(r"[\"'](ACCELERATE_[A-Z0-9_]+)[\"']", "\n".join(sources)))
    assert "ACCELERATE_MIXED_PRECISION" in read
    unknown = {n for n in read - REFUSED.keys() if not n.startswith(tuple(HARMLESS))}
    assert not unknown


@pytest.mark.parametrize("command", ["train", "dry run", "measure", "predict", "compare"])
def test_every_command_refuses_before_it_begins(
    command: str,
    tiny_bert: Path,
    reviews: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = recipe(tiny_bert, reviews, "iw-lora")
    (tmp_path / "a.yaml").write_text(asked.to_yaml())
    (tmp_path / "b.yaml").write_text(recipe(tiny_bert, reviews, "lora").to_yaml())
    plan = plan_run_recipes([str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")])
    commands: dict[str, Any] = {
        "train": lambda: train(asked, tmp_path / "run"),
        "dry run": lambda: estimate_run_cost(asked),
        "measure": lambda: measure_recipe(asked),
        "predict": lambda: predict(tmp_path / "run", "rows.csv", tmp_path / "out.csv"),
        "compare": lambda: run_comparison(plan, tmp_path / "comparison"),
    }
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with pytest.raises(IwloraError, match=r"MIXED_PRECISION=bf16 .*\nNVIDIA_TF32_OVERRIDE=1 "):
        commands[command]()
    assert {path.name for path in tmp_path.iterdir()} == {"a.yaml", "b.yaml"}


def test_torch_s_own_state_is_refused_too() -> None:
    precision = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with pytest.raises(IwloraError, match="fp32_precision=tf32 rounds"):
            check_external_settings()
    finally:
        torch.set_float32_matmul_precision(precision)
    check_external_settings()
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(IwloraError, match=r"torch\.autocast"),
    ):
        check_external_settings()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(IwloraError, match=r"torch\.float64"):
            check_external_settings()
    finally:
        torch.set_default_dtype(torch.float32)


def test_determinism_is_restored_with_the_variables_that_transformers_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import enable_full_determinism

    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before, cudnn = dict(os.environ), torch.backends.cudnn.deterministic
    with restoring_determinism(True):
        enable_full_determinism(0)
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"
    assert dict(os.environ) == before
    assert torch.backends.cudnn.deterministic == cudnn
    assert not torch.are_deterministic_algorithms_enabled()
