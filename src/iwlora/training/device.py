"""The device that a run computes on: its precision, and the peak of its memory."""

from __future__ import annotations

import logging
import sys
from functools import cache

import torch

logger = logging.getLogger("iwlora")


def run_device() -> torch.device:
    """This process's accelerator, or the CPU without one; joins the processes of a launcher."""
    from accelerate import PartialState

    return PartialState().device  # type: ignore[no-any-return]


def resolve_precision(requested: str, device: torch.device) -> str:
    """``fp32`` or ``bf16``; ``auto`` becomes bf16 where the device multiplies it in hardware.

    >>> resolve_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    if requested != "auto":
        return requested
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_multiplies_bf16() else "fp32"


def _cpu_multiplies_bf16() -> bool:
    # PyTorch has no public function for this in the versions that we support.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    if not all(hasattr(torch.cpu, check) for check in checks):
        warn_once(
            f"torch {torch.__version__} does not say whether this CPU multiplies bfloat16 in "
            "hardware: train.precision=auto takes fp32; give train.precision=bf16 if it does"
        )
        return False
    return any(getattr(torch.cpu, check)() for check in checks)


@cache
def warn_once(message: str) -> None:
    """Log a warning, once in a process."""
    logger.warning(message)


def reset_peak_memory() -> None:
    """Start a new peak on the GPU, so that a run does not report that of an earlier one."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int | None:
    """Bytes: on the GPU since :func:`reset_peak_memory`, else of the whole process so far.

    None where the operating system does not say.
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
