"""Verdicts, page and evidence from planted scores, where the true answer is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from iwlora.advice.evidence import evidence_csv, read_evidence
from iwlora.errors import IwloraError
from iwlora.results.run import FloorScore
from iwlora_study.runner import evidence
from iwlora_study.runner.cells import load_cells
from iwlora_study.runner.command import FORMS, PAGE, STAGES, STUDY, results_page
from iwlora_study.runner.entries import load_entries
from iwlora_study.runner.forms import Form
from iwlora_study.runner.page.lessons import Lesson, lessons_list
from iwlora_study.runner.page.page import page, secondary_table
from iwlora_study.runner.page.temperatures import temperature_table
from iwlora_study.runner.scores import CellScores, StoredRun, load, load_all, save, scores_file
from iwlora_study.runner.verdicts import contrast, findings, going_on, lead

FORM = Form(name="top sites", arm="top", controls=["permuted"])
DRAWS = 12


def scores_of(
    improvement: Mapping[str, float],
    stage: str = "screen",
    sd: float = 0.003,
    draws: int = DRAWS,
    floor_margin: float = 0.2,
    seed: int = 0,
) -> CellScores:
    """Scores of arms whose true accuracy is 0.8 plus ``improvement``; losses go the other way."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.02, draws)  # what a draw does to all arms
    runs = []
    for arm, better in {"lora": 0.0, **improvement}.items():
        own = better + shared + rng.normal(0, sd, draws)
        for draw, value in enumerate(own):
            floor = FloorScore(
                name="most frequent class",
                trivial=True,
                rows=2000,
                metrics={"accuracy": 0.5},
                margin=floor_margin,
                low=floor_margin - 0.02,
                high=floor_margin + 0.02,
            )
            metrics = {"accuracy": 0.8 + value, "loss": 0.5 - value, "calibration_error": 0.05}
            runs.append(
                StoredRun(
                    arm=arm,
                    seed=draw,
                    metrics=metrics,
                    trivial_floors=[floor],
                    adapter_parameters=41_472,
                )
            )
    settings: dict[str, Any] = {
        "model": "builtin/minilm",
        "task": {"name": "glue/sst2", "max_train": 2000},
        "methods": [],
        "train": {"max_steps": 50, "batch_size": 32},
    }
    return CellScores(
        cell=f"01-{stage}",
        stage=stage,
        settings=settings,
        digest="0",
        complete=True,
        metric="accuracy",
        baseline="lora",
        runs=runs,
        searches={},
        machine="a CPU, 1 core a run",
        versions={},
        processor_seconds=3600.0,
        wall_seconds=3600.0,
    )


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    ("top", "permuted", "verdict"),
    [
        (0.03, 0.0, "better"),
        (0.03, 0.03, "open"),  # as good as its control: importance is not what helps
        (-0.03, 0.0, "worse"),
        (0.0, 0.0, "within"),
    ],
)
def test_importance_counts_only_where_the_control_is_beaten(
    stage: str, top: float, permuted: float, verdict: str
) -> None:
    (found,) = findings(scores_of({"top": top, "permuted": permuted}, stage), [FORM])
    assert found.verdict == verdict
    assert (lead(found) > 0) == (verdict == "better")


def test_a_missing_control_is_no_beaten_control() -> None:
    (found,) = findings(scores_of({"top": 0.03}), [FORM])
    assert found.verdict == "open"
    assert going_on([found]) == []


def test_a_cell_on_its_floor_does_not_count() -> None:
    scores = scores_of({"top": 0.03, "permuted": 0.0}, floor_margin=0.01)
    (found,) = findings(scores, [FORM])
    assert found.verdict == "floor"
    assert going_on([found]) == []
    assert evidence.rows([scores], [FORM]) == []


def test_few_draws_are_open() -> None:
    (found,) = findings(scores_of({"top": 0.03, "permuted": 0.0}, draws=4), [FORM])
    assert found.verdict == "open"


