"""The names of all files and folders that iwlora stores. No other module
hard-codes these names.

The folder of a run::

    recipe.yaml               the settings, all of them: replays the run
    environment.json          versions of the libraries, and the machine
    status.json               running, failed, diverged or done
    fingerprint.json          digests of everything that the run is computed from
    row-digests.json          eight bytes for the texts and for the label of each row
    bad-rows.csv              rows of the data that cannot be used, if there are any
    metrics.jsonl             what training logged, one record per line
    sensitivity.json          the sensitivity of each weight matrix, measured before training or
                              during its first steps
    checkpoints/              checkpoint-<step>/, each sealed by complete.json; best.safetensors;
                              penalty.jsonl, the effect of the penalty on each site at each
                              logging step
    predictions/<split>.csv   the prediction of the trained model for each row
    predictions/error-<row>.jpg  small images of its most confident errors, where it reads images
    adapter/ or model/        the trained parameters; tokenizer/ is next to it, or image-processor/,
                              or codes/
    frozen-layers/<key>/      of a run outside a comparison: what frozen blocks compute; may be
                              deleted
    decoded-images/<key>/     of a run on images outside a comparison, until it ends: its images,
                              decoded; may be deleted
    result.json               written last: a run with this file is finished
    generated/                images whose scores the report shows, made later by iwlora generate
    .lock                     held by the process that works in the folder

The folder of a comparison::

    comparison.yaml                                   the planned runs, and the recipe
    bad-rows.csv                                      as in the folder of a run
    <label>/seed-<seed>/                              a run that is reported
    <label>/search/lr-<lr>/seed-<seed>/               a trial of the search for a learning rate
    <label>/search/lr-<lr>/former/seed-<seed>/        a run at an LR that was chosen earlier
    <label>/search/<option>=<value>,.../lr-<lr>/...   both, where a search tries options too
    search.json                                       the learning rates that the search chose
    floors.json                                       what simple rules score beside each run
    failures.jsonl                                    runs that crashed, one record per line
    logs/                                             what each run printed
    frozen-layers/<key>/                              what frozen blocks compute, for all runs;
                                                      may be deleted
    decoded-images/<key>/                             decoded images, for all runs; may be deleted
    summary.json, .md, .csv, .tex, report.html,
    figures/, tables/                                 the report
    sources.yaml                                      in place of runs: which results are combined
    .lock                                             held by the comparison and its runs

The folder of a pool, which ``iwlora compose`` writes::

    pool.json                                         how its sources are averaged, and a digest
                                                      of each file of each source
    sources/<name>/                                   recipe.yaml, result.json, adapter/ or model/,
                                                      tokenizer/, image-processor/ or codes/,
                                                      and predictions/ of a run;
                                                      prototypes.safetensors, where they weigh it

The folder of a search of designs::

    design.yaml                                       the recipe, with all its choices
    stages/<stage>-<digest>/                          a comparison of the choices of a stage, where
                                                      the digest is of what earlier ones found
    stages/confirm-<digest>/                          a comparison of the found design with others
    found.yaml                                        the recipe of the found design
    proxies.json                                      what was measured in each layer before
    summary.json, report.html, figures/               what was decided, and what stayed open
    .lock                                             held by the search

The folder that ``iwlora generate`` writes::

    00000.png, 00001.png, ...                         the images
    contact-sheet.png                                 all of them side by side
    images.csv                                        the class of each, its seed, and the options
    scores.json                                       how good they are; the report of a run has
                                                      these numbers from its folder generated/

An exported folder has ``iwlora_export.json``, with the fingerprint of its run and digests of its
files, next to the files of transformers and PEFT.

Every JSON and YAML file has a field ``format`` with the version of its format, and so has each
record of a JSON Lines file: a log that is continued after an upgrade holds records of both
versions. CSV files have no version, since every program would read it as a row: they are read by
the names of their columns, and ``result.json`` or ``summary.json`` in the same folder has the
version that wrote them. :mod:`iwlora.results.formats` has the numbers of the versions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iwlora.inputs.places import entries, files_below

LOCK = ".lock"
PART_SUFFIX = ".iwlora-part"
"""How the name of a file ends while it is written, or if its process was killed in between."""

# The folder of a run
RECIPE = "recipe.yaml"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
PENALTY = "penalty.jsonl"
SENSITIVITY = "sensitivity.json"
RESULT = "result.json"
FINGERPRINT = "fingerprint.json"
ROW_DIGESTS = "row-digests.json"
BAD_ROWS = "bad-rows.csv"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions"
ADAPTER = "adapter"
MODEL = "model"
TOKENIZER = "tokenizer"
IMAGE_PROCESSOR = "image-processor"
"""In place of a tokenizer, in a run on images."""
CODES = "codes"
"""In place of both, in a run that generates images."""
PROCESSORS = (TOKENIZER, IMAGE_PROCESSOR, CODES)
FROZEN_LAYERS = "frozen-layers"
"""Also in the folder of a comparison."""
DECODED_IMAGES = "decoded-images"
"""Also in the folder of a comparison."""

# An exported adapter or model
EXPORT = "iwlora_export.json"
CARD = "README.md"
"""The model card of an exported folder, which its owner may edit."""

# Its checkpoints
SEAL = "complete.json"
BEST_EPOCH = "best.safetensors"
TRAINABLE = "trainable.safetensors"
ADALORA_STATE = "adalora.safetensors"
AVERAGE = "average.safetensors"
START = "start.safetensors"
PARTIAL_SENSITIVITY = "sensitivity-in-flight.json"

# The folder of a comparison
COMPARISON = "comparison.yaml"
SEARCH = "search.json"
FLOORS = "floors.json"
FAILURES = "failures.jsonl"
SOURCES = "sources.yaml"
LOGS = "logs"

# The folder of a pool
POOL = "pool.json"
POOL_SOURCES = "sources"
PROTOTYPES = "prototypes.safetensors"

# The folder of a search of designs
DESIGN = "design.yaml"
STAGES = "stages"
FOUND = "found.yaml"
PROXIES = "proxies.json"

# A folder of generated images
GENERATED = "images.csv"
CONTACT_SHEET = "contact-sheet.png"
IMAGE_SCORES = "scores.json"
GENERATED_FOLDER = "generated"
"""In the folder of a run, where reports look for the scores of its images."""

# A report
SUMMARY_JSON = "summary.json"
SUMMARY_MARKDOWN = "summary.md"
SUMMARY_CSV = "summary.csv"
SUMMARY_LATEX = "summary.tex"
REPORT = "report.html"
FIGURES = "figures"
TABLES = "tables"

OWN_NAMES = frozenset(
    {
        *(LOCK, RECIPE, ENVIRONMENT, STATUS, METRICS, PENALTY, SENSITIVITY, RESULT),
        *(str(Path(SENSITIVITY).with_suffix(suffix)) for suffix in (".png", ".svg")),
        *(FINGERPRINT, ROW_DIGESTS, BAD_ROWS),
        *(CHECKPOINTS, PREDICTIONS, ADAPTER, MODEL, *PROCESSORS),
        *(FROZEN_LAYERS, DECODED_IMAGES),
        *(COMPARISON, SEARCH, FLOORS, FAILURES, SOURCES, LOGS),
        *(POOL, POOL_SOURCES),
        *(DESIGN, STAGES, FOUND, PROXIES),
        *(GENERATED, CONTACT_SHEET, IMAGE_SCORES, GENERATED_FOLDER),
        *(SUMMARY_JSON, SUMMARY_MARKDOWN, SUMMARY_CSV, SUMMARY_LATEX, REPORT, FIGURES, TABLES),
    }
)
"""What the folders of runs, comparisons, pools and searches hold at their top, but for the arms."""

RECORDS = frozenset(
    {*(RECIPE, ENVIRONMENT, STATUS, FINGERPRINT, ROW_DIGESTS, BAD_ROWS)}
    | {METRICS, PENALTY, SENSITIVITY}
)
"""The single files that a run writes, but for its result and its lock."""

WRITTEN_BEFORE_WORK = frozenset(
    {*(LOCK, RECIPE, ENVIRONMENT, STATUS, FINGERPRINT, ROW_DIGESTS, BAD_ROWS, DECODED_IMAGES)}
)
"""What the folder of a run holds that has not measured or trained anything yet."""

_SEARCH_FOLDER = "search"
_SUPERSEDED = "former"
_DEEPEST_RUN = 6  # folders from a run at former options and learning rate to its comparison


def predictions_file(run: Path, split: str) -> Path:
    """``<run>/predictions/<split>.csv``."""
    return run / PREDICTIONS / f"{split}.csv"


def thumbnail_file(run: Path, row: int) -> Path:
    """``<run>/predictions/error-<row>.jpg``: the image of a scored row, counted from 0."""
    return run / PREDICTIONS / f"error-{row}.jpg"


def image_file(number: int) -> str:
    """The name of an image in a folder of images."""
    return f"{number:05}.png"


def samples_file(run: Path) -> Path:
    """``<run>/predictions/samples.jpg``: some images that a run has learned to generate."""
    return run / PREDICTIONS / "samples.jpg"


def generated_folder(run: Path) -> Path:
    """``<run>/generated``: images that ``iwlora generate`` made for the report of the run."""
    return run / GENERATED_FOLDER


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """``<checkpoints>/checkpoint-<step>``, as the Trainer of transformers names it."""
    return checkpoints / f"checkpoint-{step}"


def checkpoint_step(checkpoint: Path) -> int | None:
    """The step in the name of a checkpoint; None for another name.

    >>> checkpoint_step(Path("runs/a/checkpoints/checkpoint-20")), checkpoint_step(Path("best"))
    (20, None)
    """
    match = re.fullmatch(r"checkpoint-(\d+)", checkpoint.name)
    return int(match[1]) if match else None


def unlogged_loss_file(checkpoint: Path, process: int) -> Path:
    """The losses since the last log record of a process, saved with a checkpoint."""
    return checkpoint / f"loss-{process}.json"


def run_folder(comparison: Path, label: str, seed: int) -> Path:
    """``<comparison>/<label>/seed-<seed>``: a run that is reported.

    >>> run_folder(Path("runs/a"), "lora", 3).as_posix()
    'runs/a/lora/seed-3'
    """
    return comparison / label / f"seed-{seed}"


def trial_folder(
    comparison: Path, label: str, lr: float, seed: int, options: Mapping[str, Any] | None = None
) -> Path:
    """``<comparison>/<label>/search/lr-<lr>/seed-<seed>``: a trial of the search.

    With ``options`` that are searched too, ``search/<option>=<value>,.../lr-<lr>/seed-<seed>``.

    >>> trial_folder(Path("runs/a"), "lora", 1e-3, 7).as_posix()
    'runs/a/lora/search/lr-0.001/seed-7'
    """
    name = learning_rate_label(lr)
    search = comparison / label / _SEARCH_FOLDER
    if options:
        search /= re.sub(r"[^\w.+=,-]", "_", options_text(options))
    return search / name / f"seed-{seed}"


def options_text(options: Mapping[str, Any]) -> str:
    """Options and their values as text.

    >>> options_text({"rank": 4, "alpha": 0.01})
    'rank=4,alpha=0.01'
    """
    return ",".join(f"{name}={value}" for name, value in options.items())


def learning_rate_label(lr: float) -> str:
    """A learning rate as the name of a folder or an arm.

    >>> learning_rate_label(1e-3)
    'lr-0.001'
    """
    return f"lr-{learning_rate_text(lr)}"


def learning_rate_text(lr: float) -> str:
    """A learning rate as text: short, and different for different learning rates.

    >>> learning_rate_text(1e-3), learning_rate_text(0.00012345678)
    ('0.001', '0.00012345678')
    """
    return f"{lr:g}" if float(f"{lr:g}") == lr else repr(lr)


def superseded_run_folder(
    comparison: Path, label: str, lr: float, seed: int, options: Mapping[str, Any] | None = None
) -> Path:
    """``<comparison>/<label>/search/lr-<lr>/former/seed-<seed>``: an LR that was chosen earlier.

    With ``options`` that were chosen with it, below their folder, as for a trial.

    >>> superseded_run_folder(Path("runs/a"), "lora", 1e-3, 3).as_posix()
    'runs/a/lora/search/lr-0.001/former/seed-3'
    """
    trial = trial_folder(comparison, label, lr, seed, options)
    return trial.parent / _SUPERSEDED / trial.name


def stage_folder(search: Path, stage: str, digest: str) -> Path:
    """``<search>/stages/<stage>-<digest>``: a stage of a search of designs.

    >>> stage_folder(Path("runs/a"), "grouping", "0123456789abcdef").as_posix()
    'runs/a/stages/grouping-01234567'
    """
    return search / STAGES / f"{stage}-{digest[:8]}"


def comparison_of(run: Path) -> Path | None:
    """The folder of the comparison that a run belongs to; None for a run of its own.

    >>> comparison_of(Path("no/such/run")) is None
    True
    """
    above = list(run.absolute().parents)[:_DEEPEST_RUN]
    return next((folder for folder in above if (folder / COMPARISON).is_file()), None)


def log_file(comparison: Path, run: Path) -> Path:
    """Where a comparison keeps what the run in the folder ``run`` printed.

    >>> log_file(Path("runs/a"), Path("runs/a/lora/seed-3")).as_posix()
    'runs/a/logs/lora/seed-3.txt'
    """
    path = comparison / LOGS / run.relative_to(comparison)
    return path.with_name(f"{path.name}.txt")


def is_pool(path: str | Path) -> bool:
    """Whether ``iwlora compose`` wrote the folder.

    >>> is_pool("no/such/pool")
    False
    """
    return (Path(path) / POOL).is_file()


def source_folder(pool: Path, name: str) -> Path:
    """``<pool>/sources/<name>``: what a pool keeps of a run.

    >>> source_folder(Path("pool"), "a").as_posix()
    'pool/sources/a'
    """
    return pool / POOL_SOURCES / name


def finished_runs(folder: Path) -> list[Path]:
    """The folders of finished runs below ``folder``, without pools and the trials of searches.

    A folder named ``search`` holds trials only if it belongs to an arm of a comparison: if it has
    the runs of that arm next to it, or the comparison's file above it.
    """
    runs = [file.parent for file in files_below(folder) if file.name == RESULT]
    return [
        run
        for run in runs
        if not _is_trial(run.relative_to(folder), folder)
        and not (run.parent.parent / POOL).is_file()
    ]


def _is_trial(run: Path, root: Path) -> bool:
    """Whether a run, whose path starts at ``root``, is below a folder of trials."""
    arms = [root / inside.parent for inside in (run, *run.parents) if inside.name == _SEARCH_FOLDER]
    return any(_has_runs(arm) or (arm.parent / COMPARISON).is_file() for arm in arms)


def _has_runs(arm: Path) -> bool:
    return any(path.name.startswith("seed-") for path in entries(arm))


def processor(name: str) -> str:
    """The folder of a run with what makes the model's inputs.

    >>> processor("image processor")
    'image-processor'
    """
    folder = name.replace(" ", "-")
    assert folder in PROCESSORS, name
    return folder
