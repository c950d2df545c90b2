"""The commands about tasks."""

from __future__ import annotations

import argparse

OVERRIDES = "recipe fields as key=value: task.train=FILE task.max_train=1000 train.max_length=256"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What ``iwlora tasks`` takes: nothing, ``show`` or ``average``."""
    commands = parser.add_subparsers(metavar="show | average")
    show = commands.add_parser("show", help="splits, balance, lengths, truncation, duplicates")
    show.set_defaults(command=_show)
    show.add_argument("--task", help="a name from 'iwlora tasks'; or give task.train=FILE ...")
    show.add_argument("--model", default="builtin/minilm", help="whose tokens are counted")
    show.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    average = commands.add_parser("average", help="GLUE's average over runs, both ways")
    average.set_defaults(command=_average)
    average.add_argument("folders", nargs="+", metavar="FOLDER", help="runs and comparisons")


def listing(_given: argparse.Namespace) -> int:
    """List the tasks."""
    from iwlora.tasks import describe

    for row in describe():
        told = f"{', '.join(row.metrics)}; {', '.join(row.splits)}"
        print(f"{row.name:<18} {row.kind:<18} {row.summary} ({told})")
    print("your files: task.train=FILE; where it is not obvious, task.text, task.label, task.kind")
    return 0


def _show(given: argparse.Namespace) -> int:
    from transformers import AutoConfig

    from iwlora import tasks
    from iwlora.tasks.overview import look
    from iwlora.training.model.backbone import load_tokenizer, locate
    from iwlora.training.recipe import apply_overrides, build

    settings = {
        "model": given.model,
        "task": {"name": given.task} if given.task else {},
        "method": "full",
    }
    recipe = build(apply_overrides(settings, given.overrides))
    task = tasks.load(recipe.task, recipe.train.seed)
    path, trust = locate(recipe.model), recipe.trust_remote_code
    tokenizer = load_tokenizer(path, trust)
    config = AutoConfig.from_pretrained(path, trust_remote_code=trust)
    print(look(task, tokenizer, recipe.train.max_length, config))
    return 0


def _average(given: argparse.Namespace) -> int:
    from iwlora.compare.report.glue_average import averages

    print(averages(given.folders))
    return 0
