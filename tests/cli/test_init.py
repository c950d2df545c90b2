"""``iwlora init data.csv``, and ``train`` and ``compare`` of data without a recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from commands import call, check_plain, execute_in_process

pytestmark = pytest.mark.quick


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of 40 reviews with two columns that may be the text, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rows = [
        f"{n},it is a {'good' if n % 2 else 'bad'} film {n},film {n},{n % 2}"
        for n in range(100, 140)
    ]
    file = tmp_path / "films.csv"
    file.write_text("\n".join(["Id,Review Text,Title,Stars", *rows]) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def small(tiny_bert: Path) -> list[str]:
    """Settings of a tiny model and a short training."""
    return [f"model={tiny_bert}", "train.epochs=1", "train.precision=fp32"]


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def test_what_is_written_is_what_is_trained(
    data: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    written = call(capsys, "init", "films.csv", *small)
    assert written.code == 0, written
    fields = [line for line in written.out.splitlines() if line.lstrip()[:1] not in ("#", "")]
    comments = [line for line in written.out.splitlines() if line.lstrip().startswith("#")]
    assert "  # guessed or task.text=Title" in comments
    assert len(comments) >= len(fields) - 3  # the three parts have none
    data.with_name("recipe.yaml").write_text(written.out, encoding="utf-8")

    trained = call(capsys, "train", "films.csv", *small)
    assert trained.code == 0, trained
    assert trained.out.startswith("reading films.csv\nrecipe for films.csv; change a field as")
    assert "\n  'task.text=Review Text'" in trained.out
    assert "note: inferred from films.csv: text=Review Text (or task.text=Title)" in trained.out
    again = call(capsys, "train", "recipe.yaml", "--out", "again")
    assert again.code == 0, again
    recipes = [Path(f, "recipe.yaml").read_text() for f in ("runs/films", "again")]
    assert recipes[0] == recipes[1]
    assert result(Path("runs/films"))["metrics"] == result(Path("again"))["metrics"]

    # One assignment mends a guess, and a run of another recipe is not overwritten.
    other = call(capsys, "train", "films.csv", *small, "task.text=Title")
    check_plain(other)
    assert "belongs to another recipe" in other.err
    assert "task.text=['Title'] (not ['Review Text'])" in other.err
    mended = call(capsys, "init", "films.csv", *small, "task.text=Title")
    assert yaml.safe_load(mended.out)["task"]["text"] == "Title"


def test_a_comparison_of_data(
    data: Path,
    small: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = yaml.safe_load(call(capsys, "init", "films.csv", *small, "--compare").out)
    assert [method["name"] for method in written["methods"]] == ["lora", "iw-lora"]
    assert written["seeds"] == [0, 1, 2, 3, 4, 5]
    started = execute_in_process(monkeypatch)
    outcome = call(capsys, "compare", "films.csv", *small, "seeds=[0]", "methods=[lora]")
    assert outcome.code == 0, outcome
    assert "`iwlora init films.csv --compare > recipe.yaml` and edit it:" in outcome.out
    assert len(started) == 1
    folder = data.parent / "runs" / "films-compared"
    assert (folder / "report.html").is_file()
    stored = yaml.safe_load((folder / "lora" / "seed-0" / "recipe.yaml").read_text())
    assert stored["task"]["text"] == ["Review Text"]


def test_a_table_of_scores_stays_a_result(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = execute_in_process(monkeypatch)
    rows = [f"{m},{s},t,{0.5 + s / 10}" for m in ("lora", "other") for s in range(2)]
    Path("scores.csv").write_text("\n".join(["method,seed,task,score", *rows]) + "\n")
    outcome = call(capsys, "compare", "scores.csv", "--out", "compared")
    assert outcome.code == 0, outcome
    assert "recipe for" not in outcome.out
    missing = call(capsys, "compare", "scores.csv")
    assert (missing.code, "--out: missing" in missing.err) == (2, True)
    Path("scores.csv").write_text("method,seed,task\nlora,0,t\n")
    wrong = call(capsys, "compare", "scores.csv", "--out", "again")
    assert (wrong.code, "no column score" in wrong.err) == (2, True)
    assert not started


def test_data_that_cannot_be_trained_on(
    data: Path, small: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("rows.xyz").write_text("text,label\n")
    Path("unclear.csv").write_text("a,b\n1,2\n")
    Path("empty").mkdir()
    for given, message in (
        (["rows.xyz"], "unknown file type '.xyz' (accepted: .csv"),
        (["missing.csv"], "missing.csv"),
        (["unclear.csv"], "give task.text=COLUMN (columns: a, b)"),
        (["empty"], "empty"),
        (["films.csv", "task.label=stars"], "unknown column 'stars'; did you mean 'Stars'"),
        (["films.csv", "train.lrate=1"], "train.lrate: unknown field"),
        (["films.csv", "task.kind=poem"], "unknown kind 'poem'"),
        (["films.csv", "model=nowhere/"], "model=nowhere/"),
    ):
        for command in ("init", "train"):
            outcome = call(capsys, command, given[0], *small[:1], *given[1:])
            assert outcome.code == 2, (given, outcome)
            check_plain(outcome)
            assert message in outcome.err, (given, outcome)
    assert not Path("runs").exists()


@pytest.mark.usefixtures("needs_minilm")
def test_the_built_in_model_writes_no_texts(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{n} people met on Monday to talk,a meeting" for n in range(9)]
    Path("minutes.csv").write_text("\n".join(["Dialogue,Summary", *rows]))
    outcome = call(capsys, "train", "minutes.csv")
    check_plain(outcome)
    assert "cannot generate text" in outcome.err
    assert "such as model=google/flan-t5-small (the kind of task is seq2seq" in outcome.err
