"""The tables of the study: accuracy by the number of sources, and the loss against the union."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from iwlora.compare.statistics.paired_tests import summarize
from pool_price.cells import SCHEDULES, Cell
from pool_price.record import Record
from timed_commands import table

Scores = Mapping[str, Mapping[str, float]]
"""{seed: {arm: accuracy}}."""


def tables(record: Record, cells: Sequence[Cell]) -> str:
    """For each data set, division and schedule: arms × numbers of sources."""
    if not record.scores:
        return "Nothing is recorded yet."
    text = [f"{name}: {value}" for name, value in sorted(record.about.items())] + [""]
    unions = _unions(record, cells)
    for data, division in dict.fromkeys((cell.data, cell.division) for cell in cells):
        for schedule in SCHEDULES:
            chosen = [
                cell
                for cell in cells
                if (cell.data, cell.division, cell.schedule) == (data, division, schedule)
                and cell.sources > 1
                and cell.name in record.scores
            ]
            if chosen:
                text += [f"{data}, sources by {division}, as many {schedule} as the union", ""]
                text += [_table(record, chosen, unions), ""]
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
    counts = sorted({cell.sources for cell in cells})
    methods = list(dict.fromkeys(method for cell in cells for method in cell.methods))
    rows = []
    for method in methods:
        union = unions.get((cells[0].data, method), {})
        if union:
            mean = f"{summarize([*union.values()]).mean:.1f}"
            rows.append([f"{method}: one run on all rows", mean, *("" for _ in counts)])
        by_count: dict[int, Scores] = {
            cell.sources: record.scores[cell.name] for cell in cells if method in cell.methods
        }
        arms = dict.fromkeys(
            arm
            for scores in by_count.values()
            for of_seed in scores.values()
            for arm in of_seed
            if arm.startswith(f"{method}:")
        )
        for arm in arms:
            cells_of_arm = [_cell(arm, by_count.get(count, {}), union) for count in counts]
            rows.append([arm, "", *cells_of_arm])
    return table(["arm", "1", *(f"{count} sources" for count in counts)], rows)


def _cell(arm: str, scores: Scores, union: Mapping[str, float]) -> str:
    """Accuracy; and the difference to the method's union, with its 95% interval over seeds."""
    found = {seed: arms[arm] for seed, arms in scores.items() if arm in arms}
    if not found:
        return ""
    text = f"{summarize([*found.values()]).mean:.1f}"
    differences = [accuracy - union[seed] for seed, accuracy in found.items() if seed in union]
    if differences:
        loss = summarize(differences)
        interval = "" if loss.low is None else f" [{loss.low:+.1f}, {loss.high:+.1f}]"
        text += f" ({loss.mean:+.1f}{interval})"
    return text


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
