"""Reading the folders of comparisons and runs. What is missing is listed, never counted as zero."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from iwlora.errors import IwloraError
from iwlora.inputs.documents import parse_mapping, read_utf8
from iwlora.results import layout
from iwlora.results.comparison import Comparison, ComparisonRecord, Crash
from iwlora.results.run import Run, load_run
from iwlora.results.search import load_search
from iwlora.results.status import describe_status


def load_comparison(folder: str | os.PathLike[str]) -> Comparison:
    """The comparison in ``folder``, whose runs lie at ``<label>/seed-<n>/``.

    Raises ``IwloraError`` with every damaged ``result.json``, every one that belongs to another
    model, task, label or seed, and every one scored differently from the first.
    """
    root = Path(folder)
    path = root / layout.COMPARISON
    if not path.exists():
        raise IwloraError(
            f"{folder} is no comparison (no {layout.COMPARISON}); see 'iwlora compare'"
        )
    record = ComparisonRecord.load(path)
    runs: list[Run] = []
    missing: list[tuple[str, int, str]] = []
    problems: list[str] = []
    for label in record.methods:
        for seed in record.seeds:
            run_folder = layout.run_folder(root, label, seed)
            try:
                if not (run_folder / layout.RESULT).exists():
                    missing.append((label, seed, describe_status(run_folder)))
                    continue
                run = load_run(run_folder)
            except IwloraError as error:
                problems.append(str(error))
                continue
            expected = {"model": record.model, "task": record.task, "label": label, "seed": seed}
            problems += _mismatches(run, run_folder, expected, runs[0] if runs else None)
            if run.result.score is None:
                metric = run.result.primary_metric
                missing.append((label, seed, f"finished, but its {metric} is not a finite number"))
            else:
                runs.append(run)
    problems += [f"{root}: {line}" for line in unequal_starts(runs)]
    if problems:
        raise IwloraError("\n".join(problems))
    search = load_search(root / layout.SEARCH)
    uncertain = [choice.remark for choice in search.values() if choice.remark]
    return Comparison(
        root,
        record.model,
        record.task,
        tuple(record.methods),
        tuple(record.seeds),
        tuple(runs),
        tuple(missing),
        record.searched,
        search,
        (*uncertain, *_crashes(root / layout.FAILURES)),
        record.baseline,
    )


def _crashes(path: Path) -> list[str]:
    """Which runs crashed, one sentence for each; the last line may have been cut short."""
    lines = read_utf8(path).splitlines() if path.exists() else []
    crashes: dict[str, Crash] = {}
    for number, line in enumerate(lines, start=1):
        if number < len(lines) or line.endswith("}"):
            origin = f"{path}, line {number}"
            crash = Crash.parse(parse_mapping(line, origin), origin)
            crashes[crash.run] = crash
    return [str(crash) for crash in crashes.values()]


def _mismatches(
    run: Run, folder: Path, expected: Mapping[str, Any], first: Run | None
) -> list[str]:
    """Why this run does not belong to its comparison, one line for each reason."""
    path = folder / layout.RESULT
    result = run.result.model_dump()
    lines = [
        f"{path} belongs to another comparison: its {field} is {result[field]!r}, "
        f"{layout.COMPARISON} says {value!r}"
        for field, value in expected.items()
        if result[field] != value
    ]
    if first is not None and first.folder:
        alike = first.result.model_dump(include={"primary_metric", "evaluated_on", "selected_on"})
        lines += [
            f"{path} does not compare: its {field} is {result[field]!r}, that of "
            f"{first.folder / layout.RESULT} is {value!r}"
            for field, value in alike.items()
            if result[field] != value
        ]
    return lines


def unequal_starts(runs: Sequence[Run]) -> list[str]:
    """Where runs of one seed did not see the same data in the same order from the same head."""
    lines = []
    for name, condition in (
        ("data_digest", "the same data in the same order"),
        ("head_digest", "the same initial head"),
    ):
        first: dict[int, Run] = {}
        for run in runs:
            own = getattr(run.result, name)
            other = first.setdefault(run.result.seed, run) if own else run
            if own and getattr(other.result, name) != own:
                lines.append(
                    f"{run.result.label} and {other.result.label} did not start alike at seed "
                    f"{run.result.seed}: not {condition}"
                )
    return lines


def load(folder: str | os.PathLike[str]) -> Comparison:
    """A comparison folder, or a single run folder as a comparison of one arm and one seed."""
    root = Path(folder)
    if not root.is_dir():
        raise IwloraError(f"no such folder: {folder}")
    if (root / layout.COMPARISON).exists():
        return load_comparison(root)
    if not any((root / name).exists() for name in (layout.RESULT, layout.RECIPE, layout.STATUS)):
        raise IwloraError(
            f"{folder} is neither a run (no {layout.RESULT}) nor a comparison (no "
            f"{layout.COMPARISON}); make one with 'iwlora train' or 'iwlora compare'"
        )
    run = load_run(root)
    result = run.result
    return Comparison(root, result.model, result.task, (result.label,), (result.seed,), (run,), ())
