"""Predict new rows with a finished run, as it predicted the rows that it was scored on."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, get_args

import datasets
import torch
from torch.utils.data import DataLoader
from transformers.trainer_pt_utils import nested_concat, nested_numpify

from iwlora.errors import (
    BadRow,
    BadRowsError,
    IwloraError,
    count_rows,
    list_problems,
    truncate,
    unknown,
)
from iwlora.extras import name_missing_extra
from iwlora.inputs.control_characters import unfiltered
from iwlora.inputs.tables.reading import Reading
from iwlora.inputs.tables.records import JSON_LINES, standard_input
from iwlora.results.writing import check_output, check_writable, reserve
from iwlora.tasks import Task
from iwlora.tasks.kinds.contract import EncodingInput, Evaluation, Prediction
from iwlora.training.device import run_device
from iwlora.training.external_settings import check_external_settings
from iwlora.training.kernels import training_numerics
from iwlora.training.loop.row_order import LongestFirstSampler
from iwlora.training.model.backbone import load_backbone
from iwlora.training.model.target_units import undo_target_units
from iwlora.training.model.vocabulary import check_token_ids
from iwlora.training.prediction.input_rows import InputRows, notes_on_input, read_input
from iwlora.training.prediction.tables import WRITERS, as_csv, as_json_lines, write_table
from iwlora.training.state.artifacts import Loader, load_saved
from iwlora.training.state.bad_rows import save_bad_rows
from iwlora.training.state.run_folder import RunDir
from iwlora.training.state.stored_task import stored_task

logger = logging.getLogger("iwlora")

OnBad = Literal["refuse", "skip"]
_MORE_BYTES = 1_000_000  # what predictions add to the texts, of which a copy is written


@name_missing_extra()
def predict(
    path: str | Path,
    source: str | Path,
    output: str | Path,
    trust_remote_code: bool = False,
    *,
    input_format: str | None = None,
    id_column: str | None = None,
    max_rows: int | None = None,
    on_bad: OnBad = "refuse",
) -> Path:
    """Predict the rows of a file with a finished run.

    The model computes on the device, with the precision and the kernels that it was scored with.

    Args:
        path: the folder of the run.
        source: a file of any format that a task reads, with the task's text columns, or a folder of
            images; ``-`` for standard input, which names images by paths in the current folder.
        output: the file to write, by its ending CSV, JSON Lines or Parquet; ``-`` for standard
            output, in JSON Lines if the input is, else CSV. A row has its number from 0, its line
            in the input (of Parquet its number from 1; of a folder of texts also its file), its id,
            its texts, its label if the input has one, the prediction and, where the task has
            classes, their probabilities.
        trust_remote_code: as for :func:`iwlora.load_trained`.
        input_format: of standard input: csv, tsv, json or jsonl; None: by its first bytes.
        id_column: the column of the input with the id of each row; None: ``id``, if there is one.
        max_rows: predict the first rows only; None: all.
        on_bad: what becomes of rows that cannot be read, such as damaged images: refuse: no row is
            predicted; skip: the others are, with a warning. Either way ``<output>.bad-rows.csv``
            lists them.

    Returns:
        ``output`` as a path.

    Raises:
        IwloraError: the run or the rows cannot be read; or, before anything is computed, the
            output cannot be written.

    Example:
        >>> head, *rows = predict("runs/a", "pairs.csv", "answers.csv").read_text().splitlines()
        >>> head.rpartition(",probability_entailment,")[0]
        'row,line,premise,hypothesis,prediction'
    """
    check_external_settings()
    run = RunDir.finished(path)
    task = stored_task(run)

    def compute(given: InputRows) -> list[Prediction]:
        model, processor = load_for_rows(run, trust_remote_code)
        evaluation = evaluate_rows(run, model, processor, given.rows)
        return task.kind.predictions(evaluation, probabilities=True)

    return predict_file(
        lambda _: task,
        run.recipe().task.reading,
        source,
        output,
        compute,
        input_format=input_format,
        id_column=id_column,
        max_rows=max_rows,
        on_bad=on_bad,
    )


def predict_file(
    task_of: Callable[[str], Task],
    reading: Reading,
    source: str | Path,
    output: str | Path,
    compute: Callable[[InputRows], list[Prediction]],
    *,
    input_format: str | None = None,
    id_column: str | None = None,
    max_rows: int | None = None,
    extra_column: str | None = None,
    on_bad: OnBad = "refuse",
) -> Path:
    """Read rows, compute their predictions and write both; arguments as in :func:`predict`.

    Args:
        task_of: Says which columns of the file are read.
        reading: How the file is read where its looks do not say it.
        source: The file with the rows.
        output: The file to write.
        compute: Gives the prediction of each row, after all checks.
        input_format: Of standard input.
        id_column: The column with the id of each row.
        max_rows: Predict the first rows only.
        extra_column: A column whose cells ``compute`` finds in ``InputRows.extra``, if it exists.
        on_bad: What becomes of rows that cannot be read.
    """
    if on_bad not in get_args(OnBad):
        raise unknown("on_bad", on_bad, get_args(OnBad))
    to_file, reads_file = str(output) != "-", str(source) != "-"
    if to_file:
        _check_output(output)
    left_out: list[BadRow] | None = [] if on_bad == "skip" else None
    with _file(str(source), input_format) as file:
        with _listing_bad_rows(Path(output) if to_file else None):
            task = task_of(file)
            folder = None if reads_file else Path()
            given = read_input(
                file, task, id_column, max_rows, reading, extra_column, left_out, folder
            )
        for note in (*notes_on_input(file, reading), *given.notes):
            logger.warning(note)
        as_lines = Path(file).suffix in JSON_LINES
    if to_file:
        if Path(output).exists() and reads_file and Path(output).samefile(source):
            raise IwloraError(f"--output {output} is the input file; choose another one")
        check_writable(output, "--output")
        reserve(output, 2 * given.rows.data.nbytes + _MORE_BYTES, "the predictions")
    if left_out:
        _warn_of_left_out(left_out, Path(output) if to_file else None)
    records = given.with_predictions(compute(given))
    if to_file:
        write_table(Path(output), records)
    else:
        stream = sys.stdout if sys.stdout.isatty() else unfiltered(sys.stdout)
        stream.write((as_json_lines if as_lines else as_csv)(records))
    return Path(output)


def load_for_rows(
    run: RunDir, trust_remote_code: bool = False, load: Loader = load_backbone
) -> tuple[Any, Any]:
    """The model of a run, with the head as it was trained, and its tokenizer or image processor.

    Args:
        run: A finished run.
        trust_remote_code: As for :func:`iwlora.load_trained`.
        load: Gives the backbone.
    """
    model, processor = load_saved(run.path, trust_remote_code=trust_remote_code, load=load)
    undo_target_units(model, stored_task(run).kind.scaling)
    return model, processor


def evaluate_rows(run: RunDir, model: Any, processor: Any, rows: datasets.Dataset) -> Evaluation:
    """What the model of :func:`load_for_rows` computes for rows, as the run was scored."""
    return evaluate_versions(run, model, processor, rows, lambda: [""])[""]


def evaluate_versions(
    run: RunDir,
    model: Any,
    processor: Any,
    rows: datasets.Dataset,
    versions: Callable[[], Iterable[str]],
) -> dict[str, Evaluation]:
    """{name: what the model computes for rows} of several versions of a model.

    Args:
        run: A finished run.
        model: As of :func:`load_for_rows`.
        processor: The same.
        rows: The text columns.
        versions: Gives the names of the versions, for each batch anew; the model is the version
            from when its name is given until the next one is asked for.
    """
    task, length = stored_task(run), run.recipe().train.max_length
    encoded = task.kind.encode(EncodingInput(task, rows, processor, length, model.config))
    check_token_ids(model, processor, [encoded])
    computed = _outputs(run, task, model, processor, encoded, versions)
    return {
        name: Evaluation(task, rows, encoded, outputs, processor)
        for name, outputs in computed.items()
    }


@contextmanager
def _listing_bad_rows(output: Path | None) -> Iterator[None]:
    """Write all rows that cannot be read beside the output, and name that file in the error."""
    try:
        yield
    except BadRowsError as error:
        if output is None:
            raise
        file = _bad_rows_file(output)
        save_bad_rows(file, error.rows)
        lists = f"{file} lists all rows that cannot be read ({count_rows(error.rows):,})"
        others = "" if error.others else "; --on-bad skip predicts the others"
        raise IwloraError(f"{error}\n{lists}; no row was predicted{others}") from None


def _bad_rows_file(output: Path) -> Path:
    return output.with_suffix(".bad-rows.csv")


def _warn_of_left_out(rows: list[BadRow], output: Path | None) -> None:
    """Say which rows have no prediction; beside an output a file lists them."""
    count = count_rows(rows)
    what = f"{count:,} {'row' if count == 1 else 'rows'} cannot be read and"
    what += f" {'has' if count == 1 else 'have'} no prediction"
    if output is None:
        problems = list_problems([truncate(str(row)) for row in rows])
        logger.warning(f"{what}:\n{problems}")
        return
    file = _bad_rows_file(output)
    save_bad_rows(file, rows)
    logger.warning(f"{what} ({file} lists all)")


def _check_output(output: str | Path) -> None:
    if Path(output).suffix not in WRITERS:
        accepted = ", ".join(WRITERS)
        raise IwloraError(f"--output {output}: accepted endings are {accepted}, and - alone")
    check_output(output, "--output")


def _file(source: str, input_format: str | None) -> AbstractContextManager[str]:
    """The file to read: standard input as a file, for ``-``."""
    if source == "-":
        return standard_input(input_format)
    if input_format is not None:
        raise IwloraError("--input-format is for --input -; a file is read by its ending")
    return nullcontext(source)


def scored_precision(run: RunDir) -> str:
    """The precision that a run was scored with."""
    result = run.result()
    return (result.precision if result else None) or run.recipe().train.requested_precision


def _outputs(
    run: RunDir,
    task: Task,
    model: Any,
    processor: Any,
    encoded: datasets.Dataset,
    versions: Callable[[], Iterable[str]],
) -> dict[str, Mapping[str, Any]]:
    """The outputs of each version for the encoded rows as arrays, as the run was scored."""
    settings, device, precision = run.recipe().train, run_device(), scored_precision(run)
    if not run.recipe().quantize:
        model.to(device)
    order, collate = LongestFirstSampler(encoded["length"][:]), task.kind.collator(processor, model)
    collected: dict[str, Any] = {}
    with torch.inference_mode(), training_numerics(model, settings.fast_kernels, precision, device):
        at_a_time = task.kind.evaluation_rows(settings.max_length)
        for batch in DataLoader(encoded, at_a_time, sampler=order, collate_fn=collate):
            on_device = {key: value.to(device) for key, value in batch.items()}
            for name in versions():
                outputs = nested_numpify(task.kind.outputs(model, processor, on_device, True))
                known = collected.get(name)
                collected[name] = outputs if known is None else nested_concat(known, outputs)
    return {name: order.restore(dict(outputs)) for name, outputs in collected.items()}
