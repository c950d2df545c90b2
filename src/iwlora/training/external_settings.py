"""Settings outside the recipe that would change a run: environment variables, torch's own state.

The libraries below iwlora read them without a word. A result says what its recipe says, so a
variable that asks for anything else is refused, by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from iwlora.errors import raise_all

OFF = frozenset({"", "0", "false", "f", "no", "n", "off"})
"""The values, in lower case, with which a switch of accelerate or transformers stays off."""

_RECIPE = "the recipe sets the precision (train.precision)"
_COMPILED = "compiled models compute other numbers, and the hooks that measure do not run in them"
_LAUNCHER = "start plain processes (torchrun, or accelerate launch without it)"
_GPUS = "the recipe runs on the GPUs that are visible: choose them with CUDA_VISIBLE_DEVICES"
_UPLOAD = (
    "it uploads the model of the last step, which need not be the one that the run keeps; upload "
    "the folder of the finished run instead"
)


@dataclass(frozen=True)
class Variable:
    """An environment variable that is refused, unless its value changes nothing.

    Args:
        reason: why, and what to do.
        accepted: values, in lower case, that change nothing.
        tracker: the experiment tracker that reads the variable; None: it always counts.
    """

    reason: str
    accepted: frozenset[str] = OFF
    tracker: str | None = None


REFUSED: Mapping[str, Variable] = {
    "ACCELERATE_MIXED_PRECISION": Variable(
        f"{_RECIPE}; unset it, or start with accelerate launch --mixed_precision no",
        OFF | {"fp32"},
    ),
    "ACCELERATE_DOWNCAST_BF16": Variable(f"{_RECIPE}; unset it"),
    "XLA_USE_BF16": Variable(f"{_RECIPE}; unset it"),
    "XLA_DOWNCAST_BF16": Variable(f"{_RECIPE}; unset it"),
    "NVIDIA_TF32_OVERRIDE": Variable(f"{_RECIPE}, and this makes fp32 TF32; unset it"),
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": Variable(f"{_RECIPE}, and this makes fp32 TF32; unset it"),
    "HIPBLASLT_ALLOW_TF32": Variable(f"{_RECIPE}, and this makes fp32 TF32; unset it"),
    "PYTORCH_MPS_FAST_MATH": Variable(f"{_RECIPE}, and this rounds more coarsely; unset it"),
    "ONEDNN_DEFAULT_FPMATH_MODE": Variable(
        f"{_RECIPE}, and this rounds fp32 products; unset it", frozenset({"", "strict"})
    ),
    "DNNL_DEFAULT_FPMATH_MODE": Variable(
        f"{_RECIPE}, and this rounds fp32 products; unset it", frozenset({"", "strict"})
    ),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": Variable(
        "the recipe sets it (train.accumulate); unset it", frozenset({"", "1"})
    ),
    "ACCELERATE_DYNAMO_BACKEND": Variable(f"{_COMPILED}; unset it", OFF),
    "ACCELERATE_USE_FSDP": Variable(
        f"the launcher asks for FSDP, which the recipe sets: {_LAUNCHER} with train.shard=true"
    ),
    "ACCELERATE_USE_DEEPSPEED": Variable(
        "the launcher asks for DeepSpeed, whose optimizers hold copies of the parameters that "
        f"penalties and pruning do not reach: {_LAUNCHER}, with train.shard=true to shard the model"
    ),
    "ACCELERATE_USE_MEGATRON_LM": Variable(
        f"the launcher asks for Megatron-LM, which replaces the model: {_LAUNCHER}"
    ),
    "ACCELERATE_USE_PARALLELISM_CONFIG": Variable(
        f"the launcher asks to split the model or its inputs: {_LAUNCHER} with train.shard=true"
    ),
    "ACCELERATE_USE_SAGEMAKER": Variable(
        f"the launcher asks for SageMaker's own data parallelism: {_LAUNCHER}"
    ),
    "SM_HP_MP_PARAMETERS": Variable(
        f"SageMaker asks for model parallelism, which replaces the model: {_LAUNCHER}",
        frozenset({"", "{}"}),
    ),
    # Older versions of accelerate, of those that are accepted, read the next two.
    "ACCELERATE_USE_IPEX": Variable("Intel's extension replaces layers of the model; unset it"),
    "ACCELERATE_USE_XPU": Variable(_GPUS),
    "ACCELERATE_USE_CPU": Variable(f"{_GPUS}; empty for the CPU"),
    "ACCELERATE_TORCH_DEVICE": Variable(_GPUS, frozenset({""})),
    "WANDB_LOG_MODEL": Variable(_UPLOAD, tracker="wandb"),
    "HF_MLFLOW_LOG_ARTIFACTS": Variable(_UPLOAD, tracker="mlflow"),
}


def check_external_settings(report_to: Sequence[str] = ()) -> None:
    """Refuse every setting outside the recipe that would change what a run computes.

    Args:
        report_to: the experiment trackers of the recipe.

    Raises:
        IwloraError: all of them, each with its value and what to do.
    """
    problems = [
        f"{name}={os.environ[name]} is set in the environment: {variable.reason}"
        for name, variable in REFUSED.items()
        if os.environ.get(name, "").strip().lower() not in variable.accepted
        and (variable.tracker is None or variable.tracker in report_to)
        and (name != "ACCELERATE_USE_CPU" or torch.cuda.is_available())
    ]
    raise_all(problems + _problems_of_torch())


def _problems_of_torch() -> list[str]:
    """What code of the user has changed in torch's global state."""
    problems = [
        f"{module}={precision} rounds fp32 products: {_RECIPE}; call "
        "torch.set_float32_matmul_precision('highest') first"
        for module, precision in _product_precisions().items()
        if precision not in ("none", "ieee", "highest")
    ]
    if torch.get_default_dtype() != torch.float32:
        problems.append(
            f"torch's default type is {torch.get_default_dtype()}: weights that train are float32; "
            "call torch.set_default_dtype(torch.float32) first"
        )
    if any(torch.is_autocast_enabled(device) for device in ("cpu", "cuda")):
        problems.append(f"torch.autocast is on: {_RECIPE}; call iwlora outside of the block")
    return problems


