"""Measure how important each weight matrix of a model is for a task.

Example:
    iwlora measure --model builtin/minilm --task builtin/entailment --out importance.json
"""

from __future__ import annotations

import argparse
from pathlib import Path

from iwlora.cli.terminal.arguments import Commands, add_command, add_overrides, build_task_recipe
from iwlora.errors import IwloraError
from iwlora.results import layout
from iwlora.results.writing import check_output, check_writable, reserve

_MOST_BYTES = 4_000_000  # of a measurement of thousands of matrices, and its two pictures


def add_parser(commands: Commands) -> None:
    """Add ``iwlora measure``."""
    parser = add_command(commands, "measure", run, __doc__)
    parser.add_argument("--model", help="builtin/minilm, a folder, or a hub id")
    parser.add_argument("--task", help="a name from 'iwlora tasks'; or give task.train=FILE ...")
    parser.add_argument(
        "--out", help="the JSON file to write; its heatmap is saved with it as PNG and SVG"
    )
    parser.add_argument(
        "--compare",
        nargs=2,
        metavar="FILE",
        help="do not measure; compare two files that this command wrote",
    )
    parser.add_argument(
        "--estimator",
        default="exact",
        help="how gradients are read: exact (default), ghost, sketch or auto",
    )
    parser.add_argument(
        "--statistic",
        default="norm",
        help="how a gradient is scored: norm (default), rms, relative, saliency, mean, example",
    )
    parser.add_argument(
        "--max-batches",
        type=int,
        default=200,
        help="measure at most this many batches; default 200",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.02,
        help="stop once the expected error of the shares of importance is this small; "
        "default 0.02; 0: measure all batches",
    )
    add_overrides(parser, "task.train=FILE train.batch_size=8")


def run(arguments: argparse.Namespace) -> None:
    """Measure, save and print the importance; or compare two measurements."""
    if arguments.compare:
        _compare(*arguments.compare)
        return
    missing = [f"--{name}" for name in ("model", "out") if getattr(arguments, name) is None]
    if missing:
        raise IwloraError(
            f"{' and '.join(missing)}: missing; give --model and --out to measure, or --compare "
            "with two files"
        )
    out = _json_file(arguments.out)
    from iwlora.compare.report.figures.heatmaps import plot_importance, text_heatmap
    from iwlora.compare.report.figures.style import save_figure
    from iwlora.sensitivity.text_tables import ranking
    from iwlora.training.measure_recipe import measure_recipe

    limits = {"max_batches": arguments.max_batches, "tolerance": arguments.tolerance}
    recipe = build_task_recipe(arguments, {"name": "iw-lora", **limits})
    sensitivity = measure_recipe(
        recipe,
        out.with_suffix(f".{layout.BAD_ROWS}"),
        estimator=arguments.estimator,
        statistic=arguments.statistic,
    )
    figures = save_figure(plot_importance(sensitivity), out.with_suffix(""))
    sensitivity.save(out)  # last: a former measurement stays until all is written
    print(ranking(sensitivity))
    print(text_heatmap(sensitivity))
    print(f"\n{out}, {', '.join(map(str, figures))}")


def _json_file(path: str) -> Path:
    """The file to write, checked before any measuring starts."""
    from iwlora.results.sensitivity import Sensitivity

    file = Path(path)
    if file.suffix != ".json" or file.is_dir():
        raise IwloraError(f"--out {path}: give a file whose name ends in .json")
    if file.exists():
        Sensitivity.load(file)  # only another measurement is overwritten
    check_output(file, "--out")
    check_writable(file, "--out")
    reserve(file, _MOST_BYTES, "the measurement")
    return file


def _compare(first: str, second: str) -> None:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sensitivity.agreement import compare
    from iwlora.sensitivity.text_tables import agreement_table

    agreement = compare(Sensitivity.load(first), Sensitivity.load(second))
    print(agreement_table(agreement, first, second))
