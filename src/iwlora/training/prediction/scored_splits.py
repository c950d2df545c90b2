"""The scores of a run on its reported splits, and the predictions that they are computed from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from iwlora import distributed
from iwlora.results import layout
from iwlora.tasks import Task
from iwlora.tasks.kinds.contract import OTHER_REFERENCES, Evaluation, Prediction
from iwlora.tasks.splits import FILE, LINE
from iwlora.training.load import LoadedRecipe
from iwlora.training.loop.divergence import check_outputs
from iwlora.training.loop.trainer import FineTuningTrainer
from iwlora.training.prediction.tables import write_table
from iwlora.training.prediction.thumbnails import write_thumbnails
from iwlora.training.state.run_folder import RunDir

LabelScores = Mapping[str, Mapping[str, float]]


def score_splits(
    trainer: FineTuningTrainer, run: RunDir, loaded: LoadedRecipe
) -> tuple[dict[str, float], LabelScores]:
    """Score every reported split once, and write its predictions.

    The metrics of the first split have plain names; names of another split end in what it adds to
    the first, such as ``accuracy_mismatched``, or beside study rows in its own name, such as
    ``accuracy_validation``. Raises ``Diverged`` for NaN among the outputs.

    Returns:
        The metrics, and the scores of each class on the first split.
    """
    task, metrics = loaded.task, dict[str, float]()
    label_scores: list[LabelScores] = []
    first = task.reported[0]
    for split in task.reported:
        outputs = trainer.final_outputs(loaded.encoded[split])
        check_outputs(split, outputs)
        evaluation = loaded.evaluation(split, outputs)
        predictions = task.kind.predictions(evaluation)
        scores = task.kind.score(evaluation, predictions)
        label_scores.append(task.kind.label_scores(evaluation))
        metrics |= {f"{name}{_suffix(split, first)}": score for name, score in scores.items()}
        if distributed.rank() == 0:
            records = _records(task, evaluation, predictions)
            write_table(layout.predictions_file(run.path, split), records)
            if split == first and task.kind.reads_images and task.kind.one_class:
                write_thumbnails(run.path, task, evaluation)
    return metrics, label_scores[0]


def _suffix(split: str, first: str) -> str:
    return split.removeprefix(first) if split.startswith(first) else f"_{split}"


def _records(
    task: Task, evaluation: Evaluation, predictions: list[Prediction]
) -> list[dict[str, Any]]:
    """Number, file and line where they are known, texts, label and prediction of each row.

    What the metrics are computed from keeps its name: a text column of the same name is called
    ``text_<name>``.
    """
    rows = evaluation.rows
    labels = [{"label": reference} for reference in task.kind.references(evaluation)]
    if task.kind.learns_texts:
        labels = [{} for _ in labels]
    if OTHER_REFERENCES in rows.column_names:
        others = zip(labels, rows[OTHER_REFERENCES], strict=True)
        labels = [{**label, OTHER_REFERENCES: texts} for label, texts in others]
    numbers = [{"row": number} for number in range(len(rows))]
    for name, column in (("file", FILE), ("line", LINE)):
        if column in rows.column_names:
            places = zip(numbers, rows[column], strict=True)
            numbers = [{**number, name: place} for number, place in places]
    taken = {*numbers[0], *labels[0], *predictions[0]}
    names = [f"text_{name}" if name in taken else name for name in task.text]
    columns = zip(*(task.kind.shown_texts(rows, name) for name in task.text), strict=True)
    return [
        {**number, **dict(zip(names, texts, strict=True)), **label, **prediction}
        for number, texts, label, prediction in zip(
            numbers, columns, labels, predictions, strict=True
        )
    ]
