"""The folder of a finished run: each of its files, read when it is asked for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from sys import intern
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.formulas import restore_formula
from iwlora.inputs.places import read_bytes
from iwlora.inputs.tables.delimited import read_fields
from iwlora.inputs.yaml_json import read_mapping, read_utf8
from iwlora.results import layout
from iwlora.results.file_digests import file_digest
from iwlora.results.fingerprint import RowDigests
from iwlora.results.formats import DIGEST, check_digest, read_log, unstamped
from iwlora.results.run.image_scores import ImageScores
from iwlora.results.run.result import RunResult
from iwlora.results.run.status import describe_status
from iwlora.results.sensitivity import Sensitivity


@dataclass(frozen=True)
class Run:
    """A finished run: its result, and its folder if it has one."""

    folder: Path | None
    result: RunResult

    def __str__(self) -> str:
        return str(self.folder or f"{self.result.label}, seed {self.result.seed}")

    def relabeled(self, label: str) -> Run:
        """The run under another name."""
        return replace(self, result=self.result.model_copy(update={"label": label}))

    def _file(self, name: str | Path) -> Path | None:
        """A file of the run, None without it; ``IwloraError`` if it is not what the run left."""
        path = self.folder / name if self.folder else None
        if path is None or not path.is_file():
            return None
        expected = self.result.files.get(Path(name).as_posix())
        if expected is not None and file_digest(path) != expected:
            raise IwloraError(f"{path} is damaged: it is not what the run left; restore it")
        return path

    def history(self) -> list[dict[str, Any]]:
        """The records of ``metrics.jsonl``; empty without one.

        Raises ``IwloraError`` for a damaged line.
        """
        path = self._file(layout.METRICS)
        records = read_log(path) if path else ()
        return [unstamped("metrics", record, origin)[0] for origin, record in records]

    def sensitivity(self) -> Sensitivity | None:
        """What the run measured before training; None for a method that measures nothing."""
        path = self._file(layout.SENSITIVITY)
        return Sensitivity.load(path) if path else None

    def environment(self) -> dict[str, Any]:
        """``environment.json``: versions and machine; empty without one."""
        path = self._file(layout.ENVIRONMENT)
        return read_environment(path) if path else {}

    def recipe(self) -> str | None:
        """The text of ``recipe.yaml``."""
        path = self._file(layout.RECIPE)
        return read_utf8(path) if path else None

    def settings(self, fields: Sequence[str]) -> dict[str, Any]:
        """{field: value} of fields of its recipe, such as task.max_train; without unknown ones."""
        path = self._file(layout.RECIPE)
        recipe = read_mapping(path) if path and fields else {}
        known = {}
        for field in fields:
            part, _, name = field.partition(".")
            values = recipe.get(part)
            if isinstance(values, Mapping) and name in values:
                known[field] = values[name]
        return known

    def row_digests(self) -> RowDigests:
        """The digests of its single rows; empty if they are not kept."""
        path = self._file(layout.ROW_DIGESTS)
        return RowDigests.load_if_intact(path) if path else RowDigests()

    @property
    def gives_one_answer(self) -> bool:
        """Whether it predicts the same for all scored rows, although their labels differ."""
        kept = self.predictions
        return kept is not None and len(set(kept[0])) > 1 and len(set(kept[1])) == 1

    @cached_property
    def predictions(self) -> tuple[list[str], list[str]] | None:
        """(labels, predictions) of the scored rows; None if they were not kept as classes.

        A report asks for them many times; each class name is kept once.
        """
        columns = self.prediction_columns()
        if columns is None:
            return None
        return [*map(intern, columns["label"])], [*map(intern, columns["prediction"])]

    def prediction_columns(self) -> dict[str, list[str]] | None:
        """{column: cells} of the predictions of the scored rows, each with its texts.

        None if they were not kept, or not as a label and a prediction of each row.
        """
        rows = self.prediction_rows()
        if not rows or not {"label", "prediction"} <= rows[0].keys():
            return None
        return {name: [row[name] for row in rows] for name in rows[0]}

    def thumbnail(self, row: int) -> bytes | None:
        """The small image of a scored row, a JPEG file; None if it was not kept."""
        path = self._file(layout.thumbnail_file(Path(), row))
        return read_bytes(path, "thumbnail") if path else None

    def samples(self) -> bytes | None:
        """A sheet of generated images, a JPEG file; None if there is none."""
        path = self._file(layout.samples_file(Path()))
        return read_bytes(path, "thumbnail") if path else None

    def image_scores(self) -> ImageScores | None:
        """How good its generated images are; None where that was not computed."""
        path = self._file(Path(layout.GENERATED_FOLDER, layout.IMAGE_SCORES))
        return ImageScores.load(path) if path else None

    def prediction_rows(self) -> list[dict[str, str]]:
        """The stored predictions of the scored rows, {column: cell} of each; [] without them."""
        split = self.result.evaluated_on
        path = self._file(layout.predictions_file(Path(), split)) if split else None
        return read_predictions(path) if path else []


def read_predictions(path: Path) -> list[dict[str, str]]:
    """The rows of a stored file of predictions; ``IwloraError`` for rows of unequal length."""
    fields = read_fields(str(path))
    _, header = next(fields, (1, list[str]()))
    names, rows = list(map(restore_formula, header)), []
    for line, row in fields:
        if len(row) != len(names):
            raise IwloraError(
                f"{path}, line {line}: {len(row)} fields, the header has {len(names)}; "
                "restore the file"
            )
        rows.append(dict(zip(names, map(restore_formula, row), strict=True)))
    return rows


def read_environment(path: Path) -> dict[str, Any]:
    """The fields of ``environment.json``; ``IwloraError`` where they are not what was written."""
    stored = read_mapping(path)
    fields, _ = unstamped("environment", stored, path)
    check_digest(stored, path)
    return {name: value for name, value in fields.items() if name != DIGEST}


def load_run(folder: str | os.PathLike[str]) -> Run:
    """The finished run in ``folder``; ``IwloraError`` if it is not finished, or damaged."""
    path = Path(folder) / layout.RESULT
    if not path.exists():
        raise IwloraError(
            f"{folder} holds no finished run ({describe_status(Path(folder))}); "
            "finish it with 'iwlora train'"
        )
    return Run(Path(folder), RunResult.load(path))
