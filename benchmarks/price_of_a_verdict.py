"""What a verdict costs: core-minutes until a true difference of 1 point is decided.

    python benchmarks/price_of_a_verdict.py --csv docs      # prints tables, writes the long ones
    python benchmarks/price_of_a_verdict.py record --glue FOLDER --minutes 60

The first command replays the runs in benchmarks/recorded: the earlier way to a verdict, each lever
that makes it cheaper, and all together, at a power of 80% and an error of 5%. It also simulates
10,000 comparisons without a difference and 10,000 with one, and says whether the promises of
sequential verdicts hold. The second command records further runs, on one thread, and appends
them; it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from iwlora.results.comparison.record import StoppingRule
from timed_commands import machine
from verdict_price import lever_tables, tables
from verdict_price.bank import Bank
from verdict_price.recording import GRID, HELD_OUT, LR, TASKS, record

RECORDED = Path(__file__).with_name("recorded")


def report(folder: Path, csv_folder: Path | None = None) -> str:
    """All tables; those with a row for each way are written as CSV files."""
    rule = StoppingRule(difference=1.0)
    banks = [Bank.load(folder, task) for task in TASKS]
    prices, studies = tables.prices_of(banks, LR, rule), lever_tables.study_prices(banks, LR, rule)
    if csv_folder is not None:
        _write(csv_folder / "price-of-a-verdict.csv", tables.price_records(prices))
        _write(csv_folder / "price-of-a-study.csv", lever_tables.study_records(studies))
    machines = sorted({machine for bank in banks for machine in bank.machines})
    parts = {
        f"Recorded on {'; '.join(machines)}": tables.recorded_table(banks, LR),
        "Price of a verdict": tables.price_table(prices),
        f"Promises, in 10,000 comparisons of at most {rule.max_seeds} draws": tables.promise_table(
            banks, LR, rule
        ),
        "A study of six arms": lever_tables.study_table(studies),
        "With the search of each arm": lever_tables.searched_table(banks, LR, rule, HELD_OUT, GRID),
        "Sd of a difference in units of a planted point": lever_tables.precision_table(banks, LR),
        "With more study rows, extrapolated": lever_tables.more_rows_table(banks, LR, rule),
        "Real arms minus LoRA, in points of accuracy": tables.real_difference_table(banks, LR),
        "Regret of the search for a learning rate, in points of accuracy": tables.regret_table(
            banks, HELD_OUT, GRID
        ),
    }
    return "\n\n".join(f"{title}\n\n{text}" for title, text in parts.items())


def _write(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recorded", type=Path, default=RECORDED, help="the folder of the runs")
    parser.add_argument("--csv", type=Path, help="a folder for the tables with a row for each way")
    commands = parser.add_subparsers(dest="command")
    recorder = commands.add_parser("record", help="record further runs")
    recorder.add_argument("--glue", default=os.environ.get("IWLORA_GLUE"))
    recorder.add_argument("--model", default="builtin/minilm")
    recorder.add_argument("--minutes", type=float, default=60.0)
    options = parser.parse_args(arguments)
    if options.command == "record":
        record(options.recorded, options.glue, options.model, options.minutes, machine())
    else:
        print(report(options.recorded, options.csv))


if __name__ == "__main__":
    main()
