"""The tables of the study: accuracy by the number of sources, against the union and the pool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iwlora.compare.statistics.paired_tests import summarize
from pool_price.cells import SCHEDULES, Cell
from pool_price.record import Record
from timed_commands import table

Scores = Mapping[str, Mapping[str, float]]
"""{seed: {arm: accuracy}}."""


def tables(record: Record, cells: Sequence[Cell]) -> str:
    """For each data set, division, start and schedule: arms × numbers of sources, twice.

    The second table has the difference of each arm from the mean of the sources' predictions: it is
    where one can see whether something that is made of the sources fails.
    """
    if not record.scores:
        return "Nothing is recorded yet."
    text = [f"{name}: {value}" for name, value in sorted(record.about.items())]
    text += [f"machine: {name}" for name in sorted({*record.machines.values()})] + [""]
    unions = _unions(record, cells)
    kinds = dict.fromkeys((cell.data, cell.division, cell.own_starts) for cell in cells)
    for data, division, own_starts in kinds:
        for schedule in SCHEDULES:
            chosen = [
                cell
                for cell in cells
                if (cell.data, cell.division, cell.own_starts) == (data, division, own_starts)
                and cell.schedule == schedule
                and cell.sources > 1
                and cell.name in record.scores
            ]
            if chosen:
                starts = ", each with its own start" if own_starts else ""
                what = f"{data}, sources by {division}{starts}, as many {schedule} as the union"
                text += [what, "", _table(record, chosen, unions), ""]
                text += ["minus the pool, on the same draws:", "", _from_pool(record, chosen), ""]
    text += [_search_table(record, cells)]
    return "\n".join(text)


def _unions(record: Record, cells: Sequence[Cell]) -> dict[tuple[str, str], dict[str, float]]:
    """{(data set, method): {seed: accuracy}} of one run on all rows."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for cell in cells:
        if cell.sources == 1:
            for seed, arms in record.scores.get(cell.name, {}).items():
                for arm, accuracy in arms.items():
                    found.setdefault((cell.data, arm.partition(":")[0]), {})[seed] = accuracy
    return found


def _table(
    record: Record,
    cells: Sequence[Cell],
    unions: Mapping[tuple[str, str], Mapping[str, float]],
) -> str:
    counts, rows = _counts(cells), []
    for method, by_count in _scores(record, cells).items():
        union = unions.get((cells[0].data, method), {})
        if union:
            mean = f"{summarize([*union.values()]).mean:.1f}"
            rows.append([f"{method}: one run on all rows", mean, *("" for _ in counts)])
        for arm in _arms(by_count, method):
            cells_of_arm = [_cell(arm, by_count.get(count, {}), union) for count in counts]
            rows.append([arm, "", *cells_of_arm])
    return table(["arm", "1", *(f"{count} sources" for count in counts)], rows)


def _from_pool(record: Record, cells: Sequence[Cell]) -> str:
    counts, rows = _counts(cells), []
    for method, by_count in _scores(record, cells).items():
        pool = f"{method}: pool"
        for arm in _arms(by_count, method):
            if arm != pool:
                of_arm = [_difference(arm, pool, by_count.get(count, {})) for count in counts]
                rows.append([arm, *of_arm])
    return table(["arm", *(f"{count} sources" for count in counts)], rows)


def _counts(cells: Sequence[Cell]) -> list[int]:
    return sorted({cell.sources for cell in cells})


def _scores(record: Record, cells: Sequence[Cell]) -> dict[str, dict[int, Scores]]:
    """{method: {number of sources: its scores}}."""
    found: dict[str, dict[int, Scores]] = {}
    for cell in cells:
        for method in cell.methods:
            found.setdefault(method, {})[cell.sources] = record.scores[cell.name]
    return found


def _arms(by_count: Mapping[int, Scores], method: str) -> list[str]:
    """The arms of a method, in the order in which they were scored."""
    every = (arm for scores in by_count.values() for of_seed in scores.values() for arm in of_seed)
    return [arm for arm in dict.fromkeys(every) if arm.startswith(f"{method}:")]


def _difference(arm: str, pool: str, scores: Scores) -> str:
    """Of an arm from the pool, with its 95% interval over seeds."""
    found = [arms[arm] - arms[pool] for arms in scores.values() if {arm, pool} <= arms.keys()]
    return _shown(found) if found else ""


def _shown(differences: Sequence[float]) -> str:
    mean = summarize(differences)
    interval = "" if mean.low is None else f" [{mean.low:+.1f}, {mean.high:+.1f}]"
    return f"{mean.mean:+.1f}{interval}"


def _cell(arm: str, scores: Scores, union: Mapping[str, float]) -> str:
    """Accuracy; and the difference to the method's union, with its 95% interval over seeds."""
    found = {seed: arms[arm] for seed, arms in scores.items() if arm in arms}
    if not found:
        return ""
    text = f"{summarize([*found.values()]).mean:.1f}"
    differences = [accuracy - union[seed] for seed, accuracy in found.items() if seed in union]
    return f"{text} ({_shown(differences)})" if differences else text


def _search_table(record: Record, cells: Sequence[Cell]) -> str:
    """What the searches chose, how many seeds a cell has, and what it took."""
    rows = []
    for cell in cells:
        seconds = record.seconds.get(cell.name, {})
        if cell.name in record.scores:
            chosen = record.chosen.get(cell.name, {})
            text = ", ".join(f"{name} {value:g}" for name, value in sorted(chosen.items()))
            seeds = str(len(record.scores[cell.name]))
            rows.append([cell.name, seeds, text, f"{sum(seconds.values()) / 3600:.2f}"])
    return table(["cell", "seeds", "chosen by trials", "core-hours"], rows)
