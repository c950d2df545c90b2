"""Tables on the classes of a classification task: scores, confusions, calibration, errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from iwlora.compare.number_format import format_score
from iwlora.compare.report.tables.table import Table
from iwlora.compare.statistics.calibration import expected_calibration_error, reliability
from iwlora.compare.statistics.paired_tests import summarize
from iwlora.errors import IwloraError
from iwlora.results.comparison import Comparison
from iwlora.results.run import Run

MOST_CLASSES = 20
"""Of a confusion matrix; of more classes the most frequent confusions are listed."""
MOST_ERRORS = 5
"""Of each arm in the table of confident errors."""
_KINDS = ("classification", "image-classification")
_TEXT = 200
_LOGIT = "logit_"


@dataclass(frozen=True)
class ClassPredictions:
    """What a run predicted for each scored row.

    ``labels`` and ``predictions`` (rows,) are indices of ``classes``; ``probabilities`` (rows,
    classes) are None in runs that stored no logits. ``texts`` are {column: cells}.
    """

    classes: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    predictions: npt.NDArray[np.int64]
    probabilities: npt.NDArray[np.float64] | None
    texts: Mapping[str, Sequence[str]]

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(classes, classes) rows by label and prediction."""
        counts = np.zeros((len(self.classes),) * 2, dtype=np.int64)
        np.add.at(counts, (self.labels, self.predictions), 1)
        return counts

    @property
    def confidences(self) -> npt.NDArray[np.float64] | None:
        """(rows,) the probability of the predicted class."""
        if self.probabilities is None:
            return None
        chosen: npt.NDArray[np.float64] = self.probabilities[
            np.arange(len(self.labels)), self.predictions
        ]
        return chosen

    @property
    def confident_errors(self) -> list[int]:
        """The rows of the wrong predictions with the largest confidence."""
        confidences, right = _confidence(self)
        wrong = np.flatnonzero(~right)
        order = wrong[np.argsort(-confidences[wrong], kind="stable")]
        return [int(row) for row in order[:MOST_ERRORS]]


def class_predictions(run: Run) -> ClassPredictions | None:
    """What a run of a classification task predicted; None for other tasks, or if it is not known.

    Raises:
        IwloraError: A stored logit is not a number.
    """
    kind = (run.result.kind or {}).get("name", "classification")
    columns = run.prediction_columns() if kind in _KINDS else None
    if not columns:
        return None
    with_logits = [name for name in columns if name.startswith(_LOGIT)]
    classes = tuple(name.removeprefix(_LOGIT) for name in with_logits) or tuple(run.result.labels)
    index = {name: number for number, name in enumerate(classes)}
    labels, predictions = columns["label"], columns["prediction"]
    if not {*labels, *predictions} <= set(classes):
        return None
    texts = {
        name: cells
        for name, cells in columns.items()
        if name not in {"label", "prediction", *with_logits}
    }
    return ClassPredictions(
        classes,
        np.array([index[label] for label in labels]),
        np.array([index[prediction] for prediction in predictions]),
        _probabilities(run, [columns[name] for name in with_logits]),
        texts,
    )


def _probabilities(run: Run, logits: Sequence[Sequence[str]]) -> npt.NDArray[np.float64] | None:
    if not logits:
        return None
    try:
        values = np.array(logits, dtype=float).T
    except ValueError as error:
        raise IwloraError(f"{run}: a logit of its predictions is not a number") from error
    probabilities: npt.NDArray[np.float64] = softmax(values, axis=1)
    return probabilities


def class_tables(comparison: Comparison) -> dict[str, Table]:
    """{stem of its file: table} for a classification task; empty for others."""
    arms: dict[str, list[tuple[int, ClassPredictions]]] = {}
    for run in comparison.runs:
        if (found := class_predictions(run)) is not None:
            arms.setdefault(run.result.label, []).append((run.result.seed, found))
    if len({run.classes for runs in arms.values() for _, run in runs}) != 1:
        return {}
    tables = {"classes": _score_table(arms)}
    for arm, runs in arms.items():
        tables[f"confusion-{arm}"] = _confusion_table(arm, [run for _, run in runs])
    calibrated = {
        arm: known
        for arm, runs in arms.items()
        if (known := [(seed, run) for seed, run in runs if run.probabilities is not None])
    }
    if calibrated:
        tables["calibration"] = _calibration_table(calibrated)
        tables["reliability"] = _reliability_table(calibrated)
        tables["confident-errors"] = _error_table(calibrated)
    return tables


_Arms = Mapping[str, Sequence[tuple[int, ClassPredictions]]]


def _score_table(arms: _Arms) -> Table:
    classes = next(iter(arms.values()))[0][1].classes
    rows = []
    scores = {
        arm: np.mean([[*_by_class(run.confusion)] for _, run in runs], axis=0)
        for arm, runs in arms.items()
    }
    counts = {arm: runs[0][1].confusion.sum(1) for arm, runs in arms.items()}
    for (number, name), arm in product(enumerate(classes), arms):
        cells = [format_score(metric, scores[arm][number][place]) for place, metric in _METRICS]
        rows.append([name, arm, f"{counts[arm][number]:,}", *cells])
    caption = "Scores of each class, × 100: means over seeds; rows are those with the label."
    if all(run.probabilities is None for runs in arms.values() for _, run in runs):
        caption += " The runs stored no probabilities, so their calibration is not known."
    head = ["class", "arm", "rows", *(metric for _, metric in _METRICS)]
    return Table("Scores by class", caption, head, rows)


