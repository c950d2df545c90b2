"""Runs with ``task.on_bad``: what they train on, what they print, and ``bad-rows.csv``."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from commands import call, check_plain, run_settings, write_recipe
from iwlora.errors import BadRow
from iwlora.training.state.bad_rows import save_bad_rows


@pytest.fixture
def broken(tiny_bert: Path, reviews: dict[str, str], tmp_path: Path) -> Path:
    """A recipe with two bad rows in train and one in validation."""
    task = {**reviews}
    for split, more in (("train", "97,,pos\n98,a,b,c\n"), ("validation", "33,it is a film,odd\n")):
        task[split] = str(tmp_path / f"{split}.csv")
        Path(task[split]).write_text(Path(reviews[split]).read_text() + more)
    return write_recipe(
        tmp_path / "recipe.yaml", run_settings(tiny_bert, {**task, "max_train": 32})
    )


def listed(folder: Path, name: str = "bad-rows.csv") -> list[dict[str, str]]:
    with (folder / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


@pytest.mark.quick
def test_a_refused_run_may_go_on_without_the_rows(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    refused = call(capsys, "train", broken, "--out", out)
    assert refused.code == 2
    check_plain(refused)
    assert refused.err.splitlines()[-1] == (
        f"error: {out / 'bad-rows.csv'} lists all rows that cannot be used (2); "
        "task.on_bad=skip leaves them out"
    )
    assert [row["row"] for row in listed(out)] == ["line 98", "line 99"]

    trained = call(capsys, "train", broken, "task.on_bad=skip", "--out", out)
    assert trained.code == 0, trained.err
    assert " (validation, without 1 row that cannot be used)\n" in trained.out
    assert result(out)["left_out_rows"] == {"train": 2, "validation": 1}
    for note in (
        "train: 2 of 98 rows cannot be used and are left out (task.on_bad=skip)",
        "validation: 1 of 33 rows cannot be used and is not scored (task.on_bad=skip)",
    ):
        assert f"note: {note}\n" in trained.out
    assert listed(out) == [
        {"split": split, "file": str(tmp_path / f"{split}.csv"), "row": place, "problem": problem}
        for split, place, problem in (
            ("train", "line 98", "column 'text' is empty"),
            (
                "train",
                "line 99",
                "4 fields, the header has 3; quote a field that holds ',', or give task.delimiter",
            ),
            (
                "validation",
                "line 34",
                f"label 'odd' is not in {tmp_path / 'train.csv'} (accepted: neg, pos)",
            ),
        )
    ]
    assert call(capsys, "verify", out).code == 0
    (out / "bad-rows.csv").write_text("split,file,row,problem\n")
    assert call(capsys, "verify", out).code == 1, "the list is a part of the result"


@pytest.mark.quick
def test_the_rows_that_remain_are_what_the_run_is_computed_from(
    broken: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The digests of the rows are those of the files without the bad ones."""
    digests = []
    sound = [f"task.{split}={reviews[split]}" for split in ("train", "validation")]
    for name, overrides in (("skip", ["task.on_bad=skip"]), ("sound", sound)):
        out = tmp_path / name
        assert (
            call(capsys, "train", broken, *overrides, "train.max_steps=1", "--out", out).code == 0
        )
        parts = result(out)["fingerprint"]["parts"]
        digests.append({k: v for k, v in parts.items() if k.startswith(("texts", "labels"))})
        recipe = parts["recipe"]
        digests[-1]["recipe"] = recipe
    skipped, complete = digests
    assert skipped.pop("recipe") != complete.pop("recipe"), "the option is a part of the recipe"
    assert skipped == complete
    assert not (tmp_path / "sound" / "bad-rows.csv").exists()


