"""The command line: reads arguments, calls the library, prints what it says."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from iwlora import __version__
from iwlora.cli import tasks
from iwlora.cli.compare import BASELINE, add_arguments, carry_out, report
from iwlora.errors import IwloraError
from iwlora.inputs.paths import settled
from iwlora.results.writing import check_writable

Command = Callable[[argparse.Namespace], int]

_OVERRIDES = "recipe fields as key=value, with dots: train.lr=1e-3 method.rank=4"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0 for success, 1 for an unfinished comparison, 2 for bad
    input, 130 when interrupted."""
    # Else Python, at its end, looks for cycles in all that was imported: more than a second.
    atexit.register(gc.freeze)
    parser = _parser()
    given, extra = parser.parse_known_args(arguments)
    assignments = getattr(given, "overrides", getattr(given, "sources", None))
    unknown = [text for text in extra if assignments is None or text.startswith("-")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if assignments is not None:
        assignments.extend(extra)
    command: Command = given.command
    try:
        return command(given)
    except IwloraError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iwlora",
        description="Measure which weight matrices matter, fine-tune with importance-weighted "
        "LoRA, and compare methods honestly.",
    )
    parser.add_argument("--version", action="version", version=f"iwlora {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    measure = add("measure", _measure, "measure the importance of a model's weight matrices")
    measure.add_argument("--model", help="builtin/minilm, a folder or a hub id")
    measure.add_argument("--task", help="a name from 'iwlora tasks'; or give task.train=FILE ...")
    measure.add_argument("--out", help="the JSON file to write; pictures go beside")
    measure.add_argument(
        "--compare", nargs=2, metavar="FILE", help="two such files, instead of measuring"
    )
    measure.add_argument(
        "--estimator", default="exact", help="exact (default), ghost, sketch or auto"
    )
    measure.add_argument(
        "--statistic", default="norm", help="norm (default), rms, relative, saliency, mean, example"
    )
    measure.add_argument("--max-batches", type=int, default=200, help="default 200")
    measure.add_argument(
        "--tolerance", type=float, default=0.02, help="default 0.02; 0: never stop early"
    )
    measure.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)

    train = add("train", _train, "carry out one recipe")
    train.add_argument("recipe", help="a YAML file")
    train.add_argument("overrides", nargs="*", metavar="key=value", help=_OVERRIDES)
    train.add_argument("--out", type=settled, help="the folder of the run")
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="print the predicted time and memory from a few steps; write nothing",
    )

    add_arguments(add("compare", _compare, "carry out methods × seeds, or compare results"))

    again = add("report", report, "write the report of a comparison or a run again")
    again.add_argument("folder")
    again.add_argument("--baseline", metavar="LABEL", help=BASELINE)

    export = add("export", _export, "write a run's result where other tools load it")
    export.add_argument("run", help="the folder of a finished run")
    export.add_argument("--to", required=True, help="a new folder")
    export.add_argument("--merge", action="store_true", help="a whole model, not an adapter")

    predict = add("predict", _predict, "answer the rows of a file with a finished run")
    predict.add_argument("run", help="the folder of a finished run")
    predict.add_argument("--input", required=True, help="CSV, TSV, JSON Lines or Parquet")
    predict.add_argument("--output", required=True, help="CSV or JSON Lines, by its ending")

    for reader in (export, predict):
        reader.add_argument(
            "--trust-remote-code",
            action="store_true",
            help="run the Python code that comes with the run's model",
        )

    add("methods", _methods, "list the fine-tuning methods, and try each on each architecture")
    tasks.add_arguments(add("tasks", tasks.listing, "list the tasks, look at one, average GLUE"))
    return parser


