"""The command ``python study/run.py``: runs cells, and writes the page and the evidence."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from iwlora.advice.evidence import FILE as EVIDENCE
from iwlora.advice.evidence import evidence_csv, read_evidence
from iwlora.errors import IwloraError
from iwlora.results.writing import write_text
from iwlora_study.runner import evidence, running, scores
from iwlora_study.runner.cells import Cell, load_cells, plan_table
from iwlora_study.runner.entries import load_entries
from iwlora_study.runner.forms import Form
from iwlora_study.runner.page import page
from iwlora_study.runner.page.lessons import Lesson

STUDY = Path(__file__).parents[3]
STAGES = ("screen", "confirm")
SCORES = STUDY / "scores"
RUNS = STUDY.parent / "runs" / "study"
FORMS = STUDY / "forms.yaml"
LESSONS = STUDY / "lessons.yaml"
OTHERS = STUDY / "others"
PAGE = STUDY.parent / "docs" / "results.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="study/run.py", description=(__doc__ or "").strip())
    commands = parser.add_subparsers(dest="command", required=True)
    for stage in STAGES:
        stage_parser = commands.add_parser(stage, help=f"run the cells of study/{stage}")
        stage_parser.add_argument("--glue", default=os.environ.get("IWLORA_GLUE"))
        stage_parser.add_argument("--minutes", type=float, default=60.0)
        stage_parser.add_argument("--jobs", type=int, default=1, help="runs at once")
        stage_parser.add_argument("--only", help="the cells whose names begin so")
        stage_parser.add_argument("--out", type=Path, default=RUNS, help="where the runs are kept")
    for name, (_, text) in _WITHOUT_RUNS.items():
        commands.add_parser(name, help=text)
    options = parser.parse_args(arguments)
    try:
        if options.command in STAGES:
            return _run(options)
        _WITHOUT_RUNS[options.command][0]()
    except IwloraError as error:
        parser.exit(2, f"error: {error}\n")
    return 0


def _run(options: argparse.Namespace) -> int:
    cells = load_cells(STUDY / options.command)
    cells = [cell for cell in cells if cell.name.startswith(options.only or "")]
    if any(cell.needs_glue for cell in cells) and not options.glue:
        raise IwloraError("--glue: missing; give a folder in the official layout of GLUE")
    command = partial(_command, glue=options.glue, jobs=options.jobs)
    say = partial(print, flush=True)
    done = running.run_cells(
        cells, options.command, SCORES, options.out, options.minutes, command, say
    )
    return 0 if done else 1


def _command(cell: Cell, out: Path, glue: str | None, jobs: int) -> list[str]:
    return running.compare_command(cell, glue, jobs, out)


def _plan() -> None:
    for stage in STAGES:
        print(f"{stage}\n\n{plan_table(load_cells(STUDY / stage))}\n")


def results_page() -> str:
    """The page of results: of the stored scores, and what studies on other subjects found."""
    others = [path.read_text(encoding="utf-8") for path in sorted(OTHERS.glob("*.md"))]
    forms, lessons = load_entries(FORMS, Form), load_entries(LESSONS, Lesson)
    return page.page(scores.load_all(SCORES), forms, lessons, others)


def _report() -> None:
    text = results_page()
    write_text(PAGE, text)
    print(f"{PAGE} is written:\n\n{text.partition(page.FRAME)[0].strip()}")


def _evidence() -> None:
    kept = [row for row in read_evidence().rows if not row.source.startswith(evidence.SOURCE)]
    found = evidence.rows(scores.load_all(SCORES), load_entries(FORMS, Form))
    write_text(EVIDENCE, evidence_csv([*kept, *found]))
    print(f"{EVIDENCE}: {len(found)} rows of the study, {len(kept)} others")


_WITHOUT_RUNS: dict[str, tuple[Callable[[], None], str]] = {
    "plan": (_plan, "the cells and what they are predicted to take"),
    "report": (_report, "write docs/results.md from the stored scores"),
    "evidence": (_evidence, "write the table of iwlora advise from the stored scores"),
}
