"""iwlora on images compared with a plain Trainer and PEFT, and where the time of an image goes.

    python benchmarks/images.py --out runs/image-speed
    python benchmarks/images.py --out runs/image-speed --model FOLDER --rows 1000 --seeds 3

The images are drawn shapes, in JPEG files of 500 × 375 pixels, as those of many data sets. Without
``--model`` a ViT-Tiny with random weights is trained, whose steps take as long as those of a
pretrained one. Every run is a process of its own, and the order of a seed's runs rotates with the
seed: the Trainer of transformers with PEFT (benchmarks/plain_peft_images.py), ``iwlora train``, and
the same without its cache of decoded images. The Trainer computes in float32, its default; iwlora
in bfloat16 where the machine has it, unless ``--precision fp32``. Examples per second count
training only. The shares are those of one image: decoding its file, each augmentation, the two
halves of the image processor, and the model's pass forward and backward with LoRA, in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import AutoImageProcessor, ViTConfig, ViTForImageClassification
from transformers import ViTImageProcessorPil as Processor

from iwlora.compare.statistics.paired_tests import summarize
from iwlora.inputs.images import open_image
from iwlora.methods import METHODS
from iwlora.sites import sites
from iwlora.tasks.corpora.images.shapes import LABELS, draw
from iwlora.tasks.kinds.images.augmentation import augment
from iwlora.tasks.kinds.images.collator import normalize, resize
from iwlora.tasks.kinds.images.kinds import ImageClassification
from iwlora.training.model.backbone import load_backbone
from throughput import with_interval
from timed_commands import machine, run_command, table

PLAIN = Path(__file__).with_name("plain_peft_images.py")
ARMS = ("Trainer + PEFT LoRA", "iwlora lora", "iwlora lora, no cache")
SIZE = (500, 375)
BATCH, RANK, LR = 32, 8, 1e-3
TIMED = 16
"""Images whose parts are timed."""


def write_images(folder: Path, rows: int) -> None:
    """Class folders of drawn shapes, with a fifth as many images to validate on."""
    for number, (split, count) in enumerate((("train", rows), ("validation", max(rows // 5, 5)))):
        random = np.random.default_rng([0, number])
        for row in range(count):
            label = LABELS[row % len(LABELS)]
            (folder / split / label).mkdir(parents=True, exist_ok=True)
            image = Image.fromarray(draw(label, random)).resize(SIZE, Image.Resampling.BICUBIC)
            image.save(folder / split / label / f"{row:06}.jpg", quality=90)


def write_model(folder: Path, blocks: int) -> None:
    """A ViT-Tiny with random weights, and its image processor."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=blocks, num_attention_heads=3, intermediate_size=768
    )
    ViTForImageClassification(config).save_pretrained(folder)
    Processor().save_pretrained(folder)


def measured(options: argparse.Namespace, arm: str, seed: int) -> dict[str, float]:
    """The record of one run, which is started unless its record exists."""
    folder = Path(options.out) / f"{ARMS.index(arm)}-seed-{seed}"
    file = folder / "cost.json"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        cost = run_command(command(options, arm, seed, folder), options.threads)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        rate = result["train_examples"] * options.epochs / result["train_seconds"]
        record = {
            "examples_per_second": rate,
            "run_seconds": cost.seconds,
            "processor_seconds": cost.processor_seconds,
            "accuracy": result["metrics"]["accuracy"],
        }
        file.write_text(json.dumps(record) + "\n", encoding="utf-8")
        print(f"seed {seed}: {arm} took {cost.seconds:.0f} s", flush=True)
    stored: dict[str, float] = json.loads(file.read_text(encoding="utf-8"))
    return stored