def _measure(given: argparse.Namespace) -> int:
    _quiet_libraries()
    from iwlora.compare.report.figures.heatmaps import importance_heatmap, text_heatmap
    from iwlora.compare.report.figures.plots import save
    from iwlora.sensitivity.text_tables import ranking
    from iwlora.training.measure_recipe import measure_recipe
    from iwlora.training.recipe import apply_overrides, build
    from iwlora.training.state.run_folder import check_output

    if given.compare:
        return _compare_measurements(*given.compare)
    absent = [name for name in ("model", "out") if getattr(given, name) is None]
    if absent:
        raise IwloraError(
            f"{' and '.join(f'--{name}' for name in absent)}: missing; give --model and --out to "
            "measure, or --compare with two files"
        )
    out = _json_file(given.out)
    check_output(out, "--out")
    settings = {
        "model": given.model,
        "task": {"name": given.task} if given.task else {},
        "method": {
            "name": "iw-lora",
            "max_batches": given.max_batches,
            "tolerance": given.tolerance,
        },
    }
    recipe = build(apply_overrides(settings, given.overrides))
    sensitivity = measure_recipe(recipe, estimator=given.estimator, statistic=given.statistic)
    sensitivity.save(out)
    pictures = save(importance_heatmap(sensitivity), out.with_suffix(""))
    print(ranking(sensitivity))
    print(text_heatmap(sensitivity))
    print(f"\n{out}, {', '.join(map(str, pictures))}")
    return 0


def _compare_measurements(first: str, second: str) -> int:
    from iwlora.results.sensitivity import Sensitivity
    from iwlora.sensitivity.agreement import compare
    from iwlora.sensitivity.text_tables import agreement_table

    found = compare(Sensitivity.load(first), Sensitivity.load(second))
    print(agreement_table(found, first, second))
    return 0


def _json_file(path: str) -> Path:
    """A place for a measurement, checked before the work for it begins."""
    from iwlora.results.sensitivity import Sensitivity

    file = Path(path)
    if file.suffix != ".json" or file.is_dir():
        raise IwloraError(f"--out {path}: a file that ends in .json is needed")
    if file.exists():
        Sensitivity.load(file)  # nothing else is overwritten
    check_writable(file, "--out")
    return file


def _train(given: argparse.Namespace) -> int:
    _quiet_libraries()
    from iwlora.training.recipe import load

    if given.out is None and not given.dry_run:
        raise IwloraError("--out: missing; give the folder of the run, or --dry-run")
    recipe = load(given.recipe, given.overrides)
    if given.dry_run:
        from iwlora.cli.dry_run import told
        from iwlora.training.dry_run.cost import estimate

        print(told(recipe, estimate(recipe)))
        return 0
    from iwlora.results.comparison import load_run
    from iwlora.training.run import train

    train(recipe, given.out, progress=True)
    if os.environ.get("RANK", "0") != "0":  # one of several processes: the first tells
        return 0
    result = load_run(given.out).result
    for note in result.notes:
        print(f"note: {note}")
    scores = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    print(f"{result.label}, seed {result.seed}: {scores} ({result.evaluated_on})")
    return 0


def _compare(given: argparse.Namespace) -> int:
    _quiet_libraries()
    return carry_out(given)


def _export(given: argparse.Namespace) -> int:
    _quiet_libraries()
    from iwlora.training.state.artifacts import export

    print(export(given.run, given.to, given.merge, given.trust_remote_code))
    return 0


def _predict(given: argparse.Namespace) -> int:
    _quiet_libraries()
    from iwlora.training.predict import predict

    print(predict(given.run, given.input, given.output, given.trust_remote_code))
    return 0


def _methods(_given: argparse.Namespace) -> int:
    _quiet_libraries()
    from iwlora.methods import METHODS
    from iwlora.methods.support_table import attempts, table

    width = max(map(len, METHODS))
    for name, method in METHODS.items():
        size = f"size: {method.size_knob}" if method.size_knob else "no size to set"
        options = ", ".join(f"{key}={field.default}" for key, field in method.model_fields.items())
        print(f"{name:<{width}} {method.summary} ({method.paper}; {size})")
        if options:
            print(f"{'':<{width}} {options}")
    print(flush=True)
    print(table(attempts({name: method() for name, method in METHODS.items()})))
    return 0


def _quiet_libraries() -> None:
    """Keep the libraries' own reports and bars away from ours; errors still show."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from huggingface_hub.utils import logging as hub_logging
    from transformers.utils import logging

    hub_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
