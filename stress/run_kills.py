"""Kill ``iwlora train`` at random moments: does it end bit for bit as one that is left alone?

    python stress/run_kills.py --kills 50

Every method trains a tiny model with dropout in deterministic mode. A run is killed with SIGKILL,
started again, now and then killed once more, until it ends, and compared with one that nobody
killed. Of ten kills four come at any moment of a run, three while it trains, two when a checkpoint
has just begun and one when the result has. Processes are forked from this one, which has imported
everything, so that a start costs no time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import iwlora.results.comparison
import iwlora.training.run  # noqa: F401  # for the processes that are forked
from iwlora.cli import main as iwlora_command
from iwlora.methods import METHODS
from iwlora.methods.tiny_models import tiny_config

FORK = multiprocessing.get_context("fork")
WORDS = "a the film is it was good great bad awful very not one story of and".split()
EPOCHS, STEPS, SAVE_STEPS = 3, 6, 4
MOMENTS = {"any": 4, "training": 3, "checkpoint": 2, "end": 1}  # and how often of ten
TWICE = 0.25  # part of the runs that are killed once more
AFTER = 0.05  # seconds within which a kill follows the beginning of a checkpoint or of the end
TIMES = {
    "result.json": (
        *("train_seconds", "measure_seconds", "examples_per_second", "peak_memory_bytes"),
        "resumed_at_step",
    ),
    "sensitivity.json": ("seconds",),
    "metrics.jsonl": ("runtime", "samples_per_second", "steps_per_second"),
}
RESULTS = ("adapter", "model", "tokenizer", "predictions")


def save_model(folder: Path) -> None:
    """A BERT of two blocks of 16 units, with dropout, and its tokenizer."""
    import torch
    from transformers import AutoModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    config = tiny_config("bert", vocab_size=len(words))
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.1
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizerFast(str(vocabulary), model_max_length=32).save_pretrained(folder)


def save_rows(path: Path, count: int) -> str:
    """Sentences whose first word says their class, but for one in ten."""
    chance = random.Random(path.name)
    lines = ["text,label"]
    for _ in range(count):
        kind = chance.choice(["good", "bad"])
        seen = kind if chance.random() < 0.9 else "awful"
        lines.append(f"{seen} {' '.join(chance.choices(WORDS, k=chance.randint(2, 9)))},{kind}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def recipes(root: Path) -> dict[str, dict[str, Any]]:
    """{name: settings}: every method, and what else has a state that a kill could lose."""
    maker = FORK.Process(target=save_model, args=(root / "backbone",))
    maker.start()
    maker.join()
    rows = {"train": 16 * STEPS, "validation": 32}
    files = {split: save_rows(root / f"{split}.csv", count) for split, count in rows.items()}
    task = {**files, "text": "text", "label": "label"}
    train = {"epochs": EPOCHS, "lr": 1e-2, "batch_size": 16, "max_length": 16}
    train |= {"save_steps": SAVE_STEPS, "deterministic": True}

    def recipe(name: str, **more: Any) -> dict[str, Any]:
        size = {METHODS[name].size_knob: 4} if METHODS[name].size_knob else {}
        return {
            "model": str(root / "backbone"),
            "task": {**task, **more.get("task", {})},
            "method": {"name": name, **size, **more.get("method", {})},
            "train": {**train, **more.get("train", {})},
        }

    in_flight = {"measure": "in-flight", "alpha": 0.3, "max_batches": 14, "tolerance": 0.0}
    return {
        **{name: recipe(name) for name in METHODS},
        "iw-lora, in flight": recipe("iw-lora", method=in_flight),
        "iw-lora, free sketch": recipe("iw-lora", method={**in_flight, "estimator": "lora"}),
        "lora, best epoch": recipe("lora", task={"selection": 0.2}),
        "adalora, in pieces": recipe("adalora", train={"accumulate": 2}),
    }


def start(settings: Mapping[str, Any], out: Path) -> BaseProcess:
    """``iwlora train`` in a process of its own."""
    recipe = out.with_suffix(".yaml")
    recipe.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML
    process = FORK.Process(target=carry_out, args=(recipe, out), daemon=True)
    process.start()
    return process


def carry_out(recipe: Path, out: Path) -> None:
    """What the command does; it says what it has to say beside the folder."""
    with (
        out.with_suffix(".log").open("a", encoding="utf-8") as words,
        contextlib.redirect_stdout(words),
        contextlib.redirect_stderr(words),
    ):
        code = iwlora_command(["train", str(recipe), "--out", str(out)])
    raise SystemExit(code)


def finish(settings: Mapping[str, Any], out: Path) -> float:
    """Let a run come to its end; returns the seconds that it took."""
    began = time.monotonic()
    process = start(settings, out)
    process.join()
    if process.exitcode:
        raise SystemExit(f"the run failed: {out.with_suffix('.log').read_text(encoding='utf-8')}")
    return time.monotonic() - began


def killed(settings: Mapping[str, Any], out: Path, seconds: float, chance: random.Random) -> bool:
    """Start a run and kill it at a random moment; False when it was at its end before.

    ``seconds``: what one takes that is left alone.
    """
    moment = chance.choices([*MOMENTS], [*MOMENTS.values()])[0]
    checkpoint = SAVE_STEPS * chance.randint(1, EPOCHS * STEPS // SAVE_STEPS)
    signs = {
        "any": lambda: True,
        "training": (out / "metrics.jsonl").exists,
        "checkpoint": (out / "checkpoints" / f"checkpoint-{checkpoint}").exists,
        "end": lambda: any((out / name).exists() for name in RESULTS),
    }
    process = start(settings, out)
    while process.is_alive() and not signs[moment]():
        time.sleep(0.0005)
    within = {"any": seconds, "training": seconds / 2}.get(moment, AFTER)
    process.join(chance.uniform(0, within))
    process.kill()
    process.join()
    return process.exitcode != 0


def met(out: Path) -> str:
    """What a killed run was at, as its folder tells."""
    checkpoints = out / "checkpoints"
    newest = max(checkpoints.glob("checkpoint-*"), key=lambda p: int(p.name[11:]), default=None)
    if any((out / name).exists() for name in RESULTS):
        return "writing its result"
    if newest is not None and not (newest / "complete.json").exists():
        return "writing a checkpoint"
    if newest is not None and (newest / "sensitivity-in-flight.json").exists():
        return "measuring in flight"
    return "training" if (out / "metrics.jsonl").exists() else "not training yet"


def ending(out: Path) -> dict[str, Any]:
    """{file: its content} of all that a run leaves, without times: bytes where it has none."""
    files = [path for name in RESULTS for path in sorted((out / name).rglob("*"))]
    left: dict[str, Any] = {
        path.relative_to(out).as_posix(): path.read_bytes() for path in files if path.is_file()
    }
    for name, times in TIMES.items():
        if (out / name).exists():
            text = (out / name).read_text(encoding="utf-8")
            lines = text.splitlines() if name.endswith(".jsonl") else [text]
            left[name] = [without(json.loads(line), times) for line in lines]
    for log in out.glob("checkpoints/*.jsonl"):
        left[log.name] = log.read_bytes()
    return left


def without(record: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in keys}


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """The files that two endings do not share."""
    return sorted(name for name in {*first, *second} if first.get(name) != second.get(name))


def attack(
    wanted: Mapping[str, Mapping[str, Any]], root: Path, kills: int, tell: Callable[[str], None]
) -> int:
    """Kill ``kills`` runs, in turn of each recipe; returns how many ended as they should."""
    chance = random.Random(0)
    alone: dict[str, tuple[dict[str, Any], float]] = {}
    at: Counter[str] = Counter()
    same = 0
    for number in range(kills):
        name = [*wanted][number % len(wanted)]
        settings = wanted[name]
        if name not in alone:
            seconds = finish(settings, root / name)
            alone[name] = ending(root / name), seconds
        expected, seconds = alone[name]
        tries = (root / f"{number}-{again}" for again in range(1000))
        out = next(out for out in tries if killed(settings, out, seconds, chance))
        place = met(out)
        at[place] += 1
        if chance.random() < TWICE and killed(settings, out, seconds, chance):
            at[met(out)] += 1
        finish(settings, out)
        unlike = differing(expected, ending(out))
        same += not unlike
        begun = json.loads((out / "result.json").read_text(encoding="utf-8"))["resumed_at_step"]
        told = f"DIFFERENT: {', '.join(unlike)}" if unlike else "identical"
        tell(f"{name:<24}{place:<22}{begun:>4}   {told}")
    places = ", ".join(f"{count} while {place}" for place, count in at.most_common())
    tell(f"\n{sum(at.values())} kills: {places}")
    return same


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", nargs="+", help="names in the table, in place of all")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        wanted = recipes(root)
        wanted = {name: wanted[name] for name in given.only or wanted}
        print(f"{'run':<24}{'killed while':<22}{'from':>4}   ending")
        same = attack(wanted, root, given.kills, lambda line: print(line, flush=True))
    print(f"{same} of {given.kills} bit-identical")
    return 0 if same == given.kills else 1


if __name__ == "__main__":
    sys.exit(main())
