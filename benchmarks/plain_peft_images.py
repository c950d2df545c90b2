"""Fine-tuning on images with PEFT in a plain Trainer of transformers, as a user would write it.

    python benchmarks/plain_peft_images.py --data FOLDER --model FOLDER --out result.json

Written like run_image_classification.py of transformers, with a PEFT adapter around the model: each
image is opened when its row is read, and goes through the image processor alone. Batch size,
epochs, learning rate, its schedule, rank and target modules are those of iwlora's runs, so that
quality can be compared.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from torch.utils.data import Dataset
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    EvalPrediction,
    Trainer,
    TrainingArguments,
    set_seed,
)

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "query", "key", "value", "dense", "fc1", "fc2"]
"""The linear layers in the blocks of ViT and its relatives, by their names in any version."""


class ImageRows(Dataset[dict[str, Any]]):
    """The images of class folders."""

    def __init__(self, folder: Path, processor: Any) -> None:
        self.labels = sorted(path.name for path in folder.iterdir())
        self._rows = [
            (file, number)
            for number, label in enumerate(self.labels)
            for file in sorted((folder / label).iterdir())
        ]
        self._processor = processor

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        file, label = self._rows[row]
        with Image.open(file) as image:
            made = self._processor(image.convert("RGB"), return_tensors="pt")
        return {"pixel_values": made["pixel_values"][0], "labels": label}


def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {"pixel_values": pixels, "labels": torch.tensor([row["labels"] for row in rows])}


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    answers = np.argmax(prediction.predictions, axis=1)
    return {"accuracy": float(np.mean(answers == prediction.label_ids))}


def make_trainer(options: argparse.Namespace, folder: str) -> Trainer:
    """The model, the data and the Trainer, as a user's script makes them."""
    set_seed(options.seed)
    processor = AutoImageProcessor.from_pretrained(options.model, backend="pil")
    data = {n: ImageRows(Path(options.data) / n, processor) for n in ("train", "validation")}
    model = AutoModelForImageClassification.from_pretrained(
        options.model, num_labels=len(data["train"].labels), ignore_mismatched_sizes=True
    )
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    config = LoraConfig(
        r=options.rank,
        lora_alpha=16,
        target_modules=[name for name in LINEAR if name in names],
        modules_to_save=["classifier"],
    )
    return Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=options.epochs,
            learning_rate=options.lr,
            warmup_steps=0.06,
            seed=options.seed,
            report_to="none",
            remove_unused_columns=False,
            label_names=["labels"],
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=collate,
        compute_metrics=accuracy,
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder with train/ and validation/")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", required=True, help="the file for the result, JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(options, folder)
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
        scores = trainer.evaluate()
    result = {
        "metrics": {"accuracy": scores["eval_accuracy"]},
        "train_seconds": seconds,
        "train_examples": len(trainer.train_dataset),  # type: ignore[arg-type]
    }
    Path(options.out).write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