def _product_precisions() -> dict[str, str]:
    """How torch computes float32 products on GPUs and CPUs."""
    backends = {
        "torch.backends.cuda.matmul.fp32_precision": torch.backends.cuda.matmul,
        "torch.backends.mkldnn.matmul.fp32_precision": getattr(
            torch.backends.mkldnn, "matmul", None
        ),
    }
    if all(hasattr(backend, "fp32_precision") for backend in backends.values()):
        return {name: str(getattr(b, "fp32_precision")) for name, b in backends.items()}  # noqa: B009
    return {"torch.get_float32_matmul_precision()": torch.get_float32_matmul_precision()}


@contextmanager
def restoring_determinism(changed: bool) -> Iterator[None]:
    """Restore torch's choice of algorithms after the block, in which the Trainer may change it.

    transformers also sets environment variables for it, which later runs would inherit.
    """
    before, environment = torch.are_deterministic_algorithms_enabled(), dict(os.environ)
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        if changed:
            torch.use_deterministic_algorithms(before)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
            for name in _DETERMINISM - environment.keys():
                os.environ.pop(name, None)
            os.environ |= {name: environment[name] for name in _DETERMINISM & environment.keys()}


_DETERMINISM = {
    "CUDA_LAUNCH_BLOCKING",
    "CUBLAS_WORKSPACE_CONFIG",
    "ASCEND_LAUNCH_BLOCKING",
    "HCCL_DETERMINISTIC",
    "FLASH_ATTENTION_DETERMINISTIC",
}
"""What ``transformers.enable_full_determinism`` sets."""
