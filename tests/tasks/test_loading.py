"""Loading by name: the built-in task, limits, held-out rows, and the cost of the import."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from operator import ne
from pathlib import Path
from typing import Any

import pytest

from iwlora.errors import IwloraError
from iwlora.tasks import Task, TaskSpec, load
from iwlora.tasks.corpora import sentiment
from iwlora.tasks.corpora.entailment import generate
from iwlora.tasks.splits import dataset_from_rows, with_flipped_labels

pytestmark = pytest.mark.quick


def entailment(seed: int = 0, **fields: Any) -> Task:
    return load(TaskSpec(name="builtin/entailment", **fields), seed)


@pytest.fixture(scope="module")
def whole() -> Task:
    return entailment()


def test_the_built_in_task_is_what_its_grammar_generates(whole: Task) -> None:
    assert whole.labels == ("entailment", "not_entailment")
    assert whole.reported == ("test",)
    for split, rows in generate().items():
        loaded = [
            (row["premise"], row["hypothesis"], whole.labels[row["label"]])
            for row in whole.splits[split]
        ]
        assert loaded == [(row["premise"], row["hypothesis"], row["label"]) for row in rows]


def test_another_seed_of_the_grammar_gives_other_rows(whole: Task) -> None:
    other = load(TaskSpec(name="builtin/sentiment", grammar_seed=5), seed=0)
    expected = sentiment.generate(seed=5)
    for split, rows in expected.items():
        assert list(other.splits[split]["text"]) == [row["text"] for row in rows]
    first = load(TaskSpec(name="builtin/sentiment"), seed=0)
    assert set(first.splits["test"]["text"]) != set(other.splits["test"]["text"])
    premises = entailment(grammar_seed=1, max_test=50).splits["test"]["premise"]
    assert set(premises) <= {row["premise"] for row in generate(seed=1)["test"]}
    assert not set(premises) <= set(whole.splits["test"]["premise"])
    with pytest.raises(
        ValueError, match=r"rows of glue/rte are not generated, as those of builtin"
    ):
        TaskSpec(name="glue/rte", grammar_seed=1)
    with pytest.raises(ValueError, match="grammar_seed is for generated tasks"):
        TaskSpec(train="a.csv", grammar_seed=1)


def test_a_deeper_grammar_gives_other_rows() -> None:
    premises = entailment(grammar_depth=2, max_test=50).splits["test"]["premise"]
    assert set(premises) <= {row["premise"] for row in generate(depth=2)["test"]}
    with pytest.raises(
        ValueError, match="builtin/sentiment has no depth, as builtin/entailment has"
    ):
        TaskSpec(name="builtin/sentiment", grammar_depth=2)
    with pytest.raises(ValueError, match="grammar_depth is for generated tasks"):
        TaskSpec(train="a.csv", grammar_depth=2)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A task in files: 100 training rows and 20 validation rows, each text another one."""
    folder = tmp_path_factory.mktemp("numbers")
    for name, first, count in (("train", 0, 100), ("validation", 100, 20)):
        lines = [f"sentence {i},{'ab'[i % 2]}" for i in range(first, first + count)]
        (folder / f"{name}.csv").write_text("text,label\n" + "\n".join(lines) + "\n")
    files = {name: str(folder / f"{name}.csv") for name in ("train", "validation")}
    return {**files, "text": "text", "label": "label"}


def texts(task: Task, split: str) -> list[str]:
    return list(task.splits[split]["text"])


def rows(task: Task, split: str) -> set[tuple[Any, ...]]:
    return {tuple(row.values()) for row in task.splits[split]}


def test_limits_take_the_first_rows_of_a_seeded_shuffle(numbered: dict[str, str]) -> None:
    def train(seed: int = 0, **fields: Any) -> list[str]:
        return texts(load(TaskSpec(**numbered, **fields), seed), "train")

    few, more, everything = train(max_train=20), train(max_train=50), train()
    assert more[:20] == few
    assert few != everything[:20]
    assert set(few) <= set(everything)
    assert train(seed=1, max_train=20) != few
    assert train(max_train=20) == few
    assert train(max_train=10**9) == everything


def test_the_scored_rows_are_the_same_for_every_seed(numbered: dict[str, str]) -> None:
    first, second = (load(TaskSpec(**numbered, max_validation=10), seed) for seed in (0, 1))
    assert len(texts(first, "validation")) == 10
    assert texts(first, "validation") == texts(second, "validation")


def test_test_rows_are_limited_alike_for_every_seed(numbered: dict[str, str]) -> None:
    limited = {**numbered, "test": numbered["validation"], "max_test": 10}
    first, second = (load(TaskSpec(**limited), seed) for seed in (0, 1))
    assert first.reported == ("test",)
    assert len(texts(first, "test")) == 10
    assert texts(first, "test") == texts(second, "test") != texts(first, "validation")[:10]
    assert len(texts(first, "validation")) > 10
    assert load(TaskSpec(**limited, holdout=0.2), seed=0).reported == ("validation",)
    with pytest.raises(IwloraError, match=r"task\.max_test=10: .* has no test rows with labels; r"):
        load(TaskSpec(**numbered, max_test=10), seed=0)


