"""How the time of a training step is spent, and how close it is to the rate of matrix products.

    python benchmarks/step_profile.py --glue FOLDER

Trains some steps on RTE with each arm of benchmarks/throughput.py, with a stopwatch around the
parts of its Trainer's step. Time is counted for one part at a time: what a part calls counts for
the part that is called, not for its caller. ``penalty`` is what the method adds around forward and
backward: its callbacks and its term of the loss, with AdaLoRA's pruning. ``Python and rest`` is
everything else between the first and the last step. The same steps are then repeated to count
their FLOPs, which are compared with the rate of the model's own matrix products, measured in
float32 and bfloat16 on as many tokens as a batch has on average.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import Trainer, TrainerCallback

import plain_peft
from iwlora.sites import sites
from iwlora.training import prepare as prepare_module
from iwlora.training.model.backbone import meta_backbone
from iwlora.training.recipe import build
from iwlora.training.run import train
from throughput import ARMS
from timed_commands import machine, table

PARTS = ("data", "forward", "backward", "clipping", "optimizer", "penalty")
REST = "Python and rest"
WARM_UP_STEPS = 2


class Stopwatch:
    """Seconds of nested parts, each moment counted for the innermost."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = [REST]
        self._since = time.perf_counter()

    def lap(self) -> None:
        """Count the time since the last change for the part that is open."""
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def restart(self) -> None:
        """Forget all times; the open parts stay open."""
        self.lap()
        self.seconds.clear()

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            self.lap()
            self._open.append(part)
            try:
                return work(*args, **kwargs)
            finally:
                self.lap()
                self._open.pop()

        return timed

    def wrap(self, part: str, owner: Any, *names: str) -> None:
        """Time methods of an object."""
        for name in names:
            setattr(owner, name, self.around(part, getattr(owner, name)))


class Steps(TrainerCallback):
    """Stops after some steps, times those after the warm-up, and counts FLOPs."""

    def __init__(self, steps: int, watch: Stopwatch, flops: bool) -> None:
        self.steps, self.watch = steps, watch
        self.seconds: dict[str, float] = {}
        self.counter = FlopCounterMode(display=False) if flops else None
        self.total_flops = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        optimizer, model = kwargs["optimizer"], kwargs["model"]
        self.watch.wrap("optimizer", optimizer, "step", "zero_grad")
        self.watch.wrap("optimizer", model, "zero_grad")

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.counter is not None and state.global_step >= WARM_UP_STEPS:
            self.counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.counter is not None and state.global_step > WARM_UP_STEPS:
            self.counter.__exit__(None, None, None)
            self.total_flops += self.counter.get_total_flops()
        if state.global_step == WARM_UP_STEPS:
            self.watch.restart()
        if state.global_step == self.steps:
            self.watch.lap()
            self.seconds = dict(self.watch.seconds)
            control.should_training_stop = True


@dataclass(frozen=True)
class Profile:
    """Of some steps together: seconds of each part, FLOPs, and the type that matrices have."""

    seconds: dict[str, float]
    flops: int
    dtype: torch.dtype


def watched(trainer: Trainer, steps: Steps) -> Trainer:
    """The Trainer with the stopwatch in its parts."""
    watch = steps.watch
    watch.wrap("data", trainer, "get_batch_samples")
    watch.wrap("forward", trainer, "compute_loss")
    watch.wrap("backward", trainer.accelerator, "backward")
    watch.wrap("clipping", trainer.accelerator, "clip_grad_norm_")
    trainer.callback_handler.callbacks.insert(0, steps)
    return trainer


def train_plain(options: argparse.Namespace, method: str, lr: float, steps: Steps) -> torch.dtype:
    """Train with the plain script."""
    arguments = [f"--glue={options.glue}", f"--method={method}", f"--lr={lr}", "--out=none"]
    arguments += [f"--rows={options.rows}"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_peft.make_trainer(plain_peft.parse_options(arguments), folder)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, plain_peft.UpdateAndAllocate):
                steps.watch.wrap("penalty", callback, "on_optimizer_step")
        watched(trainer, steps).train()
    return torch.bfloat16 if trainer.args.bf16 else torch.float32


