"""Predictions of a finished run for new rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iwlora.errors import IwloraError
from iwlora.results.writing import check_writable, write_text
from iwlora.training.scoring import as_table
from iwlora.training.state.artifacts import load_trained
from iwlora.training.state.run_folder import RunDir, check_output

if TYPE_CHECKING:
    import datasets

    from iwlora.tasks import Task

BATCH = 64


def predict(
    path: str | Path, source: str | Path, output: str | Path, trust_remote_code: bool = False
) -> Path:
    """Answer the rows of a file with a finished run, and write them with the answers.

    ``source`` is CSV, TSV, JSON Lines or Parquet with the task's text columns; ``output`` is
    CSV, or JSON Lines by its ending: the row's number, the texts, the prediction, and where the
    task has classes the probability of each. Raises ``IwloraError`` for anything that cannot be
    read, and before the work for a place that cannot be written. ``trust_remote_code`` as
    :func:`iwlora.load_trained`.

    >>> head, *rows = predict("runs/a", "pairs.csv", "answers.csv").read_text().splitlines()
    >>> head
    'row,premise,hypothesis,prediction,probability_entailment,probability_not_entailment'
    """
    from iwlora.tasks.own_files import read_rows

    run = RunDir.finished(path)
    if Path(output).suffix not in (".csv", ".jsonl"):
        raise IwloraError(f"--output {output}: accepted endings are .csv and .jsonl")
    check_output(output, "--output")
    task = run.task()
    rows = read_rows(str(source), task.text, task.kind)
    if Path(output).exists() and Path(output).samefile(source):
        raise IwloraError(f"--output {output} is the input file; choose another one")
    check_writable(output, "--output")
    model, tokenizer = load_trained(path, trust_remote_code=trust_remote_code)
    length = run.recipe().train.max_length
    encoded = task.kind.encode(task, rows, tokenizer, length, model.config, training=False)
    outputs = _outputs(task, model, tokenizer, encoded)
    answers = task.kind.answers(task, rows, encoded, outputs, tokenizer, shares=True)
    records = [
        {"row": number, **row, **answer}
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]
    write_text(output, as_table(records, as_csv=Path(output).suffix == ".csv"))
    return Path(output)


def _outputs(
    task: Task, model: Any, tokenizer: Any, encoded: datasets.Dataset
) -> Mapping[str, Any]:
    """What the model says of each encoded row, as arrays."""
    import torch
    from torch.utils.data import DataLoader
    from transformers.trainer_pt_utils import nested_concat, nested_numpify

    device = next(model.parameters()).device
    collate = task.kind.collator(tokenizer, model)
    found: Any = None
    with torch.inference_mode():
        for batch in DataLoader(encoded, BATCH, collate_fn=collate):
            moved = {key: value.to(device) for key, value in batch.items()}
            outputs = nested_numpify(task.kind.outputs(model, tokenizer, moved, True))  # type: ignore[no-untyped-call]
            found = outputs if found is None else nested_concat(found, outputs)  # type: ignore[no-untyped-call]
    return dict(found)
