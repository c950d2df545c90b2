"""Recommend matrices, rank, method and learning rate, with their cost and the evidence.

Example:
    iwlora advise --model builtin/minilm --task builtin/sentiment --params 0.5% --out advice.yaml
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from iwlora.cli.terminal.arguments import Commands, add_command, add_overrides
from iwlora.errors import IwloraError
from iwlora.results.writing import check_output, check_writable, write_text


def add_parser(commands: Commands) -> None:
    """Add ``iwlora advise``."""
    parser = add_command(commands, "advise", run, __doc__, prints_result=True)
    parser.add_argument("--model", required=True, help="builtin/minilm, a folder, or a hub id")
    parser.add_argument(
        "--task", help="a name from 'iwlora tasks', or a file or folder of data; or task.train=FILE"
    )
    parser.add_argument(
        "--params", help="at most this many adapter parameters: 0.5%% of the model's, or 300K"
    )
    parser.add_argument("--memory", help="the run needs at most this much memory, such as 16GB")
    parser.add_argument("--time", help="the run takes at most this long, such as 30min")
    parser.add_argument(
        "--samples",
        type=int,
        default=256,
        help="measure the importance on at most this many training rows; default 256",
    )
    parser.add_argument(
        "--importance", help="a file that 'iwlora measure' wrote, instead of measuring"
    )
    parser.add_argument(
        "--out", help="the recipe to write, which 'iwlora train' reads; a .yaml file"
    )
    add_overrides(parser, "task.max_train=2000 train.epochs=5")


def run(arguments: argparse.Namespace) -> None:
    """Print the advice; with ``--out`` write its recipe."""
    out = None if arguments.out is None else _recipe_file(arguments.out)
    from iwlora.advice.advise import advise

    advice = advise(
        arguments.model,
        arguments.task,
        arguments.overrides,
        params=arguments.params,
        memory=arguments.memory,
        time=arguments.time,
        samples=arguments.samples,
        importance=arguments.importance,
        report=lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(advice, end="")
    if out is not None:
        write_text(out, advice.recipe_yaml)
        print(f"\n{out}: iwlora train {out} --out runs/{out.stem}")


def _recipe_file(path: str) -> Path:
    """The file to write, checked before any measuring starts."""
    file = Path(path)
    if file.suffix not in (".yaml", ".yml") or file.is_dir():
        raise IwloraError(f"--out {path}: give a file whose name ends in .yaml")
    check_output(file, "--out")
    check_writable(file, "--out")
    return file