def test_lower_losses_are_improvements() -> None:
    scores = scores_of({"top": 0.03})
    of_loss = contrast(scores, "top", "lora", "loss")
    of_score = contrast(scores, "top", "lora", "score")
    assert of_loss is not None
    assert of_score is not None
    assert of_loss.mean == pytest.approx(of_score.mean / 100)
    assert of_loss.verdict == "better"


def test_confirmed_differences_are_rarely_false() -> None:
    """Of 400 cells without a difference at most 5% are called better or worse after 12 draws."""
    false = 0
    for seed in range(400):
        found = contrast(scores_of({"top": 0.0}, "confirm", seed=seed), "top", "lora", "score")
        assert found is not None
        false += found.verdict in ("better", "worse")
    assert false <= 20


def test_at_most_three_pairs_go_on_the_largest_first() -> None:
    found = [
        findings(scores_of({"top": better, "permuted": 0.0}, seed=seed), [FORM])[0]
        for seed, better in enumerate((0.01, 0.05, 0.02, 0.03, -0.02))
    ]
    assert going_on(found) == [found[1], found[3], found[2]]


def test_the_page_says_what_is_known_in_its_first_lines() -> None:
    nothing = page([], [FORM])
    assert "No form of importance is confirmed, and none is refuted" in nothing.splitlines()[2]
    screened = scores_of({"top": 0.03, "permuted": 0.0})
    first = page([screened], [FORM]).splitlines()[2]
    assert "none is refuted: no confirming run exists" in first
    assert "1 is ahead of LoRA and of all its controls" in first
    confirmed = scores_of({"top": 0.03, "permuted": 0.0}, "confirm")
    whole = page([confirmed, screened], [FORM])
    assert whole.splitlines()[2].startswith("**Importance pays in these regimes.**")
    assert whole.splitlines()[4].startswith("- Top sites, glue/sst2, 2,000 rows, 50 steps of 32: ")
    assert "| glue/sst2, 2,000 rows, 50 steps of 32 | top sites | score, points | +" in whole
    assert "**better**" in whole
    assert "| all |  | 2.00 | 2.00 |  |" in whole
    refuted = page([scores_of({"top": 0.0, "permuted": 0.0}, "confirm")], [FORM])
    assert "no form of importance beat both LoRA and its own control" in refuted.splitlines()[2]
    floor = scores_of({"top": 0.03, "permuted": 0.0}, "confirm", floor_margin=0.01)
    assert "no arm learned anything" in page([floor], [FORM]).splitlines()[4]
    assert page([], [FORM], [], ["## Prompts\n\nThey tie.\n"]).endswith(
        "\n\n## Prompts\n\nThey tie.\n"
    )


def test_a_lesson_is_not_written_where_the_scores_say_another() -> None:
    scores = scores_of({"top": 0.03, "permuted": 0.0})
    lesson = Lesson(text="The top helps", cell="01", arm="top", over="lora", verdict="better")
    (line,) = lessons_list([lesson], [scores]).splitlines()
    assert line.startswith("- The top helps: +")
    assert line.endswith("(glue/sst2, 2,000 rows, 50 steps of 32; cell 01, screen, 12 draws).")
    assert f"\n\n{line}\n\n## Map: confirmed" in page([scores], [FORM], [lesson])
    assert lessons_list([lesson.model_copy(update={"cell": "02"})], [scores]) == ""
    for wrong, said in [({"verdict": "within"}, "says better"), ({"arm": "best"}, "is missing")]:
        with pytest.raises(IwloraError, match=said):
            lesson.model_copy(update=wrong).line([scores])