@pytest.mark.quick
def test_report_lists_and_trains_nothing(
    broken: Path, reviews: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, report = tmp_path / "run", "task.on_bad=report"
    without = call(capsys, "train", broken, report)
    assert without.code == 1
    title = tmp_path / "train.csv"
    assert without.out.splitlines()[-1] == (
        f"{title}: 3 rows cannot be used; --out FOLDER lists all of them"
    )
    assert len(without.out.splitlines()) == 4
    found = call(capsys, "train", broken, report, "--out", out)
    assert found.code == 1
    assert [path.name for path in out.iterdir()] == ["bad-rows.csv"]
    assert [row["row"] for row in listed(out)] == ["line 98", "line 99", "line 34"]
    sound = [f"task.{split}={reviews[split]}" for split in ("train", "validation")]
    clean = call(capsys, "train", broken, report, *sound, "--out", out)
    assert (clean.code, clean.out) == (0, f"{reviews['train']}: every row can be used\n")
    assert list(out.iterdir()) == [], "a former list is removed"


@pytest.mark.quick
def test_a_comparison_lists_the_rows_once(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is trained here; tests/compare/report has what a report says of such rows."""
    import yaml

    settings = yaml.safe_load(broken.read_text())
    del settings["method"]
    methods = [{"name": "lora", "rank": 2}, {"name": "bitfit"}]
    recipe = write_recipe(tmp_path / "compare.yaml", {**settings, "methods": methods, "seeds": [0]})
    out = tmp_path / "compared"
    for more in (["--dry-run"], []):
        refused = call(capsys, "compare", recipe, "--out", out, *more)
        assert refused.code == 2
        check_plain(refused)
        assert [row["row"] for row in listed(out)] == ["line 98", "line 99"]
        (out / "bad-rows.csv").unlink()
    found = call(capsys, "compare", recipe, "task.on_bad=report", "--out", out)
    assert found.code == 1
    assert [row["row"] for row in listed(out)] == ["line 98", "line 99", "line 34"]
    assert "Traceback" not in found.out


@pytest.mark.quick
def test_a_dry_run_lists_them_where_the_run_will_be(
    broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    (out / "finished").mkdir(parents=True)
    (out / "finished" / "result.json").write_text("{}")
    for more, where in (
        (["--out", out], str(out / "bad-rows.csv")),
        ([], "with --out FOLDER its bad-rows.csv"),
        (["--out", out / "finished"], "with --out FOLDER its bad-rows.csv"),
    ):
        refused = call(capsys, "train", broken, "--dry-run", *more)
        assert refused.code == 2
        check_plain(refused)
        assert refused.err.splitlines()[-1] == (
            f"error: {where} lists all rows that cannot be used (2); "
            "task.on_bad=skip leaves them out"
        )
    assert [row["row"] for row in listed(out)] == ["line 98", "line 99"]
    assert not (out / "finished" / "bad-rows.csv").exists()


@pytest.mark.quick
def test_a_measurement_lists_them_beside_its_file(
    broken: Path, tiny_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import yaml

    task = yaml.safe_load(broken.read_text())["task"]
    given = [f"task.{name}={value}" for name, value in task.items()]
    given += ["--model", str(tiny_bert), "--out", str(tmp_path / "weights.json")]
    refused = call(capsys, "measure", *given)
    assert refused.code == 2
    check_plain(refused)
    listing = tmp_path / "weights.bad-rows.csv"
    assert refused.err.splitlines()[-1].startswith(f"error: {listing} lists all rows that cannot")
    assert [row["row"] for row in listed(tmp_path, listing.name)] == ["line 98", "line 99"]
    skipped = [*given, "task.on_bad=skip", "train.max_length=32", "--max-batches", "1"]
    assert call(capsys, "measure", *skipped).code == 0
    assert len(listed(tmp_path, listing.name)) == 3


@pytest.mark.quick
def test_the_list_is_safe_to_open(tmp_path: Path) -> None:
    rows = [BadRow("train", "=a.csv", "line 2", "label 'a,\n\"b' is\rodd")]
    save_bad_rows(tmp_path / "bad-rows.csv", rows)
    (row,) = listed(tmp_path)
    assert row["file"] == "'=a.csv"
    assert row["problem"] == "label 'a, \"b' is odd"
    save_bad_rows(tmp_path / "bad-rows.csv", [])
    assert not (tmp_path / "bad-rows.csv").exists()
