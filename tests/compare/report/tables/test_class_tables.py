"""Tables on classes, against scikit-learn and rows that a test writes down."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from iwlora.compare.report.tables.classes import class_tables
from iwlora.compare.report.write import write_report
from iwlora.errors import IwloraError
from iwlora.results.comparison import load

CLASSES = ("no", "yes", "may be")
KIND = {"name": "classification"}


def save_predictions(
    run: Path, logits: np.ndarray, labels: Sequence[int], classes: Sequence[str] = CLASSES
) -> None:
    path = run / "predictions" / "validation.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["row", "text", "label", "prediction", *(f"logit_{c}" for c in classes)])
        for row, (label, values) in enumerate(zip(labels, logits, strict=True)):
            names = classes[label], classes[int(values.argmax())]
            writer.writerow([row, f"<b>text {row}</b>", *names, *values])


@pytest.fixture
def classified(folder: Path) -> tuple[Path, np.ndarray, dict[str, list[np.ndarray]]]:
    """The folder, the labels, and {arm: the logits of each seed}."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 200)
    logits: dict[str, list[np.ndarray]] = {}
    for run in sorted(folder.glob("*/seed-*")):
        values = random.normal(size=(200, 3)) + 1.5 * np.eye(3)[labels]
        save_predictions(run, values, labels.tolist())
        logits.setdefault(run.parent.name, []).append(values)
    return folder, labels, logits


Classified = tuple[Path, np.ndarray, dict[str, list[np.ndarray]]]


@pytest.mark.quick
def test_scores_and_confusions_are_those_of_scikit_learn(classified: Classified) -> None:
    folder, labels, logits = classified
    tables = class_tables(load(folder))
    matrix = sum(confusion_matrix(labels, values.argmax(1)) for values in logits["lora"])
    assert [row[1:] for row in tables["confusion-lora"].rows] == [
        [str(count) for count in row] for row in matrix
    ]
    each = [precision_recall_fscore_support(labels, v.argmax(1)) for v in logits["lora"]]
    precision, recall, f1, _ = np.mean(each, axis=0)
    rows = [row for row in tables["classes"].rows if row[1] == "lora"]
    assert [row[0] for row in rows] == [*CLASSES]
    for number, row in enumerate(rows):
        assert row[2] == str((labels == number).sum())
        assert row[3:] == [f"{100 * values[number]:.2f}" for values in (f1, precision, recall)]


@pytest.mark.quick
def test_confident_errors_are_wrong_rows_in_order(classified: Classified) -> None:
    folder, labels, logits = classified
    tables = class_tables(load(folder))
    (values, *_) = logits["lora"]
    chances = np.exp(values) / np.exp(values).sum(1, keepdims=True)
    wrong = np.flatnonzero(values.argmax(1) != labels)
    order = wrong[np.argsort(-chances.max(1)[wrong])][:5]
    rows = [row for row in tables["confident-errors"].rows if row[0] == "lora"]
    assert [row[5] for row in rows] == [str(row) for row in order]
    assert rows[0][6] == f"<b>text {order[0]}</b>"
    assert rows[0][4] == f"{100 * chances.max(1)[order[0]]:.2f}"
    accuracy = np.mean([(v.argmax(1) == labels).mean() for v in logits["lora"]])
    calibration = next(row for row in tables["calibration"].rows if row[0] == "lora")
    assert calibration[3].startswith(f"{100 * accuracy:.2f} ± ")
    bins = [row for row in tables["reliability"].rows if row[0] == "lora"]
    assert sum(int(row[2]) for row in bins) == 3 * 200


def test_the_tables_are_on_the_page_and_in_files(classified: Classified) -> None:
    folder, _, _ = classified
    page = write_report(folder).read_text()
    assert '<h2 id="details-1-1">Scores by class</h2>' in page
    assert "&lt;b&gt;text" in page
    assert "<b>text" not in page
    stems = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert stems == {
        *("results", "differences", "overall", "runs", "classes", "calibration", "reliability"),
        *(
            "confident-errors",
            *(f"confusion-{arm}" for arm in ("full", "lora", "adalora", "iw-lora")),
        ),
    }
    with (folder / "tables" / "results.csv").open() as file:
        rows = [*csv.reader(file)]
    assert rows[0][:3] == ["arm", "seeds", "accuracy"]
    assert [row[0] for row in rows[1:]] == ["full", "lora", "adalora", "iw-lora"]


def test_without_probabilities_the_table_says_so(folder: Path) -> None:
    for run in folder.glob("*/seed-*"):
        result = json.loads((run / "result.json").read_text())
        result |= {"kind": KIND, "labels": ["no", "yes"]}
        (run / "result.json").write_text(json.dumps(result))
        (run / "predictions").mkdir()
        (run / "predictions" / "validation.csv").write_text("label,prediction\nno,no\nyes,no\n")
    tables = class_tables(load(folder))
    assert "calibration" not in tables
    assert tables["classes"].caption.endswith("so their calibration is not known.")


def test_many_classes_list_their_most_frequent_confusions(folder: Path) -> None:
    classes = [f"c{number}" for number in range(30)]
    labels = [*range(30), 7, 7]
    logits = 9 * np.eye(30)[[*range(30), 8, 8]]
    for run in folder.glob("*/seed-*"):
        save_predictions(run, logits, labels, classes)
    table = class_tables(load(folder))["confusion-lora"]
    assert table.head == ["label", "prediction", "rows"]
    assert table.rows == [["c7", "c8", "6"]]


def test_other_tasks_and_damaged_numbers(classified: Classified) -> None:
    folder, _, _ = classified
    path = folder / "lora" / "seed-0" / "predictions" / "validation.csv"
    text = path.read_text()
    path.write_text(text[: text.rindex(",")] + ",many\n")
    with pytest.raises(IwloraError, match="lora/seed-0: a logit of its predictions is not a numb"):
        class_tables(load(folder))
    for run in folder.glob("*/seed-*"):
        result = json.loads((run / "result.json").read_text())
        (run / "result.json").write_text(json.dumps(result | {"kind": {"name": "multi_label"}}))
    assert class_tables(load(folder)) == {}