_METRICS = ((0, "f1"), (1, "precision"), (2, "recall"))


def _by_class(confusion: npt.NDArray[np.int64]) -> Iterator[tuple[float, float, float]]:
    """(F1, precision, recall) of each class; 0 where one is not defined."""
    for number in range(len(confusion)):
        hits = int(confusion[number, number])
        labeled, predicted = int(confusion[number].sum()), int(confusion[:, number].sum())
        yield (
            2 * hits / max(labeled + predicted, 1),
            hits / max(predicted, 1),
            hits / max(labeled, 1),
        )


def _confusion_table(arm: str, runs: Sequence[ClassPredictions]) -> Table:
    classes, counts = runs[0].classes, np.sum([run.confusion for run in runs], axis=0)
    seeds = f"all {len(runs)} seeds together" if len(runs) > 1 else "one seed"
    if len(classes) <= MOST_CLASSES:
        caption = f"Rows by label (down) and prediction (across), {seeds}."
        rows = [[name, *map("{:,}".format, counts[i])] for i, name in enumerate(classes)]
        return Table(f"Confusions of {arm}", caption, ["label", *classes], rows)
    wrong = [(int(counts[i, j]), i, j) for i, j in np.argwhere(counts) if i != j]
    wrong.sort(key=lambda item: (-item[0], item[1], item[2]))
    rows = [[classes[i], classes[j], f"{count:,}"] for count, i, j in wrong[:MOST_CLASSES]]
    caption = f"The {len(rows)} most frequent of {len(wrong):,} confusions, {seeds}."
    return Table(f"Confusions of {arm}", caption, ["label", "prediction", "rows"], rows)


def _calibration_table(arms: _Arms) -> Table:
    rows = []
    for arm, runs in arms.items():
        errors, confidences, accuracies = [], [], []
        for _, run in runs:
            bins = reliability(*_confidence(run))
            errors.append(expected_calibration_error(bins))
            confidence, right = _confidence(run)
            confidences.append(float(confidence.mean()))
            accuracies.append(float(right.mean()))
        numbers = [summarize(values) for values in (errors, confidences, accuracies)]
        rows.append([arm, *(format_score("accuracy", n.mean, n.sd) for n in numbers)])
    caption = (
        "Whether the probabilities can be believed, × 100: the mean confidence, the probability of "
        "the predicted class, beside the accuracy. A confidence above the accuracy is too high. "
        "ECE, the expected calibration error, is the mean distance of the two over the bins of the "
        "next table, weighted by rows; 0 is perfect."
    )
    return Table("Calibration", caption, ["arm", "ECE", "mean confidence", "accuracy"], rows)


def _reliability_table(arms: _Arms) -> Table:
    rows = []
    for arm, runs in arms.items():
        pairs = [_confidence(run) for _, run in runs]
        confidences, right = (np.concatenate(values) for values in zip(*pairs, strict=True))
        for part in reliability(confidences, right):
            between = f"{100 * part.low:.0f} to {100 * part.high:.0f}"
            means = [format_score("accuracy", v) for v in (part.confidence, part.accuracy)]
            rows.append([arm, between, f"{part.rows:,}", *means])
    caption = (
        "Rows by the confidence of their prediction, all seeds together, × 100. In a calibrated "
        "model, the accuracy of each bin is its mean confidence."
    )
    head = ["arm", "confidence", "rows", "mean confidence", "accuracy"]
    return Table("Reliability", caption, head, rows)


def _error_table(arms: _Arms) -> Table:
    first = {arm: runs[0] for arm, runs in arms.items()}
    shared = set.intersection(*(set(run.texts) for _, run in first.values()))
    columns = [name for _, run in first.values() for name in run.texts if name in shared]
    columns = [*dict.fromkeys(columns)]
    rows = []
    for arm, (seed, run) in first.items():
        confidences, _ = _confidence(run)
        for row in run.confident_errors:
            label, prediction = (run.classes[i[row]] for i in (run.labels, run.predictions))
            texts = [
                _shortened(run.texts[name][row]) if name in run.texts else "" for name in columns
            ]
            confidence = format_score("accuracy", float(confidences[row]))
            rows.append([arm, str(seed), label, prediction, confidence, *texts])
    caption = (
        f"The {MOST_ERRORS} wrong predictions of each arm with the largest confidence (× 100), of "
        "its first seed. Look for wrong labels and for rows that a person could not decide either."
    )
    head = ["arm", "seed", "label", "prediction", "confidence", *columns]
    return Table("Most confident errors", caption, head, rows)


def _confidence(run: ClassPredictions) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(rows,) the confidence of each prediction, and whether it is right."""
    confidences = run.confidences
    assert confidences is not None
    return confidences, run.labels == run.predictions


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
