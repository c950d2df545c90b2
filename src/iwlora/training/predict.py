"""Predictions of a run: for the reported splits, with their scores, and for new rows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import nested_concat, nested_numpify

from iwlora import distributed
from iwlora.errors import IwloraError
from iwlora.extras import name_missing_extra
from iwlora.inputs.formulas import mark_formula
from iwlora.results import layout
from iwlora.results.writing import check_output, check_writable, reserve, write_text
from iwlora.tasks import Task
from iwlora.tasks.kinds.contract import (
    OTHER_REFERENCES,
    EncodingInput,
    Evaluation,
    Prediction,
)
from iwlora.tasks.user_files import read_rows
from iwlora.training.device import run_device
from iwlora.training.external_settings import check_external_settings
from iwlora.training.kernels import training_numerics
from iwlora.training.load import LoadedRecipe
from iwlora.training.loop.divergence import check_outputs
from iwlora.training.loop.row_order import LongestFirstSampler
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.model.target_units import undo_target_units
from iwlora.training.model.vocabulary import check_token_ids
from iwlora.training.prepare import EVALUATION_BATCH_SIZE
from iwlora.training.state.artifacts import load_saved, stored_task
from iwlora.training.state.run_folder import RunDir

_MORE_BYTES = 1_000_000  # what predictions add to the texts, of which a copy is written


@name_missing_extra()
def predict(
    path: str | Path, source: str | Path, output: str | Path, trust_remote_code: bool = False
) -> Path:
    """Predict the rows of a file with a finished run.

    The model computes on the device, with the precision and the kernels that it was scored with.

    Args:
        path: the folder of the run.
        source: CSV, TSV, JSON Lines or Parquet with the task's text columns.
        output: the file to write, CSV or, by its ending, JSON Lines. A line has the number of the
            row, its texts, the prediction and, where the task has classes, their probabilities.
        trust_remote_code: as for :func:`iwlora.load_trained`.

    Returns:
        ``output`` as a path.

    Raises:
        IwloraError: the run or the rows cannot be read; or, before anything is computed, the
            output cannot be written.

    Example:
        >>> head, *rows = predict("runs/a", "pairs.csv", "answers.csv").read_text().splitlines()
        >>> head
        'row,premise,hypothesis,prediction,probability_entailment,probability_not_entailment'
    """
    check_external_settings()
    run = RunDir.finished(path)
    if Path(output).suffix not in (".csv", ".jsonl"):
        raise IwloraError(f"--output {output}: accepted endings are .csv and .jsonl")
    check_output(output, "--output")
    task = stored_task(run)
    rows = read_rows(str(source), task.text, task.kind)
    if Path(output).exists() and Path(output).samefile(source):
        raise IwloraError(f"--output {output} is the input file; choose another one")
    check_writable(output, "--output")
    reserve(output, 2 * rows.data.nbytes + _MORE_BYTES, "the predictions")
    model, tokenizer = load_saved(path, trust_remote_code=trust_remote_code)
    undo_target_units(model, task.kind.scaling)
    length = run.recipe().train.max_length
    encoded = task.kind.encode(EncodingInput(task, rows, tokenizer, length, model.config))
    check_token_ids(model, tokenizer, [encoded])
    outputs = _outputs(run, task, model, tokenizer, encoded)
    evaluation = Evaluation(task, rows, encoded, outputs, tokenizer)
    predictions = task.kind.predictions(evaluation, probabilities=True)
    write_text(output, prediction_table(rows, predictions, Path(output).suffix == ".csv"))
    return Path(output)


def _outputs(
    run: RunDir, task: Task, model: Any, tokenizer: Any, encoded: datasets.Dataset
) -> Mapping[str, Any]:
    """The model's outputs for the encoded rows as arrays, computed as the run was scored."""
    settings, device = run.recipe().train, run_device()
    result = run.result()
    precision = (result.precision if result else None) or settings.requested_precision
    if not run.recipe().quantize:
        model.to(device)
    order, collate = LongestFirstSampler(encoded["length"][:]), task.kind.collator(tokenizer, model)
    collected: Any = None
    with torch.inference_mode(), training_numerics(model, settings.fast_kernels, precision, device):
        for batch in DataLoader(encoded, EVALUATION_BATCH_SIZE, sampler=order, collate_fn=collate):
            on_device = {key: value.to(device) for key, value in batch.items()}
            outputs = nested_numpify(task.kind.outputs(model, tokenizer, on_device, True))  # type: ignore[no-untyped-call]
            collected = outputs if collected is None else nested_concat(collected, outputs)  # type: ignore[no-untyped-call]
    return order.restore(dict(collected))


LabelScores = Mapping[str, Mapping[str, float]]


def score_splits(
    trainer: FineTuningTrainer, run: RunDir, loaded: LoadedRecipe
) -> tuple[dict[str, float], LabelScores]:
    """Score every reported split once, and write its predictions.

    The metrics of the first split have plain names; names of another split end in what it adds to
    the first, such as ``accuracy_mismatched``. Raises ``Diverged`` for NaN among the outputs.

    Returns:
        The metrics, and the scores of each class on the first split.
    """
    task, metrics = loaded.task, dict[str, float]()
    label_scores: list[LabelScores] = []
    for split in task.reported:
        outputs = trainer.final_outputs(loaded.encoded[split])
        check_outputs(split, outputs)
        evaluation = loaded.evaluation(split, outputs)
        predictions = task.kind.predictions(evaluation)
        scores = task.kind.score(evaluation, predictions)
        label_scores.append(task.kind.label_scores(evaluation))
        suffix = split.removeprefix(task.reported[0])
        metrics |= {f"{name}{suffix}": value for name, value in scores.items()}
        rows = task.splits[split]
        columns = [{"label": reference} for reference in task.kind.references(evaluation)]
        if OTHER_REFERENCES in rows.column_names:
            others = zip(columns, rows[OTHER_REFERENCES], strict=True)
            columns = [{**column, OTHER_REFERENCES: texts} for column, texts in others]
        table = prediction_table(columns, predictions)
        if distributed.rank() == 0:
            write_text(layout.predictions_file(run.path, split), table)
    return metrics, label_scores[0]


def prediction_table(
    columns: Iterable[Mapping[str, Any]], predictions: Iterable[Prediction], as_csv: bool = True
) -> str:
    """Numbered rows as CSV or as JSON Lines; in CSV a list is written as JSON.

    A column of ours whose name is taken is called ``iwlora_<name>``. In CSV, texts that begin like
    a formula are marked (:mod:`iwlora.inputs.formulas`).

    Args:
        columns: what stands before the prediction in each row.
        predictions: of the same rows.
        as_csv: whether to write CSV.
    """
    records = [
        {**_added({"row": number}, row), **row, **_added(prediction, row)}
        for number, (row, prediction) in enumerate(zip(columns, predictions, strict=True))
    ]
    if not as_csv:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for row in ([*records[0]], *(record.values() for record in records)):
        cells = [_cell(value) for value in row]
        # Before Python 3.13 a carriage return alone is not quoted, and would end the row.
        returns = any("\r" in cell for cell in cells if isinstance(cell, str))
        (quoted if returns else plain).writerow(cells)
    return text.getvalue()


def _added(cells: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Cells under names that the row does not have."""
    return {f"iwlora_{name}" if name in row else name: value for name, value in cells.items()}


def _cell(value: Any) -> Any:
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False)
    return mark_formula(value) if isinstance(value, str) else value
