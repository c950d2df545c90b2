"""The experiment of the paper, offline on a tiny model, and its tasks with real data."""

from __future__ import annotations

from pathlib import Path

import pytest

from commands import call, execute_in_process
from counted import HEAD, WIDTH, accuracy, f1, low_rank_parameters, predictions, result, table
from iwlora import build_recipe, train

PAPER = Path(__file__).parents[2] / "recipes" / "paper" / "rte.yaml"
ARMS = ("full", "lora", "adalora", "iw-lora")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The runs of a comparison are executed in this process; returns their commands."""
    return execute_in_process(monkeypatch)


def test_the_metrics_by_hand_can_tell() -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")]
    assert accuracy(pairs) == 0.75
    assert f1(pairs, "a") == pytest.approx(2 / 3)
    assert f1(pairs, "b") == pytest.approx(0.8)
    assert f1(pairs, "c") == 0


@pytest.fixture(scope="module")
def tiny_rte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """RTE's files in the official layout, with a few sentences of the tiny vocabulary."""
    glue = tmp_path_factory.mktemp("glue")
    (glue / "RTE").mkdir()
    for file, count in (("train.tsv", 48), ("dev.tsv", 20)):
        lines = ["index\tsentence1\tsentence2\tlabel"]
        for row in range(count):
            who, other = ("dog", "cat") if row % 3 else ("man", "woman")
            entailed = row % 2 == 0
            second = f"the {who if entailed else other} sees" + (" a film" if row % 5 else "")
            label = "entailment" if entailed else "not_entailment"
            lines.append(f"{row}\tthe {who} sees the {other} .\t{second} .\t{label}")
        (glue / "RTE" / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return glue


@pytest.mark.usefixtures("in_process")
def test_the_paper_recipe_runs_offline_on_a_tiny_deberta(
    tiny_deberta: Path, tiny_rte: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"model={tiny_deberta}", f"task.data_dir={tiny_rte}"]
    small = ["seeds=[0]", "train.epochs=1", "train.max_length=32", "task.max_train=32"]
    small.append("train.batch_size=8")
    outcome = call(capsys, "compare", PAPER, *given, *small, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    shown = table(outcome.out)
    assert tuple(shown)[: len(ARMS)] == ARMS
    head = WIDTH * WIDTH + WIDTH + HEAD  # DeBERTa's pooler belongs to the head
    for label in ARMS:
        run = result(tmp_path / "out", label, 0)
        assert run["task"] == "glue/rte"
        assert run["train_examples"] == 32
        assert run["head_parameters"] == head
        pairs = predictions(tmp_path / "out" / label / "seed-0")
        assert len(pairs) == 20
        assert run["metrics"]["accuracy"] == pytest.approx(accuracy(pairs))
        assert run["metrics"]["f1"] == pytest.approx(f1(pairs, "entailment"))
        assert shown[label]["f1"] == f"{100 * f1(pairs, 'entailment'):.2f}"
    for label in ("lora", "iw-lora"):
        run = result(tmp_path / "out", label, 0)
        assert (run["rank"], run["adapter_parameters"]) == (8, low_rank_parameters(8))


@pytest.mark.usefixtures("needs_minilm")
@pytest.mark.parametrize(
    ("task", "positive"), [("glue/rte", "entailment"), ("glue/mrpc", "equivalent")]
)
def test_real_data(glue_dir: Path, tmp_path: Path, task: str, positive: str) -> None:
    settings = {
        "model": "builtin/minilm",
        "task": {"name": task, "data_dir": str(glue_dir), "max_train": 16, "max_validation": 32},
        "method": {"name": "lora", "rank": 8},
        "train": {"epochs": 1, "lr": 1e-3, "batch_size": 16, "max_length": 64},
    }
    run = train(build_recipe(settings), tmp_path)
    pairs = predictions(tmp_path)
    assert len(pairs) == 32
    assert run["metrics"]["accuracy"] == pytest.approx(accuracy(pairs), abs=1e-12)
    assert run["metrics"]["f1"] == pytest.approx(f1(pairs, positive), abs=1e-12)
    # MiniLM-L6: 6 blocks of 384, 1,536 inside.
    block = 4 * 8 * (384 + 384) + 2 * 8 * (384 + 1536)
    assert run["adapter_parameters"] == 6 * block == 331776
    assert run["head_parameters"] == 384 * 2 + 2