def test_labels_are_flipped_in_the_training_rows_only(numbered: dict[str, str]) -> None:
    def classes(task: Task, split: str) -> list[int]:
        return list(task.splits[split]["label"])

    options = {**numbered, "max_train": 90, "selection": 0.1}
    clean, noisy = load(TaskSpec(**options), 3), load(TaskSpec(**options, flip_labels=0.3), 3)
    for split in clean.splits:
        assert texts(clean, split) == texts(noisy, split)
        different = [
            a != b for a, b in zip(classes(clean, split), classes(noisy, split), strict=True)
        ]
        assert sum(different) == (27 if split == "train" else 0)
    assert noisy.notes == (
        *clean.notes,
        "train: 27 of 90 labels are another class (task.flip_labels=0.3)",
    )
    assert classes(load(TaskSpec(**options, flip_labels=0.3), 3), "train") == classes(
        noisy, "train"
    )
    other = load(TaskSpec(**options, flip_labels=0.3), seed=4)
    clean_other = load(TaskSpec(**options), seed=4)
    assert sum(map(ne, classes(other, "train"), classes(clean_other, "train"))) == 27


def test_each_other_class_is_equally_likely() -> None:
    split = dataset_from_rows(["sentence"], [(str(i), i % 3) for i in range(3000)])
    noisy = with_flipped_labels(split, 0.5, classes=3, seed=0)
    assert noisy["sentence"][:] == split["sentence"][:]
    pairs = Counter(zip(split["label"][:], noisy["label"][:], strict=True))
    assert sum(pairs[k, k] for k in range(3)) == 1500
    assert all(200 < pairs[a, b] < 300 for a in range(3) for b in range(3) if a != b)


def test_only_classes_can_be_flipped(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n" + "".join(f"a{i},{i}.5\n" for i in range(40)))
    spec = TaskSpec(train=str(tmp_path / "t.csv"), text="text", label="label", flip_labels=0.1)
    with pytest.raises(
        IwloraError, match=r"task\.flip_labels=0\.1 gives .* of kind regression, not"
    ):
        load(spec, seed=0)


def test_held_out_rows_are_scored_and_not_trained_on(numbered: dict[str, str]) -> None:
    whole = load(TaskSpec(**numbered), seed=0)
    held_out = load(TaskSpec(**numbered, holdout=0.2), seed=0)
    assert set(held_out.splits) == {"train", "validation"}
    assert held_out.reported == ("validation",)
    train, scored = rows(held_out, "train"), rows(held_out, "validation")
    assert (len(train), len(scored)) == (80, 20)
    assert train | scored == rows(whole, "train")
    assert not scored & rows(whole, "validation"), "the reported rows stay unseen"


def test_held_out_rows_are_the_same_for_every_seed_and_few_for_a_small_training(
    numbered: dict[str, str],
) -> None:
    first, second = (
        load(TaskSpec(**numbered, holdout=0.2, max_train=30), seed=seed) for seed in (0, 1)
    )
    assert rows(first, "validation") == rows(second, "validation")
    assert len(first.splits["validation"]) == 6
    assert len(first.splits["train"]) == 30
    assert rows(first, "train") != rows(second, "train")


@pytest.mark.parametrize(("holdout", "rest"), [(0.001, "score"), (0.9999, "train on")])
def test_a_holdout_that_leaves_nothing(numbered: dict[str, str], holdout: float, rest: str) -> None:
    with pytest.raises(IwloraError, match=f"leaves nothing to {rest}"):
        load(TaskSpec(**numbered, holdout=holdout), seed=0)


def test_the_rows_for_selection_are_a_fraction_of_each_class(numbered: dict[str, str]) -> None:
    whole = load(TaskSpec(**numbered), seed=0)
    task, other = (load(TaskSpec(**numbered, selection=0.25), seed=seed) for seed in (0, 1))
    assert sorted(texts(task, "train") + texts(task, "selection")) == sorted(texts(whole, "train"))
    assert sorted(task.splits["selection"]["label"]) in (
        [0] * 12 + [1] * 13,
        [0] * 13 + [1] * 12,
    )
    assert texts(task, "validation") == texts(whole, "validation")
    assert (task.reported, task.monitored) == (("validation",), "selection")
    assert texts(other, "selection") == texts(task, "selection")


def test_a_selection_keeps_each_class_on_both_sides(numbered: dict[str, str]) -> None:
    for fraction, split in ((0.001, "selection"), (0.9999999, "train")):
        task = load(TaskSpec(**numbered, selection=fraction), seed=0)
        assert sorted(task.splits[split]["label"]) == [0, 1]


def test_runs_of_former_recipes_keep_their_rows(reviews: dict[str, str]) -> None:
    former = {**reviews, "split": "by-class"}
    task = load(TaskSpec(**former, selection=0.25), seed=0)
    assert sorted(task.splits["selection"]["label"]) == [0] * 12 + [1] * 12
    chosen = ["it is a good film man", "it is a awful film seen by"]
    assert list(task.splits["selection"]["text"][:2]) == chosen
    held_out = load(TaskSpec(**former, holdout=0.25), seed=0).splits["validation"]
    assert (len(held_out), *held_out["text"][:2]) == (24, *chosen)
    with pytest.raises(IwloraError, match=r"task\.selection=.* leaves nothing to select on"):
        load(TaskSpec(**former, selection=0.001), seed=0)


def test_the_import_is_cheap() -> None:
    heavy = {"torch", "transformers", "datasets", "sklearn", "pandas", "pyarrow", "scipy"}
    heavy |= {"sacrebleu", "seqeval", "rouge_score", "jinja2"}
    code = "import sys, iwlora.tasks; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "iwlora.tasks.corpora.glue" in imported
    assert not heavy & imported


def test_a_named_task_takes_options_of_its_kind(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        (tmp_path / f"{part}-v1.1.json").write_text(
            '{"data": [{"paragraphs": [{"context": "a film", "qas": '
            '[{"id": "1", "question": "what", "answers": [{"text": "film", "answer_start": 2}]}]'
            "}]}]}"
        )
    spec = TaskSpec(name="squad/v1.1", data_dir=str(tmp_path), kind={"n_best": 3})
    assert load(spec, seed=0).kind.model_dump()["n_best"] == 3
