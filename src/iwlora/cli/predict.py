"""Predict the rows of a file with a finished run.

Example:
    iwlora predict runs/a --input rows.csv --output predictions.csv
"""

from __future__ import annotations

import argparse

from iwlora.cli.arguments import Commands, add_command, add_trust_remote_code


def add_parser(commands: Commands) -> None:
    """Add ``iwlora predict``."""
    parser = add_command(commands, "predict", run, __doc__)
    parser.add_argument("run", help="the folder of a finished run")
    parser.add_argument(
        "--input", required=True, help="the rows: a CSV, TSV, JSON Lines or Parquet file"
    )
    parser.add_argument(
        "--output", required=True, help="the file to write: .csv, or .jsonl for JSON Lines"
    )
    add_trust_remote_code(parser)


def run(arguments: argparse.Namespace) -> None:
    """Write the predictions, and print the file's name."""
    from iwlora.training.predict import predict

    trust = arguments.trust_remote_code
    print(predict(arguments.run, arguments.input, arguments.output, trust))