def train_iwlora(
    options: argparse.Namespace, method: dict[str, Any], lr: float, steps: Steps
) -> torch.dtype:
    """Train as ``iwlora train`` does."""
    task = {"name": "glue/rte", "data_dir": options.glue, "max_train": options.rows}
    recipe = build(
        {
            "model": "builtin/minilm",
            "task": {**task, "max_validation": 8},
            "method": method,
            "train": {"lr": lr},
        }
    )
    make, trainers = prepare_module.make_trainer, []

    def make_watched(loaded: Any, run: Any, attached: Any, *others: Any) -> Any:
        watch = steps.watch
        for callback in attached.callbacks:
            events = [name for name in dir(callback) if name.startswith("on_")]
            watch.wrap("penalty", callback, *events)
        if attached.regularizer is not None:
            attached = replace(attached, regularizer=watch.around("penalty", attached.regularizer))
        trainers.append(make(loaded, run, attached, *others))
        return watched(trainers[0], steps)

    with (
        patch.object(prepare_module, "make_trainer", make_watched),
        tempfile.TemporaryDirectory() as folder,
    ):
        train(recipe, Path(folder) / "run")
    return torch.bfloat16 if trainers[0].args.bf16 else torch.float32


def profile(options: argparse.Namespace, arm: str) -> Profile:
    """Train the same steps twice: to time them, then to count their FLOPs."""
    lr, method = ARMS[arm]
    passes = []
    for flops in (False, True):
        steps = Steps(options.steps, Stopwatch(), flops)
        if isinstance(method, str):
            dtype = train_plain(options, method, lr, steps)
        else:
            dtype = train_iwlora(options, method, lr, steps)
        passes.append(steps)
    return Profile(passes[0].seconds, passes[1].total_flops, dtype)


def matrix_rate(dtype: torch.dtype, tokens: int, rounds: int = 9) -> float:
    """FLOP/s of MiniLM's own matrix products, tokens × d_in by d_in × d_out, over all its sites."""
    flops = seconds = 0.0
    adapted = sites(meta_backbone("builtin/minilm"))
    for d_in, d_out in sorted({(site.d_in, site.d_out) for site in adapted}):
        x, weight = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_out, d_in, dtype=dtype)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - started)
        number = sum((site.d_in, site.d_out) == (d_in, d_out) for site in adapted)
        flops += number * 2 * tokens * d_in * d_out
        seconds += number * median(times)
    return flops / seconds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", required=True, help="a folder in GLUE's official layout")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rows", type=int, default=640)
    parser.add_argument("--tokens", type=int, default=32 * 72, help="of a batch, for the rate")
    options = parser.parse_args(arguments)
    if options.steps <= WARM_UP_STEPS:
        parser.error(
            f"--steps {options.steps}: give more than {WARM_UP_STEPS}, the steps that warm up"
        )
    transformers.logging.set_verbosity_error()
    # The scheduler checks the optimizer's step, which the stopwatch wraps.
    warnings.filterwarnings("ignore", message="Seems like `optimizer.step")
    with redirect_stdout(sys.stderr):  # a Trainer left at its defaults prints there
        profiles = {arm: profile(options, arm) for arm in options.arms}
    rates = {dtype: matrix_rate(dtype, options.tokens) for dtype in (torch.float32, torch.bfloat16)}
    print(
        f"{machine()}, {torch.get_num_threads()} threads; "
        f"{options.steps - WARM_UP_STEPS} steps of RTE\n"
    )
    times, work = [], []
    for arm, profiled in profiles.items():
        whole = sum(profiled.seconds.values())
        parts = [100 * profiled.seconds.get(part, 0.0) / whole for part in (*PARTS, REST)]
        step = whole / (options.steps - WARM_UP_STEPS)
        times.append([arm, f"{1000 * step:.0f}", *(f"{part:.1f}" for part in parts)])
        rate = profiled.flops / whole
        kind = str(profiled.dtype).removeprefix("torch.")
        cells = [
            f"{profiled.flops / (options.steps - WARM_UP_STEPS) / 1e9:.1f}",
            f"{rate / 1e9:.0f}",
            kind,
        ]
        work.append([arm, *cells, f"{100 * rate / rates[profiled.dtype]:.0f}%"])
    print(table(["method", "ms a step", *(f"{part}, %" for part in (*PARTS, REST))], times) + "\n")
    limits = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e9:.0f}" for dtype, rate in rates.items()
    )
    print(f"MiniLM's matrix products on {options.tokens} tokens alone, GFLOP/s: {limits}\n")
    print(table(["method", "GFLOP a step", "GFLOP/s", "matrices in", "of the limit"], work))


if __name__ == "__main__":
    main()
