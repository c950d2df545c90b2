"""Scoring a trained model on the reported splits, and keeping its predictions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from iwlora.tasks import Task
from iwlora.training.loop.divergence import check_answers
from iwlora.training.loop.trainer import FineTuner
from iwlora.training.state.run_folder import RunDir


def score_splits(
    trainer: FineTuner, run: RunDir, task: Task, encoded: Mapping[str, Any], tokenizer: Any
) -> dict[str, float]:
    """Score every reported split once, and keep its predictions.

    The first split's metrics have plain names; those of a further one end in its own, such as
    ``accuracy_mismatched``. Raises ``Diverged`` for answers that are no numbers.
    """
    first, *_ = task.reported
    metrics: dict[str, float] = {}
    for split in task.reported:
        rows = task.splits[split]
        outputs = trainer.final_outputs(encoded[split])
        check_answers(split, outputs)
        answers = task.kind.answers(task, rows, encoded[split], outputs, tokenizer)
        end = split.removeprefix(first)
        scored = task.kind.score(task, rows, outputs, answers)
        metrics |= {f"{name}{end}": value for name, value in scored.items()}
        records = [
            {"row": number, "label": task.kind.gold(task, label), **answer}
            for number, (label, answer) in enumerate(zip(rows["label"], answers, strict=True))
        ]
        run.write(f"predictions/{split}.csv", as_table(records))
    return metrics


def as_table(records: Iterable[Mapping[str, Any]], as_csv: bool = True) -> str:
    """Records as CSV or as JSON Lines; in CSV a list is written as JSON."""
    if not as_csv:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    text = io.StringIO()
    plain = [{key: _cell(value) for key, value in record.items()} for record in records]
    writer = csv.DictWriter(text, list(plain[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(plain)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value
