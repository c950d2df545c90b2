"""``iwlora tasks show``: balance, lengths, truncation and duplicates, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import call
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.description import duplicates


def test_show(tmp_path: Path, tiny_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        "sentence,label",
        *(f"the dog {'sees a cat ' * k} {k},{'ab'[k % 2]}" for k in range(12)),
    ]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "dev.csv").write_text("\n".join([rows[0], rows[3], rows[4][:-1] + "a", "new,a"]))
    files = [f"task.train={tmp_path / 'train.csv'}", f"task.validation={tmp_path / 'dev.csv'}"]
    shown = call(capsys, "tasks", "show", "--model", tiny_bert, *files, "train.max_length=16")
    assert shown.code == 0, shown.err
    # "the dog", 3 k words, a digit that is [UNK], [CLS] and [SEP]: 3 k + 5 tokens, 16 up to k = 3.
    text = " ".join(shown.out.split())
    for line in (
        f"inferred from {tmp_path / 'train.csv'}: text=sentence, label=label",
        "train: 12 rows labels a 6 (50.0%), b 6 (50.0%)",
        "tokens 5 to 38, median",
        "at 16 8 rows are longer (66.7%), 35.7% of all tokens are cut off",
        "validation: 2 of 3 rows have the texts of a training row, 1 of them with another label",
    ):
        assert line in text, shown.out


@pytest.mark.parametrize(("name", "shared"), [("glue/cola", 16), ("glue/sst2", 0)])
def test_real_duplicates(name: str, shared: int, glue_dir: Path) -> None:
    line = duplicates(load(TaskSpec(name=name, data_dir=str(glue_dir)), seed=0))[1]
    assert line.startswith(f"validation: {shared} of ")
