"""Reading the folders of comparisons and runs. What is missing is listed, never counted as zero."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from iwlora.errors import IwloraError, raise_all
from iwlora.inputs.yaml_json import parse_mapping, read_utf8
from iwlora.results import layout
from iwlora.results.comparison import Comparison, ComparisonRecord, Crash, Search
from iwlora.results.run import Run, describe_status, load_run


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
    for label, seed in product(record.methods, record.seeds):
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
        problems += [
            f"{run_folder / layout.RESULT} belongs to another comparison: its {field} is "
            f"{getattr(run.result, field)!r}, {layout.COMPARISON} says {value!r}"
            for field, value in expected.items()
            if getattr(run.result, field) != value
        ]
        if run.result.score is None:
            metric = run.result.primary_metric
            missing.append((label, seed, f"finished, but its {metric} is not a finite number"))
        else:
            runs.append(run)
    problems += unequal_scoring(runs)
    problems += [f"{root}: {line}" for line in unequal_starts(runs)]
    raise_all(problems)
    search = Search.load(root / layout.SEARCH).arms if (root / layout.SEARCH).exists() else {}
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


def unequal_scoring(runs: Sequence[Run]) -> list[str]:
    """Which runs are not scored as the first one is, a line for each difference."""
    fields = ("primary_metric", "evaluated_on", "selected_on")
    return [
        f"{run} does not compare: its {field} is {getattr(run.result, field)!r}, that of "
        f"{runs[0]} is {getattr(runs[0].result, field)!r}"
        for run, field in product(runs, fields)
        if getattr(run.result, field) != getattr(runs[0].result, field)
    ]


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
