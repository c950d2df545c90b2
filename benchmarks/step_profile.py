"""Where a training step's time goes, and how near it comes to what the machine can multiply.

    python benchmarks/step_profile.py --glue FOLDER

Trains some steps on RTE by each way of benchmarks/throughput.py, with a stopwatch around the parts
of its Trainer's step. The watch shows one part at a time: what a part calls counts as its own,
not its caller's. ``penalty`` is what the method adds around forward and backward (its callbacks
and its term of the loss, AdaLoRA's pruning among it), ``Python and rest`` all between the first
step and the last that is in no other part. The same steps are then repeated to count their FLOPs,
which are set against the rate of the model's own matrix products, measured for float32 and
bfloat16 on as many tokens as a batch has on average.
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
WARM = 2


class Stopwatch:
    """Seconds of nested parts, each moment counted for the innermost."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._open: list[str] = [REST]
        self._since = time.perf_counter()

    def lap(self) -> None:
        """Give the time since the last change to the part that is open."""
        now = time.perf_counter()
        self.seconds[self._open[-1]] += now - self._since
        self._since = now

    def restart(self) -> None:
        """Forget all so far; the open parts stay open."""
        self.lap()
        self.seconds.clear()

    def around(self, part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

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
    """Stops after some steps, times those after the first ``WARM``, counts tokens and FLOPs."""

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
        if self.counter is not None and state.global_step >= WARM:
            self.counter.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.counter is not None and state.global_step > WARM:
            self.counter.__exit__(None, None, None)
            self.total_flops += self.counter.get_total_flops()
        if state.global_step == WARM:
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


def plain(given: argparse.Namespace, method: str, lr: float, steps: Steps) -> torch.dtype:
    """Train by the plain script."""
    options = [f"--glue={given.glue}", f"--method={method}", f"--lr={lr}", "--out=none"]
    options += [f"--rows={given.rows}"]
    with tempfile.TemporaryDirectory() as folder:
        trainer = plain_peft.make_trainer(plain_peft.options(options), folder)
        for callback in trainer.callback_handler.callbacks:
            if isinstance(callback, plain_peft.UpdateAndAllocate):
                steps.watch.wrap("penalty", callback, "on_optimizer_step")
        watched(trainer, steps).train()
    return torch.bfloat16 if trainer.args.bf16 else torch.float32


def ours(given: argparse.Namespace, method: dict[str, Any], lr: float, steps: Steps) -> torch.dtype:
    """Train as ``iwlora train`` does."""
    task = {"name": "glue/rte", "data_dir": given.glue, "max_train": given.rows}
    recipe = build(
        {
            "model": "builtin/minilm",
            "task": {**task, "max_validation": 8},
            "method": method,
            "train": {"lr": lr},
        }
    )
    make, found = prepare_module._trainer, []

    def made(recipe: Any, run: Any, task: Any, attached: Any, *rest: Any) -> Any:
        watch = steps.watch
        for callback in attached.callbacks:
            events = [name for name in dir(callback) if name.startswith("on_")]
            watch.wrap("penalty", callback, *events)
        if attached.regularizer is not None:
            attached = replace(attached, regularizer=watch.around("penalty", attached.regularizer))
        found.append(make(recipe, run, task, attached, *rest))
        return watched(found[0], steps)

    prepare_module._trainer = made
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(recipe, Path(folder) / "run")
    finally:
        prepare_module._trainer = make
    return torch.bfloat16 if found[0].args.bf16 else torch.float32


def profile(given: argparse.Namespace, arm: str) -> Profile:
    """Train the same steps twice: to time them, then to count their FLOPs."""
    lr, method = ARMS[arm]
    found = []
    for flops in (False, True):
        steps = Steps(given.steps, Stopwatch(), flops)
        carry_out = plain if isinstance(method, str) else ours
        dtype = carry_out(given, method, lr, steps)  # type: ignore[operator]
        found.append(steps)
    return Profile(found[0].seconds, found[1].total_flops, dtype)


def matrix_rate(dtype: torch.dtype, tokens: int, rounds: int = 9) -> float:
    """FLOP/s of MiniLM's own matrix products, tokens × d_in by d_in × d_out, over all its sites."""
    flops = seconds = 0.0
    places = sites(meta_backbone("builtin/minilm"))
    for d_in, d_out in sorted({(site.d_in, site.d_out) for site in places}):
        x, weight = torch.randn(tokens, d_in, dtype=dtype), torch.randn(d_out, d_in, dtype=dtype)
        times = []
        for _ in range(rounds):
            started = time.perf_counter()
            torch.nn.functional.linear(x, weight)
            times.append(time.perf_counter() - started)
        number = sum((site.d_in, site.d_out) == (d_in, d_out) for site in places)
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
    given = parser.parse_args(arguments)
    if given.steps <= WARM:
        parser.error(f"--steps {given.steps}: more than {WARM} are needed, which warm up")
    transformers.logging.set_verbosity_error()
    # The watch lies around the optimizer's step when the scheduler looks at it.
    warnings.filterwarnings("ignore", message="Seems like `optimizer.step")
    with redirect_stdout(sys.stderr):  # a Trainer left at its defaults prints there
        profiles = {arm: profile(given, arm) for arm in given.arms}
    rates = {dtype: matrix_rate(dtype, given.tokens) for dtype in (torch.float32, torch.bfloat16)}
    print(f"{machine()}, {torch.get_num_threads()} threads; {given.steps - WARM} steps of RTE\n")
    times, work = [], []
    for arm, found in profiles.items():
        whole = sum(found.seconds.values())
        parts = [100 * found.seconds.get(part, 0.0) / whole for part in (*PARTS, REST)]
        step = whole / (given.steps - WARM)
        times.append([arm, f"{1000 * step:.0f}", *(f"{part:.1f}" for part in parts)])
        rate = found.flops / whole
        kind = str(found.dtype).removeprefix("torch.")
        cells = [f"{found.flops / (given.steps - WARM) / 1e9:.1f}", f"{rate / 1e9:.0f}", kind]
        work.append([arm, *cells, f"{100 * rate / rates[found.dtype]:.0f}%"])
    print(table(["method", "ms a step", *(f"{part}, %" for part in (*PARTS, REST))], times) + "\n")
    limits = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e9:.0f}" for dtype, rate in rates.items()
    )
    print(f"MiniLM's matrix products on {given.tokens} tokens alone, GFLOP/s: {limits}\n")
    print(table(["method", "GFLOP a step", "GFLOP/s", "matrices in", "of the limit"], work))


if __name__ == "__main__":
    main()
