"""Scoring a trained model on the reported splits, and writing its predictions."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from typing import Any

from iwlora import distributed
from iwlora.results import layout
from iwlora.results.writing import write_text
from iwlora.training.load import LoadedRecipe
from iwlora.training.loop.divergence import check_outputs
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.state.run_folder import RunDir


def score_splits(trainer: FineTuningTrainer, run: RunDir, loaded: LoadedRecipe) -> dict[str, float]:
    """Score every reported split once, and write its predictions.

    The metrics of the first split have plain names; names of another split end in what it adds to
    the first, such as ``accuracy_mismatched``. Raises ``Diverged`` for NaN among the outputs.
    """
    task, metrics = loaded.task, dict[str, float]()
    for split in task.reported:
        outputs = trainer.final_outputs(loaded.encoded[split])
        check_outputs(split, outputs)
        predictions, scores = loaded.score(split, outputs)
        suffix = split.removeprefix(task.reported[0])
        metrics |= {f"{name}{suffix}": value for name, value in scores.items()}
        labels = [task.kind.readable_label(task, label) for label in task.splits[split]["label"]]
        records = [
            {"row": number, "label": label, **prediction}
            for number, (label, prediction) in enumerate(zip(labels, predictions, strict=True))
        ]
        if distributed.rank() == 0:
            write_text(layout.predictions_file(run.path, split), as_table(records))
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
