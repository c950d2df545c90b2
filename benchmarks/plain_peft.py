"""Fine-tuning with PEFT in a plain Trainer of transformers, as a user would write it.

    python benchmarks/plain_peft.py --glue FOLDER --task rte --method lora --out result.json

Written like run_glue.py of transformers, with a PEFT adapter around the model. Batch size, epochs,
learning rate, its schedule, rank and target modules are those of iwlora's runs, so that quality can
be compared. Everything else is the libraries' default: rows in random order, padded to the longest
of their batch, in float32. The result has the training time and the scores of the trained model.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from peft import AdaLoraConfig, LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from iwlora import tasks
from iwlora.tasks.metrics.classification import accuracy, f1
from iwlora.training.model.backbone import resolve_model_path

# The linear layers in the blocks of BERT and its relatives.
LINEAR = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


class UpdateAndAllocate(TrainerCallback):
    """What PEFT's documentation requires after each step of a training loop with AdaLoRA."""

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        """Prune, while the gradients still exist."""
        model.base_model.update_and_allocate(state.global_step + 1)


def adapter(method: str, rank: int, steps: int) -> LoraConfig:
    """PEFT's configuration: lora_alpha = 16 on every linear layer, and a trained head."""
    shared: dict[str, Any] = {
        "task_type": TaskType.SEQ_CLS,
        "target_modules": LINEAR,
        "lora_alpha": 16,
    }
    if method == "lora":
        return LoraConfig(r=rank, **shared)
    return AdaLoraConfig(
        init_r=round(1.5 * rank),
        target_r=rank,
        tinit=round(0.1 * steps),
        tfinal=round(0.4 * steps),
        deltaT=10,
        total_step=steps,
        **shared,
    )


def make_trainer(options: argparse.Namespace, folder: str) -> Trainer:
    """The model, the data and the Trainer, as a user's script makes them."""
    set_seed(options.seed)
    spec = tasks.TaskSpec(
        name=f"glue/{options.task}", data_dir=options.glue, max_train=options.rows
    )
    task = tasks.load(spec, options.seed)
    path = resolve_model_path(options.model)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(task.labels))

    def tokenize(rows: dict[str, Any]) -> Any:
        texts = (rows[column] for column in task.text)
        return tokenizer(*texts, truncation=True, max_length=options.max_length)

    data = {
        name: split.map(tokenize, batched=True, remove_columns=list(task.text))
        for name, split in task.splits.items()
    }
    steps = -(-len(data["train"]) // options.batch_size) * options.epochs
    model = get_peft_model(model, adapter(options.method, options.rank, steps))

    def scores(prediction: EvalPrediction) -> dict[str, float]:
        answers, labels = (
            np.argmax(prediction.predictions, axis=1),
            np.asarray(prediction.label_ids),
        )
        return {"accuracy": accuracy(labels, answers), "f1": f1(labels, answers, task.positive)}

    return Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=options.epochs,
            learning_rate=options.lr,
            warmup_steps=0.06,
            seed=options.seed,
            report_to="none",
        ),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=scores,
        callbacks=[UpdateAndAllocate()] if options.method == "adalora" else [],
    )


def parse_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--glue", help="a folder in GLUE's official layout; default: the hub")
    parser.add_argument("--task", default="rte", help="rte or mrpc")
    parser.add_argument("--model", default="builtin/minilm")
    parser.add_argument("--method", default="lora", choices=["lora", "adalora"])
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--rows", type=int, help="number of training rows; default: all")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
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
        trainer.save_model(folder)
    result = {
        "metrics": {name: scores[f"eval_{name}"] for name in ("accuracy", "f1")},
        "train_seconds": seconds,
        "measure_seconds": 0.0,
        "steps": trainer.state.global_step,
        "train_examples": trainer.num_examples(trainer.get_train_dataloader()),
    }
    Path(options.out).write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
