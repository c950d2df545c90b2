"""Predict the rows of a file with a finished run, or with a pool of runs.

Example:
    iwlora predict runs/a --input rows.csv --output predictions.csv
"""

from __future__ import annotations

import argparse

from iwlora.cli.terminal.arguments import Commands, add_command, add_trust_remote_code, names
from iwlora.errors import IwloraError
from iwlora.results.layout import is_pool


def add_parser(commands: Commands) -> None:
    """Add ``iwlora predict``."""
    parser = add_command(commands, "predict", run, __doc__)
    parser.add_argument("run", help="the folder of a finished run, or of a pool")
    parser.add_argument(
        "--input",
        required=True,
        metavar="FILE",
        help="the rows: a file or folder as a task reads it; - for standard input",
    )
    parser.add_argument(
        "--input-format",
        metavar="FORMAT",
        help="the format of standard input: csv, tsv or jsonl; default: as its first bytes look",
    )
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE",
        help="the file to write: .csv, .jsonl or .parquet; - for standard output",
    )
    parser.add_argument(
        "--id", metavar="COLUMN", help="the column with the id of each row; default: id"
    )
    parser.add_argument(
        "--max-rows", type=int, metavar="N", help="predict the first N rows; default: all"
    )
    parser.add_argument(
        "--on-bad",
        choices=("refuse", "skip"),
        default="refuse",
        help="rows that cannot be read, such as damaged images: refuse predicts no row, skip all "
        "others; default: refuse; OUTPUT.bad-rows.csv lists them",
    )
    parser.add_argument(
        "--use",
        type=names,
        metavar="NAME[,NAME]",
        help="the sources of a pool to predict with; default: those in the column sources of each "
        "row, if the input has it, else all",
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the predictions, and print the file's name."""
    options = {
        "input_format": arguments.input_format,
        "id_column": arguments.id,
        "max_rows": arguments.max_rows,
        "on_bad": arguments.on_bad,
    }
    given = (arguments.run, arguments.input, arguments.output, arguments.trust_remote_code)
    if is_pool(arguments.run):
        from iwlora.compose import predict as pools

        written = pools.predict(*given, use=arguments.use, **options)
    elif arguments.use is not None:
        raise IwloraError(f"--use chooses sources of a pool, and {arguments.run} is none")
    else:
        from iwlora.training.prediction.new_rows import predict

        written = predict(*given, **options)
    if arguments.output != "-":
        print(written)