def command(options: argparse.Namespace, arm: str, seed: int, folder: Path) -> list[str]:
    """The command of one run, which writes its result into ``folder``."""
    data = str(Path(options.out) / "images")
    if arm == ARMS[0]:
        given = {"data": data, "model": options.model, "rank": RANK, "epochs": options.epochs}
        given |= {"lr": LR, "batch-size": BATCH, "seed": seed, "out": folder / "result.json"}
        return [str(PLAIN), *(f"--{name}={value}" for name, value in given.items())]
    recipe = {
        "model": options.model,
        "task": {"train": data},
        "method": {"name": "lora", "rank": RANK, "lora_alpha": 16},
        "train": {
            "epochs": options.epochs,
            "lr": LR,
            "batch_size": BATCH,
            "seed": seed,
            "cache_images": arm == ARMS[1],
            "precision": options.precision,
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return ["-m", "iwlora", "train", str(folder / "recipe.yaml"), "--out", str(folder)]


def speeds(records: dict[str, list[dict[str, float]]]) -> str:
    """The table of the arms, and their ratios to the first."""
    rows = []
    for arm, runs in records.items():
        ratios = [
            run["examples_per_second"] / first["examples_per_second"]
            for run, first in zip(runs, records[ARMS[0]], strict=True)
        ]
        mean = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        rows.append(
            [
                arm,
                f"{mean['examples_per_second']:.1f}",
                with_interval(summarize(ratios), ".2f"),
                f"{mean['processor_seconds']:.0f}",
                f"{100 * mean['accuracy']:.1f}",
            ]
        )
    return table(["run", "examples/s", "ratio", "processor seconds", "accuracy"], rows)


def shares(options: argparse.Namespace) -> str:
    """The table with the time of each part of an image."""
    files = sorted((Path(options.out) / "images" / "train").rglob("*.jpg"))[:TIMED]
    contents = [file.read_bytes() for file in files]
    images = [open_image(content)[0] for content in contents]
    processor: Any = AutoImageProcessor.from_pretrained(options.model, backend="pil")
    resized = [resize(processor, image) for image in images]
    pixels, labels = normalize(processor, resized), torch.arange(len(images)) % len(LABELS)
    model, _ = load_backbone(options.model, LABELS, ImageClassification())
    attached = METHODS["lora"]().sized(RANK).attach(model, sites(model), seed=0)

    def step() -> None:
        attached.model(pixel_values=pixels, labels=labels).loss.backward()

    parts: dict[str, Callable[[], Any]] = {
        "decoding": lambda: [open_image(content) for content in contents],
        "flip-and-crop": lambda: _augmented(images, "flip-and-crop"),
        "randaugment": lambda: _augmented(images, "randaugment"),
        "resizing and cropping": lambda: [resize(processor, image) for image in images],
        "normalizing": lambda: normalize(processor, resized),
        "the model, forward and backward": step,
    }
    seconds = {name: _seconds(part) / len(images) for name, part in parts.items()}
    whole = sum(value for name, value in seconds.items() if name != "randaugment")
    rows = [[name, f"{1e3 * s:.2f}", f"{s / whole:.1%}"] for name, s in seconds.items()]
    return table(["part", "ms of processor time for an image", "share with flip-and-crop"], rows)


def _augmented(images: Sequence[Any], name: Any) -> list[Any]:
    return [augment(image, name, (0, 0, row)) for row, image in enumerate(images)]


def _seconds(part: Callable[[], Any], rounds: int = 5) -> float:
    """The median processor time."""
    part()
    times = []
    for _ in range(rounds):
        started = time.process_time()
        part()
        times.append(time.process_time() - started)
    return float(np.median(times))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True, help="the folder of the images and the runs")
    parser.add_argument("--model", help="a folder; default: a ViT-Tiny with random weights")
    parser.add_argument("--blocks", type=int, default=12, help="of the ViT-Tiny")
    parser.add_argument("--rows", type=int, default=500, help="number of training images")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="of iwlora: auto, fp32 or bf16")
    options = parser.parse_args(arguments)
    folder = Path(options.out)
    if not (folder / "images").is_dir():
        write_images(folder / "images", options.rows)
    if options.model is None:
        options.model = str(folder / "model")
        if not (folder / "model").is_dir():
            write_model(folder / "model", options.blocks)
    records: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    for seed in range(options.seeds):
        first = seed % len(ARMS)
        for arm in ARMS[first:] + ARMS[:first]:
            records[arm].append(measured(options, arm, seed))
    print(
        f"\n{machine()}; {options.threads} threads; {options.rows} images, {options.epochs} epochs"
    )
    print(f"\n{speeds(records)}\n\n{shares(options)}\n")


if __name__ == "__main__":
    main()