def test_a_gain_that_a_temperature_gives_too_is_shown_as_none() -> None:
    """After the temperature the form's loss is 0.01 above that of LoRA in every draw."""
    scores = scores_of({"prior": 0.03})
    for run in scores.runs:
        rescaled = 0.41 if run.arm == "prior" else 0.4
        run.metrics |= {"loss_rescaled": rescaled, "calibration_error_rescaled": 0.02}
        run.metrics["temperature"] = 1.0 if run.seed % 2 else 2.0
    form = Form(name="a prior", arm="prior", outcome="loss")
    cells = temperature_table([scores], [form]).splitlines()[-1].strip("| ").split(" | ")
    assert cells[:2] == ["01", "prior"]
    assert cells[3:] == [
        "0.4100",
        "-0.0100 \\[-0.0100, -0.0100\\]",
        "0.0500",
        "0.0200",
        "1.50",
    ]
    assert temperature_table([scores], [FORM]) == ""
    floor = scores_of({"prior": 0.03}, floor_margin=0.01)
    floor.runs = [
        run.model_copy(update={"trivial_floors": low.trivial_floors})
        for run, low in zip(scores.runs, floor.runs, strict=True)
    ]
    assert temperature_table([floor], [form]) == ""


def test_secondary_outcomes_are_corrected() -> None:
    (found,) = findings(scores_of({"top": 0.03, "permuted": 0.0}, "confirm"), [FORM])
    lines = secondary_table([found]).splitlines()[2:]
    assert len(lines) == 2  # loss and calibration error
    p_loss = float(lines[0].split("|")[-2])
    assert p_loss == pytest.approx(2 * 2 / 2**DRAWS, abs=1e-3)  # all 12 signs are equal


def test_a_confirmed_form_beats_its_rivals_too() -> None:
    form = FORM.model_copy(update={"rivals": ["decay"]})
    for stage, rival, verdict in [
        ("confirm", {"decay": 0.03}, "open"),
        ("confirm", {}, "open"),
        ("confirm", {"decay": 0.0}, "better"),
        ("screen", {}, "better"),
    ]:
        (found,) = findings(scores_of({"top": 0.03, "permuted": 0.0, **rival}, stage), [form])
        assert found.verdict == verdict, (stage, rival)


def test_evidence_is_what_the_table_accepts(tmp_path: Any) -> None:
    scores = scores_of({"top": 0.03, "permuted": 0.0})
    rows = evidence.rows([scores], [FORM])
    assert [(row.choice, row.baseline) for row in rows] == [
        ("top", "lora"),
        ("permuted", "lora"),
        ("top", "permuted"),
    ]
    assert rows[0].verdict == "better"
    assert rows[0].share_of_rank_8 == 0.125
    assert rows[0].special_regime == "50 steps"
    scores.settings["task"]["flip_labels"] = 0.4
    flipped = evidence.rows([scores], [FORM])
    assert all(row.flipped_labels == 0.4 and not row.applies(2000) for row in flipped)
    path = tmp_path / "evidence.csv"
    path.write_text(evidence_csv(rows))
    assert read_evidence(path).rows == tuple(rows)


def test_scores_are_read_back(tmp_path: Any) -> None:
    for stage in STAGES:
        save(scores_of({"top": 0.03}, stage), tmp_path)
    path = scores_file(tmp_path, "01-screen")
    assert load(path) == scores_of({"top": 0.03})
    before = path.read_bytes()
    save(load(path), tmp_path)
    assert path.read_bytes() == before
    assert [scores.stage for scores in load_all(tmp_path)] == ["confirm", "screen"]


def test_forms_name_arms_of_cells(tmp_path: Any) -> None:
    """A form has all its controls in every cell that has any of them."""
    forms, arms = load_entries(FORMS, Form), list[set[str]]()
    for stage in STAGES:
        for cell in load_cells(STUDY / stage):
            methods: Sequence[Any] = cell.settings["methods"]
            arms.append({m.get("label", m["name"]) for m in methods})
    for form in forms:
        for labels in arms:
            if form.arm in labels and labels & set(form.controls):
                assert {form.against, *form.controls} <= labels
    (tmp_path / "forms.yaml").write_text("- {name: a, arm: b, outcome: luck}\n")
    with pytest.raises(IwloraError, match="outcome"):
        load_entries(tmp_path / "forms.yaml", Form)


def test_the_page_in_the_documentation_is_that_of_the_stored_scores() -> None:
    """After new scores or texts: ``python study/run.py report``."""
    assert PAGE.read_text("utf-8") == results_page()
