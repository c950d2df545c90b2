"""Predictions of a finished run for new rows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.files import write_text
from iwlora.training.artifacts import field, load_trained
from iwlora.training.rundir import RunDir

BATCH = 64


def predict(path: str | Path, source: str | Path, output: str | Path) -> Path:
    """Classify the rows of a file with a finished run, and write them with the answers.

    ``source`` is CSV, TSV, JSON Lines or Parquet with the task's text columns; ``output`` is
    CSV, or JSON Lines by its ending: the row's number, the texts, the predicted class and the
    probability of each class. Raises ``IwloraError`` for anything that cannot be read.
    """
    import torch
    from torch.utils.data import DataLoader

    from iwlora.tasks.encode import collator, tokenize
    from iwlora.tasks.tables import read_table

    run = RunDir.finished(path)
    if Path(output).suffix not in (".csv", ".jsonl"):
        raise IwloraError(f"--output {output}: accepted endings are .csv and .jsonl")
    text, labels = field(run, "text"), field(run, "labels")
    rows = read_table(str(source), text)
    if Path(output).exists() and Path(output).samefile(source):
        raise IwloraError(f"--output {output} is the input file; choose another one")
    model, tokenizer = load_trained(path)
    columns = [[row[name] for row in rows] for name in text]
    encoded = tokenize(columns, tokenizer, run.recipe().train.max_length).remove_columns("length")
    device = next(model.parameters()).device
    answers: list[list[float]] = []
    with torch.inference_mode():
        for batch in DataLoader(encoded, BATCH, collate_fn=collator(tokenizer)):
            logits = model(**{key: value.to(device) for key, value in batch.items()}).logits
            answers += logits.float().softmax(dim=-1).tolist()
    records = [
        {
            "row": number,
            **row,
            "prediction": labels[max(range(len(labels)), key=shares.__getitem__)],
            **{f"probability_{name}": p for name, p in zip(labels, shares, strict=True)},
        }
        for number, (row, shares) in enumerate(zip(rows, answers, strict=True))
    ]
    write_text(output, _table(records, as_csv=Path(output).suffix == ".csv"))
    return Path(output)


def _table(records: list[dict[str, Any]], as_csv: bool) -> str:
    if not as_csv:
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()
